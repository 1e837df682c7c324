"""Multiresolution grids with trilinear interpolation (arXiv 2201.05989): the layout and the torch reference.

Features are kept feature-major, ``features points``: a level writes whole rows, whatever the number of levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

PRIMES = (1, 2654435761, 805459861)  # arXiv 2201.05989, section 3


@dataclass(frozen=True)
class GridLevel:
    """One level: ``resolution`` cells along each axis, stored in rows ``offset .. offset + size`` of the table."""

    resolution: int
    offset: int
    size: int
    hashed: bool


def grid_levels(
    n_levels: int, base_resolution: int, per_level_scale: float, max_entries: int | None = None
) -> tuple[GridLevel, ...]:
    """Levels of resolution ``floor(base scale^l)`` (arXiv 2201.05989, equation 2); a level that would need more than
    ``max_entries`` vertices, a power of two, is hashed into that many."""
    if max_entries is not None and max_entries & (max_entries - 1):
        raise ValueError(f"max_entries={max_entries} must be a power of two")
    levels, offset = [], 0
    for level in range(n_levels):
        # the small addend keeps 16 * 2 ** 4 from becoming 255.999...
        resolution = int(base_resolution * per_level_scale**level + 1e-4)
        vertices = (resolution + 1) ** 3
        hashed = max_entries is not None and vertices > max_entries
        size = max_entries if hashed and max_entries is not None else vertices
        levels.append(GridLevel(resolution, offset, size, hashed))
        offset += size
    return tuple(levels)


def vertex_index(vertex: Int[Tensor, "... 3"], level: GridLevel) -> Int[Tensor, "..."]:
    """The row of a vertex within its level: ``(x p1 ^ y p2 ^ z p3) mod size`` where hashed, else x fastest."""
    x, y, z = vertex.unbind(-1)
    if level.hashed:
        return (x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]) % level.size
    side = level.resolution + 1
    return x + side * (y + side * z)


def interpolate_reference(
    table: Float[Tensor, "entries features"], points: Float[Tensor, "points 3"], levels: Sequence[GridLevel]
) -> tuple[Float[Tensor, "channels points"], Float[Tensor, "channels 3 points"]]:
    """Features at points in [0, 1]^3 (clamped to it), and d(feature)/d(point); both are linear in the table.

    Channels are level-major, ``levels * features`` of them. The reference of `kernels.grid`.
    """
    rows = [_interpolate_level(table, points, level) for level in levels]
    return torch.cat([feature for feature, _ in rows]), torch.cat([jacobian for _, jacobian in rows])


def _interpolate_level(table: Tensor, points: Tensor, level: GridLevel) -> tuple[Tensor, Tensor]:
    corner = torch.tensor([[c >> a & 1 for a in range(3)] for c in range(8)], device=points.device)
    position = points.clamp(0.0, 1.0) * level.resolution
    cell = position.floor().clamp(max=level.resolution - 1)
    fraction = (position - cell)[:, None]  # P 1 3
    index = vertex_index(cell.long()[:, None] + corner, level)
    values = F.embedding(index, table[level.offset : level.offset + level.size])  # P 8 F
    along = torch.where(corner.bool(), fraction, 1.0 - fraction)  # P 8 3
    features = torch.einsum("pc,pcf->fp", along.prod(-1), values)
    across = torch.stack([along[..., [1, 2]].prod(-1), along[..., [0, 2]].prod(-1), along[..., [0, 1]].prod(-1)], -1)
    inside = ((points >= 0.0) & (points <= 1.0)).to(points)  # a clamped coordinate changes nothing
    slope = inside[:, None] * ((2.0 * corner - 1.0) * level.resolution)  # P 8 3
    return features, torch.einsum("pca,pcf->fap", across * slope, values)
