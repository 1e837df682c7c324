"""Stanford PLY with colours at the vertices."""

from __future__ import annotations

import numpy as np

from distill3d.export.formats.asset import Asset
from distill3d.export.formats.obj import comments


def ply_files(asset: Asset, name: str) -> dict[str, bytes]:
    """``name.ply``: binary, little-endian, in the asset's frame; sRGB-encoded 8-bit colours.

    trimesh writes no metadata and adds an alpha, which some readers do not know.
    """
    names = ["x", "y", "z", "nx", "ny", "nz"]
    vertex = np.dtype([*((n, "<f4") for n in names), *((n, "u1") for n in ("red", "green", "blue"))])
    vertices = np.empty(len(asset.vertices), vertex)
    for i, n in enumerate(names):
        vertices[n] = (asset.vertices if i < 3 else asset.normals)[:, i % 3]
    for i, n in enumerate(("red", "green", "blue")):
        vertices[n] = np.round(255.0 * np.clip(asset.colors[:, i], 0.0, 1.0))
    faces = np.empty(len(asset.faces), np.dtype([("count", "u1"), ("index", "<i4", (3,))]))
    faces["count"], faces["index"] = 3, asset.faces
    return {
        f"{name}.ply": _header(asset, vertex).encode("ascii", "backslashreplace") + vertices.tobytes() + faces.tobytes()
    }


def _header(asset: Asset, vertex: np.dtype) -> str:
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {line}" for line in comments(asset))]
    lines.append(f"element vertex {len(asset.vertices)}")
    lines += [f"property {'float' if vertex[n].kind == 'f' else 'uchar'} {n}" for n in vertex.names or ()]
    lines += [f"element face {len(asset.faces)}", "property list uchar int vertex_indices", "end_header"]
    return "\n".join(lines) + "\n"
