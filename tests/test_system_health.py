"""Signs that a run has gone wrong."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from distill3d.camera import camera_rays, orbit_cameras
from distill3d.systems.health import GradientHealth, SceneHealth, explain_opacity, gradient_norm, rim_opacity


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite_makes_the_norm_so(bad):
    parameters = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad = torch.full((2, 2), 2.0)
    parameters[1].grad = torch.tensor([0.0, 3.0, 0.0])
    assert float(gradient_norm(parameters)) == 5.0  # and parameters without a gradient do not matter
    parameters[1].grad[0] = bad
    assert not math.isfinite(float(gradient_norm(parameters)))


def test_without_gradients_the_norm_is_0():
    assert float(gradient_norm([nn.Parameter(torch.zeros(2))])) == 0.0


def test_divergence_is_so_many_bad_steps_in_a_row():
    health = GradientHealth(3)
    taken = [health.observe(norm) for norm in (1.0, math.nan, math.inf, 1.0, math.nan, math.nan)]
    assert taken == [True, False, False, True, False, False]
    assert (health.skipped, health.diverged) == (4, False)
    health.observe(math.nan)
    assert health.diverged
    text = health.explanation(7)
    assert all(name in text for name in ("step 7", "optimizer.args.lr", "guidance_scale", "trainer.precision"))


@pytest.mark.parametrize(
    ("opacity", "words"), [(0.004, "nearly empty"), (0.98, "fills the view"), (0.006, None), (0.96, None)]
)
def test_empty_and_full_scenes_are_explained(opacity, words):
    text = explain_opacity(opacity, 100)
    assert text is None if words is None else words in text and "system." in text


def test_it_takes_a_window_of_views_after_the_first_steps_and_explains_once():
    health = SceneHealth(window=4, first_step=10)
    texts = [health.observe(0.0, step) for step in range(30)]
    assert [step for step, text in enumerate(texts) if text] == [10]


def test_one_empty_view_is_no_empty_scene():
    health = SceneHealth(window=4, first_step=0)
    assert not any(health.observe(opacity, step) for step, opacity in enumerate([0.0, 0.0, 0.0, 0.3, 0.0, 0.0, 0.0]))


def test_values_that_are_not_finite_are_not_averaged():
    health = SceneHealth()
    for opacity in (0.2, math.nan, 0.4):
        health.observe(opacity, 0)
    assert health.opacity_mean == pytest.approx(0.3)
    assert SceneHealth().opacity_mean is None


def ball_views(radius, cameras):
    """The opacity of an opaque ball around the origin."""
    rays = camera_rays(cameras)
    return (torch.linalg.cross(rays.origins, rays.directions).norm(dim=-1) < radius)[:, None].float()


AROUND = orbit_cameras(4, elevation_deg=15.0, distance=1.6, fovy_deg=50.0, size=64)


def test_a_ball_as_large_as_the_bounds_covers_their_rim_and_an_object_does_not():
    assert rim_opacity(ball_views(0.65, AROUND), AROUND, 0.65) == 1.0
    assert rim_opacity(ball_views(0.58, AROUND), AROUND, 0.65) == 0.0
    fog = torch.full((4, 1, 64, 64), 0.7)
    assert rim_opacity(fog, AROUND, 0.65) == pytest.approx(0.7)


def test_an_object_that_touches_its_bounds_here_and_there_does_not_fill_them():
    opacity = ball_views(0.65, AROUND)
    opacity[..., :, :24] = opacity[..., :, 40:] = 0.0  # a bar from pole to pole
    rim = rim_opacity(opacity, AROUND, 0.65)
    assert rim is not None
    assert 0.0 < rim < 0.5
    assert SceneHealth().observe_rim(rim, 100) is None


@pytest.mark.parametrize(("distance", "fovy_deg"), [(1.6, 20.0), (0.5, 120.0)])
def test_views_that_do_not_show_the_rim_say_nothing(distance, fovy_deg):
    cameras = orbit_cameras(2, 0.0, distance, fovy_deg, 16)
    assert rim_opacity(torch.ones(2, 1, 16, 16), cameras, 0.65) is None


def test_values_that_are_not_finite_are_no_verdict():
    assert rim_opacity(torch.full((4, 1, 64, 64), math.nan), AROUND, 0.65) is None


def test_full_bounds_are_explained_once_and_the_last_look_is_kept():
    health = SceneHealth()
    texts = [health.observe_rim(opacity, step) for step, opacity in enumerate([None, 0.1, 0.9, 0.95, 0.2])]
    assert [step for step, text in enumerate(texts) if text] == [2]
    assert "fills its bounds at step 2" in (texts[2] or "")
    assert "system.loss.lambda_sparsity" in (texts[2] or "")
    assert health.rim_opacity == 0.2
