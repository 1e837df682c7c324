"""Surfaces of known shapes: volume, distance, orientation, closedness; and the errors where there is none."""

import math

import numpy as np
import pytest
import torch
from export_scenes import AnalyticGeometry, box, sphere, torus

from distill3d.export.query import SceneField
from distill3d.export.surface.grid import Box, DensityGrid, scan
from distill3d.export.surface.isosurface import EmptySurfaceError, check_not_degenerate, extract_isosurface
from distill3d.export.surface.mesh import face_normals

CUBE = Box(torch.full((3,), -0.7), torch.full((3,), 0.7))
LEVEL = 1000.0
VOLUMES = {
    "sphere": (sphere, 4.0 / 3.0 * math.pi * 0.5**3),
    "torus": (torus, 2.0 * math.pi**2 * 0.4 * 0.15**2),
    "box": (box, 8.0 * 0.4 * 0.3 * 0.2),
}


@pytest.mark.parametrize("blur", [0.0, 0.01])
@pytest.mark.parametrize("shape", VOLUMES)
def test_known_shapes(shape, blur):
    distance, volume = VOLUMES[shape]
    field = SceneField(AnalyticGeometry(distance, sharpness=100.0), 1.0)
    grid = scan(field, CUBE, 72)
    surface = extract_isosurface(grid, LEVEL, blur)
    assert surface.is_watertight
    assert surface.volume == pytest.approx(volume, rel=0.05)  # test_export_alignment has the final accuracy
    assert float(distance(torch.from_numpy(surface.vertices)).abs().quantile(0.98)) < 0.5 * grid.spacing
    centers = torch.from_numpy(surface.vertices[surface.faces].mean(axis=1))
    outward = field.normal(centers).numpy()
    assert float(np.mean((face_normals(surface) * outward).sum(axis=1) >= 0.0)) > 0.995


def test_blur_removes_noise_and_keeps_the_volume():
    noise = torch.randn(57, 57, 57, generator=torch.Generator().manual_seed(0))
    grid = scan(SceneField(AnalyticGeometry(sphere, sharpness=60.0), 1.0), CUBE, 56)
    noisy = DensityGrid(grid.values * torch.exp(0.7 * noise), grid.origin, grid.spacing)
    rough, clean = extract_isosurface(noisy, 200.0), extract_isosurface(noisy, 200.0, blur=0.03)
    radius = 0.5 + math.log(2000.0 / 200.0 - 1.0) / 60.0
    assert len(clean.faces) < 0.8 * len(rough.faces)
    assert clean.volume == pytest.approx(4.0 / 3.0 * math.pi * radius**3, rel=0.02)


def test_an_object_that_leaves_the_box_is_closed_there():
    half = Box(torch.tensor([-0.6, -0.6, 0.0]), torch.tensor([0.6, 0.6, 0.6]))
    for blur in (0.0, 0.02):
        surface = extract_isosurface(scan(SceneField(AnalyticGeometry(), 1.0), half, 60), LEVEL, blur)
        assert surface.is_watertight
        assert surface.volume == pytest.approx(0.5 * VOLUMES["sphere"][1], rel=0.06)
        assert surface.vertices[:, 2].min() >= -1e-6


def test_nodes_exactly_on_the_surface_make_no_hole():
    values = torch.zeros(9, 9, 9)
    values[2:7, 2:7, 2:7] = LEVEL
    values[3:6, 3:6, 3:6] = 2.0 * LEVEL
    surface = extract_isosurface(DensityGrid(values, torch.zeros(3), 1.0), LEVEL)
    assert surface.is_watertight and surface.volume > 0.0


def message(grid: DensityGrid, level: float) -> str:
    with pytest.raises(EmptySurfaceError) as caught:
        extract_isosurface(grid, level)
    return str(caught.value)


def test_an_empty_surface_says_what_was_tried_and_what_to_change():
    text = message(scan(SceneField(AnalyticGeometry(), 1.0), CUBE, 16), 1e9)
    assert "density 1e+09 is empty" in text and "lower system.exporter.threshold" in text
    assert "quantiles: 0%" in text and "100% 2000" in text


def test_a_full_scene_says_so():
    text = message(scan(SceneField(AnalyticGeometry(lambda p: p[:, 0] * 0.0 - 1.0), 1.0), CUBE, 16), 10.0)
    assert "is full" in text and "raise system.exporter.threshold" in text


def test_a_diverged_scene_says_so():
    with pytest.raises(EmptySurfaceError, match="diverged"):
        check_not_degenerate(DensityGrid(torch.full((4, 4, 4), torch.nan), torch.zeros(3), 1.0), 1.0)


def test_too_much_blur_says_so():
    speck = torch.zeros(21, 21, 21)
    speck[10, 10, 10] = 2.0 * LEVEL
    with pytest.raises(EmptySurfaceError, match="thicker than the blur"):
        extract_isosurface(DensityGrid(speck, torch.zeros(3), 1.0), LEVEL, blur=2.0)
