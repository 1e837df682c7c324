"""Shading by one point light."""

import math

import pytest
import torch

from distill3d.scenes.nerf.shading import lambertian, needs_normal, shade

AMBIENT, DIFFUSE = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.9, 0.8, 0.7])
ALBEDO, POINTS = torch.tensor([[0.5, 1.0, 0.25]]), torch.zeros(1, 3)
UP, LIGHT = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.0, 2.0, 2.0]])


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
