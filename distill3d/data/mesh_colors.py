"""Colours at the vertices of a mesh from a file: its own, its material's, or its texture's."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from distill3d.runtime.foreign import eight_bits
from distill3d.runtime.srgb import linear_from_srgb, srgb_from_linear
from distill3d.scenes.mesh.raster import Mesh

MOST_DIVIDED = 4_000_000  # triangles that the textured meshes of a file may have after their division, in all
_MAX_FACES = 400_000  # and one of them
_GREY = 102.0 / 255.0  # of a mesh that says nothing about its colour: trimesh's own


def coloured(part: Any, longest: float, linear: bool, most: int = _MAX_FACES) -> Mesh:
    """A trimesh as a `Mesh` in float64, its colours sRGB in [0, 1].

    Textures are read at the vertices of faces that are divided until no edge is longer than ``longest``, or there are
    ``most``. ``linear``: the file's factors and vertex colours are linear, as glTF's are; there base colour =
    texture x factor x COLOR_0. Raises ValueError for colours that are not finite.
    """
    from trimesh.visual.color import uv_to_color

    vertices, faces = np.asarray(part.vertices, np.float64), np.asarray(part.faces, np.int64)
    if part.visual.kind != "texture":
        own = _shades(part.visual.vertex_colors if part.visual.kind else np.full((len(vertices), 3), _GREY))
        return Mesh(vertices, faces.astype(np.int32), srgb_from_linear(own) if linear and part.visual.kind else own)
    material, uv = part.visual.material, part.visual.uv
    attributes = {"color": _shades(part.visual.vertex_attributes.data.get("color", np.ones((len(vertices), 3))))}
    has_texture = uv is not None and len(uv) == len(vertices) and _texture(material) is not None
    if has_texture:
        attributes["uv"] = np.nan_to_num(np.asarray(uv, np.float64)[:, :2], posinf=0.0, neginf=0.0)
        vertices, faces, attributes = _divided(vertices, faces, attributes, longest, min(most, _MAX_FACES))
    color = attributes["color"] * (_factor(material) if linear or not has_texture else 1.0)
    if has_texture:
        seen = _shades(uv_to_color(attributes["uv"], eight_bits(_texture(material))))
        color = srgb_from_linear(linear_from_srgb(seen) * color) if linear else seen * color
    elif linear:
        color = srgb_from_linear(color)
    return Mesh(vertices, faces.astype(np.int32), color.astype(np.float32))


def _texture(material: Any) -> Any:
    """The picture of a material, by glTF's name or by OBJ's."""
    from trimesh.visual.material import PBRMaterial

    return material.baseColorTexture if isinstance(material, PBRMaterial) else material.image


def _factor(material: Any) -> Float[ndarray, "3"]:
    """A material's one colour: glTF's baseColorFactor (linear), OBJ's Kd. White where a texture stands alone."""
    from trimesh.visual.material import PBRMaterial

    color = material.baseColorFactor if isinstance(material, PBRMaterial) else material.main_color
    return np.ones(3, np.float32) if color is None else _shades(np.asarray(color)[None])[0]


def _divided(
    vertices: ndarray, faces: ndarray, attributes: dict[str, ndarray], longest: float, most: int
) -> tuple[ndarray, ndarray, dict[str, ndarray]]:
    """Each face as four, again and again, until the edges are short or there are too many faces."""
    from trimesh.remesh import subdivide

    while 4 * len(faces) <= most and _longest_edge(vertices, faces) > longest:
        vertices, faces, attributes = subdivide(vertices, faces, vertex_attributes=attributes)  # type: ignore[assignment]
    return vertices, faces, attributes


def _longest_edge(vertices: ndarray, faces: ndarray) -> float:
    corners = vertices[faces]
    return float(np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max())


def _shades(colors: Any) -> Float[ndarray, "N 3"]:
    """The first three channels in [0, 1]: integers by their range, one channel as grey. Raises ValueError for NaN."""
    values = np.asarray(colors)
    top = float(np.iinfo(values.dtype).max) if values.dtype.kind in "iu" else 1.0
    values = values.astype(np.float32) / top
    if not np.isfinite(values).all():
        raise ValueError("its colours hold NaN or infinity; repair the mesh")
    values = values[:, None] if values.ndim == 1 else values
    return np.clip(values[:, :3] if values.shape[1] >= 3 else np.repeat(values[:, :1], 3, axis=1), 0.0, 1.0)
