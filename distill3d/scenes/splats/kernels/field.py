"""Sums of Gaussians at points, by a table of which of them reach which cell."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def table(low, high, cells):
    """Cells ``low .. high`` of each Gaussian, turned round: those of cell i are ``starts[i] .. starts[i + 1]``."""
    starts = np.zeros(cells**3 + 1, np.int64)
    for g in range(low.shape[0]):
        for x in range(low[g, 0], high[g, 0] + 1):
            for y in range(low[g, 1], high[g, 1] + 1):
                for z in range(low[g, 2], high[g, 2] + 1):
                    starts[(x * cells + y) * cells + z + 1] += 1
    for i in range(cells**3):
        starts[i + 1] += starts[i]
    filled = starts[:-1].copy()
    members = np.empty(starts[-1], np.int32)
    for g in range(low.shape[0]):
        for x in range(low[g, 0], high[g, 0] + 1):
            for y in range(low[g, 1], high[g, 1] + 1):
                for z in range(low[g, 2], high[g, 2] + 1):
                    cell = (x * cells + y) * cells + z
                    members[filled[cell]] = g
                    filled[cell] += 1
    return starts, members


@njit(nogil=True, cache=True, error_model="numpy")
def sums(points, radius, cells, reach, means, whitening, peaks, colors, starts, members, out, begin, end):
    """``out[p]``: density, density times each colour, and the density's gradient, for points ``begin .. end``."""
    for p in range(begin, end):
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        i = math.floor((x + radius) / (2.0 * radius) * cells)
        j = math.floor((y + radius) / (2.0 * radius) * cells)
        k = math.floor((z + radius) / (2.0 * radius) * cells)
        if i < 0 or j < 0 or k < 0 or i > cells or j > cells or k > cells:
            continue
        cell = (min(i, cells - 1) * cells + min(j, cells - 1)) * cells + min(k, cells - 1)
        for m in range(starts[cell], starts[cell + 1]):
            g = members[m]
            dx, dy, dz = x - means[g, 0], y - means[g, 1], z - means[g, 2]
            a = whitening[g, 0, 0] * dx + whitening[g, 0, 1] * dy + whitening[g, 0, 2] * dz
            b = whitening[g, 1, 0] * dx + whitening[g, 1, 1] * dy + whitening[g, 1, 2] * dz
            c = whitening[g, 2, 0] * dx + whitening[g, 2, 1] * dy + whitening[g, 2, 2] * dz
            square = a * a + b * b + c * c
            if square > reach * reach:
                continue
            value = peaks[g] * math.exp(-0.5 * square)
            out[p, 0] += value
            for q in range(3):
                out[p, 1 + q] += value * colors[g, q]
                slope = a * whitening[g, 0, q] + b * whitening[g, 1, q] + c * whitening[g, 2, q]
                out[p, 4 + q] -= value * slope
