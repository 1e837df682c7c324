"""A surface follows the pictures: to the true shape where it was off, and not at all where it was right."""

import numpy as np
import pytest
import torch
from export_scenes import AnalyticGeometry, MarchingRenderer, sphere
from export_surfaces import extracted

from distill3d.export.surface.extraction import seen_views
from distill3d.export.surface.grid import Box
from distill3d.export.surface.level import surface_likeness_db
from distill3d.export.surface.mesh import Surface, decimated, face_normals, moved, vertex_normals
from distill3d.export.surface.photometric import matched
from distill3d.export.views import fitting_cameras

BOX = Box(torch.full((3,), -0.55), torch.full((3,), 0.55))
SIZE = 1.0


def bands(points: torch.Tensor) -> torch.Tensor:
    """Colours that change over the surface: without any, only silhouettes tell where it is."""
    return 0.5 + 0.4 * torch.sin(12.0 * points + points.new_tensor([0.0, 1.0, 2.0]))


@pytest.fixture(scope="module")
def views():
    geometry = AnalyticGeometry(albedo=bands, sharpness=3000.0)  # else its rim is opaque well outside
    return seen_views(MarchingRenderer(geometry, steps=192), fitting_cameras(BOX, 12, 48))


def off(surface: Surface) -> float:
    return float(sphere(torch.from_numpy(surface.vertices)).abs().mean())


@pytest.mark.parametrize("change", [-0.02, 0.02])
def test_a_ball_of_the_wrong_size_gets_the_right_one(views, change):
    right = decimated(extracted(sphere, 40), 2000)
    wrong = Surface((right.vertices * np.float32(1.0 + change / 0.5)).astype(np.float32), right.faces)
    after = matched(wrong, views, SIZE)
    assert off(after) < 0.35 * off(wrong)
    assert surface_likeness_db(after, views) > surface_likeness_db(wrong, views) + 1.0
    assert np.array_equal(after.faces, wrong.faces)


def test_bumps_that_no_picture_shows_go_down(views):
    right = decimated(extracted(sphere, 40), 2000)
    bumps = 0.12 * np.sin(8.0 * right.vertices).prod(axis=1, keepdims=True) * vertex_normals(right)
    wrong = Surface((right.vertices + bumps).astype(np.float32), right.faces)
    assert off(matched(wrong, views, SIZE)) < 0.85 * off(wrong)


def test_a_surface_that_is_right_stays(views):
    right = decimated(extracted(sphere, 40), 2000)
    assert off(matched(right, views, SIZE)) < off(right) + 0.003


def test_no_face_turns_over():
    surface = decimated(extracted(sphere, 24), 500)
    draw = np.random.default_rng(0).normal(size=len(surface.vertices))
    after = moved(surface, (0.1 * draw).astype(np.float32))
    kept = (face_normals(surface) * face_normals(after)).sum(axis=1)
    assert (kept > 0.0).mean() > 0.8 and len(after.faces) == len(surface.faces)


def test_what_no_view_shows_is_left_alone(views):
    surface = decimated(extracted(sphere, 24), 500)
    away = Surface(surface.vertices + np.float32([0.0, 0.0, 50.0]), surface.faces)
    assert np.array_equal(matched(away, views, SIZE).vertices, away.vertices)
