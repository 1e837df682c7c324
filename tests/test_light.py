"""Point lights around the camera: the distributions of DreamFusion and Magic3D."""

from __future__ import annotations

import math

import pytest
import torch
from test_camera import KS_BOUND, MANY, ks_distance, uniform_cdf

from distill3d.camera import make_cameras
from distill3d.light import random_lights
from distill3d.runtime.rng import rng


def cameras_at(elevation_deg: float, count: int = MANY, distance: float = 1.5):
    full = lambda value: torch.full((count,), value)  # noqa: E731
    return make_cameras(full(elevation_deg), full(30.0), full(distance), full(40.0), 2, 2)


def lights(strategy, elevation_deg=20.0, seed=0, **settings):
    cameras = cameras_at(elevation_deg)
    return cameras, random_lights(cameras, rng("light", seed), strategy, **settings).position


@pytest.mark.parametrize("strategy", ["dreamfusion", "magic3d"])
def test_distances_are_uniform(strategy):
    _, position = lights(strategy, light_distance_range=(0.8, 1.5))
    assert ks_distance(position.norm(dim=-1), uniform_cdf(0.8, 1.5)) < KS_BOUND


def test_dreamfusion_draws_directions_from_a_normal_around_the_camera():
    """The polar angle about the camera's axis, against 10 times as many draws by another route (in float64)."""
    cameras, position = lights("dreamfusion", light_position_perturb=1.0)
    axis = torch.nn.functional.normalize(cameras.position[0], dim=0)
    cosine = torch.nn.functional.normalize(position, dim=-1) @ axis
    generator = torch.Generator().manual_seed(5)
    reference = torch.randn(10 * MANY, 3, generator=generator, dtype=torch.float64)
    reference[:, 2] += 1.5  # the camera on +z at its distance
    reference = (reference[:, 2] / reference.norm(dim=-1)).sort().values

    def cdf(x):
        return torch.searchsorted(reference, x.double()) / len(reference)

    assert ks_distance(cosine, cdf) < 1.2 * KS_BOUND  # both sides are samples


def test_dreamfusion_is_symmetric_about_the_cameras_axis():
    cameras, position = lights("dreamfusion")
    axis = torch.nn.functional.normalize(cameras.position[0], dim=0)
    across = torch.linalg.cross(axis, torch.tensor([0.0, 0.0, 1.0]))
    across = across / across.norm()
    angle = torch.atan2(position @ torch.linalg.cross(axis, across), position @ across)
    assert ks_distance(angle, uniform_cdf(-math.pi, math.pi)) < KS_BOUND


def test_without_perturbation_the_light_is_in_the_cameras_direction():
    cameras, position = lights("dreamfusion", light_position_perturb=0.0)
    cosine = torch.nn.functional.cosine_similarity(position, cameras.position)
    torch.testing.assert_close(cosine, torch.ones(MANY), atol=1e-6, rtol=0)


@pytest.mark.parametrize("elevation_deg", [20.0, 90.0])
def test_magic3d_is_uniform_by_solid_angle_within_60_degrees(elevation_deg):
    cameras, position = lights("magic3d", elevation_deg)
    cosine = torch.nn.functional.cosine_similarity(position, cameras.position)
    assert float(cosine.min()) >= 0.5 - 1e-6
    assert ks_distance(cosine, uniform_cdf(0.5, 1.0)) < KS_BOUND


def test_lights_are_a_function_of_the_generator():
    assert torch.equal(lights("dreamfusion")[1], lights("dreamfusion")[1])
    assert not torch.equal(lights("dreamfusion")[1], lights("dreamfusion", seed=1)[1])


def test_an_unknown_strategy_is_named():
    with pytest.raises(ValueError, match=r"light_sample_strategy='sun'.*dreamfusion or magic3d"):
        lights("sun")
