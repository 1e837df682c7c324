"""Triangles: a z-buffer in numba."""
