"""The project's world: where the cameras look is the origin, and up is up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill3d.camera import orbit_cameras
from distill3d.data.posed.world import fit_world, nearest_point, turn

directions = st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(np.array).filter(lambda v: np.linalg.norm(v) > 0.1)


def orbit(elevation=20.0, distance=1.6):
    return orbit_cameras(8, elevation, distance, 40.0, 16).c2w.double().numpy()


@given(directions, directions)
def test_a_turn_is_a_rotation_that_brings_one_direction_to_the_other(start, end):
    rotation = turn(start, end)
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(rotation) == pytest.approx(1.0, abs=1e-6)
    assert np.allclose(rotation @ start / np.linalg.norm(start), end / np.linalg.norm(end), atol=1e-5)


def test_opposite_directions_are_half_a_turn_apart():
    rotation = turn(np.array([0.0, 0.0, -2.0]), np.array([0.0, 0.0, 1.0]))
    assert np.allclose(rotation @ [0, 0, -1], [0, 0, 1]) and np.linalg.det(rotation) == pytest.approx(1.0)


def test_lines_through_one_point_meet_there_and_parallel_ones_break_nothing():
    point = np.array([0.3, -2.0, 1.0])
    toward = np.random.default_rng(0).normal(size=(5, 3))
    toward /= np.linalg.norm(toward, axis=1, keepdims=True)
    assert np.allclose(nearest_point(point - 4 * toward, toward), point)
    across = np.array([[0.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
    assert np.allclose(nearest_point(across, np.array([[1.0, 0, 0]] * 2)), [0.0, 2.0, 0.0])


@given(st.floats(0.1, 30.0), directions)
def test_a_world_that_was_moved_and_scaled_comes_back(scale, offset):
    own, away = orbit(), orbit()
    away[:, :3, 3] = scale * (away[:, :3, 3] + offset)
    half = np.full(8, np.deg2rad(20.0))
    radius = 1.6 * np.sin(np.deg2rad(20.0))
    assert np.allclose(fit_world(away, half, radius, level=False).moved(away), own, atol=1e-5)


def test_levelling_brings_the_mean_up_of_the_cameras_to_z():
    own = orbit()
    tilt = turn(np.array([0.0, 0.0, 1.0]), np.array([0.4, 0.2, 0.8]))
    tilted = own.copy()
    tilted[:, :3, :3], tilted[:, :3, 3] = tilt @ own[:, :3, :3], own[:, :3, 3] @ tilt.T
    half, radius = np.full(8, np.deg2rad(20.0)), 1.6 * np.sin(np.deg2rad(20.0))
    assert np.allclose(fit_world(tilted, half, radius, level=True).moved(tilted), own, atol=1e-5)
    assert not np.allclose(fit_world(tilted, half, radius, level=False).moved(tilted), own, atol=0.1)
