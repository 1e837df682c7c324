"""Blur by need: none of the shape goes, haze does not turn into crumpled paper."""

import torch
from export_scenes import AnalyticGeometry, MarchingRenderer, box, sphere

from distill3d.export.query import SceneField
from distill3d.export.surface.grid import Box, DensityGrid, scan
from distill3d.export.surface.smoothing import BLURS, choose_blur
from distill3d.export.surface.threshold import choose_threshold
from distill3d.export.views import surrounding_cameras

CUBE = Box(torch.full((3,), -0.6), torch.full((3,), 0.6))
CAMERAS = surrounding_cameras(CUBE, 4, 64)


def chosen(distance, noise: float = 0.0, **field):
    geometry = AnalyticGeometry(distance, **field)
    opaque = MarchingRenderer(geometry).render(CAMERAS).opacity[:, 0] > 0.5
    grid = scan(SceneField(geometry, 1.0), CUBE, 80)
    factor = torch.exp(noise * torch.randn(grid.values.shape, generator=torch.Generator().manual_seed(0)))
    grid = DensityGrid(grid.values * factor, grid.origin, grid.spacing)
    level = choose_threshold(grid, CAMERAS, opaque).threshold
    return choose_blur(grid, level, 1.2, CAMERAS, opaque), level


def test_a_clean_object_keeps_its_level_and_the_least_blur():
    choice, level = chosen(sphere, peak=200.0)
    assert choice.blur == BLURS[0] and 0.6 * level < choice.level <= level
    assert choice.agreement > 0.95


def test_a_noisy_haze_needs_more():
    choice, level = chosen(lambda p: sphere(p, 0.3), noise=1.5, peak=40.0, sharpness=20.0)
    assert choice.blur > BLURS[0] and choice.level < level
    assert choice.agreement > 0.9


def test_thin_parts_are_not_smoothed_away():
    """Four legs 0.06 wide: twice the blur takes their area, so the silhouettes must speak."""

    def table(p):
        folded = torch.stack([p[:, 0].abs(), p[:, 1].abs(), p[:, 2]], dim=1)
        return torch.minimum(box(p, (0.4, 0.4, 0.03), (0, 0, 0.3)), box(folded, (0.03, 0.03, 0.4), (0.35, 0.35, -0.1)))

    assert chosen(table, peak=200.0)[0].blur == BLURS[0]
