"""The occupancy grid: which cells of the volume hold anything."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class OccupancyGrid(nn.Module):
    """A running maximum of each cell's optical depth over one marching step, and the bits above a threshold.

    ``value = max(decay value, density(random point in the cell) step)``; a cell is occupied where the value exceeds
    ``min(mean of values, threshold)`` (arXiv 2201.05989, appendix C, as nerfacc has it). Values and bits are
    persistent buffers, so that a resumed run continues as it was.
    """

    values: Tensor
    occupied: Tensor

    def __init__(self, resolution: int, radius: float, ema_decay: float = 0.95, threshold: float = 0.01) -> None:
        super().__init__()
        self.radius, self.ema_decay, self.threshold = radius, ema_decay, threshold
        self.register_buffer("values", torch.zeros((resolution,) * 3))
        self.register_buffer("occupied", torch.ones((resolution,) * 3, dtype=torch.bool))

    @property
    def resolution(self) -> int:
        return self.values.shape[0]

    @torch.no_grad()
    def update(
        self,
        density: Callable[[Float[Tensor, "points 3"]], Float[Tensor, "points"]],
        step_size: float,
        generator: torch.Generator,
        every_cell: bool,
    ) -> None:
        """Look at every cell, or at a quarter of them drawn at random and as many of the occupied ones."""
        index = self._all_cells() if every_cell else self._some_cells(generator)
        points = self._points_in(index, generator)
        depth = torch.cat([density(part) for part in points.split(2**17)]) * step_size
        flat = self.values.view(-1)
        flat[index] = torch.maximum(flat[index] * self.ema_decay, depth.to(flat))
        self.occupied.copy_(self.values > self.values.mean().clamp(max=self.threshold))

    def _all_cells(self) -> Int[Tensor, "cells"]:
        return torch.arange(self.values.numel(), device=self.values.device)

    def _some_cells(self, generator: torch.Generator) -> Int[Tensor, "cells"]:
        quarter = max(1, self.values.numel() // 4)
        draw = lambda high, count: torch.randint(high, (count,), generator=generator, device=generator.device)  # noqa: E731
        uniform = draw(self.values.numel(), quarter).to(self.values.device)
        occupied = self.occupied.view(-1).nonzero()[:, 0]
        if len(occupied) > quarter:
            occupied = occupied[draw(len(occupied), quarter).to(occupied.device)]
        # each cell once: a cell that is written twice would keep one of two values, by chance
        return torch.cat([uniform, occupied]).unique()

    def _points_in(self, index: Int[Tensor, "cells"], generator: torch.Generator) -> Float[Tensor, "cells 3"]:
        """One random world point in each cell; x is the slowest axis of the grid."""
        n = self.resolution
        cell = torch.stack([index // (n * n), index // n % n, index % n], dim=-1)
        offset = torch.rand(len(index), 3, generator=generator, device=generator.device).to(self.values)
        return ((cell + offset) / n * 2.0 - 1.0) * self.radius
