"""The occupancy grid: nerfacc's meaning, persistence, and renewal."""

import nerfacc
import torch

from distill3d.runtime.rng import rng
from distill3d.scenes.nerf.occupancy import OccupancyGrid


def _ball(points: torch.Tensor) -> torch.Tensor:
    return 40.0 * (points.norm(dim=-1) < 0.4)


def _filled(points: torch.Tensor) -> torch.Tensor:
    return torch.full_like(points[:, 0], 40.0)


def _nothing(points: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(points[:, 0])


def _by_cell(points: torch.Tensor) -> torch.Tensor:
    """A density that is constant in each cell of a grid of 8, so that where a cell is probed does not matter."""
    cell = ((points + 1.0) * 4.0).floor()
    return (cell @ torch.tensor([0.37, 0.71, 0.53])).sin().clamp_min(0.0)


def test_updates_are_nerfaccs():
    ours = OccupancyGrid(8, 1.0)
    theirs = nerfacc.OccGridEstimator(roi_aabb=[-1.0] * 3 + [1.0] * 3, resolution=8)
    for step, scale in enumerate((1.0, 0.2, 0.5)):
        ours.update(lambda x, s=scale: _by_cell(x) * s, 0.05, rng("occupancy", 0, step), every_cell=True)
        theirs.update_every_n_steps(step, lambda x, s=scale: _by_cell(x)[:, None] * s * 0.05, n=1)
        torch.testing.assert_close(ours.values.view(-1), theirs.occs)
        assert torch.equal(ours.occupied, theirs.binaries[0])


def test_the_cells_that_a_ball_touches_are_occupied_and_the_far_ones_are_not():
    grid = OccupancyGrid(16, 1.0)
    for step in range(8):
        grid.update(_ball, 0.05, rng("occupancy", 0, step), every_cell=True)
    centers = (torch.cartesian_prod(*[torch.arange(16)] * 3) + 0.5) / 8 - 1
    distance = centers.norm(dim=-1).view(16, 16, 16)
    half_diagonal = 3**0.5 / 16
    assert grid.occupied[distance < 0.4 - half_diagonal].all()
    assert not grid.occupied[distance > 0.4 + half_diagonal].any()


def test_a_cell_that_becomes_empty_is_forgotten_at_the_rate_of_the_decay():
    grid = OccupancyGrid(4, 1.0, ema_decay=0.5, threshold=0.01)
    grid.update(_filled, 0.00175, rng("occupancy", 0), every_cell=True)
    states = []
    for step in range(4):  # .07, halved at each update; the threshold is .01
        grid.update(_nothing, 0.00175, rng("occupancy", 0, step), every_cell=True)
        states.append(bool(grid.values[1, 1, 1] > 0.01))
    assert states == [True, True, False, False]


def test_partial_updates_find_what_is_new_and_keep_what_is_there():
    grid = OccupancyGrid(8, 1.0)
    grid.update(_ball, 0.05, rng("occupancy", 0), every_cell=True)
    before = grid.occupied.clone()
    for step in range(1, 40):
        grid.update(_filled, 0.05, rng("occupancy", 0, step), every_cell=False)
        assert (grid.values[before] > 0.01).all()
    assert grid.values.gt(0.01).float().mean() > 0.99


def test_a_partial_update_looks_at_no_more_than_half_of_the_cells():
    grid, probed = OccupancyGrid(8, 1.0), []
    grid.update(lambda x: probed.append(len(x)) or _filled(x), 0.05, rng("occupancy", 0), every_cell=False)
    assert 128 <= probed[0] <= 256


def test_updates_are_a_function_of_the_generator_and_the_state_is_persistent():
    grids = [OccupancyGrid(8, 1.0) for _ in range(2)]
    for grid in grids:
        for step in range(3):
            grid.update(_ball, 0.05, rng("occupancy", 7, step), every_cell=step == 0)
    assert torch.equal(grids[0].values, grids[1].values)
    restored = OccupancyGrid(8, 1.0)
    restored.load_state_dict(grids[0].state_dict())
    assert torch.equal(restored.values, grids[0].values) and torch.equal(restored.occupied, grids[0].occupied)


def test_before_the_first_update_everything_is_occupied():
    assert OccupancyGrid(4, 1.0).occupied.all()
