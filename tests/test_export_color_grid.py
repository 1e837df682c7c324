"""Colours at nodes of a grid in space: what pixels show comes back, what none shows stays, and seams do not exist."""

import numpy as np
import pytest

from distill3d.export.color_grid import NodeGrid, fit_correction

DRAW = np.random.default_rng(0)
BALL = DRAW.normal(size=(6000, 3))
BALL = 0.5 * BALL / np.linalg.norm(BALL, axis=1, keepdims=True)


def linear(points: np.ndarray) -> np.ndarray:
    return points @ np.array([[0.3, 0.1, -0.2], [0.0, 0.4, 0.1], [-0.1, 0.2, 0.3]]) + 0.05


def test_trilinear_weights_add_up_and_give_linear_functions_back():
    grid = NodeGrid.around(BALL, 0.07)
    weights = grid.interpolation(BALL)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-9)
    nodes = grid.origin + grid.spacing * np.stack(np.unravel_index(grid.keys, grid.shape), axis=1)
    np.testing.assert_allclose(weights @ linear(nodes), linear(BALL), atol=1e-9)


def test_differences_join_the_neighbours_along_each_axis():
    grid = NodeGrid.around(BALL, 0.2)
    nodes = np.stack(np.unravel_index(grid.keys, grid.shape), axis=1)
    steps = grid.differences() @ nodes
    assert (np.sort(steps, axis=1) == [0.0, 0.0, 1.0]).all()
    key = {tuple(node) for node in nodes.tolist()}
    axes = np.eye(3, dtype=int).tolist()
    pairs = sum((tuple(a + d for a, d in zip(n, axis, strict=True)) in key) for n in key for axis in axes)
    assert len(steps) == pairs


def test_points_outside_every_cube_are_not_corrected():
    correction = fit_correction(BALL, 0.1, BALL, linear(BALL), np.ones(len(BALL)))
    far = np.array([[3.0, 0.0, 0.0], [0.0, -9.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(correction.at(far), 0.0)


def test_what_the_pixels_lack_is_found_between_them():
    seen, others = BALL[:5000], BALL[5000:]
    correction = fit_correction(BALL, 0.05, seen, linear(seen), np.ones(len(seen)))
    assert np.abs(correction.at(others) - linear(others)).max() < 0.02


def test_where_no_pixel_looks_colours_fade_to_what_they_were():
    seen = BALL[BALL[:, 2] > 0.0]
    correction = fit_correction(BALL, 0.05, seen, np.ones((len(seen), 3)), np.ones(len(seen)))
    below, above = correction.at(BALL[BALL[:, 2] < -0.4]), correction.at(BALL[BALL[:, 2] > 0.1])
    assert above.mean() > 0.98 and below.mean() < above.mean()


def test_views_that_disagree_meet_at_their_mean_by_opacity():
    twice = np.concatenate([BALL, BALL])
    residual = np.concatenate([np.full((len(BALL), 3), 0.4), np.full((len(BALL), 3), 0.0)])
    weight = np.concatenate([np.full(len(BALL), 1.0), np.full(len(BALL), 0.25)])
    correction = fit_correction(BALL, 0.1, twice, residual, weight)
    assert correction.at(BALL).mean() == pytest.approx(0.4 / 1.25, abs=0.01)
