"""The OBJ that is painted is a closed mesh whose texture coordinates are usable."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from texture_mesh import cupcake

from distill3d.data.mesh_file import load_fixed_mesh
from distill3d.export.painted import own_charts, welded_surface
from distill3d.export.surface.mesh import Surface


def test_the_cupcake_is_upright_far_from_the_origin_and_keeps_its_texture_coordinates(tmp_path):
    path = tmp_path / "cupcake.obj"
    path.write_text(cupcake(), encoding="utf-8")
    mesh = load_fixed_mesh(path)
    faces = mesh.faces.astype(np.int64)
    assert own_charts(mesh.uv, faces, 1024) is not None
    assert np.linalg.norm(mesh.vertices.mean(axis=0)) > 40.0
    assert welded_surface(Surface(mesh.placed, faces)).volume > 0.1
    low = mesh.placed[:, 2] < mesh.placed[:, 2].min() + 0.02
    assert np.ptp(mesh.placed[low][:, 0]) < 0.8 * np.ptp(mesh.placed[:, 0])  # its case is narrow at the base
