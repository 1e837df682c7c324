"""What a mesh needs that comes with its own shape: its colours, and its texture coordinates where they are usable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from distill3d.export.query import SceneField
from distill3d.export.surface.mesh import Surface
from distill3d.export.texture import Unwrapped, covered_texels

LARGEST_OVERLAP = 0.02  # of the charts' area, which texels on edges alone may reach


@dataclass(frozen=True)
class FieldColors:
    """The field's albedo at each point itself."""

    field: SceneField

    def at(self, points: Float[ndarray, "P 3"], normals: Float[ndarray, "P 3"]) -> Float[ndarray, "P 3"]:
        return self.field.density_and_albedo(torch.from_numpy(np.ascontiguousarray(points, np.float32)))[1].numpy()


def own_charts(uv: Float[ndarray, "V 2"] | None, faces: Int[ndarray, "F 3"], size: int) -> Unwrapped | None:
    """The texture coordinates of a file as charts, where each point of the surface has a place of its own.

    None where there are none, where they leave the image (they repeat), where most faces have no area there, or where
    charts overlap: a texel would need two colours.
    """
    if uv is None or not np.isfinite(uv).all() or uv.min() < -1e-4 or uv.max() > 1.0 + 1e-4:
        return None
    a, b, c = (uv[faces[:, i]].astype(np.float64) for i in range(3))
    area = 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    if np.mean(area * size**2 > 0.5) < 0.9:
        return None
    texels = covered_texels(uv, faces, size)
    if area.sum() * size**2 > (1.0 + LARGEST_OVERLAP) * len(texels.row):
        return None
    return Unwrapped(np.arange(len(uv)), faces, uv, charts_of(uv, faces))


def charts_of(uv: Float[ndarray, "V 2"], faces: Int[ndarray, "F 3"]) -> int:
    """How many connected pieces the faces have."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(len(uv), len(uv)))
    return len(np.unique(connected_components(graph, directed=False)[1][np.unique(faces)]))


def welded_surface(surface: Surface) -> Surface:
    """Vertices at the same point as one, so that a closed mesh with cuts for its texture counts as closed."""
    vertices, place = np.unique(surface.vertices, axis=0, return_inverse=True)
    return Surface(vertices, place.reshape(-1)[surface.faces])
