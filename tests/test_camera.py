"""Spherical cameras: frames, rays, view words, and the distributions of DreamFusion's random cameras."""

from __future__ import annotations

import math

import pytest
import torch

from distill3d.camera import (
    CameraRanges,
    camera_rays,
    look_at,
    make_cameras,
    orbit_cameras,
    random_cameras,
    spherical_position,
    view_words,
    wrap_deg,
)
from distill3d.runtime.rng import rng

MANY = 20_000
# the Kolmogorov-Smirnov distance that a sample of this size exceeds once in a thousand draws
KS_BOUND = 1.95 / math.sqrt(MANY)
STILL = CameraRanges(camera_perturb=0.0, center_perturb=0.0, up_perturb=0.0)


def drawn(ranges: CameraRanges = STILL, count: int = MANY, seed: int = 0, **settings):
    return random_cameras(ranges, count, 4, 4, rng("camera", seed), **settings)


def ks_distance(sample: torch.Tensor, cdf) -> float:
    """The largest difference between a sample's distribution function and ``cdf``."""
    ordered = sample.double().sort().values
    expected = cdf(ordered)
    rank = torch.arange(len(ordered) + 1, dtype=torch.float64) / len(ordered)
    return float(torch.maximum((rank[1:] - expected).abs(), (rank[:-1] - expected).abs()).max())


def uniform_cdf(low: float, high: float):
    return lambda x: ((x - low) / (high - low)).clamp(0, 1)


@pytest.mark.parametrize(
    ("elevation", "azimuth", "expected"),
    [(0, 0, (1, 0, 0)), (0, 90, (0, 1, 0)), (0, -180, (-1, 0, 0)), (90, 0, (0, 0, 1)), (-90, 40, (0, 0, -1))],
)
def test_azimuth_0_is_plus_x_and_elevation_90_is_plus_z(elevation, azimuth, expected):
    position = spherical_position(torch.tensor([float(elevation)]), torch.tensor([float(azimuth)]), torch.ones(1))
    torch.testing.assert_close(position, torch.tensor([expected], dtype=torch.float32), atol=1e-6, rtol=0)


def test_poses_are_rigid_and_look_at_the_target_along_minus_z():
    generator = torch.Generator().manual_seed(1)
    position, target = (torch.randn(50, 3, generator=generator) for _ in range(2))
    up = torch.tensor([0.0, 0.0, 1.0]).expand(50, 3)
    c2w = look_at(position, target, up)
    rotation = c2w[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(50, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(50), atol=1e-5, rtol=0)
    forward = torch.nn.functional.normalize(target - position, dim=-1)
    torch.testing.assert_close(-rotation[..., 2], forward, atol=1e-5, rtol=0)
    assert (rotation[:, 2, 1] >= 0).all()  # the image's up never points down in the world


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_straight_above_and_below_the_pose_is_finite_and_rigid(side):
    c2w = look_at(torch.tensor([[0.0, 0.0, 2.0 * side]]), torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]))
    rotation = c2w[0, :3, :3]
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(3), atol=1e-6, rtol=0)
    # the front, +x, is at the bottom of the image from above
    assert float(rotation[:, 1] @ torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(-side, abs=1e-6)


def test_an_elevation_of_90_degrees_in_fp32_continues_the_views_below_it():
    """cos(90 degrees) is not 0 in fp32, so this pose takes the common branch: no jump from 89.9 degrees."""
    below, above = (
        make_cameras(torch.tensor([e]), torch.zeros(1), torch.ones(1), torch.tensor([40.0]), 2, 2) for e in (89.9, 90.0)
    )
    torch.testing.assert_close(below.c2w, above.c2w, atol=5e-3, rtol=0)


def test_rays_leave_from_the_camera_with_unit_length_and_meet_the_target_in_the_middle():
    cameras = orbit_cameras(5, 20.0, 1.7, 45.0, 9)
    rays = camera_rays(cameras)
    torch.testing.assert_close(rays.directions.norm(dim=-1), torch.ones(5, 9, 9), atol=1e-6, rtol=0)
    centre = rays.origins[:, 4, 4] + 1.7 * rays.directions[:, 4, 4]
    torch.testing.assert_close(centre, torch.zeros(5, 3), atol=1e-5, rtol=0)


def test_rays_span_the_vertical_field_of_view_and_row_0_is_the_top():
    height = 200
    cameras = make_cameras(torch.zeros(1), torch.zeros(1), torch.ones(1), torch.tensor([50.0]), height, 100)
    directions = camera_rays(cameras).directions[0]
    slope = directions[:, 50, 2] / -directions[:, 50, 0]  # the camera looks along -x
    edge = math.tan(math.radians(25)) * (height - 1) / height  # centres lie half a pixel inside
    assert float(slope[0]) == pytest.approx(edge, rel=1e-4)
    assert float(slope[-1]) == pytest.approx(-edge, rel=1e-4)
    # seen from the front, +y is to the right
    assert float(directions[100, -1, 1]) > 0


def test_pixels_are_square_whatever_the_aspect():
    cameras = make_cameras(torch.zeros(1), torch.zeros(1), torch.ones(1), torch.tensor([50.0]), 10, 30)
    local = camera_rays(cameras).directions[0]
    local = local / -local[..., :1]
    down, across = local[1:] - local[:-1], local[:, 1:] - local[:, :-1]
    torch.testing.assert_close(down[0, 0].norm(), across[0, 0].norm(), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("elevation", "azimuth", "word"),
    [
        (0, 0, "front"), (0, 44.9, "front"), (0, -44.9, "front"), (0, 45.1, "side"), (0, -90, "side"),
        (0, 135.1, "back"), (0, 180, "back"), (0, -179, "back"), (0, 134.9, "side"), (0, 359, "front"),
        (60, 0, "front"), (60.1, 0, "overhead"), (89, 180, "overhead"), (-10, 10, "front"),
    ],
)  # fmt: skip
def test_view_words(elevation, azimuth, word):
    assert view_words(torch.tensor([float(elevation)]), torch.tensor([float(azimuth)])) == [word]


def test_view_words_follow_the_thresholds():
    azimuth = torch.tensor([30.0, 60.0, 150.0])
    assert view_words(torch.full((3,), 50.0), azimuth, 40.0) == ["overhead"] * 3
    assert view_words(torch.zeros(3), azimuth, 60.0, 20.0, 100.0) == ["side", "side", "back"]


def test_angles_wrap_into_minus_180_to_180():
    angles = torch.tensor([-180.0, 180.0, 540.0, 359.0, -181.0])
    torch.testing.assert_close(wrap_deg(angles), torch.tensor([-180.0, -180.0, -180.0, -1.0, 179.0]))


def test_elevation_is_half_uniform_in_angle_and_half_by_area():
    low, high = -10.0, 90.0
    by_angle = uniform_cdf(low, high)
    sines = [math.sin(math.radians(e)) for e in (low, high)]

    def by_area(x):
        return (torch.deg2rad(x).sin() - sines[0]) / (sines[1] - sines[0])

    elevation = drawn().elevation_deg
    assert ks_distance(elevation, lambda x: 0.5 * by_angle(x) + 0.5 * by_area(x)) < KS_BOUND
    # and the test tells the mixture from either half
    assert ks_distance(elevation, by_angle) > 2 * KS_BOUND
    assert ks_distance(elevation, by_area) > 2 * KS_BOUND


def test_azimuth_distance_and_field_of_view_are_uniform():
    cameras = drawn()
    assert ks_distance(cameras.azimuth_deg, uniform_cdf(-180, 180)) < KS_BOUND
    assert ks_distance(cameras.distance, uniform_cdf(1.0, 1.5)) < KS_BOUND
    assert ks_distance(torch.rad2deg(cameras.fovy_rad), uniform_cdf(41, 71)) < KS_BOUND


def test_draws_are_independent_of_each_other():
    cameras = drawn()
    draws = torch.stack([cameras.elevation_deg, cameras.azimuth_deg, cameras.distance, cameras.fovy_rad])
    correlation = torch.corrcoef(draws) - torch.eye(4)
    assert float(correlation.abs().max()) < 4 / math.sqrt(MANY)


def test_positions_are_moved_uniformly_in_a_box():
    still, moved = drawn(), drawn(CameraRanges(camera_perturb=0.1, center_perturb=0.0, up_perturb=0.0))
    offset = moved.position - still.position
    assert float(offset.abs().max()) <= 0.1 + 1e-6
    for axis in range(3):
        assert ks_distance(offset[:, axis], uniform_cdf(-0.1, 0.1)) < KS_BOUND


def test_targets_and_up_vectors_are_moved_normally(monkeypatch):
    seen = {}
    monkeypatch.setattr("distill3d.camera.look_at", lambda p, t, u: seen.update(target=t, up=u) or look_at(p, t, u))
    drawn(CameraRanges(camera_perturb=0.0, center_perturb=0.2, up_perturb=0.02))
    for values, std in ((seen["target"], 0.2), (seen["up"] - torch.tensor([0.0, 0.0, 1.0]), 0.02)):
        for axis in range(3):
            normal = torch.distributions.Normal(0.0, std)
            assert ks_distance(values[:, axis], lambda x, n=normal: n.cdf(x)) < KS_BOUND


def test_spherical_coordinates_are_those_before_the_perturbation():
    still, moved = drawn(count=10), drawn(CameraRanges(), count=10)
    torch.testing.assert_close(still.elevation_deg, moved.elevation_deg)
    torch.testing.assert_close(still.distance, moved.distance)
    assert not torch.allclose(still.position, moved.position)


def test_stratified_azimuths_have_one_draw_in_each_share():
    cameras = drawn(count=8, stratified_azimuth=True)
    share = ((cameras.azimuth_deg + 180) / 45).floor()
    assert share.sort().values.tolist() == list(range(8))
    pooled = torch.cat([drawn(count=8, seed=s, stratified_azimuth=True).azimuth_deg for s in range(MANY // 8)])
    assert ks_distance(pooled, uniform_cdf(-180, 180)) < KS_BOUND


def test_an_orbit_starts_at_the_front_and_is_evenly_spaced():
    cameras = orbit_cameras(4, 0.0, 2.0, 40.0, 2)
    expected = 2.0 * torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [-1.0, 0, 0], [0, -1.0, 0]])
    torch.testing.assert_close(cameras.position, expected, atol=1e-6, rtol=0)


def test_rows_of_cameras_keep_their_size():
    cameras = orbit_cameras(4, 0.0, 2.0, 40.0, 2)[1:3]
    assert (len(cameras), cameras.height) == (2, 2)
    torch.testing.assert_close(cameras.azimuth_deg, torch.tensor([90.0, -180.0]))
