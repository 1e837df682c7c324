"""What no view sees is filled; what a view sees stays."""

import math

import torch
from export_scenes import AnalyticGeometry, box, sphere

from distill3d.export.query import SceneField
from distill3d.export.surface.grid import Box, DensityGrid, scan
from distill3d.export.surface.visibility import enclosed, filling, least_depth

CUBE = Box(torch.full((3,), -0.7), torch.full((3,), 0.7))
LEVEL = 1000.0


def grid_of(distance, **kwargs) -> DensityGrid:
    return scan(SceneField(AnalyticGeometry(distance, **kwargs), 1.0), CUBE, 56)


def filled_at(grid: DensityGrid, point: tuple[float, float, float], pore: float = 0.03) -> bool:
    index = ((torch.tensor(point) - grid.origin) / grid.spacing).round().long()
    return bool(filling(grid, LEVEL, pore).values[tuple(index)] > LEVEL)


def test_optical_depth_in_a_haze_is_the_shortest_way_out():
    grid = DensityGrid(torch.full((33, 33, 33), 2.0), torch.full((3,), -0.8), 0.05)
    depth = least_depth(grid)
    assert depth.shape == grid.values.shape
    torch.testing.assert_close(depth[16, 16, 16], torch.tensor(2.0 * 0.8), atol=0.1, rtol=0.0)
    torch.testing.assert_close(depth[16, 16, 4], torch.tensor(2.0 * 0.2), atol=0.1, rtol=0.0)
    assert float(depth[0, 16, 16]) == 0.0


def test_a_hollow_ball_becomes_solid():
    shell = grid_of(lambda p: sphere(p).abs() - 0.05)
    assert filled_at(shell, (0.0, 0.0, 0.0))
    assert not filled_at(shell, (0.65, 0.0, 0.0))


def test_a_pore_does_not_let_the_inside_out_but_a_window_does():
    def shell(width):
        return lambda p: torch.maximum(sphere(p).abs() - 0.05, -box(p, (1.0, width, width), (1.0, 0.2, 0.1)))

    assert filled_at(grid_of(shell(0.02)), (0.0, 0.0, 0.0))
    assert not filled_at(grid_of(shell(0.02)), (0.0, 0.2, 0.1))  # straight behind the pore: seen
    assert not filled_at(grid_of(shell(0.2)), (0.0, 0.0, 0.0))


def test_a_slot_that_light_falls_into_stays_open():
    plates = grid_of(
        lambda p: torch.minimum(box(p, (0.4, 0.4, 0.1), (0, 0, 0.13)), box(p, (0.4, 0.4, 0.1), (0, 0, -0.13)))
    )
    index = ((torch.zeros(3) - plates.origin) / plates.spacing).round().long()
    assert bool(enclosed(plates, LEVEL, 2)[tuple(index)])  # too narrow for the ball,
    assert not filled_at(plates, (0.0, 0.0, 0.0), pore=0.05)  # yet seen from the sides


def test_the_sponge_inside_a_soft_object_is_filled():
    """Density 20 with empty bubbles, as the unseen inside of a trained scene looks."""

    def bubbles(p):
        return torch.maximum(sphere(p), 0.05 - ((p * 6.0) - (p * 6.0).round()).norm(dim=-1) / 6.0)

    grid = scan(SceneField(AnalyticGeometry(bubbles, peak=20.0), 1.0), CUBE, 56)
    raised = torch.maximum(grid.values, filling(grid, 10.0, 0.03).values)
    inside = sphere(torch.cartesian_prod(*(torch.linspace(-0.7, 0.7, 57),) * 3)).view(57, 57, 57) < -0.15
    assert float((grid.values[inside] < 10.0).float().mean()) > 0.05
    assert float((raised[inside] < 10.0).float().mean()) == 0.0


def test_the_visible_surface_does_not_move():
    grid = grid_of(sphere)
    raised = torch.maximum(grid.values, filling(grid, LEVEL, 0.03).values)
    assert torch.equal(raised > LEVEL, grid.values > LEVEL)
    assert math.isclose(float(raised[0, 0, 0]), float(grid.values[0, 0, 0]))
