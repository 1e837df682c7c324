"""Compositing along rays and its adjoint: the counterparts of `render_weights_reference` and `accumulate_reference`.

Samples are packed, sorted by ray; one pass visits them all, a new ray where the index changes.
"""

from __future__ import annotations

import math

from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def weights_forward(ray_index, optical_depth, weights, transmittance):
    """``w_i = T_i (1 - exp(-depth_i))``, and T_i, the transmittance before each sample."""
    before, ray = 0.0, -1
    for i in range(ray_index.shape[0]):
        if ray_index[i] != ray:
            before, ray = 0.0, ray_index[i]
        transmittance[i] = math.exp(-before)
        weights[i] = -transmittance[i] * math.expm1(-optical_depth[i])
        before += optical_depth[i]


@njit(nogil=True, cache=True, error_model="numpy")
def weights_backward(ray_index, weights, transmittance, grad_weights, grad_depth):
    """``dL/d(depth_i) = g_i (T_i - w_i) - sum_{j > i} g_j w_j`` along the ray: more depth here hides what is behind."""
    behind, ray = 0.0, -1
    for i in range(ray_index.shape[0] - 1, -1, -1):
        if ray_index[i] != ray:
            behind, ray = 0.0, ray_index[i]
        grad_depth[i] = grad_weights[i] * (transmittance[i] - weights[i]) - behind
        behind += grad_weights[i] * weights[i]


@njit(nogil=True, cache=True, error_model="numpy")
def accumulate_forward(ray_index, weights, values, out):
    """Add ``w_i v_i`` to the row of the sample's ray in ``out rays channels``."""
    for i in range(ray_index.shape[0]):
        for c in range(values.shape[1]):
            out[ray_index[i], c] += weights[i] * values[i, c]


@njit(nogil=True, cache=True, error_model="numpy")
def accumulate_backward(ray_index, weights, values, grad_out, grad_weights, grad_values):
    """``dL/dw_i = g . v_i`` and ``dL/dv_i = g w_i``, with g the gradient of the sample's ray."""
    for i in range(ray_index.shape[0]):
        total = 0.0
        for c in range(values.shape[1]):
            g = grad_out[ray_index[i], c]
            total += g * values[i, c]
            grad_values[i, c] = g * weights[i]
        grad_weights[i] = total
