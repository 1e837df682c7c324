"""The automatic threshold reproduces the silhouettes of the render."""

import math

import pytest
import torch
from export_scenes import AnalyticGeometry, MarchingRenderer, sphere

from distill3d.export.query import SceneField
from distill3d.export.surface.grid import Box, DensityGrid, scan
from distill3d.export.surface.threshold import choose_threshold, intersection_over_union, largest_density
from distill3d.export.views import surrounding_cameras

CUBE = Box(torch.full((3,), -0.8), torch.full((3,), 0.8))


def test_a_soft_ball_is_cut_where_it_turns_opaque():
    """Density ``20 exp(-r^2 / 2 s^2)``: a ray that passes at r has depth ``20 exp(-r^2 / 2 s^2) s sqrt(2 pi)``."""
    s, peak = 0.2, 20.0
    geometry = AnalyticGeometry()
    geometry.density = lambda points: peak * torch.exp(-points.square().sum(-1) / (2 * s * s))
    cameras = surrounding_cameras(CUBE, 4, 64)
    opaque = MarchingRenderer(geometry).render(cameras).opacity[:, 0] > 0.5
    choice = choose_threshold(scan(SceneField(geometry, 1.0), CUBE, 48), cameras, opaque)
    exact = math.log(2.0) / (s * math.sqrt(2.0 * math.pi))  # the density on the ray that is half opaque
    assert choice.threshold == pytest.approx(exact, rel=0.25)
    assert choice.agreement == max(choice.agreements) > 0.95
    assert choice.candidates == sorted(choice.candidates)


def test_largest_density_sees_what_lies_behind_the_surface():
    grid = scan(SceneField(AnalyticGeometry(sphere), 1.0), CUBE, 48)
    cameras = surrounding_cameras(CUBE, 2, 32)
    seen = largest_density(grid, cameras) > 35.0  # half opaque after 0.02
    exact = MarchingRenderer(AnalyticGeometry(sphere)).render(cameras).opacity[:, 0] > 0.5
    assert intersection_over_union(seen, exact) > 0.95


def test_overlap_of_sets():
    a, b = torch.tensor([True, True, False]), torch.tensor([False, True, True])
    assert intersection_over_union(a, b) == pytest.approx(1 / 3)
    assert intersection_over_union(a, a) == 1.0
    assert intersection_over_union(a & False, b & False) == 1.0


def test_an_empty_grid_has_no_threshold():
    grid = DensityGrid(torch.zeros(8, 8, 8), torch.zeros(3), 0.1)
    with pytest.raises(ValueError, match="zero everywhere"):
        choose_threshold(grid, surrounding_cameras(CUBE, 1, 16), torch.zeros(1, 16, 16, dtype=torch.bool))
