"""Surfaces: measures, parts, smoothing, decimation, normals."""

import numpy as np
import pytest
import torch
from export_scenes import sphere, torus
from export_surfaces import CORNERS, CUBE, extracted, joined, moved

from distill3d.export.surface.mesh import (
    Surface,
    decimated,
    face_normals,
    largest_parts,
    smoothed,
    vertex_normals,
    without_unused_vertices,
)


def test_volume_and_closedness_of_a_cube():
    assert CUBE.volume == pytest.approx(1.0)
    assert moved(CUBE, (5, 6, 7), 2.0).volume == pytest.approx(8.0)
    assert moved(CUBE, (0, 0, 0), inside_out=True).volume == pytest.approx(-1.0)
    assert CUBE.is_watertight
    assert not Surface(CUBE.vertices, CUBE.faces[1:]).is_watertight
    flipped = CUBE.faces.copy()
    flipped[0] = flipped[0, ::-1]
    assert not Surface(CUBE.vertices, flipped).is_watertight


def test_vertex_normals_of_a_cube_are_its_diagonals_however_the_faces_are_cut():
    np.testing.assert_allclose(vertex_normals(CUBE), (2.0 * CORNERS - 1.0) / np.sqrt(3.0), atol=1e-6)


def test_a_vertex_of_degenerate_faces_still_has_a_unit_normal():
    line = Surface(np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]], np.float32), np.array([[0, 1, 2]]))
    np.testing.assert_allclose(np.linalg.norm(vertex_normals(line), axis=1), 1.0)


def test_parts_by_area_and_the_walls_of_cavities_go():
    scene = joined(
        moved(CUBE, (3, 0, 0), 0.5),
        CUBE,
        moved(CUBE, (0.25, 0.25, 0.25), 0.5, inside_out=True),
        moved(CUBE, (0, 3, 0), 0.1),
    )
    kept, dropped = largest_parts(scene, keep_parts=8, min_part_share=0.02)
    assert kept.volume == pytest.approx(1.125) and dropped == 2
    only, dropped = largest_parts(scene, keep_parts=1, min_part_share=0.0)
    assert only.volume == pytest.approx(1.0) and dropped == 3
    np.testing.assert_array_equal(np.unique(only.faces), np.arange(8))


def test_a_blade_beside_the_object_stays_though_it_has_hardly_any_volume():
    blade = Surface(CUBE.vertices * np.array([0.6, 0.2, 0.01], np.float32) + np.float32(2.0), CUBE.faces)
    assert blade.volume < 0.002
    kept, dropped = largest_parts(joined(CUBE, blade), keep_parts=8, min_part_share=0.02)
    assert dropped == 0 and kept.volume == pytest.approx(1.0012, rel=1e-4)


def test_unused_vertices_go():
    surface = without_unused_vertices(Surface(np.concatenate([CORNERS + 9, CORNERS]), CUBE.faces + 8))
    np.testing.assert_array_equal(surface.vertices, CORNERS)
    np.testing.assert_array_equal(surface.faces, CUBE.faces)


def test_smoothing_removes_noise_and_keeps_the_volume():
    surface = extracted(sphere)
    noise = np.random.default_rng(0).normal(scale=0.008, size=surface.vertices.shape).astype(np.float32)
    noisy = Surface(surface.vertices + noise, surface.faces)
    smooth = smoothed(noisy, 10)
    spread = lambda s: float(np.linalg.norm(s.vertices, axis=1).std())  # noqa: E731
    assert spread(smooth) < 0.5 * spread(noisy)
    assert smooth.volume == pytest.approx(surface.volume, rel=0.01)


def test_decimation_keeps_shape_and_orientation():
    surface = extracted(torus)
    simple = decimated(surface, 1200)
    assert len(simple.faces) <= 1200
    assert simple.volume == pytest.approx(surface.volume, rel=0.02)
    assert float(torus(torch.from_numpy(simple.vertices)).abs().mean()) < 0.005
    assert (face_normals(simple) * vertex_normals(simple)[simple.faces[:, 0]]).sum(axis=1).min() > 0
    assert decimated(surface, len(surface.faces)) is surface
