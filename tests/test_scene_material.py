"""The material: which shading a view gets, its colours under one point light, and its settings."""

import math
from collections import Counter

import pytest
import torch

from distill3d.config.check import ConfigError, build
from distill3d.runtime.rng import rng
from distill3d.scenes.nerf.material import DiffuseWithPointLightMaterial as Material
from distill3d.scenes.nerf.material import lambertian, needs_normal, shade

AMBIENT, DIFFUSE = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.9, 0.8, 0.7])
ALBEDO, POINTS = torch.tensor([[0.5, 1.0, 0.25]]), torch.zeros(1, 3)
UP, LIGHT = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.0, 2.0, 2.0]])


def _material(**settings) -> Material:
    return Material(build(Material.Config, settings, "system.material"))


def _modes(material: Material, steps: range) -> Counter:
    return Counter(material.pick_mode(step, rng("shading", 0, step)) for step in steps)


def test_views_are_albedo_only_until_the_ambient_steps_are_over():
    assert _modes(_material(ambient_only_steps=300), range(300)) == {"albedo": 300}


def test_shading_modes_are_drawn_25_375_375():
    counts = _modes(_material(ambient_only_steps=300), range(300, 8300))
    shares = {mode: count / 8000 for mode, count in counts.items()}
    # four standard deviations of a share are at most .022
    assert shares == pytest.approx({"albedo": 0.25, "lambertian": 0.375, "textureless": 0.375}, abs=0.022)


def test_a_mode_is_a_function_of_the_step():
    material = _material(ambient_only_steps=0)
    draws = [[material.pick_mode(step, rng("shading", 5, step)) for step in range(50)] for _ in range(2)]
    assert draws[0] == draws[1]


def test_light_colours_are_the_settings_unless_a_ratio_replaces_them():
    material = _material(ambient_light_color=[0.2, 0.2, 0.2], diffuse_light_color=[0.4, 0.4, 0.4])
    up, zero = torch.tensor([[0.0, 0.0, 1.0]]), torch.zeros(1, 3)
    lit = lambda ratio: material.shade(zero, up, zero, up, "textureless", ratio)  # noqa: E731
    torch.testing.assert_close(lit(None), torch.full((1, 3), 0.6))
    torch.testing.assert_close(lit(0.3), torch.ones(1, 3))
    dark = material.shade(zero, -up, zero, up, "textureless", 0.3)
    torch.testing.assert_close(dark, torch.full((1, 3), 0.7))


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match=r"system\.material\.diffuse_prob=1\.5 must lie in 0 \.\. 1"):
        _material(diffuse_prob=1.5)
    with pytest.raises(ConfigError, match="albedo_activation='sig' is unknown"):
        _material(albedo_activation="sig")


def test_irradiance_falls_with_the_cosine_and_not_with_the_distance():
    expected = AMBIENT + DIFFUSE * math.cos(math.pi / 4)
    for light in (LIGHT, 7.0 * LIGHT):
        torch.testing.assert_close(lambertian(UP, POINTS, light, AMBIENT, DIFFUSE)[0], expected)


def test_a_face_turned_away_has_ambient_light_only():
    torch.testing.assert_close(lambertian(-UP, POINTS, LIGHT, AMBIENT, DIFFUSE)[0], AMBIENT)


def test_the_four_modes():
    irradiance = lambertian(UP, POINTS, LIGHT, AMBIENT, DIFFUSE)
    colors = {m: shade(ALBEDO, UP, POINTS, LIGHT, m, AMBIENT, DIFFUSE) for m in ("albedo", "lambertian", "textureless")}
    assert torch.equal(colors["albedo"], ALBEDO)
    torch.testing.assert_close(colors["lambertian"], ALBEDO * irradiance)
    torch.testing.assert_close(colors["textureless"], irradiance)
    normal = shade(ALBEDO, UP, POINTS, None, "normal", AMBIENT, DIFFUSE)
    torch.testing.assert_close(normal, torch.tensor([[0.5, 0.5, 1.0]]))


def test_only_albedo_does_without_normals():
    assert [needs_normal(m) for m in ("albedo", "lambertian", "textureless", "normal")] == [False, True, True, True]


@pytest.mark.parametrize(
    ("mode", "normal", "light", "message"),
    [
        ("shiny", UP, LIGHT, "shading='shiny' is unknown"),
        ("normal", None, LIGHT, "shading='normal' needs normals"),
        ("lambertian", UP, None, "shading='lambertian' needs a light"),
    ],
)
def test_what_is_missing_is_named(mode, normal, light, message):
    with pytest.raises(ValueError, match=message):
        shade(ALBEDO, normal, POINTS, light, mode, AMBIENT, DIFFUSE)
