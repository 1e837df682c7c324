"""Front-to-back compositing of Gaussians on the screen: one function, in torch or by a compiled CPU kernel."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from distill3d.runtime.device import kernel_backend
from distill3d.runtime.kernel_threads import run_parallel

LEAST_ALPHA = 1.0 / 255.0  # a fainter contribution to a pixel is none
LARGEST_ALPHA = 0.99  # so that what lies behind keeps a gradient, and transmittance can be won back by division
STOP = 1e-4  # transmittance below which a pixel is finished
TILE = 64  # pixels along a side
WHOLE = 1 << 25  # Gaussians times pixels that the formula takes at once, some dozen tensors of .13 GB; beyond it, tiles


def composite(
    centers: Float[Tensor, "B N 2"],
    conics: Float[Tensor, "B N 3"],
    opacities: Float[Tensor, "B N"],
    values: Float[Tensor, "B N C"],
    depths: Float[Tensor, "B N"],
    visible: Bool[Tensor, "B N"],
    height: int,
    width: int,
) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B 1 H W"]]:
    """Weighted sums of values over the visible Gaussians of each pixel, nearest first, and what passes behind them all.

    ``sum_i v_i alpha_i T_i``, ``T_i = prod_{j < i} (1 - alpha_j)``, ``alpha_i = opacity_i exp(-d^T conic_i d / 2)``
    (arXiv 2308.04079, section 4). Depths are sorted once for each view; equal ones keep their order.
    """
    orders = [sorted_by_depth(depths[i], visible[i]) for i in range(len(depths))]
    if kernel_backend(centers.device) == "numba":
        tensors = (centers, conics, opacities, values)
        image, passed = _Composite.apply(*tensors, orders, height, width)  # type: ignore[misc]
        return image, passed
    views = zip(centers, conics, opacities, values, orders, strict=True)
    seen = [composite_tiles(*view, height, width) for view in views]
    return torch.stack([image for image, _ in seen]), torch.stack([passed for _, passed in seen])


def sorted_by_depth(depths: Float[Tensor, "N"], visible: Bool[Tensor, "N"]) -> Int[Tensor, "M"]:
    """Rows of the visible Gaussians, nearest first."""
    order = depths.detach().argsort(stable=True)
    return order[visible[order]]


def composite_reference(
    centers: Float[Tensor, "N 2"],
    conics: Float[Tensor, "N 3"],
    opacities: Float[Tensor, "N"],
    values: Float[Tensor, "N C"],
    order: Int[Tensor, "M"],
    height: int,
    width: int,
) -> tuple[Float[Tensor, "C H W"], Float[Tensor, "1 H W"]]:
    """One view of `composite`, as the formula says it; needs memory for M H W numbers."""
    rows, columns = (torch.arange(n, device=centers.device, dtype=centers.dtype) + 0.5 for n in (height, width))
    dx = columns[None, None] - centers[order, 0, None, None]  # M 1 W
    dy = rows[None, :, None] - centers[order, 1, None, None]  # M H 1
    a, b, c = conics[order, :, None, None].unbind(1)
    alpha = opacities[order, None, None] * torch.exp(-0.5 * (a * dx * dx + 2.0 * b * dx * dy + c * dy * dy))
    alpha = torch.where(alpha >= LEAST_ALPHA, alpha.clamp_max(LARGEST_ALPHA), 0.0)
    alpha = torch.where(_before(alpha.detach()) >= STOP, alpha, 0.0)
    weights = alpha * _before(alpha)
    passed = (1.0 - alpha).prod(dim=0, keepdim=True)
    return torch.einsum("mhw,mc->chw", weights, values[order]), passed


def composite_tiles(
    centers: Float[Tensor, "N 2"],
    conics: Float[Tensor, "N 3"],
    opacities: Float[Tensor, "N"],
    values: Float[Tensor, "N C"],
    order: Int[Tensor, "M"],
    height: int,
    width: int,
) -> tuple[Float[Tensor, "C H W"], Float[Tensor, "1 H W"]]:
    """`composite_reference`, in tiles where the view is large: each has the Gaussians that reach it, and is computed
    again in backward, so that the memory is that of one tile."""
    if len(order) * height * width <= WHOLE:
        return composite_reference(centers, conics, opacities, values, order, height, width)
    image, passed = values.new_zeros(values.shape[1], height, width), values.new_ones(1, height, width)
    corners = [(x, y) for y in range(0, height, TILE) for x in range(0, width, TILE)]
    for (x, y), own in zip(corners, _reached(centers, conics, opacities, order, corners), strict=True):
        size = min(TILE, height - y), min(TILE, width - x)
        local = centers - centers.new_tensor([x, y])
        part = checkpoint(composite_reference, local, conics, opacities, values, own, *size, use_reentrant=False)
        assert part is not None
        image[:, y : y + size[0], x : x + size[1]], passed[:, y : y + size[0], x : x + size[1]] = part
    return image, passed


@torch.no_grad()
def _reached(
    centers: Tensor, conics: Tensor, opacities: Tensor, order: Int[Tensor, "M"], corners: list[tuple[int, int]]
) -> tuple[Int[Tensor, "K"], ...]:
    """The rows of order that may show in each tile: ``alpha >= LEAST_ALPHA`` where ``d^T conic d <= 2 ln(255 o)``."""
    a, b, c = conics[order].unbind(1)
    reach = 2.0 * (opacities[order] / LEAST_ALPHA).clamp_min(1.0).log() / (a * c - b * b).clamp_min(1e-20)
    half = torch.stack([(reach * c).sqrt(), (reach * a).sqrt()], dim=1) + 1.0  # a pixel more, against rounding
    low = centers.new_tensor(corners)[:, None]  # T 1 2
    near = (centers[order] + half >= low) & (centers[order] - half <= low + TILE)
    tile, row = near.all(dim=2).nonzero(as_tuple=True)
    return order[row].split(torch.bincount(tile, minlength=len(corners)).tolist())


def _before(alpha: Float[Tensor, "M H W"]) -> Float[Tensor, "M H W"]:
    """The transmittance in front of each Gaussian."""
    return torch.cat([torch.ones_like(alpha[:1]), (1.0 - alpha[:-1]).cumprod(dim=0)])[: len(alpha)]


class _Composite(torch.autograd.Function):
    """All views of `composite` by the CPU kernel, a thread for each view."""

    @staticmethod
    def forward(ctx, centers, conics, opacities, values, orders, height, width):  # pyright: ignore[reportIncompatibleMethodOverride]
        from distill3d.scenes.splats.kernels import compositing as kernels

        batch, limits = len(centers), (LEAST_ALPHA, LARGEST_ALPHA)
        image = values.new_zeros(batch, values.shape[2], height, width)
        passed = torch.ones(batch, height, width, dtype=torch.float64)
        last = torch.zeros(batch, height, width, dtype=torch.int32)
        inputs = [_arrays(o, *view) for o, *view in zip(orders, centers, conics, opacities, values, strict=True)]
        outputs = [_arrays(*view) for view in zip(image, passed, last, strict=True)]
        run_parallel(kernels.composite_view, [(*i, *limits, STOP, *o) for i, o in zip(inputs, outputs, strict=True)])
        ctx.save_for_backward(centers, conics, opacities, values, passed, last)
        ctx.orders = orders
        return image, passed[:, None].to(image.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_image, grad_passed):  # pyright: ignore[reportIncompatibleMethodOverride]
        from distill3d.scenes.splats.kernels import compositing as kernels

        centers, conics, opacities, values, passed, last = ctx.saved_tensors
        inputs = (centers, conics, opacities, values)
        grads = tuple(torch.zeros(x.shape, dtype=x.dtype) for x in inputs)
        tasks = []
        for i, order in enumerate(ctx.orders):
            given = _arrays(order, *(x[i] for x in inputs))
            seen = _arrays(passed[i], last[i], grad_image[i], grad_passed[i, 0])
            tasks.append((*given, LEAST_ALPHA, LARGEST_ALPHA, *seen, *_arrays(*(g[i] for g in grads))))
        run_parallel(kernels.composite_view_backward, tasks)
        return *grads, None, None, None


def _arrays(*tensors: Tensor) -> tuple[ndarray, ...]:
    """Views for a kernel; outputs are contiguous already, so that only inputs are ever copied."""
    return tuple(t.detach().contiguous().numpy() for t in tensors)
