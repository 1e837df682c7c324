"""The chain rule's last step: a gradient by features, times the features' Jacobian, is a gradient by the point."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from distill3d.runtime.device import kernel_backend
from distill3d.runtime.kernel_threads import run_parallel, shares


def contract(
    vector: Float[Tensor, "channels points"], jacobian: Float[Tensor, "channels axes points"]
) -> Float[Tensor, "axes points"]:
    """``J^T v`` at each point; differentiable by both."""
    if kernel_backend(vector.device) == "numba":
        return _Contraction.apply(vector, jacobian)  # pyright: ignore[reportReturnType]
    return contract_reference(vector, jacobian)


def contract_reference(
    vector: Float[Tensor, "channels points"], jacobian: Float[Tensor, "channels axes points"]
) -> Float[Tensor, "axes points"]:
    """`contract` in torch."""
    return (vector[:, None] * jacobian).sum(0)


class _Contraction(torch.autograd.Function):
    """`contract_reference` by the CPU kernel: one pass over the Jacobian, where torch makes four."""

    @staticmethod
    def forward(ctx, vector: Tensor, jacobian: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        from distill3d.scenes.nerf.kernels import contraction as kernels

        vector, jacobian = vector.contiguous(), jacobian.contiguous()
        out = torch.empty_like(jacobian[0])
        arrays = vector.detach().numpy(), jacobian.detach().numpy()
        run_parallel(kernels.contract, [(*arrays, *columns, out.numpy()) for columns in _columns(out)])
        ctx.save_for_backward(vector, jacobian)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        from distill3d.scenes.nerf.kernels import contraction as kernels

        vector, jacobian = ctx.saved_tensors
        grad_vector, grad_jacobian = torch.empty_like(vector), torch.empty_like(jacobian)
        given = tuple(x.detach().contiguous().numpy() for x in (vector, jacobian, grad))
        made = grad_vector.numpy(), grad_jacobian.numpy()
        run_parallel(kernels.contract_backward, [(*given, *columns, *made) for columns in _columns(grad)])
        return grad_vector, grad_jacobian


def _columns(points: Tensor) -> list[tuple[int, int]]:
    """Shares of the points, small enough that what a share touches stays in the cache."""
    count = points.shape[-1]
    return shares(count, max(torch.get_num_threads(), -(-count // 4096)))
