"""A folder of meshes with an index.csv, as the prior's training data: nouns, files, and where each front looks."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from distill3d.runtime.foreign import ForeignFileError, read_text, reading
from distill3d.scenes.mesh.raster import Mesh

# rotations about +Y, in degrees, that bring a front to +Z
_TURN_TO_FRONT = {"": 0.0, "+Z": 0.0, "-Z": 180.0, "+X": -90.0, "-X": 90.0}
# fronts that an index leaves open ("X-axis?") or has the wrong way round, decided by looking at four views of each; by
# the hash of the mesh, so that they hold for these files wherever they lie, and for no other of the same name
_CORRECTIONS = Path(__file__).with_name("front_corrections.csv")


@dataclass(frozen=True)
class MeshEntry:
    """One mesh file of one noun."""

    noun: str
    core: bool
    rank: int
    category: str
    variant: int
    path: Path
    front: str  # "+Z", "+X", ... in the file's frame; "" for symmetric or unknown

    @property
    def has_front(self) -> bool:
        return self.front != ""


def read_index(folder: Path | str) -> list[MeshEntry]:
    """All assets of a folder in the order of its index.csv.

    Raises FileNotFoundError without an index, ValueError for a row whose mesh is missing or whose front is unknown.
    """
    folder = Path(folder)
    index = folder / "index.csv"
    if not index.is_file():
        raise FileNotFoundError(f"data.assets={folder} holds no index.csv; point it to a folder of meshes that has one")
    with reading(index, "an index of meshes", "its columns are noun, file, tier, rank, category, variant and front"):
        return [_asset(folder, row, number) for number, row in enumerate(read_rows(index), start=2)]


def read_rows(index: Path) -> list[dict[str, str]]:
    """The lines of an index.csv by their columns."""
    return list(csv.DictReader(read_text(index, "CSV", setting="data.assets").splitlines()))


def first_variants(assets: list[MeshEntry], count: int | None) -> list[MeshEntry]:
    """Of each noun the ``count`` meshes of the lowest variant; None: all."""
    variants: dict[str, list[int]] = {}
    for asset in assets:
        variants.setdefault(asset.noun, []).append(asset.variant)
    return [asset for asset in assets if asset.variant in sorted(variants[asset.noun])[:count]]


def _asset(folder: Path, row: dict[str, str], line: int) -> MeshEntry:
    path = folder / row["file"]
    if not path.is_file():
        raise ForeignFileError(f"{folder}/index.csv line {line}: {row['file']} does not exist")
    front = _corrected_front(path, row["file"]) or row.get("front") or ""
    if front not in _TURN_TO_FRONT:
        raise ForeignFileError(
            f"{folder}/index.csv line {line}: front={front!r}; expected one of {sorted(_TURN_TO_FRONT)}"
        )
    return MeshEntry(
        row["noun"], row.get("tier") == "core", int(row["rank"]), row["category"], int(row["variant"]), path, front
    )


def _corrected_front(path: Path, name: str) -> str | None:
    for digest, front in _corrections().get(name, ()):
        if hashlib.sha256(path.read_bytes()).hexdigest() == digest:
            return front
    return None


@cache
def _corrections() -> dict[str, list[tuple[str, str]]]:
    """Hash and front by the file's name, which spares the hashes of all other files."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in read_rows(_CORRECTIONS):
        found.setdefault(row["file"], []).append((row["sha256"], row["front"]))
    return found


def load_mesh(asset: MeshEntry) -> Mesh:
    """The mesh in the world frame (front at +x, z up), its farthest vertex at 0.5 from the origin, sRGB in [0, 1].

    A PLY has its colours at the vertices; any other file is read with its materials and textures, y up.
    """
    import trimesh

    if asset.path.suffix.lower() != ".ply":
        from distill3d.data.mesh_file import load_mesh_file

        return load_mesh_file(asset.path, "y", _TURN_TO_FRONT[asset.front], setting="data.assets")
    with reading(asset.path, "a mesh with colours at its vertices", setting="data.assets"):
        loaded = trimesh.load(asset.path, process=False)
        vertices = np.asarray(loaded.vertices, np.float32)  # type: ignore[union-attr]
        colors = np.asarray(loaded.visual.vertex_colors, np.float32)[:, :3] / 255.0  # type: ignore[union-attr]
        faces = np.asarray(loaded.faces, np.int32)  # type: ignore[union-attr]
    return Mesh(y_up_to_world(vertices, _TURN_TO_FRONT[asset.front]), faces, colors).normalized()


def y_up_to_world(vertices: np.ndarray, turn_deg: float = 0.0) -> np.ndarray:
    """Turn about +Y, then (x, y, z) of a y-up file with its front at +z to the world's (z, x, y)."""
    angle = np.deg2rad(turn_deg)
    x, y, z = vertices.T
    turned_x, turned_z = np.cos(angle) * x + np.sin(angle) * z, -np.sin(angle) * x + np.cos(angle) * z
    return np.ascontiguousarray(np.stack([turned_z, turned_x, y], axis=1), np.float32)
