"""Compiled kernels, by numba for a CPU and by Triton for a GPU; each has a reference in torch."""
