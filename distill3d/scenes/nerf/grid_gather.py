"""`interpolate_reference` for a GPU: one gather from the whole table, and one scatter into one gradient.

Autograd of the reference keeps indices, weights and values of every level, 3.1 kB a sample for 16 levels of 2 features,
and adds up a gradient of the table's size for each level. Here the points alone are kept, 12 bytes a sample, and
backward computes the rest again: features and derivatives are linear in the table, so that is all it needs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from distill3d.scenes.nerf.grid import PRIMES, GridLevel

CHUNK = 1 << 17  # points at once: with 16 levels of 2 features some .5 GB, whatever the size of the picture


def interpolate_gathered(
    table: Float[Tensor, "entries features"],
    points: Float[Tensor, "points 3"],
    levels: Sequence[GridLevel],
    need_jacobian: bool,
) -> tuple[Float[Tensor, "channels points"], Float[Tensor, "channels 3 points"]]:
    """Features at points in [0, 1]^3 (clamped to it), and d(feature)/d(point), empty unless it is needed.

    Channels are level-major. The table gets gradients, the points get none.
    """
    return _Gathered.apply(table, points.detach(), tuple(levels), need_jacobian)  # pyright: ignore[reportReturnType]


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table: Tensor, points: Tensor, levels: tuple[GridLevel, ...], need_jacobian: bool):  # pyright: ignore[reportIncompatibleMethodOverride]
        shape = (len(levels), table.shape[1])
        features = table.new_empty(*shape, len(points))
        jacobian = table.new_empty(*(shape if need_jacobian else (0, 0)), 3, len(points))
        for begin in range(0, len(points), CHUNK):
            rows = slice(begin, begin + CHUNK)
            around = _around(points[rows], levels)
            values = table[around.index]  # L P 8 F
            features[..., rows] = torch.einsum("lpc,lpcf->lfp", _product(*around.weight), values)
            for axis in range(3 if need_jacobian else 0):
                jacobian[:, :, axis, rows] = torch.einsum("lpc,lpcf->lfp", around.derivative(axis), values)
        ctx.save_for_backward(points)
        ctx.levels, ctx.table_shape = levels, table.shape
        return features.flatten(0, 1), jacobian.flatten(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_features: Tensor, grad_jacobian: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (points,) = ctx.saved_tensors
        grad_table = grad_features.new_zeros(ctx.table_shape)
        by_level = (len(ctx.levels), ctx.table_shape[1])
        features = grad_features.unflatten(0, by_level)
        jacobian = grad_jacobian.unflatten(0, by_level) if len(grad_jacobian) else None
        for begin in range(0, len(points), CHUNK):
            rows = slice(begin, begin + CHUNK)
            around = _around(points[rows], ctx.levels)
            share = torch.einsum("lpc,lfp->lpcf", _product(*around.weight), features[..., rows])
            for axis in range(0 if jacobian is None else 3):
                assert jacobian is not None
                share += torch.einsum("lpc,lfp->lpcf", around.derivative(axis), jacobian[:, :, axis, rows])
            grad_table.index_add_(0, around.index.flatten(), share.flatten(0, 2))
        return grad_table, None, None, None


class _Around(NamedTuple):
    """The eight vertices around each point in each level, x fastest: rows of the table, and what they weigh."""

    index: Int[Tensor, "levels points 8"]
    weight: list[Float[Tensor, "levels points 2"]]  # along x, y and z: of the lower and the upper side
    slope: list[Float[Tensor, "levels points 2"]]  # their derivatives

    def derivative(self, axis: int) -> Float[Tensor, "levels points 8"]:
        """Of the vertices' weights by one coordinate of the point."""
        return _product(*(self.slope[a] if a == axis else self.weight[a] for a in range(3)))


def _around(points: Float[Tensor, "points 3"], levels: tuple[GridLevel, ...]) -> _Around:
    resolution, offset, modulus, dense = _layout(levels, points.device)
    scale = resolution.to(points)[:, None]  # L 1
    inside = ((points >= 0.0) & (points <= 1.0)).to(points)  # a clamped coordinate changes nothing
    weight, slope, low = [], [], []
    for axis in range(3):
        position = points[:, axis].clamp(0.0, 1.0) * scale  # L P
        cell = torch.minimum(position.floor(), scale - 1.0)
        fraction = position - cell
        weight.append(torch.stack([1.0 - fraction, fraction], dim=-1))
        steep = scale * inside[:, axis]
        slope.append(torch.stack([-steep, steep], dim=-1))
        low.append(torch.stack([cell, cell + 1.0], dim=-1).long())  # L P 2
    side = resolution[:dense, None, None] + 1
    plain = _outer(torch.add, low[0][:dense], low[1][:dense] * side, low[2][:dense] * side * side)
    hashed = _outer(torch.bitwise_xor, *(v[dense:] * prime for v, prime in zip(low, PRIMES, strict=True)))
    rows = torch.cat([plain, hashed % modulus[dense:, None, None]])
    return _Around(rows + offset[:, None, None], weight, slope)


@functools.lru_cache(maxsize=64)
def _layout(levels: tuple[GridLevel, ...], device: torch.device) -> tuple[Tensor, Tensor, Tensor, int]:
    """Resolutions, offsets and sizes on a device, and how many levels are not hashed; these come first."""
    dense = sum(not level.hashed for level in levels)
    assert not any(level.hashed for level in levels[:dense])
    columns = ([getattr(level, name) for level in levels] for name in ("resolution", "offset", "size"))
    resolution, offset, size = (torch.tensor(column, device=device) for column in columns)
    return resolution, offset, size, dense


def _product(x: Tensor, y: Tensor, z: Tensor) -> Float[Tensor, "levels points 8"]:
    return _outer(torch.mul, x, y, z)


def _outer(combine, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """``L P 2`` along each axis to ``L P 8``, x fastest."""
    return combine(combine(x[:, :, None, None, :], y[:, :, None, :, None]), z[:, :, :, None, None]).flatten(2)
