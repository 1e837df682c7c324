"""The level is where the surface looks like the scene, whatever the grid."""

import torch
from export_scenes import AnalyticGeometry, MarchingRenderer

from distill3d.export.query import SceneField
from distill3d.export.surface.extraction import seen_views
from distill3d.export.surface.grid import Box, scan
from distill3d.export.surface.level import choose_level, likeness_db
from distill3d.export.views import fitting_cameras

CUBE = Box(torch.full((3,), -0.7), torch.full((3,), 0.7))


class ShellGeometry(AnalyticGeometry):
    """A ball of a thin opaque kernel in a haze that is nearly invisible, each in colours of its own."""

    def density(self, points):
        radius = points.norm(dim=-1)
        return 1.0 * torch.sigmoid(80.0 * (0.5 - radius)) + 300.0 * torch.sigmoid(80.0 * (0.4 - radius))


def scene():
    stripes = lambda p: 0.5 + 0.5 * torch.sign(torch.sin(14.0 * p[:, 2:])).expand(-1, 3)  # noqa: E731
    return MarchingRenderer(ShellGeometry(albedo=stripes), steps=192)


def test_the_kernel_is_chosen_not_the_haze_around_it():
    renderer = scene()
    views = seen_views(renderer, fitting_cameras(CUBE, 8, 48))
    grid = scan(SceneField(renderer.geometry, 1.0), CUBE, 64)
    choice = choose_level(grid, 0.7, 0.01, views)
    assert choice.level > 2.0 and choice.likeness_db == max(choice.tried.values())
    assert choice.likeness_db > likeness_db(grid, 0.7, 0.01, views) + 1.0


def test_the_grid_hardly_matters():
    renderer = scene()
    views = seen_views(renderer, fitting_cameras(CUBE, 8, 48))
    field = SceneField(renderer.geometry, 1.0)
    levels = [choose_level(scan(field, CUBE, cells), 10.0, 0.01, views).level for cells in (56, 96)]
    assert 0.6 < levels[0] / levels[1] < 1.7


def test_without_views_to_judge_by_the_start_stays():
    renderer = scene()
    views = seen_views(renderer, fitting_cameras(CUBE, 1, 16))
    assert choose_level(scan(SceneField(renderer.geometry, 1.0), CUBE, 32), 5.0, 0.01, views).level == 5.0


def test_no_surface_is_like_nothing():
    renderer = scene()
    views = seen_views(renderer, fitting_cameras(CUBE, 2, 16))
    assert likeness_db(scan(SceneField(renderer.geometry, 1.0), CUBE, 32), 1e6, 0.01, views) == -float("inf")
