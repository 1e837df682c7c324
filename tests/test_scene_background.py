"""Backgrounds: directions to colours, and their augmentation."""

import pytest
import torch

from distill3d.config.check import ConfigError, build
from distill3d.config.registry import find
from distill3d.runtime.rng import rng
from distill3d.scenes.nerf.background import spherical_harmonics


def _background(name: str, **settings):
    cls = find("background", name)
    return cls(build(cls.Config, settings, "system.background"))


def _directions(count: int = 64) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)


def test_spherical_harmonics_are_orthonormal():
    # Fibonacci points cover the sphere evenly, so that a mean over them is an integral
    i = torch.arange(20_000, dtype=torch.float64) + 0.5
    z, azimuth = 1 - 2 * i / len(i), i * torch.pi * (3 - 5**0.5)
    r = (1 - z * z).sqrt()
    bands = spherical_harmonics(torch.stack([r * azimuth.cos(), r * azimuth.sin(), z], -1), 3)
    gram = bands @ bands.t() / len(i) * 4 * torch.pi
    torch.testing.assert_close(gram, torch.eye(9, dtype=torch.float64), atol=1e-3, rtol=0)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_the_map_depends_on_the_direction_alone(degree):
    background = _background("neural-environment-map-background", dir_encoding_config={"degree": degree})
    directions = _directions()
    colors = background(directions)
    assert colors.shape == (64, 3) and ((colors > 0) & (colors < 1)).all()
    torch.testing.assert_close(background(directions.flip(0)).flip(0), colors)
    assert (colors.std(0).max() > 1e-3) == (degree > 1)


def test_every_parameter_of_the_map_gets_a_gradient():
    background = _background("neural-environment-map-background")
    background(_directions(), rng("background", 0)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in background.parameters())


@pytest.mark.parametrize("name", ["neural-environment-map-background", "solid-color-background"])
def test_the_share_of_augmented_views_is_as_set_and_evaluation_has_none(name):
    background, directions = _background(name, random_aug=True, random_aug_prob=0.25), _directions(8)
    plain = background.colors(directions)
    assert all(torch.equal(background(directions), plain) for _ in range(50))
    views = [background(directions, rng("background", 0, step)) for step in range(2000)]
    augmented = [view for view in views if not torch.equal(view, plain)]
    assert len(augmented) / 2000 == pytest.approx(0.25, abs=0.04)  # four standard deviations
    assert all((view == view[0]).all() for view in augmented)
    mean = torch.stack([view[0] for view in augmented]).mean(0)
    torch.testing.assert_close(mean, torch.full((3,), 0.5), atol=0.06, rtol=0)


def test_without_augmentation_training_and_evaluation_look_alike():
    background, directions = _background("neural-environment-map-background"), _directions()
    assert torch.equal(background(directions, rng("background", 0)), background(directions))


def test_an_evaluation_colour_replaces_the_map():
    background = _background("neural-environment-map-background", eval_color=[1.0, 0.5, 0.0])
    assert torch.equal(background(_directions(2)), torch.tensor([[1.0, 0.5, 0.0]] * 2))
    assert not torch.equal(background(_directions(2), rng("background", 0)), torch.tensor([[1.0, 0.5, 0.0]] * 2))


def test_a_solid_colour_is_a_parameter_where_it_is_learned():
    assert not list(_background("solid-color-background").parameters())
    learned = _background("solid-color-background", color=[0.1, 0.2, 0.3], learned=True)
    assert torch.equal(learned(_directions(2)), torch.tensor([[0.1, 0.2, 0.3]] * 2))
    learned(_directions(5)).sum().backward()
    torch.testing.assert_close(learned.color.grad, torch.full((3,), 5.0))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("solid-color-background", {"random_aug_prob": -0.5}, "random_aug_prob=-0.5 must lie in 0 .. 1"),
        ("neural-environment-map-background", {"random_aug_prob": 2.0}, "random_aug_prob=2.0 must lie in 0 .. 1"),
        ("neural-environment-map-background", {"color_activation": "lin"}, "color_activation='lin' is unknown"),
        ("neural-environment-map-background", {"dir_encoding_config": {"degree": 9}}, "degree=9 must lie in 1 .. 3"),
        ("neural-environment-map-background", {"mlp_network_config": {"n_neurons": 0}}, "n_neurons=0 must be"),
    ],
)
def test_wrong_settings_are_named(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        _background(name, **settings)
