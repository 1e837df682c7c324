"""Mesh files in the project's world: GLB, glTF, OBJ, PLY, OFF, STL; colours of vertices, materials or textures."""

from __future__ import annotations

import io
import logging
import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from distill3d.data.assets import y_up_to_world
from distill3d.data.gltf_header import check_gltf, with_base_colors
from distill3d.data.mesh_colors import MOST_DIVIDED, coloured
from distill3d.runtime.foreign import ForeignFileError, named, reading
from distill3d.scenes.mesh.fixed import FixedMesh
from distill3d.scenes.mesh.raster import Mesh

log = logging.getLogger(__name__)

UpAxis = Literal["auto", "y", "z"]
SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".off", ".stl")
_GLTF = (".glb", ".gltf")
_REMARK = re.compile(rb"^((?:v|vn|vt|f)[ \t][^\n#]*)#[^\n]*", re.MULTILINE)  # at the end of a line of numbers
_KD = re.compile(rb"^[ \t]*Kd[ \t]+([^\r\n]*)", re.MULTILINE)
_NOT_FINITE = re.compile(rb"^v[ \t][^\n]*[ \t][-+]?(?:nan|inf)", re.MULTILINE | re.IGNORECASE)
_MOST_TRIANGLES = 20_000_000  # a small file can place one mesh any number of times
_INDEX_ZERO = re.compile(rb"^f[ \t][^\n]*?(?<=[ \t])0(?=[/\s]|\Z)", re.MULTILINE)


def load_mesh_file(path: Path, up: UpAxis = "auto", turn_deg: float = 0.0, detail: int = 64, setting: str = "") -> Mesh:
    """The mesh with z up, centred, its farthest vertex at 0.5 from the origin; colours are sRGB in [0, 1].

    up: the file's axis; ``auto``: y for GLB and glTF by their standard; what an OBJ, PLY or STL of this program says;
    else y for OBJ, as Blender and Maya write it, and z for others. A y-up file has its front at +z, a z-up one at +x
    (at -y where it says so), after a turn of ``turn_deg`` about its up axis. Textures are read at the vertices of
    faces that are divided until no edge is longer than the mesh's size over ``detail``. Raises ForeignFileError for a
    file that is missing, has no triangles, or needs a compression that is not read.
    """
    parts = _read_parts(path, setting)
    with reading(path, "a mesh", setting=setting):
        is_gltf, longest = path.suffix.lower() in _GLTF, _size(parts) / detail
        mesh = Mesh.merged([coloured(part, longest, is_gltf, MOST_DIVIDED // len(parts)) for part in parts])
    is_y_up, vertices = _axes(path, up, mesh.vertices)
    return _seen_in_world(replace(mesh, vertices=vertices), is_y_up, turn_deg, path, setting)


def load_fixed_mesh(path: Path, up: UpAxis = "auto", turn_deg: float = 0.0, setting: str = "") -> FixedMesh:
    """The triangles of a file with their own numbers, z up, and placed as `load_mesh_file` places them.

    Texture coordinates are kept where every part has them. Raises ForeignFileError as `load_mesh_file` does.
    """
    parts = _read_parts(path, setting)
    mesh = Mesh.merged([Mesh(np.asarray(p.vertices), np.asarray(p.faces, np.int32), p.vertices) for p in parts])
    is_y_up, vertices = _axes(path, up, mesh.vertices)
    mesh = replace(mesh, vertices=vertices)
    own = (y_up_to_world(vertices) if is_y_up else vertices).astype(np.float32)
    return FixedMesh(own, mesh.faces, _seen_in_world(mesh, is_y_up, turn_deg, path, setting).vertices, _uv(parts))


def _uv(parts: list[Any]) -> Float[ndarray, "V 2"] | None:
    """Texture coordinates of all parts, origin at the upper left; None where one has none."""
    found = [part.visual.uv if part.visual.kind == "texture" else None for part in parts]
    if any(uv is None or len(uv) != len(part.vertices) for uv, part in zip(found, parts, strict=True)):
        return None
    uv = np.concatenate([np.asarray(uv, np.float64)[:, :2] for uv in found])
    return np.stack([uv[:, 0], 1.0 - uv[:, 1]], axis=1).astype(np.float32)


def _read_parts(path: Path, setting: str) -> list[Any]:
    """The triangle meshes of a file, of which there is at least one."""
    if not path.is_file():
        raise ForeignFileError(f"{named(path, setting)} does not exist; give a mesh ({', '.join(SUFFIXES)})")
    header = check_gltf(path, setting) if path.suffix.lower() in _GLTF else None
    with reading(path, "a mesh", setting=setting):
        parts = _parts(path, header)
    if not parts:
        raise ForeignFileError(f"{named(path, setting)} holds no triangles; give a mesh ({', '.join(SUFFIXES)})")
    return parts


def _seen_in_world(mesh: Mesh, is_y_up: bool, turn_deg: float, path: Path, setting: str) -> Mesh:
    """The mesh in the scene's world. Raises ForeignFileError where it has no size."""
    world = _in_world(mesh, is_y_up, turn_deg)
    if not np.ptp(world.vertices[world.faces].reshape(-1, 3), axis=0).any():
        raise ForeignFileError(f"{named(path, setting)}: all vertices coincide; give another mesh")
    return world


def _parts(path: Path, header: dict[str, Any] | None) -> list[Any]:
    """The triangle meshes of a file, each placed by its nodes; ``header``: of a glTF.

    Raises ForeignFileError for vertices without a place, and for too many triangles.
    """
    import trimesh

    scene: Any = _scene(path, header)
    sizes = {name: len(part.faces) for name, part in scene.geometry.items() if isinstance(part, trimesh.Trimesh)}
    places = [(node, sizes[name]) for node in scene.graph.nodes_geometry if sizes.get(name := scene.graph[node][1])]
    if (total := sum(size for _, size in places)) > _MOST_TRIANGLES:
        raise ForeignFileError(
            f"{path} places {len(places)} meshes of {total} triangles in all, more than the {_MOST_TRIANGLES} that are "
            "read; simplify it, or leave out some of its nodes"
        )
    parts = [_placed(scene, node) for node, _ in places]
    for part in parts:
        if not np.isfinite(part.vertices).all():
            raise ForeignFileError(f"{path} has vertices that are not finite; repair the mesh")
        if part.faces.min() < 0 or part.faces.max() >= len(part.vertices):
            raise ForeignFileError(f"{path} has faces whose vertices do not exist; repair the mesh")
    return parts


def _scene(path: Path, header: dict[str, Any] | None) -> Any:
    """All of a file as trimesh reads it, with colours of glTF's extensions where their base colours are."""
    import trimesh
    from trimesh.resolvers import FilePathResolver

    if path.suffix.lower() == ".obj":
        return _of_obj(path)
    data = with_base_colors(path, header) if header else None
    if data is None:
        return trimesh.load(path, process=False, force="scene")
    kind, beside = path.suffix.lower()[1:], FilePathResolver(str(path))
    return trimesh.load(io.BytesIO(data), file_type=kind, resolver=beside, process=False, force="scene")


def _of_obj(path: Path) -> Any:
    """An OBJ without remarks, and without its byte-order mark, which would hide the first vertex.

    Raises ForeignFileError for an index 0.
    """
    import trimesh
    from PIL import Image
    from trimesh.resolvers import FilePathResolver

    class Beside(FilePathResolver):
        """Materials and textures by the names in the file; trimesh passes over what it cannot read without a word."""

        def get(self, name: str) -> bytes:
            try:
                found = super().get(name.replace("\\", "/"))
                if not name.strip().lower().endswith(".mtl"):
                    Image.open(io.BytesIO(found))
            except (OSError, ValueError):
                log.warning("%s: %s is missing or no picture, so its colours are left out", path, name.strip())
                raise
            return _KD.sub(partial(_checked_kd, path), found) if name.strip().lower().endswith(".mtl") else found

    data = _REMARK.sub(rb"\1", path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    if _INDEX_ZERO.search(data):
        raise ForeignFileError(f"{path} has a face with vertex 0, and an OBJ counts from 1; repair the mesh")
    if _NOT_FINITE.search(data):  # among colours, too, which trimesh would make black
        raise ForeignFileError(f"{path} has vertices or colours that are not finite; repair the mesh")
    return trimesh.load(io.BytesIO(data), file_type="obj", resolver=Beside(str(path)), process=False, force="scene")


def _checked_kd(path: Path, line: re.Match[bytes]) -> bytes:
    """A line of an MTL with a material's colour; nothing where it is no colour. Says so, and what is out of range."""
    text = line[1].partition(b"#")[0].decode("utf-8", "replace").strip()
    try:
        numbers = [float(word) for word in text.split()]
    except ValueError:
        numbers = []
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        log.warning("%s: Kd %s is no colour of three numbers; that material has no colour then", path, text[:60])
        return b""
    if not all(0.0 <= number <= 1.0 for number in numbers):
        log.warning("%s: Kd %s is not within 0 .. 1, and cut to it", path, text)
    return b"Kd " + text.encode()  # without a remark, which trimesh would stumble over


def _placed(scene: Any, node: str) -> Any:
    """A node's geometry where it belongs, the attributes of its visual kept (`Trimesh.copy` loses them)."""
    transform, name = scene.graph[node]
    part = scene.geometry[name]
    placed = part.copy()
    if part.visual.kind == "texture" and "color" in part.visual.vertex_attributes.data:
        placed.visual.vertex_attributes["color"] = part.visual.vertex_attributes["color"]
    placed.vertices = part.vertices @ transform[:3, :3].T + transform[:3, 3]
    return placed


def _size(parts: list[Any]) -> float:
    bounds = np.concatenate([part.bounds for part in parts])
    return float(np.ptp(bounds, axis=0).max())


def _axes(path: Path, up: UpAxis, vertices: Float[ndarray, "V 3"]) -> tuple[bool, Float[ndarray, "V 3"]]:
    """Whether y is up, by the file's kind or what it says; and the vertices, with the front of z-up ones at +x."""
    kind, said = path.suffix.lower(), _said(path)
    # an OBJ that this program wrote before it told the axes is z-up
    of_before = kind == ".obj" and "up" not in said and {"prompt", "version"} <= said.keys()
    usual = "y" if kind in (*_GLTF, ".obj") and not of_before else "z"
    found = said["up"] if said.get("up") in ("y", "z") else usual
    is_y_up = (found if up == "auto" else up) == "y"
    if not is_y_up and said.get("front") == "-y":
        vertices = np.stack([-vertices[:, 1], vertices[:, 0], vertices[:, 2]], axis=1)
    return is_y_up, vertices


def _said(path: Path) -> dict[str, str]:
    """What the comments at the head of an OBJ, PLY or STL say, as ``key: value``."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    if path.suffix.lower() == ".stl":
        comments = head[:80].split(b";") if head.startswith(b"distill3d;") else []
    else:
        mark = {".obj": b"# ", ".ply": b"comment "}.get(path.suffix.lower())
        lines = head.split(b"end_header")[0].splitlines() if mark else []
        comments = [line.removeprefix(mark) for line in lines if mark and line.startswith(mark)]
    pairs = (comment.decode("utf-8", "replace").partition(":") for comment in comments)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _in_world(mesh: Mesh, is_y_up: bool, turn_deg: float) -> Mesh:
    """Centred while the numbers are float64: at an offset of a map's coordinates float32 has steps of half a metre."""
    used = mesh.vertices[np.unique(mesh.faces)]
    vertices = mesh.vertices - (0.5 * used.min(0) + 0.5 * used.max(0))
    size = float((0.5 * used.max(0) - 0.5 * used.min(0)).max())
    if size > 0.0:
        vertices = vertices / size  # 1e-30 and 1e300 are no sizes for float32
    turned = y_up_to_world(vertices, turn_deg) if is_y_up else _turned(vertices, turn_deg)
    return Mesh(turned, mesh.faces, mesh.colors.astype(np.float32)).normalized()


def _turned(vertices: Float[ndarray, "V 3"], turn_deg: float) -> Float[ndarray, "V 3"]:
    """About +z."""
    angle = np.deg2rad(turn_deg)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return np.ascontiguousarray(vertices @ rotation.T, np.float32)
