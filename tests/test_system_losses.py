"""Regularisers: closed forms, gradients, and what must not reach what."""

from __future__ import annotations

import math

import pytest
import torch

from distill3d.config.check import ConfigError, build
from distill3d.config.experiment import load
from distill3d.guidance.base import distillation_loss_value
from distill3d.scenes.nerf.losses import (
    nearby_normal_loss,
    normal_smooth_loss,
    opaque_loss,
    orientation_loss,
    regulariser,
    sparsity_loss,
    z_variance_loss,
)
from distill3d.systems.text_to_3d import LossSettings
from distill3d.types import RaySamples, RenderOutput


def render(weights, normals=None, directions=None, ray_index=None, edges=None, rays=4) -> RenderOutput:
    """Two views of 1x2 rays with the given samples."""
    weights = torch.as_tensor(weights)
    ray_index = torch.arange(len(weights)) if ray_index is None else torch.tensor(ray_index)
    start = torch.arange(len(weights)).float() if edges is None else torch.tensor(edges)
    samples = RaySamples(ray_index, start, start + 0.5, rays)
    opacity = torch.zeros(rays).index_add(0, ray_index, weights).view(2, 1, 1, -1)
    image = torch.zeros(2, 3, 1, rays // 2)
    return RenderOutput(image, opacity, opacity, None, "albedo", samples, weights, normals, directions)


def test_unknown_weights_are_errors_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"loss.lambda_orinet.*did you mean 'lambda_orient'"):
        build(LossSettings, {"lambda_orinet": 1}, "system.loss")
    with pytest.raises(ConfigError, match="lambda_sparsity"):
        build(LossSettings, {"lambda_sparsity": [1, 2]}, "system.loss")


def test_weights_follow_their_schedules_and_zeros_are_left_out():
    settings = LossSettings(lambda_sds=2.0, lambda_orient=[10, 0.0, 1.0, 20])
    assert settings.weights(10) == {"sds": 2.0}
    assert settings.weights(15) == {"sds": 2.0, "orient": 0.5}


def test_orientation_counts_what_faces_away_weighted_by_visibility():
    view = torch.tensor([[0.0, 0.0, -1.0]]).expand(3, 3)
    normals = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [0.0, 0.8, -0.6]])
    output = render([0.5, 0.25, 0.5], normals, view)
    expected = 0.25 * 1.0 + 0.5 * 0.36
    assert float(orientation_loss(output)) == pytest.approx(expected / 2)  # two views
    assert float(orientation_loss(output, "ray_mean")) == pytest.approx(expected / 3)  # three rays hit something


def test_orientation_turns_normals_and_never_hides_samples():
    weights = torch.tensor([0.5, 0.5], requires_grad=True)
    normals = torch.tensor([[0.0, 0.6, 0.8], [0.0, 0.0, -1.0]], requires_grad=True)
    output = render(weights, normals, torch.tensor([[0.0, 0.0, 1.0]]).expand(2, 3))
    gradient = torch.autograd.grad(orientation_loss(output), [weights, normals], allow_unused=True)
    assert gradient[0] is None
    torch.testing.assert_close(gradient[1], torch.tensor([[0.0, 0.0, 0.4], [0.0, 0.0, 0.0]]))


def test_orientation_without_normals_says_what_to_change():
    with pytest.raises(ValueError, match=r"lambda_orient.*normal_type"):
        orientation_loss(render([0.5]))


def test_sparsity_is_the_papers():
    opacity = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    assert float(sparsity_loss(opacity)) == pytest.approx((0.1 + math.sqrt(1.01)) / 2)


def test_opaque_is_the_binary_entropy_with_finite_gradients():
    opacity = torch.tensor([0.0, 0.25, 0.5, 1.0]).view(1, 1, 2, 2).requires_grad_()
    entropy = [-(p * math.log(p) + (1 - p) * math.log(1 - p)) for p in (0.001, 0.25, 0.5, 0.999)]
    loss = opaque_loss(opacity)
    assert float(loss) == pytest.approx(sum(entropy) / 4, rel=1e-4)
    (gradient,) = torch.autograd.grad(loss, opacity)
    assert torch.isfinite(gradient).all()
    assert float(gradient.flatten()[1]) > 0  # away from one half
    assert float(gradient.flatten()[2]) == pytest.approx(0.0, abs=1e-6)


def test_the_demos_last_steps_decide_whether_a_ray_hits_and_keep_the_outline_near_one_half():
    settings = build(LossSettings, load("dreamfusion-lmc.yaml", check=False).experiment.system["loss"], "system.loss")

    def gradient(step):
        opacity = torch.tensor([0.1, 0.3, 0.55, 0.65, 0.9]).view(1, 1, 1, 5).requires_grad_()
        output, weights = RenderOutput(opacity, opacity, opacity, None, "albedo"), settings.weights(step)
        terms = {name: regulariser(name, output, "sum") for name in ("opaque", "sparsity")}
        return torch.autograd.grad(sum(weights[name] * term for name, term in terms.items()), opacity)[0].flatten()

    before, last = gradient(430), gradient(499)
    assert (last[:3] > 0).all() and (last[3:] < 0).all()  # what is half there goes: outlines would grow
    assert (last[[0, 1, 3, 4]].abs() > 3 * before[[0, 1, 3, 4]].abs()).all()


def test_z_variance_is_the_variance_of_each_opaque_rays_depth():
    # ray 0: two samples at 1 and 3, weights .3 and .6; ray 1: one sample; ray 2: too faint to count
    output = render([0.3, 0.6, 0.9, 0.2], ray_index=[0, 0, 1, 2], edges=[0.75, 2.75, 5.0, 1.0])
    share = torch.tensor([1 / 3, 2 / 3])
    depth = torch.tensor([1.0, 3.0])
    variance = float((share * (depth - (share * depth).sum()) ** 2).sum())
    assert float(z_variance_loss(output)) == pytest.approx(variance / 2)


def test_z_variance_pulls_the_weights_of_a_ray_together():
    weights = torch.tensor([0.3, 0.4, 0.2], requires_grad=True)
    output = render(weights, ray_index=[0, 0, 0], edges=[0.75, 1.75, 4.75])
    (gradient,) = torch.autograd.grad(z_variance_loss(output), weights)
    assert float(gradient[2]) > 0  # the outlier loses weight
    assert float(gradient[1]) < 0


def test_z_variance_of_an_empty_scene_is_0_with_finite_gradients():
    weights = torch.tensor([0.0, 0.0], requires_grad=True)
    loss = z_variance_loss(render(weights, ray_index=[0, 0]))
    assert float(loss) == 0.0
    assert torch.isfinite(torch.autograd.grad(loss, weights)[0]).all()


def test_normals_are_compared_with_their_neighbours_in_the_picture_and_in_space():
    up, ahead = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 0.0])
    output = render([1.0] * 4, torch.stack([up, ahead, up, up]))
    turned = torch.stack([up, 0.5 * ahead, up, up]).view(2, 1, 2, 3).permute(0, 3, 1, 2)  # of any length
    output = RenderOutput(**{**vars(output), "normal": turned, "nearby_normals": torch.stack([up, up, up, up])})
    # one step in one of two views: x and z differ by half of the picture's range, over 2 x 3 x 1 x 1 differences
    downwards = RenderOutput(**{**vars(output), "normal": turned.mT, "opacity": output.opacity.mT})
    one_row = torch.tensor([0.5**2, 0.0, 0.5**2]).sum() / 6
    for picture in (output, downwards):
        doubled = torch.cat([picture.normal] * 2, 2 if picture is output else 3)
        both = torch.cat([picture.opacity] * 2, 2 if picture is output else 3)
        torch.testing.assert_close(
            normal_smooth_loss(RenderOutput(**{**vars(picture), "normal": doubled, "opacity": both})), one_row
        )
    assert float(nearby_normal_loss(output)) == pytest.approx(2.0 / 12)
    for loss in (normal_smooth_loss, nearby_normal_loss):
        with pytest.raises(ValueError, match=r"normal_smooth is not 0"):
            loss(render([0.5]))


def test_terms_do_not_depend_on_the_number_of_views():
    one = render([0.5, 0.8], torch.tensor([[1.0, 0, 0]] * 2), torch.tensor([[1.0, 0, 0]] * 2), ray_index=[0, 2])
    normals = torch.tensor([[1.0, 0, 0]] * 4)
    two = render([0.5, 0.8] * 2, normals, normals, ray_index=[0, 2, 4, 6], rays=8)
    two = RenderOutput(**{**vars(two), "opacity": torch.cat([one.opacity, one.opacity])})
    names = ["orient", "sparsity", "opaque"]
    for name in names:
        torch.testing.assert_close(regulariser(name, one, "sum"), regulariser(name, two, "sum"))


def test_the_logged_value_is_half_the_squared_gradient():
    gradient = torch.full((2, 3, 2, 2), 2.0)
    assert float(distillation_loss_value(gradient)) == 0.5 * 4 * 12
