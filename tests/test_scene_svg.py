"""The parameters of a drawing: where they come from, what they mean, and what is written of them."""

from __future__ import annotations

import pytest
import torch
from svg_drawings import KINDS, drawing, scene_of

from distill3d.scenes.svg.document import parse_svg
from distill3d.scenes.svg.scene import QUANTITIES, SvgScene

TURNED = """
    <g transform="translate(30 10) scale(2 3)"><rect id="r" x="1" y="2" width="10" height="8" fill="#102030"
    stroke="#405060" stroke-width="2" opacity=".5"/></g><circle id="c" cx="70" cy="70" r="10"/>"""


def test_parameters_are_in_fractions_of_the_picture_whatever_the_transform():
    scene = scene_of(TURNED)
    corners = torch.tensor([[0.32, 0.16], [0.52, 0.16], [0.52, 0.4], [0.32, 0.4]])
    torch.testing.assert_close(scene.points.values[:4].detach(), corners)
    assert float(scene.widths.start) == pytest.approx(2 * 6**0.5 / 100)
    assert scene.opacities.values.tolist() == [0.5, 1.0]
    assert (scene.colours.values * 255).round().int().tolist() == [[16, 32, 48], [0, 0, 0], [64, 80, 96]]


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_not_moved_is_written_to_the_letter(kind):
    assert scene_of(KINDS[kind]).svg() == drawing(KINDS[kind])


@torch.no_grad()
def test_what_is_written_shows_what_was_drawn():
    scene = scene_of(TURNED)
    generator = torch.Generator().manual_seed(0)
    for name in QUANTITIES:
        values = getattr(scene, name).values
        values += {"points": 0.02, "widths": 0.005}.get(name, 0.2) * torch.rand(values.shape, generator=generator)
    scene.clamp_()
    again = SvgScene()
    again.begin(parse_svg(scene.svg()))
    torch.testing.assert_close(again.points.values, scene.points.values, atol=1e-6, rtol=0)
    torch.testing.assert_close(again.colours.values, scene.colours.values, atol=0.51 / 255, rtol=0)
    torch.testing.assert_close(again.render(48, 48), scene.render(48, 48), atol=0.02, rtol=0)
    assert 'id="r"' in scene.svg() and "translate(30 10) scale(2 3)" in scene.svg()


@torch.no_grad()
def test_only_the_shape_that_changed_is_rewritten():
    scene = scene_of(TURNED)
    scene.colours.values[1, 0] = 1.0
    assert scene.svg() == drawing(TURNED).replace('r="10"/>', 'r="10" fill="#ff0000"/>')


def test_what_is_not_trained_has_no_gradient():
    scene = SvgScene()
    scene.begin(parse_svg(drawing(TURNED)), ("colours",))
    assert [name for name in QUANTITIES if getattr(scene, name).values.requires_grad] == ["colours"]
    unstroked = scene_of('<circle r="5"/>')
    assert not unstroked.widths.values.requires_grad  # there is none


@torch.no_grad()
def test_values_are_brought_back_to_what_svg_can_say():
    scene = scene_of(TURNED)
    for name in QUANTITIES:
        getattr(scene, name).values -= 3.0
    scene.clamp_()
    assert float(scene.colours.values.min()) == float(scene.opacities.values.min()) == 0.0
    assert float(scene.widths.values.min()) > 0.0
    assert float(scene.points.values.max()) < 0.0  # points may leave the picture


@torch.no_grad()
def test_the_source_is_drawn_from_the_file_whatever_has_moved_since():
    scene = scene_of(TURNED)
    before = scene.render(24, 24)
    scene.points.values += 0.1
    assert torch.equal(scene.render_source(24, 24), before)
    assert not torch.equal(scene.render(24, 24), before)
    assert float(scene.displacement()) == pytest.approx(0.5 * 0.01 * scene.points.values.numel(), rel=1e-5)
