"""Binary STL, for printing: no colours and no unit, which every slicer takes for millimetres."""

from __future__ import annotations

import struct

import numpy as np

from distill3d.export.formats.asset import Asset
from distill3d.export.formats.obj import comments

HEADER_BYTES = 80
TRIANGLE = np.dtype([("normal", "<f4", (3,)), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def stl_files(asset: Asset, name: str) -> dict[str, bytes]:
    """``name.stl``, in the asset's own frame and units. The header's 80 bytes hold the axes and the prompt's beginning.

    The header does not begin with "solid", by which readers know the textual kind.
    """
    triangles = np.zeros(len(asset.faces), TRIANGLE)
    corners = asset.vertices[asset.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    triangles["normal"], triangles["corners"] = normal / np.maximum(length, 1e-20), corners
    *metadata, up, front = comments(asset)
    header = "; ".join(["distill3d", up, front, *metadata]).encode("ascii", "replace")
    count = struct.pack("<I", len(triangles))
    return {f"{name}.stl": header[:HEADER_BYTES].ljust(HEADER_BYTES) + count + triangles.tobytes()}
