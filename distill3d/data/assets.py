"""A folder of meshes with an index.csv, as the prior's training data: nouns, files, and where each front looks."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill3d.runtime.foreign import ForeignFileError, read_text, reading
from distill3d.scenes.mesh.raster import Mesh

# rotations about +Y, in degrees, that bring a front to +Z
_TURN_TO_FRONT = {"": 0.0, "+Z": 0.0, "-Z": 180.0, "+X": -90.0, "-X": 90.0}
# fronts that the index leaves open ("X-axis?") or has the wrong way round, decided by looking at four views of each
FRONT_BY_EYE = {
    "meshes/airplane/v0.ply": "-X",
    "meshes/bee/v2.ply": "+X",
    "meshes/bicycle/v0.ply": "+X",
    "meshes/bus/v0.ply": "-X",
    "meshes/chair/v1.ply": "+Z",
    "meshes/chick/v0.ply": "+X",
    "meshes/dog/v1.ply": "+X",
    "meshes/ice_cream_truck/v0.ply": "+X",
    "meshes/office_chair/v0.ply": "-Z",
    "meshes/school_bus/v0.ply": "-X",
    "meshes/tank/v0.ply": "-X",
    "meshes/tank/v1.ply": "-X",
    "meshes/treasure_chest/v0.ply": "+X",
}


@dataclass(frozen=True)
class Asset:
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


def read_index(folder: Path | str) -> list[Asset]:
    """All assets of a folder in the order of its index.csv.

    Raises FileNotFoundError without an index, ValueError for a row whose mesh is missing or whose front is unknown.
    """
    folder = Path(folder)
    index = folder / "index.csv"
    if not index.is_file():
        raise FileNotFoundError(f"data.assets={folder} holds no index.csv; point it to a folder of meshes that has one")
    text = read_text(index, "CSV", setting="data.assets")
    with reading(index, "an index of meshes", "its columns are noun, file, tier, rank, category, variant and front"):
        rows = csv.DictReader(text.splitlines())
        return [_asset(folder, row, number) for number, row in enumerate(rows, start=2)]


def first_variants(assets: list[Asset], count: int | None) -> list[Asset]:
    """Of each noun the ``count`` meshes of the lowest variant; None: all."""
    variants: dict[str, list[int]] = {}
    for asset in assets:
        variants.setdefault(asset.noun, []).append(asset.variant)
    return [asset for asset in assets if asset.variant in sorted(variants[asset.noun])[:count]]


def _asset(folder: Path, row: dict[str, str], line: int) -> Asset:
    path = folder / row["file"]
    if not path.is_file():
        raise ForeignFileError(f"{folder}/index.csv line {line}: {row['file']} does not exist")
    front = FRONT_BY_EYE.get(row["file"], row.get("front", ""))
    if front not in _TURN_TO_FRONT:
        raise ForeignFileError(
            f"{folder}/index.csv line {line}: front={front!r}; expected one of {sorted(_TURN_TO_FRONT)}"
        )
    return Asset(
        row["noun"], row.get("tier") == "core", int(row["rank"]), row["category"], int(row["variant"]), path, front
    )


def load_mesh(asset: Asset) -> Mesh:
    """The mesh in the world frame (front at +x, z up), its farthest vertex at 0.5 from the origin, sRGB in [0, 1]."""
    import trimesh

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
