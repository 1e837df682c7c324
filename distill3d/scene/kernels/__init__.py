"""Inner loops for the CPU (numba), imported on first use."""
