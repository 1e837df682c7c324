"""`interpolate_reference` on CUDA, all levels in one launch; needs Triton and float32.

A program has a block of points and one level: forward it gathers eight entries a point, backward it adds to them, with
atomics, so that gradients differ in their last bits from call to call. Levels come one after another, as a table of one
level fits the cache of a large GPU and all of them do not.
"""

# what Triton compiles is no Python to a checker
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from distill3d.scenes.nerf.grid import PRIMES, GridLevel

BLOCK = 128  # points of a program, one for each of its threads


def interpolate_by_triton(
    table: Float[Tensor, "entries features"],
    points: Float[Tensor, "points 3"],
    levels: Sequence[GridLevel],
    need_jacobian: bool,
) -> tuple[Float[Tensor, "channels points"], Float[Tensor, "channels 3 points"]]:
    """Features at points in [0, 1]^3 (clamped to it), and d(feature)/d(point), empty unless it is needed.

    Channels are level-major. The table gets gradients, the points get none. Raises TypeError for what is not float32.
    """
    for name, given in (("table", table), ("points", points)):
        if given.dtype != torch.float32:
            raise TypeError(
                f"{name}: {given.dtype}, and Triton's grid has float32 alone; interpolate_gathered has others"
            )
    return _Interpolation.apply(table, points.detach(), tuple(levels), need_jacobian)  # pyright: ignore[reportReturnType]


class _Interpolation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table: Tensor, points: Tensor, levels: tuple[GridLevel, ...], need_jacobian: bool):  # pyright: ignore[reportIncompatibleMethodOverride]
        table, points = table.contiguous(), points.contiguous()
        channels = len(levels) * table.shape[1]
        features = table.new_empty(channels, len(points))
        jacobian = table.new_empty(channels if need_jacobian else 0, 3, len(points))
        _launch(_gather, table, points, levels, features, jacobian)
        ctx.save_for_backward(points)
        ctx.levels, ctx.table_shape = levels, table.shape
        return features, jacobian

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_features: Tensor, grad_jacobian: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (points,) = ctx.saved_tensors
        grad_table = grad_features.new_zeros(ctx.table_shape)
        _launch(_scatter, grad_table, points, ctx.levels, grad_features.contiguous(), grad_jacobian.contiguous())
        return grad_table, None, None, None


def _launch(
    kernel, table: Tensor, points: Tensor, levels: tuple[GridLevel, ...], features: Tensor, jacobian: Tensor
) -> None:
    count, n_features = len(points), table.shape[1]
    with torch.cuda.device_of(table):  # Triton launches on the current one
        kernel[(triton.cdiv(count, BLOCK), len(levels))](
            table, points, _layout(levels, table.device), features, jacobian, count,
            n_features, triton.next_power_of_2(n_features), len(jacobian) > 0, BLOCK,
            enable_fp_fusion=False,  # a fused fraction of a fine cell is another one than the reference's by 1e-4
        )  # fmt: skip


@functools.lru_cache(maxsize=64)
def _layout(levels: tuple[GridLevel, ...], device: torch.device) -> Tensor:
    """For each level its resolution, first row, whether it is hashed, the factors of y and z, and the mask of a row."""
    rows = []
    for level in levels:
        side = level.resolution + 1
        factors = PRIMES[1:] if level.hashed else (side, side * side)
        rows.append((level.resolution, level.offset, level.hashed, *factors, level.size - 1 if level.hashed else -1))
    return torch.tensor(rows, device=device)


@triton.jit
def _along(points, point, there, axis: tl.constexpr, resolution):
    """Of one coordinate: the cell, the fraction of it, and the slope of that.

    What is no number stays so in the fraction, and has a cell, so that nothing outside of the table is read.
    """
    u = tl.load(points + point * 3 + axis, mask=there, other=0.0)
    scale = resolution.to(tl.float32)
    position = tl.where(u < 0.0, 0.0, tl.where(u > 1.0, 1.0, u)) * scale
    cell = tl.minimum(tl.maximum(position.to(tl.int32), 0), resolution - 1)
    slope = tl.where((u >= 0.0) & (u <= 1.0), scale, 0.0)  # a clamped coordinate changes nothing
    return cell.to(tl.uint32), position - cell.to(tl.float32), slope


@triton.jit
def _around(points, levels, point, there):
    """The cells around points in the program's level, and the numbers of the level that rows need."""
    level = levels + 6 * tl.program_id(1)
    resolution = tl.load(level).to(tl.int32)
    x, along_x, slope_x = _along(points, point, there, 0, resolution)
    y, along_y, slope_y = _along(points, point, there, 1, resolution)
    z, along_z, slope_z = _along(points, point, there, 2, resolution)
    hashed, mask = tl.load(level + 2) != 0, tl.load(level + 5).to(tl.uint32)
    factor_y, factor_z = tl.load(level + 3).to(tl.uint32), tl.load(level + 4).to(tl.uint32)
    rows = (x, y, z, factor_y, factor_z, hashed, mask, tl.load(level + 1))
    return rows, (along_x, along_y, along_z), (slope_x, slope_y, slope_z)


@triton.jit
def _vertex(rows, along, slope, corner: tl.constexpr):
    """One of the eight vertices, x fastest: its row of the table, its weight, and the weight's three derivatives."""
    i: tl.constexpr = corner % 2
    j: tl.constexpr = corner // 2 % 2
    k: tl.constexpr = corner // 4
    x, y, z, factor_y, factor_z, hashed, mask, offset = rows
    x, y, z = x + i, (y + j) * factor_y, (z + k) * factor_z  # of 32 bits, which the mask of a hash lies within
    row = tl.where(hashed, x ^ y ^ z, x + y + z) & mask
    a = along[0] if i else 1.0 - along[0]
    b = along[1] if j else 1.0 - along[1]
    c = along[2] if k else 1.0 - along[2]
    by_x = (slope[0] if i else -slope[0]) * b * c
    by_y = (slope[1] if j else -slope[1]) * a * c
    by_z = (slope[2] if k else -slope[2]) * a * b
    return row.to(tl.int64) + offset, a * b * c, by_x, by_y, by_z


@triton.jit(do_not_specialize=["count"])
def _gather(
    table, points, levels, features, jacobian, count,
    FEATURES: tl.constexpr, WIDTH: tl.constexpr, JACOBIAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Fill ``features L F P`` and, where it is wanted, ``jacobian L F 3 P``."""
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there, feature = point < count, tl.arange(0, WIDTH)
    both = there[:, None] & (feature < FEATURES)[None, :]
    rows, along, slope = _around(points, levels, point, there)
    value = tl.zeros([BLOCK, WIDTH], tl.float32)
    x, y, z = value, value, value
    for corner in tl.static_range(8):
        row, weight, by_x, by_y, by_z = _vertex(rows, along, slope, corner)
        entry = tl.load(table + row[:, None] * FEATURES + feature[None, :], mask=both, other=0.0)
        value += weight[:, None] * entry
        if JACOBIAN:
            x += by_x[:, None] * entry
            y += by_y[:, None] * entry
            z += by_z[:, None] * entry
    channel = (tl.program_id(1) * FEATURES + feature).to(tl.int64)[None, :]
    tl.store(features + channel * count + point[:, None], value, mask=both)
    if JACOBIAN:
        first = jacobian + channel * 3 * count + point[:, None]
        tl.store(first, x, mask=both)
        tl.store(first + count, y, mask=both)
        tl.store(first + count * 2, z, mask=both)


@triton.jit(do_not_specialize=["count"])
def _scatter(
    table, points, levels, features, jacobian, count,
    FEATURES: tl.constexpr, WIDTH: tl.constexpr, JACOBIAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The adjoint of `_gather`: add to ``table`` the gradients of the other two."""
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there, feature = point < count, tl.arange(0, WIDTH)
    both = there[:, None] & (feature < FEATURES)[None, :]
    rows, along, slope = _around(points, levels, point, there)
    channel = (tl.program_id(1) * FEATURES + feature).to(tl.int64)[None, :]
    value = tl.load(features + channel * count + point[:, None], mask=both, other=0.0)
    if JACOBIAN:
        first = jacobian + channel * 3 * count + point[:, None]
        x = tl.load(first, mask=both, other=0.0)
        y = tl.load(first + count, mask=both, other=0.0)
        z = tl.load(first + count * 2, mask=both, other=0.0)
    for corner in tl.static_range(8):
        row, weight, by_x, by_y, by_z = _vertex(rows, along, slope, corner)
        share = weight[:, None] * value
        if JACOBIAN:
            share += by_x[:, None] * x + by_y[:, None] * y + by_z[:, None] * z
        tl.atomic_add(table + row[:, None] * FEATURES + feature[None, :], share, mask=both, sem="relaxed")
