"""UV unwrapping, and baking of a surface's colours and normals into images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

from distill3d.export.surface.mesh import Surface, vertex_normals

PADDING = 4  # texels between charts, so that bilinear filtering and the first mipmaps stay within a chart's gutter
CANDIDATES_PER_CHUNK = 1 << 20


class PointColors(Protocol):
    """Display-referred colours at points of a surface, whose unit normals point outwards."""

    def at(self, points: Float[ndarray, "P 3"], normals: Float[ndarray, "P 3"]) -> Float[ndarray, "P 3"]: ...


@dataclass(frozen=True)
class Unwrapped:
    """A surface cut along its seams: vertex i is ``origin[i]`` of the closed surface, at ``uv[i]`` of the image."""

    origin: Int[ndarray, "V"]
    faces: Int[ndarray, "F 3"]
    uv: Float[ndarray, "V 2"]  # origin at the upper left
    charts: int


@dataclass(frozen=True)
class Texels:
    """The texel centres that triangles cover, each once."""

    row: Int[ndarray, "T"]
    column: Int[ndarray, "T"]
    face: Int[ndarray, "T"]
    barycentric: Float[ndarray, "T 3"]

    def interpolate(self, attribute: Float[ndarray, "V A"], faces: Int[ndarray, "F 3"]) -> Float[ndarray, "T A"]:
        return np.einsum("tk,tka->ta", self.barycentric, attribute[faces[self.face]])


def unwrap(
    surface: Surface, size: int, chart_options: dict[str, Any] | None = None, pack_options: dict[str, Any] | None = None
) -> Unwrapped:
    """Cut into charts and pack them without overlap into a square image of ``size`` texels (xatlas).

    The options are xatlas' own names. Raises ValueError for one that it does not have.
    """
    import xatlas

    charts, packing = xatlas.ChartOptions(), xatlas.PackOptions()
    packing.resolution, packing.padding, packing.bilinear = size, PADDING, True
    _set_options(charts, chart_options, "xatlas_chart_options")
    _set_options(packing, pack_options, "xatlas_pack_options")
    atlas = xatlas.Atlas()
    atlas.add_mesh(surface.vertices.astype(np.float32), surface.faces.astype(np.uint32))
    atlas.generate(charts, packing)
    origin, faces, uv = atlas[0]
    return Unwrapped(origin.astype(np.int64), faces.astype(np.int64), uv.astype(np.float32), atlas.chart_count)


def covered_texels(uv: Float[ndarray, "V 2"], faces: Int[ndarray, "F 3"], size: int) -> Texels:
    """Rasterise the triangles at texel centres ``((column + 1/2) / size, (row + 1/2) / size)``."""
    corners = uv[faces].astype(np.float64) * size - 0.5  # texel centres lie at whole numbers
    low = np.clip(np.ceil(corners.min(axis=1)), 0, size - 1).astype(np.int64)
    high = np.clip(np.floor(corners.max(axis=1)), -1, size - 1).astype(np.int64)
    width = np.maximum(high - low + 1, 0)
    count = width.prod(axis=1)
    chunk = np.cumsum(count) // CANDIDATES_PER_CHUNK
    found = [
        _covered_by(np.flatnonzero((chunk == c) & (count > 0)), corners, low, width, count) for c in np.unique(chunk)
    ]
    column, row, face, barycentric = (np.concatenate(part) for part in zip(*found, strict=True))
    _, first = np.unique(row * size + column, return_index=True)  # centres on shared edges belong to one face
    return Texels(row[first], column[first], face[first], barycentric[first].astype(np.float32))


def bake(
    colors: PointColors, surface: Surface, unwrapped: Unwrapped, size: int, detail: Surface | None = None
) -> tuple[UInt8[ndarray, "H W 3"], UInt8[ndarray, "H W 3"] | None, Float[ndarray, "V 4"] | None]:
    """Albedo at texel centres and, from a surface with more ``detail``, normal map and tangents.

    What no triangle covers takes the nearest covered texel's value, so filtering never sees a seam.
    """
    texels = covered_texels(unwrapped.uv, unwrapped.faces, size)
    vertices, normals = surface.vertices[unwrapped.origin], vertex_normals(surface)[unwrapped.origin]
    normal = _unit(texels.interpolate(normals, unwrapped.faces))
    points = texels.interpolate(vertices, unwrapped.faces)
    nearest = nearest_covered(texels, size)
    albedo = _image(colors.at(points, normal), nearest)
    if detail is None:
        return albedo, None, None
    tangents = vertex_tangents(vertices, normals, unwrapped)
    tangent_space = _in_tangent_space(normals_of(detail, points), normal, tangents, texels, unwrapped.faces)
    return albedo, _image(0.5 + 0.5 * tangent_space, nearest), tangents


def normals_of(detail: Surface, points: Float[ndarray, "P 3"], neighbours: int = 4) -> Float[ndarray, "P 3"]:
    """Unit normals of a fine surface near points: the mean of its nearest vertices', by inverse square distance."""
    from scipy.spatial import KDTree

    distance, index = KDTree(detail.vertices).query(points, neighbours)
    weight = 1.0 / (distance**2 + 1e-12)
    return _unit((weight[:, :, None] * vertex_normals(detail)[index]).sum(axis=1))


def nearest_covered(texels: Texels, size: int) -> Int[ndarray, "H W"]:
    """For each texel of the image the index of the nearest covered one."""
    from scipy.ndimage import distance_transform_edt

    index = np.full((size, size), -1, np.int64)
    index[texels.row, texels.column] = np.arange(len(texels.row))
    nearest = np.asarray(distance_transform_edt(index < 0, return_distances=False, return_indices=True))
    return index[nearest[0], nearest[1]]


def vertex_tangents(
    vertices: Float[ndarray, "V 3"], normals: Float[ndarray, "V 3"], unwrapped: Unwrapped
) -> Float[ndarray, "V 4"]:
    """Unit vectors along growing u, orthogonal to the normals, and the sign that makes the bitangent point up.

    With edges e1, e2 and texture differences d1, d2: ``dP/du = (e1 dv2 - e2 dv1) / (du1 dv2 - du2 dv1)``.
    """
    faces = unwrapped.faces
    e1, e2 = (vertices[faces[:, i]] - vertices[faces[:, 0]] for i in (1, 2))
    d1, d2 = (unwrapped.uv[faces[:, i]] - unwrapped.uv[faces[:, 0]] for i in (1, 2))
    sign = np.sign(d1[:, 0] * d2[:, 1] - d2[:, 0] * d1[:, 1])[:, None]
    along_u = sign * (e1 * d2[:, 1:] - e2 * d1[:, 1:])
    along_v = sign * (e2 * d1[:, :1] - e1 * d2[:, :1])
    u, v = np.zeros(vertices.shape), np.zeros(vertices.shape)
    for i in range(3):
        np.add.at(u, faces[:, i], along_u)
        np.add.at(v, faces[:, i], along_v)
    tangent = _unit(u - (u * normals).sum(axis=1, keepdims=True) * normals, fallback=_any_orthogonal(normals))
    up = -(np.cross(normals, tangent) * v).sum(axis=1, keepdims=True)  # v grows downwards in the image
    return np.concatenate([tangent, np.where(up < 0, -1.0, 1.0)], axis=1).astype(np.float32)


def _in_tangent_space(
    world: Float[ndarray, "T 3"],
    normal: Float[ndarray, "T 3"],
    tangents: Float[ndarray, "V 4"],
    texels: Texels,
    faces: Int[ndarray, "F 3"],
) -> Float[ndarray, "T 3"]:
    """World normals in the basis (tangent, bitangent, normal); the flat normal where the field has none."""
    tangent = texels.interpolate(tangents, faces)
    handedness = np.where(tangent[:, 3:] < 0, -1.0, 1.0)
    along_u = _unit(tangent[:, :3], fallback=_any_orthogonal(normal))
    bitangent = np.cross(normal, along_u) * handedness
    local = np.stack([(world * axis).sum(axis=1) for axis in (along_u, bitangent, normal)], axis=1)
    local[:, 2] = np.maximum(local[:, 2], 0.05)  # a normal that points into the surface would render black
    missing: Bool[ndarray, "T"] = np.linalg.norm(world, axis=1) < 0.5
    local[missing] = (0.0, 0.0, 1.0)
    return _unit(local)


def _covered_by(
    face: Int[ndarray, "F"], corners: ndarray, low: ndarray, width: ndarray, count: ndarray
) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """Column, row, face and barycentric coordinates of the candidates that lie inside these faces."""
    owner = np.repeat(face, count[face])
    within = np.arange(len(owner)) - np.repeat(np.cumsum(count[face]) - count[face], count[face])
    column, row = low[owner, 0] + within % width[owner, 0], low[owner, 1] + within // width[owner, 0]
    a, b, c = (corners[owner, i] for i in range(3))
    p = np.stack([column, row], axis=1)
    area = _cross2(b - a, c - a)
    area = np.where(area == 0.0, np.nan, area)  # nothing lies inside a triangle without area
    wa, wb = _cross2(b - p, c - p) / area, _cross2(c - p, a - p) / area
    barycentric = np.stack([wa, wb, 1.0 - wa - wb], axis=1)
    inside = (barycentric >= -1e-9).all(axis=1)
    return column[inside], row[inside], owner[inside], barycentric[inside]


def _cross2(a: Float[ndarray, "N 2"], b: Float[ndarray, "N 2"]) -> Float[ndarray, "N"]:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _unit(vectors: Float[ndarray, "N 3"], fallback: Float[ndarray, "N 3"] | None = None) -> Float[ndarray, "N 3"]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    other = np.array([[0.0, 0.0, 1.0]]) if fallback is None else fallback
    return np.where(length > 1e-12, vectors / np.maximum(length, 1e-12), other).astype(np.float32)


def _any_orthogonal(normals: Float[ndarray, "N 3"]) -> Float[ndarray, "N 3"]:
    axis = np.where(np.abs(normals[:, :1]) < 0.9, np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 1.0, 0.0]]))
    return _unit(np.cross(normals, axis))


def _image(values: Float[ndarray, "T 3"], nearest: Int[ndarray, "H W"]) -> UInt8[ndarray, "H W 3"]:
    return np.round(255.0 * np.clip(values, 0.0, 1.0)).astype(np.uint8)[nearest]


def _set_options(options: Any, values: dict[str, Any] | None, setting: str) -> None:
    known = [name for name in dir(options) if not name.startswith("_")]
    for name, value in (values or {}).items():
        if name not in known:
            raise ValueError(f"system.exporter.{setting}.{name} is unknown to xatlas; choose from {', '.join(known)}")
        setattr(options, name, value)
