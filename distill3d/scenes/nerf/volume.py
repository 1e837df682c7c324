"""Volume rendering of packed samples: pure functions.

``w_i = T_i a_i``, ``a_i = 1 - exp(-density_i (t_end - t_start))``, ``T_i = prod_{j<i} (1 - a_j)`` along each ray
(Max 1995; arXiv 2003.08934, equation 3). Sums run ray by ray: a global cumulative sum in fp32 would cancel.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor
from torch.autograd.function import once_differentiable

from distill3d.runtime.device import kernel_backend
from distill3d.types import RaySamples


def render_weights(density: Float[Tensor, "samples"], samples: RaySamples) -> Float[Tensor, "samples"]:
    """The weight of each sample in its ray's colour; differentiable by the density."""
    if kernel_backend(density.device) == "numba":
        return _Weights.apply(density * (samples.t_end - samples.t_start), samples.ray_index)
    if density.device.type == "cuda":
        return render_weights_scan(density, samples)
    return render_weights_reference(density, samples)


def render_weights_reference(density: Float[Tensor, "samples"], samples: RaySamples) -> Float[Tensor, "samples"]:
    """`render_weights` in torch: rays padded to the longest of them, one cumulative sum along each."""
    optical_depth = density * (samples.t_end - samples.t_start)
    row, column = samples.ray_index, position_in_ray(samples)
    longest = int(column.max()) + 1 if len(samples) else 0
    padded = optical_depth.new_zeros(samples.ray_count, longest + 1).index_put((row, column + 1), optical_depth)
    transmittance = torch.exp(-padded.cumsum(-1))[row, column]
    return transmittance * -torch.expm1(-optical_depth)


def render_weights_scan(density: Float[Tensor, "samples"], samples: RaySamples) -> Float[Tensor, "samples"]:
    """`render_weights` for a GPU: one cumulative sum over all rays, in float64, where it does not cancel.

    Padding would have to know the longest ray, and the host would wait for that. Of an optical depth beyond 1000
    nothing passes, so the sum is held to it and stays finite.
    """
    optical_depth = density * (samples.t_end - samples.t_start)
    before = torch.nn.functional.pad(optical_depth.clamp_max(1e3).double().cumsum(0), (1, 0))
    first = ray_offsets(samples)[samples.ray_index]
    passed = before[:-1] - before[first]
    return torch.exp(-passed).to(optical_depth) * -torch.expm1(-optical_depth)


def accumulate(
    weights: Float[Tensor, "samples"], values: Float[Tensor, "samples channels"], samples: RaySamples
) -> Float[Tensor, "rays channels"]:
    """``sum_i w_i v_i`` along each ray; 0 for rays without samples."""
    if kernel_backend(weights.device) == "numba":
        return _Accumulation.apply(weights, values, samples.ray_index, samples.ray_count)
    return accumulate_reference(weights, values, samples)


def accumulate_reference(
    weights: Float[Tensor, "samples"], values: Float[Tensor, "samples channels"], samples: RaySamples
) -> Float[Tensor, "rays channels"]:
    """`accumulate` in torch."""
    out = values.new_zeros(samples.ray_count, values.shape[-1])
    return out.index_add(0, samples.ray_index, weights[:, None] * values)


def ray_offsets(samples: RaySamples) -> Int[Tensor, "rays+1"]:
    """Samples of ray r lie in ``offsets[r] .. offsets[r + 1]``."""
    rays = torch.arange(samples.ray_count + 1, device=samples.ray_index.device)
    return torch.searchsorted(samples.ray_index, rays)


def position_in_ray(samples: RaySamples) -> Int[Tensor, "samples"]:
    """How many samples of the same ray come before each sample."""
    return torch.arange(len(samples), device=samples.ray_index.device) - ray_offsets(samples)[samples.ray_index]


class _Weights(torch.autograd.Function):
    """`render_weights_reference` by the CPU kernel."""

    @staticmethod
    def forward(ctx, optical_depth: Tensor, ray_index: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        from distill3d.scenes.nerf.kernels import compositing as kernels

        weights, transmittance = torch.empty_like(optical_depth), torch.empty_like(optical_depth)
        kernels.weights_forward(*_arrays(ray_index, optical_depth, weights, transmittance))
        ctx.save_for_backward(ray_index, weights, transmittance)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        from distill3d.scenes.nerf.kernels import compositing as kernels

        ray_index, weights, transmittance = ctx.saved_tensors
        grad_depth = torch.empty_like(weights)
        kernels.weights_backward(*_arrays(ray_index, weights, transmittance, grad, grad_depth))
        return grad_depth, None


class _Accumulation(torch.autograd.Function):
    """`accumulate_reference` by the CPU kernel."""

    @staticmethod
    def forward(ctx, weights: Tensor, values: Tensor, ray_index: Tensor, ray_count: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        from distill3d.scenes.nerf.kernels import compositing as kernels

        out = values.new_zeros(ray_count, values.shape[1])
        kernels.accumulate_forward(*_arrays(ray_index, weights, values, out))
        ctx.save_for_backward(weights, values, ray_index)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        from distill3d.scenes.nerf.kernels import compositing as kernels

        weights, values, ray_index = ctx.saved_tensors
        grad_weights, grad_values = torch.empty_like(weights), torch.empty(values.shape, dtype=values.dtype)
        kernels.accumulate_backward(*_arrays(ray_index, weights, values, grad, grad_weights, grad_values))
        return grad_weights, grad_values, None, None


def _arrays(*tensors: Tensor) -> tuple[ndarray, ...]:
    """Views for a kernel; outputs are contiguous already, so that only inputs are ever copied."""
    return tuple(t.detach().contiguous().numpy() for t in tensors)
