"""Grid encodings: features of points, with their derivative by the point."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from distill3d.config.ranges import check_least
from distill3d.config.registry import register
from distill3d.runtime.device import kernel_backend
from distill3d.runtime.kernel_threads import run_parallel, shares
from distill3d.scenes.nerf.grid import GridLevel, grid_levels
from distill3d.scenes.nerf.grid_gather import interpolate_gathered

logger = logging.getLogger(__name__)

MAX_TABLE_ENTRIES = 2**28  # beyond this a table of 2 features takes over 2 GB, and Adam twice that again


class Encoding(Protocol):
    """Points in [0, 1]^3 to features. Channels that are not open yet are left out of the answer."""

    n_output_dims: int

    def __call__(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "channels points"]: ...

    def with_jacobian(
        self, points: Float[Tensor, "points 3"]
    ) -> tuple[Float[Tensor, "channels points"], Float[Tensor, "channels 3 points"]]:
        """Features, and their derivative by the point; both carry gradients to the parameters."""
        ...

    def update_step(self, step: int) -> None: ...


def interpolate(
    table: Float[Tensor, "entries features"],
    points: Float[Tensor, "points 3"],
    levels: Sequence[GridLevel],
    need_jacobian: bool,
) -> tuple[Float[Tensor, "channels points"], Float[Tensor, "channels 3 points"]]:
    """`interpolate_reference` by the fastest backend for the table's device; without need, the Jacobian may be empty.

    The table gets gradients, the points get none.
    """
    if kernel_backend(table.device) == "numba":
        return _Interpolation.apply(table, points.detach(), levels, need_jacobian)  # pyright: ignore[reportReturnType]
    if has_triton(table, points):
        from distill3d.scenes.nerf.kernels.grid_triton import interpolate_by_triton

        return interpolate_by_triton(table, points, levels, need_jacobian)
    return interpolate_gathered(table, points, levels, need_jacobian)


def has_triton(table: Tensor, points: Tensor) -> bool:
    """Whether Triton's kernels interpolate these tensors; DISTILL3D_KERNELS=torch asks for the plain way.

    So does `torch.use_deterministic_algorithms`: their gradients are added up in any order.
    """
    if os.environ.get("DISTILL3D_KERNELS", "") == "torch" or torch.are_deterministic_algorithms_enabled():
        return False
    return table.device.type == "cuda" and table.dtype == points.dtype == torch.float32 and triton_can_run()


@functools.cache
def triton_can_run() -> bool:
    """Whether Triton is there, as with torch's CUDA builds for Linux, and compiles: it asks for a C compiler."""
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        from distill3d.scenes.nerf.kernels.grid_triton import interpolate_by_triton

        table, points = torch.zeros(8, 2, device="cuda"), torch.zeros(1, 3, device="cuda")
        interpolate_by_triton(table, points, grid_levels(1, 1, 1.0), need_jacobian=False)
    except Exception as error:  # noqa: BLE001  its compilers have many ways to fail, and torch does the same slower
        logger.info("grid: interpolated in torch, as Triton's kernel cannot run: %s", error)
        return False
    return True


class _Interpolation(torch.autograd.Function):
    """`interpolate_reference` by the CPU kernel."""

    @staticmethod
    def forward(ctx, table: Tensor, points: Tensor, levels: Sequence[GridLevel], need_jacobian: bool):  # pyright: ignore[reportIncompatibleMethodOverride]
        from distill3d.scenes.nerf.kernels import grid as kernels

        points, count, channels = points.contiguous(), len(points), len(levels) * table.shape[1]
        features = table.new_empty(channels, count)
        jacobian = table.new_empty(channels if need_jacobian else 0, 3, count)
        parts = shares(count, -(-torch.get_num_threads() // len(levels)))
        tasks = [
            (rows, points.numpy(), begin, end, resolution, mask, feature, derivative)
            for rows, resolution, mask, feature, derivative in _per_level(levels, table, features, jacobian)
            for begin, end in parts
        ]
        run_parallel(kernels.interpolate_level, tasks)
        ctx.save_for_backward(points)
        ctx.levels, ctx.table_shape = levels, table.shape
        return features, jacobian

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_features: Tensor, grad_jacobian: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        from distill3d.scenes.nerf.kernels import grid as kernels

        (points,) = ctx.saved_tensors
        grad_table = grad_features.new_zeros(ctx.table_shape)
        n_features = grad_table.shape[1]
        parts = shares(n_features, -(-torch.get_num_threads() // len(ctx.levels)))
        tasks = [
            (rows, points.numpy(), resolution, mask, first, last, feature, derivative)
            for rows, resolution, mask, feature, derivative in _per_level(
                ctx.levels, grad_table, grad_features.contiguous(), grad_jacobian.contiguous()
            )
            for first, last in parts
        ]
        run_parallel(kernels.scatter_level, tasks)
        return grad_table, None, None, None


def _per_level(
    levels: Sequence[GridLevel], table: Tensor, features: Tensor, jacobian: Tensor
) -> Iterator[tuple[ndarray, int, int, ndarray, ndarray]]:
    """For each level its rows of the table, resolution and hash mask (-1: none), and its rows of the other two."""
    n = table.shape[1]
    for i, level in enumerate(levels):
        rows = table.detach()[level.offset : level.offset + level.size].numpy()
        mask = level.size - 1 if level.hashed else -1
        yield rows, level.resolution, mask, features[i * n : (i + 1) * n].numpy(), jacobian[i * n : (i + 1) * n].numpy()


class GridEncoding(nn.Module):
    """A table of features on nested grids, all levels open or opened one after another."""

    active_levels: Tensor

    def __init__(
        self, levels: tuple[GridLevel, ...], n_features: int, progression: tuple[int, int, int] | None = None
    ) -> None:
        """``progression``: levels open at the start, the step of the first opening, and the steps between openings."""
        super().__init__()
        entries = levels[-1].offset + levels[-1].size
        if entries > MAX_TABLE_ENTRIES:
            raise ValueError(
                f"n_levels={len(levels)} with a finest resolution of {levels[-1].resolution} needs {entries} table "
                f"entries, more than {MAX_TABLE_ENTRIES}; lower n_levels, base_resolution or per_level_scale"
            )
        self.levels = levels
        self.progression = progression
        self.n_output_dims = len(levels) * n_features
        # arXiv 2201.05989, section 4: small, so that the initial density is the bias alone
        self.table = nn.Parameter((2.0 * torch.rand(entries, n_features) - 1.0) * 1e-4)
        # persistent: a checkpoint renders at the stage of its training
        self._n_open = progression[0] if progression else len(levels)  # the buffer on the host: reading it would wait
        self.register_buffer("active_levels", torch.tensor(self._n_open))

    def forward(self, points: Tensor) -> Tensor:
        return interpolate(self.table, points, self._open_levels(), need_jacobian=False)[0]

    def with_jacobian(self, points: Tensor) -> tuple[Tensor, Tensor]:
        return interpolate(self.table, points, self._open_levels(), need_jacobian=True)

    def _open_levels(self) -> tuple[GridLevel, ...]:
        return self.levels[: self._n_open]

    def update_step(self, step: int) -> None:
        """Open the levels that are due: one at ``start_step`` and one more every ``update_steps`` after it."""
        if self.progression is None:
            return
        start_level, start_step, update_steps = self.progression
        opened = max(step - start_step, 0) // update_steps
        self._n_open = min(start_level + opened, len(self.levels))
        self.active_levels.fill_(self._n_open)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._n_open = int(self.active_levels)


@register("encoding", "hash-grid")
class HashGrid(GridEncoding):
    """Multiresolution hash grid (arXiv 2201.05989), with all levels at once or coarse to fine."""

    @dataclass
    class Config:
        n_levels: int = 8
        n_features_per_level: int = 2
        log2_hashmap_size: int = 15
        base_resolution: int = 16
        per_level_scale: float = 1.485994289136948  # 16 .. 256 in 8 levels
        start_level: int | None = None  # levels open from the start; null: all of them
        start_step: int = 0
        update_steps: int = 500

        def __post_init__(self) -> None:
            _check_grid(self)
            if not 1 <= self.log2_hashmap_size <= 28:
                raise ValueError(f"log2_hashmap_size={self.log2_hashmap_size} must lie in 1 .. 28")
            if self.start_level is not None and not 1 <= self.start_level <= self.n_levels:
                raise ValueError(f"start_level={self.start_level} must lie in 1 .. n_levels={self.n_levels}")
            check_least(self, update_steps=1)

    def __init__(self, cfg: Config) -> None:
        levels = grid_levels(cfg.n_levels, cfg.base_resolution, cfg.per_level_scale, 2**cfg.log2_hashmap_size)
        progression = None if cfg.start_level is None else (cfg.start_level, cfg.start_step, cfg.update_steps)
        super().__init__(levels, cfg.n_features_per_level, progression)


@register("encoding", "dense-grid")
class DenseGrid(GridEncoding):
    """Dense voxel grid of one or several levels, without hashing."""

    @dataclass
    class Config:
        n_levels: int = 1
        n_features_per_level: int = 8
        base_resolution: int = 48
        per_level_scale: float = 2.0

        def __post_init__(self) -> None:
            _check_grid(self)

    def __init__(self, cfg: Config) -> None:
        levels = grid_levels(cfg.n_levels, cfg.base_resolution, cfg.per_level_scale)
        super().__init__(levels, cfg.n_features_per_level)


def _check_grid(cfg: HashGrid.Config | DenseGrid.Config) -> None:
    check_least(cfg, n_levels=1, n_features_per_level=1, base_resolution=1)
    if cfg.per_level_scale < 1.0:
        raise ValueError(f"per_level_scale={cfg.per_level_scale} must be at least 1: levels grow finer")
