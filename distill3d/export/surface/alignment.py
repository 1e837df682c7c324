"""Vertices back onto the isosurface, after what extraction, blur and decimation moved."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from distill3d.export.query import SceneField
from distill3d.export.surface.mesh import Surface, directed_edges, moved, vertex_normals

AVERAGES = 2  # rounds over neighbours: a common offset is an error of ours, a scattered one is noise of the field
BISECTIONS = 8


def aligned(field: SceneField, surface: Surface, level: float, reach: float) -> Surface:
    """Move the vertices along their normals by the offset of the isosurface, averaged over neighbours.

    Vertices that see no crossing within ``reach`` (world units) take their neighbours' offset, or stay; so do those
    whose move would turn a face over.
    """
    normals = vertex_normals(surface)
    offset = isosurface_offset(field, torch.from_numpy(surface.vertices), torch.from_numpy(normals), level, reach)
    mean = _averaged(offset.double().numpy(), surface)
    return moved(surface, mean)


def isosurface_offset(
    field: SceneField, points: Float[Tensor, "P 3"], normals: Float[Tensor, "P 3"], level: float, reach: float
) -> Float[Tensor, "P"]:
    """The signed distance along outward unit normals to where the density crosses the level; nan if none is in reach.

    A point inside looks outwards, a point outside inwards; bisection, to ``reach / 2^BISECTIONS``.
    """

    def inside(rows: Tensor, t: Tensor) -> Tensor:
        return field.density(points[rows] + t[:, None] * normals[rows]) > level

    rows = torch.arange(len(points))
    was_inside = inside(rows, torch.zeros(len(points)))
    far = torch.where(was_inside, reach, -reach)
    crossing = inside(rows, far) != was_inside
    rows, far, was_inside = rows[crossing], far[crossing], was_inside[crossing]
    near = torch.zeros_like(far)
    for _ in range(BISECTIONS):
        middle = 0.5 * (near + far)
        same = inside(rows, middle) == was_inside
        near, far = torch.where(same, middle, near), torch.where(same, far, middle)
    offset = torch.full((len(points),), torch.nan)
    offset[rows] = 0.5 * (near + far)
    return offset


def _averaged(offset: Float[ndarray, "V"], surface: Surface) -> Float[ndarray, "V"]:
    """Rounds of averages over each vertex and its neighbours, of those that are known; zero where none is."""
    edges = directed_edges(surface.faces)
    edges = np.concatenate([edges, edges[:, ::-1]])
    for _ in range(AVERAGES):
        known = np.isfinite(offset)
        value = np.where(known, offset, 0.0)
        total, count = value.copy(), known.astype(np.float64)
        np.add.at(total, edges[:, 0], value[edges[:, 1]])
        np.add.at(count, edges[:, 0], known[edges[:, 1]].astype(np.float64))
        offset = np.where(count > 0.0, total / np.maximum(count, 1.0), np.nan)
    return np.nan_to_num(offset)
