"""One level of a grid encoding and its adjoint; the counterparts of `distill3d.scenes.nerf.grid.interpolate_reference`.

Each call owns what it writes, and visits points in order: no atomics, and the same bits on any number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit

P1 = 2654435761  # the primes of arXiv 2201.05989, section 3; that of x is 1
P2 = 805459861


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _corner(u, scale, zero, one):
    """Cell, fraction and slope of one coordinate in [0, 1]; outside it is clamped, and the slope is 0.

    All operands share one floating type: a bare literal would carry the arithmetic into float64.
    """
    slope = scale
    if u < zero:
        u, slope = zero, zero
    elif u > one:
        u, slope = one, zero
    position = u * scale
    cell = min(np.floor(position), scale - one)
    return int(cell), position - cell, slope


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _vertices(x, y, z, resolution, mask):
    """Rows of the table for the eight vertices of a cell, x fastest; ``mask`` is negative where nothing is hashed."""
    if mask < 0:
        side = resolution + 1
        a = x + side * (y + side * z)
        c = a + side * side
        return a, a + 1, a + side, a + side + 1, c, c + 1, c + side, c + side + 1
    x1, y0, y1, z0, z1 = x + 1, y * P1, (y + 1) * P1, z * P2, (z + 1) * P2
    a, b, c, d = y0 ^ z0, y1 ^ z0, y0 ^ z1, y1 ^ z1
    return (
        (x ^ a) & mask,
        (x1 ^ a) & mask,
        (x ^ b) & mask,
        (x1 ^ b) & mask,
        (x ^ c) & mask,
        (x1 ^ c) & mask,
        (x ^ d) & mask,
        (x1 ^ d) & mask,
    )


@njit(nogil=True, cache=True, error_model="numpy")
def interpolate_level(table, points, begin, end, resolution, mask, features, jacobian):
    """Fill columns ``begin .. end`` of ``features F P`` and, unless it is empty, of ``jacobian F 3 P``."""
    need_jacobian = jacobian.shape[0] > 0
    zero, one, scale = points.dtype.type(0), points.dtype.type(1), points.dtype.type(resolution)
    for p in range(begin, end):
        x, fx, sx = _corner(points[p, 0], scale, zero, one)
        y, fy, sy = _corner(points[p, 1], scale, zero, one)
        z, fz, sz = _corner(points[p, 2], scale, zero, one)
        i0, i1, i2, i3, i4, i5, i6, i7 = _vertices(x, y, z, resolution, mask)
        for f in range(table.shape[1]):
            v0, v2, v4, v6 = table[i0, f], table[i2, f], table[i4, f], table[i6, f]
            d0, d2, d4, d6 = table[i1, f] - v0, table[i3, f] - v2, table[i5, f] - v4, table[i7, f] - v6
            # along x, then y, then z; d is the difference across the cell
            a0, a2, a4, a6 = v0 + fx * d0, v2 + fx * d2, v4 + fx * d4, v6 + fx * d6
            b0, b4 = a0 + fy * (a2 - a0), a4 + fy * (a6 - a4)
            features[f, p] = b0 + fz * (b4 - b0)
            if need_jacobian:
                e0, e4 = d0 + fy * (d2 - d0), d4 + fy * (d6 - d4)
                jacobian[f, 0, p] = sx * (e0 + fz * (e4 - e0))
                jacobian[f, 1, p] = sy * (a2 - a0 + fz * (a6 - a4 - a2 + a0))
                jacobian[f, 2, p] = sz * (b4 - b0)


@njit(nogil=True, cache=True, error_model="numpy")
def scatter_level(grad_table, points, resolution, mask, first, last, grad_features, grad_jacobian):
    """Add the adjoint of `interpolate_level` for features ``first .. last``; no other call may write these columns.

    A vertex weighs a product over the axes of ``(1 - f, f)``; a derivative swaps one factor for ``(-s, s)``.
    """
    has_jacobian = grad_jacobian.shape[0] > 0
    zero, one, scale = points.dtype.type(0), points.dtype.type(1), points.dtype.type(resolution)
    for p in range(points.shape[0]):
        x, fx, sx = _corner(points[p, 0], scale, zero, one)
        y, fy, sy = _corner(points[p, 1], scale, zero, one)
        z, fz, sz = _corner(points[p, 2], scale, zero, one)
        i0, i1, i2, i3, i4, i5, i6, i7 = _vertices(x, y, z, resolution, mask)
        gx, gy, gz = one - fx, one - fy, one - fz
        for f in range(first, last):
            g = grad_features[f, p]
            a, b = g * gz, g * fz  # the share of the two faces in z
            w0, w1, w2, w3 = a * gy * gx, a * gy * fx, a * fy * gx, a * fy * fx
            w4, w5, w6, w7 = b * gy * gx, b * gy * fx, b * fy * gx, b * fy * fx
            if has_jacobian:
                jx, jy, jz = sx * grad_jacobian[f, 0, p], sy * grad_jacobian[f, 1, p], sz * grad_jacobian[f, 2, p]
                w0 -= jx * gy * gz + jy * gx * gz + jz * gx * gy
                w1 += jx * gy * gz - jy * fx * gz - jz * fx * gy
                w2 += jy * gx * gz - jx * fy * gz - jz * gx * fy
                w3 += jx * fy * gz + jy * fx * gz - jz * fx * fy
                w4 += jz * gx * gy - jx * gy * fz - jy * gx * fz
                w5 += jx * gy * fz + jz * fx * gy - jy * fx * fz
                w6 += jy * gx * fz + jz * gx * fy - jx * fy * fz
                w7 += jx * fy * fz + jy * fx * fz + jz * fx * fy
            grad_table[i0, f] += w0
            grad_table[i1, f] += w1
            grad_table[i2, f] += w2
            grad_table[i3, f] += w3
            grad_table[i4, f] += w4
            grad_table[i5, f] += w5
            grad_table[i6, f] += w6
            grad_table[i7, f] += w7
