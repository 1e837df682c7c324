"""A folder of three meshes with an index.csv, made on the spot: what the mesh-view tests read."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

COLUMNS = ["noun", "tier", "rank", "category", "variant", "file", "triangles", "front", "note", "author", "licence"]
ROWS = (
    ("apple", "core", 1, "food", "", (200, 30, 30)),
    ("fox", "core", 2, "animal", "+X", (220, 120, 40)),
    ("crown", "core", 3, "object", "", (230, 200, 40)),
    ("van", "extended", 1, "vehicle", "+Z", (40, 60, 200)),
)


def make_assets(folder: Path) -> Path:
    """A sphere, a box whose long side is its front, a torus and a box, in plain colours; y up, as PLY."""
    import trimesh

    shapes = {
        "apple": trimesh.creation.icosphere(subdivisions=2, radius=0.3),
        "fox": trimesh.creation.box((0.8, 0.3, 0.2)),
        "crown": trimesh.creation.torus(0.3, 0.1, major_sections=16, minor_sections=8),
        "van": trimesh.creation.box((0.3, 0.3, 0.7)),
    }
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for noun, tier, rank, category, front, color in ROWS:
            name = f"meshes/{noun}/v0.ply"
            (folder / name).parent.mkdir(parents=True)
            mesh = shapes[noun]
            mesh.visual.vertex_colors = np.tile([*color, 255], (len(mesh.vertices), 1)).astype(np.uint8)
            mesh.export(folder / name)
            row = dict.fromkeys(COLUMNS, "")
            writer.writerow(
                row
                | {"noun": noun, "tier": tier, "rank": rank, "category": category, "variant": 0, "file": name}
                | {"front": front, "licence": "CC0-1.0"}
            )
    return folder
