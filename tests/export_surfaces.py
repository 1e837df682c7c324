"""Surfaces for the export tests: a unit cube, copies of it, and isosurfaces of the analytic scenes."""

from __future__ import annotations

import numpy as np
import torch
from export_scenes import AnalyticGeometry

from distill3d.export.query import SceneField
from distill3d.export.surface.grid import Box, scan
from distill3d.export.surface.isosurface import extract_isosurface
from distill3d.export.surface.mesh import Surface

CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float32)
QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
CUBE = Surface(CORNERS, np.array([t for a, b, c, d in QUADS for t in ((a, b, c), (a, c, d))], np.int64))


def joined(*surfaces: Surface) -> Surface:
    offsets = np.cumsum([0, *(len(s.vertices) for s in surfaces)])
    faces = np.concatenate([s.faces + o for s, o in zip(surfaces, offsets[:-1], strict=True)])
    return Surface(np.concatenate([s.vertices for s in surfaces]), faces)


def moved(surface: Surface, offset: tuple, scale: float = 1.0, inside_out: bool = False) -> Surface:
    faces = surface.faces[:, ::-1] if inside_out else surface.faces
    return Surface(surface.vertices * np.float32(scale) + np.float32(offset), faces)


def extracted(distance, cells: int = 40) -> Surface:
    cube = Box(torch.full((3,), -0.7), torch.full((3,), 0.7))
    return extract_isosurface(scan(SceneField(AnalyticGeometry(distance, sharpness=100.0), 1.0), cube, cells), 1000.0)
