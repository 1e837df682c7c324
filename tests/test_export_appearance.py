"""Colours along the normal: exact for sharp fields, composited for soft ones."""

import math

import torch
from export_scenes import AnalyticGeometry, smooth_colors, sphere

from distill3d.export.appearance import seen_along_normals
from distill3d.export.query import SceneField

DIRECTIONS = torch.nn.functional.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(0)), dim=1)


def test_a_sharp_field_shows_its_surface_wherever_the_point_started():
    field = SceneField(AnalyticGeometry(), 1.0)
    for radius in (0.49, 0.5, 0.505):
        color, points = seen_along_normals(field, DIRECTIONS * radius, DIRECTIONS, 0.02)
        assert float((color - smooth_colors(0.5 * DIRECTIONS)).abs().mean()) < 1.5 / 255.0
        assert float(sphere(points).abs().mean()) < 0.005


def test_a_soft_slab_shows_its_inside():
    """Density s below z = 0, albedo exp(z / d): ``integral s exp(-s u) exp(-u / d) du = s d / (s d + 1)``."""
    s, d = 40.0, 0.05
    geometry = AnalyticGeometry(albedo=lambda p: torch.exp(p[:, 2:].clamp_max(0.0) / d).expand(-1, 3))
    geometry.density = lambda p: s * (p[:, 2] < 0.0).float()
    up = torch.tensor([[0.0, 0.0, 1.0]]).expand(10, 3)
    color, _ = seen_along_normals(SceneField(geometry, 1.0), torch.zeros(10, 3), up, 0.02)
    assert math.isclose(float(color.mean()), s * d / (s * d + 1.0), abs_tol=0.02)


def test_where_nothing_is_dense_the_albedo_stands():
    field = SceneField(AnalyticGeometry(lambda p: p[:, 0] * 0.0 + 1.0), 1.0)
    color, points = seen_along_normals(field, 0.5 * DIRECTIONS, DIRECTIONS, 0.02)
    torch.testing.assert_close(color, smooth_colors(0.5 * DIRECTIONS))
    torch.testing.assert_close(points, 0.5 * DIRECTIONS)
