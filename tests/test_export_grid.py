"""Grids of density: their nodes, the box around the object, and refinement that equals a dense evaluation."""

import torch
from export_scenes import AnalyticGeometry, box, letter_f, sphere

from distill3d.export.query import SceneField
from distill3d.export.surface.grid import Box, DensityGrid, level_box, opaque_box, refine, sample_grid, scan

CUBE = Box(torch.full((3,), -1.0), torch.full((3,), 1.0))


def nodes(grid: DensityGrid) -> torch.Tensor:
    index = torch.cartesian_prod(*(torch.arange(n) for n in grid.values.shape))
    return grid.origin + grid.spacing * index


def test_scan_holds_the_field_at_its_nodes():
    field = SceneField(AnalyticGeometry(letter_f, sharpness=20.0), 1.0)
    grid = scan(field, Box(torch.tensor([-0.2, -0.4, -0.6]), torch.tensor([0.5, 0.4, 0.5])), 22)
    assert grid.values.shape == (15, 17, 23)
    torch.testing.assert_close(grid.values.flatten(), field.density(nodes(grid)))
    torch.testing.assert_close(grid.box.center, torch.tensor([0.15, 0.0, -0.05]))


def test_interpolation_is_exact_for_linear_functions_and_zero_outside():
    slope = torch.tensor([1.0, -2.0, 3.0])
    grid = DensityGrid(torch.zeros(4, 5, 6), torch.tensor([-0.3, 0.1, 0.2]), 0.25)
    grid = DensityGrid((nodes(grid) @ slope).view(4, 5, 6), grid.origin, grid.spacing)
    points = grid.origin + torch.rand(50, 3, generator=torch.Generator().manual_seed(1)) * grid.box.extent
    torch.testing.assert_close(sample_grid(grid, points), points @ slope, atol=1e-5, rtol=1e-5)
    assert sample_grid(grid, grid.box.high[None] + 0.3).item() == 0.0


def test_the_opaque_box_holds_the_object_tightly():
    field = SceneField(AnalyticGeometry(lambda p: box(p, (0.3, 0.1, 0.2), (0.2, -0.3, 0.4))), 1.0)
    grid = scan(field, CUBE, 40)
    found = opaque_box(grid)
    low, high = torch.tensor([-0.1, -0.4, 0.2]), torch.tensor([0.5, -0.2, 0.6])
    assert bool((found.low <= low).all() and (found.high >= high).all())
    assert bool((found.low >= low - 0.16).all() and (found.high <= high + 0.16).all())  # at most three cells wider
    same = level_box(grid, 1000.0)
    torch.testing.assert_close(same.low, found.low)
    torch.testing.assert_close(same.high, found.high)


def test_haze_is_not_opaque():
    haze = SceneField(AnalyticGeometry(lambda p: p[:, 0] * 0.0, peak=0.5), 1.0)  # optical depth 1/2 through the cube
    grid = scan(haze, CUBE, 16)
    assert opaque_box(grid) is None
    assert level_box(grid, 2.0) is None


def test_refinement_equals_a_dense_grid_near_the_surface():
    field = SceneField(AnalyticGeometry(letter_f, sharpness=60.0), 1.0)
    level = 1000.0
    coarse = scan(field, CUBE, 32)
    nothing = DensityGrid(torch.zeros_like(coarse.values), coarse.origin, coarse.spacing)
    fine, dense = refine(field, coarse, level, nothing), scan(field, CUBE, 64)
    assert fine.values.shape == dense.values.shape and fine.spacing == dense.spacing
    near = letter_f(nodes(dense)).abs().view(dense.values.shape) < dense.spacing
    torch.testing.assert_close(fine.values[near], dense.values[near])
    assert torch.equal(fine.values > level, dense.values > level)


def test_refinement_evaluates_a_thin_shell_only():
    asked = []

    def counted(points):
        asked.append(len(points))
        return sphere(points)

    field = SceneField(AnalyticGeometry(counted), 1.0)
    coarse = scan(field, CUBE, 64)
    nothing = DensityGrid(torch.zeros_like(coarse.values), coarse.origin, coarse.spacing)
    asked.clear()
    fine = refine(field, coarse, 1000.0, nothing)
    assert sum(asked) < 0.2 * fine.values.numel()


def test_the_floor_raises_densities():
    field = SceneField(AnalyticGeometry(), 1.0)
    coarse = scan(field, CUBE, 16)
    floor = DensityGrid(torch.full_like(coarse.values, 1500.0), coarse.origin, coarse.spacing)
    raised = DensityGrid(torch.maximum(coarse.values, floor.values), coarse.origin, coarse.spacing)
    assert float(refine(field, raised, 1000.0, floor).values.min()) >= 1499.0
