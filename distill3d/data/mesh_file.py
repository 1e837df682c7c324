"""Mesh files in the project's world: GLB, glTF, OBJ, PLY, OFF, STL; colours of vertices, materials or textures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from distill3d.data.assets import y_up_to_world
from distill3d.scenes.mesh.raster import Mesh

UpAxis = Literal["auto", "y", "z"]
SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".off", ".stl")
_Y_UP = (".glb", ".gltf")  # as their standard says
_MAX_FACES = 400_000  # a textured mesh is not divided beyond this


def load_mesh_file(path: Path, up: UpAxis = "auto", turn_deg: float = 0.0, detail: int = 64) -> Mesh:
    """The mesh with z up, centred, its farthest vertex at 0.5 from the origin; colours are sRGB in [0, 1].

    up: the file's axis; ``auto``: y for GLB and glTF, z for others. A y-up file has its front at +z, a z-up one at +x,
    after a turn of ``turn_deg`` about its up axis. Textures are read at the vertices of faces that are divided until
    no edge is longer than the mesh's size over ``detail``. Raises ValueError for a file without triangles.
    """
    import trimesh

    try:
        scene: Any = trimesh.load(path, process=False, force="scene")
    except Exception as error:  # each format's reader has errors of its own
        raise ValueError(f"{path} cannot be read as a mesh: {error}") from error
    parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    if not parts:
        raise ValueError(f"{path} holds no triangles; give a mesh ({', '.join(SUFFIXES)})")
    longest = float(np.max(scene.extents)) / detail
    mesh = Mesh.merged([_coloured(part, longest) for part in parts])
    if not np.isfinite(mesh.vertices).all():
        raise ValueError(f"{path} has vertices that are not finite; repair the mesh")
    is_y_up = path.suffix.lower() in _Y_UP if up == "auto" else up == "y"
    vertices = y_up_to_world(mesh.vertices, turn_deg) if is_y_up else _turned(mesh.vertices, turn_deg)
    return Mesh(vertices, mesh.faces, mesh.colors).normalized()


def _coloured(part: Any, longest: float) -> Mesh:
    if part.visual.kind == "texture" and part.visual.uv is not None:
        while part.edges_unique_length.max() > longest and 4 * len(part.faces) <= _MAX_FACES:
            part = part.subdivide()
        colors = part.visual.to_color().vertex_colors
    else:
        colors = part.visual.vertex_colors
    shades = np.asarray(colors, np.float32)[:, :3] / 255.0
    return Mesh(np.asarray(part.vertices, np.float32), np.asarray(part.faces, np.int32), shades)


def _turned(vertices: np.ndarray, turn_deg: float) -> np.ndarray:
    """About +z."""
    angle = np.deg2rad(turn_deg)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return np.ascontiguousarray(vertices @ rotation.T, np.float32)
