"""Ray marching through the occupancy grid: the counterpart of `distill3d.scenes.nerf.sampler.kept_reference`."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _cell(x, scale, half, size):
    """Index of a coordinate along one axis of the grid; one outside belongs to the nearest cell."""
    return int(min(max(np.floor((x * scale + half) * size), half - half), size - half - half))


@njit(nogil=True, cache=True, error_model="numpy")
def mark_kept(origins, directions, t0, step, first, count, occupied, scale, begin, end, keep):
    """Fill rows ``begin .. end`` of ``keep rays steps``: whether the midpoint of an interval lies in an occupied cell.

    Column c of ray r is its interval number ``first[r] + c``, of which the first ``count[r]`` are looked at.
    """
    half = t0.dtype.type(0.5)
    size = t0.dtype.type(occupied.shape[0])
    for r in range(begin, end):
        for c in range(count[r]):
            t_mid = t0[r] + (first[r] + t0.dtype.type(c) + half) * step
            i = _cell(origins[r, 0] + t_mid * directions[r, 0], scale, half, size)
            j = _cell(origins[r, 1] + t_mid * directions[r, 1], scale, half, size)
            k = _cell(origins[r, 2] + t_mid * directions[r, 2], scale, half, size)
            keep[r, c] = occupied[i, j, k]
