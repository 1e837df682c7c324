"""Compositing of one view on a CPU and its adjoint: the counterpart of `compositing.composite_reference`.

The outer loop runs over Gaussians from front to back, the inner ones over the pixels of each one's ellipse, so that the
adjoint of a Gaussian is a sum in one register and nothing is scattered: the same bits each time. A view has one thread.
Along a row, ``exp`` of a quadratic is a product of two geometric recurrences, in float64: no exponential in a pixel.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def _rows(center_y, conic, level, height):
    """The rows of an ellipse's bounding box, begin and end."""
    a, b, c = conic
    reach = math.sqrt(max(2.0 * level * a / (a * c - b * b), 0.0))
    low, high = math.ceil(center_y - reach - 0.5), math.floor(center_y + reach - 0.5) + 1
    return int(min(max(low, 0), height)), int(min(max(high, 0), height))


@njit(nogil=True, cache=True, error_model="numpy")
def _columns(center_x, dy, conic, level, width):
    """The pixels of one row in the ellipse ``a dx^2 + 2 b dx dy + c dy^2 <= 2 level``, begin and end."""
    a, b, c = conic
    inside = b * b * dy * dy - a * (c * dy * dy - 2.0 * level)
    if inside < 0.0:
        return 0, 0
    root, middle = math.sqrt(inside) / a, center_x - b * dy / a
    low, high = math.ceil(middle - root - 0.5), math.floor(middle + root - 0.5) + 1
    return int(min(max(low, 0), width)), int(min(max(high, 0), width))


@njit(nogil=True, cache=True, error_model="numpy")
def _ellipse(g, centers, conics, opacity, least):
    """Centre and conic of a Gaussian in float64, and the level ``log(opacity / least)`` at its ellipse's edge."""
    conic = (float(conics[g, 0]), float(conics[g, 1]), float(conics[g, 2]))
    return float(centers[g, 0]), float(centers[g, 1]), conic, math.log(opacity / least)


@njit(nogil=True, cache=True, error_model="numpy")
def _recurrence(dx, dy, conic, opacity):
    """Alpha at an offset from the centre, its ratio to the next pixel's, and the factor of that ratio per pixel."""
    alpha = opacity * math.exp(-0.5 * (conic[0] * dx * dx + 2.0 * conic[1] * dx * dy + conic[2] * dy * dy))
    return alpha, math.exp(-conic[0] * (dx + 0.5) - conic[1] * dy), math.exp(-conic[0])


@njit(nogil=True, cache=True, error_model="numpy")
def composite_view(order, centers, conics, opacities, values, least, largest, stop, out, passed, last):
    """Sum of weighted values ``out C H W``, the transmittance ``passed H W`` behind all, and the rank of the last one.

    ``passed`` is float64 and 1, ``out`` and ``last`` are 0 where this begins.
    """
    height, width = passed.shape
    count = values.shape[1]
    total = np.zeros((height, width, count))
    for rank in range(order.shape[0]):
        g = order[rank]
        opacity = float(opacities[g])
        if opacity < least:
            continue
        x, y, conic, level = _ellipse(g, centers, conics, opacity, least)
        begin, end = _rows(y, conic, level, height)
        for row in range(begin, end):
            dy = row + 0.5 - y
            first, behind = _columns(x, dy, conic, level, width)
            if first >= behind:
                continue
            alpha, ratio, bend = _recurrence(first + 0.5 - x, dy, conic, opacity)
            for column in range(first, behind):
                before = passed[row, column]
                if before >= stop:
                    used = min(alpha, largest)
                    weight = before * used
                    for k in range(count):
                        total[row, column, k] += weight * values[g, k]
                    passed[row, column] = before * (1.0 - used)
                    last[row, column] = rank + 1
                alpha *= ratio
                ratio *= bend
    for k in range(count):
        for row in range(height):
            for column in range(width):
                out[k, row, column] = total[row, column, k]


@njit(nogil=True, cache=True, error_model="numpy")
def composite_view_backward(
    order,
    centers,
    conics,
    opacities,
    values,
    least,
    largest,
    passed,
    last,
    grad_out,
    grad_passed,
    grad_centers,
    grad_conics,
    grad_opacities,
    grad_values,
):
    """The adjoint, from back to front; gradients are 0 where this begins.

    With ``s_i`` the gradient's share of all that lies behind Gaussian i, ``dL/dalpha_i = T_i g.v_i - s_i / (1 -
    alpha_i)``; ``T_i`` is won back from the transmittance behind, which alphas below ``largest`` permit.
    """
    height, width = passed.shape
    count = values.shape[1]
    behind_sum = np.zeros((height, width))
    now = np.zeros((height, width))
    grad = np.zeros((height, width, count))
    for row in range(height):
        for column in range(width):
            now[row, column] = passed[row, column]
            behind_sum[row, column] = grad_passed[row, column] * passed[row, column]
            for k in range(count):
                grad[row, column, k] = grad_out[k, row, column]
    own = np.zeros(count)
    for rank in range(order.shape[0] - 1, -1, -1):
        g = order[rank]
        opacity = float(opacities[g])
        if opacity < least:
            continue
        x, y, conic, level = _ellipse(g, centers, conics, opacity, least)
        begin, end = _rows(y, conic, level, height)
        own[:] = 0.0
        at_x, at_y, at_a, at_b, at_c, at_opacity = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for row in range(begin, end):
            dy = row + 0.5 - y
            first, after = _columns(x, dy, conic, level, width)
            if first >= after:
                continue
            alpha, ratio, bend = _recurrence(first + 0.5 - x, dy, conic, opacity)
            for column in range(first, after):
                if rank < last[row, column]:
                    used = min(alpha, largest)
                    before = now[row, column] / (1.0 - used)
                    weight, along = before * used, 0.0
                    for k in range(count):
                        own[k] += weight * grad[row, column, k]
                        along += grad[row, column, k] * values[g, k]
                    slope = before * along - behind_sum[row, column] / (1.0 - used)
                    behind_sum[row, column] += weight * along
                    now[row, column] = before
                    if alpha <= largest:
                        dx = column + 0.5 - x
                        at_opacity += slope * alpha
                        pull = -slope * alpha  # dL / d(exponent)
                        at_a += 0.5 * dx * dx * pull
                        at_b += dx * dy * pull
                        at_c += 0.5 * dy * dy * pull
                        at_x -= (conic[0] * dx + conic[1] * dy) * pull
                        at_y -= (conic[1] * dx + conic[2] * dy) * pull
                alpha *= ratio
                ratio *= bend
        grad_centers[g, 0], grad_centers[g, 1] = at_x, at_y
        grad_conics[g, 0], grad_conics[g, 1], grad_conics[g, 2] = at_a, at_b, at_c
        grad_opacities[g] = at_opacity / opacity
        for k in range(count):
            grad_values[g, k] = own[k]
