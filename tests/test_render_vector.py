"""The rasteriser: like resvg, with gradients like finite differences, and areas that can be computed by hand."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from svg_drawings import KINDS, drawing, scene_of
from torch import Tensor

from distill3d.scenes.svg.scene import QUANTITIES, SvgScene

BLACK = torch.zeros(3)


def reference(body: str, side: int) -> Tensor:
    """The drawing by resvg, over white."""
    import resvg_py
    from PIL import Image

    png = bytes(resvg_py.svg_to_bytes(svg_string=drawing(body), width=side, height=side))
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    return torch.from_numpy(np.array(white.convert("RGB"))).permute(2, 0, 1) / 255.0


@pytest.mark.parametrize("side", [64, 128])
@pytest.mark.parametrize("kind", KINDS)
def test_it_draws_like_resvg(kind, side):
    ours = scene_of(KINDS[kind]).render(side, side).detach()
    assert float((ours - reference(KINDS[kind], side)).abs().mean()) < 0.01


EVERYTHING = """
    <path d="M20 80 C 20 20 60 0 80 70 Q 60 95 20 80 Z" fill="#c33" stroke="#224" stroke-width="5" opacity=".8"/>
    <g opacity=".7"><path d="M15 15 L40 33 L60 12" fill="none" stroke="#383" stroke-width="7" stroke-linecap="square"/>
    <path d="M60 60 L95 62 L70 91" fill="#88f" stroke-width=".6" stroke="black"/></g>
    <circle cx="60" cy="40" r="9" fill="#fa0" fill-rule="evenodd" stroke="#000" stroke-linejoin="round"/>"""


def test_gradients_are_those_of_finite_differences():
    scene = scene_of(EVERYTHING).double()
    weights = torch.randn(3, 24, 24, dtype=torch.double, generator=torch.Generator().manual_seed(0))

    def loss() -> Tensor:
        return (scene.render(24, 24) * weights).sum()

    loss().backward()
    generator = torch.Generator().manual_seed(1)
    for name in QUANTITIES:
        values: Tensor = getattr(scene, name).values
        assert values.grad is not None and float(values.grad.abs().max()) > 1.0
        for _ in range(6):
            direction = torch.randn(values.shape, dtype=torch.double, generator=generator)
            expected = float((values.grad * direction).sum())
            assert slope(loss, values, direction) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@torch.no_grad()
def slope(function, values: Tensor, direction: Tensor, step: float = 1e-7) -> float:
    """The central difference of a function along a direction."""
    start, results = values.clone(), []
    for sign in (1, -1):
        values.copy_(start + sign * step * direction)
        results.append(float(function()))
    values.copy_(start)
    return (results[0] - results[1]) / (2 * step)


def ink(scene: SvgScene, side: int) -> float:
    """The area under white paint on black, in units of the board."""
    return float(scene.render(side, side, BLACK).detach().mean()) * 100.0**2


@settings(max_examples=25)
@given(st.floats(5, 45), st.floats(0, 360), st.sampled_from([24, 40]))
def test_the_area_of_a_turned_square_is_right(half, angle, side):
    rect = f'<rect x="{-half}" y="{-half}" width="{2 * half}" height="{2 * half}"'
    scene = scene_of(f'{rect} transform="translate(70 70) rotate({angle})" fill="white"/>', 'viewBox="0 0 140 140"')
    area = float(scene.render(side, side, BLACK).detach().mean()) * side**2
    # coverage by distance gives each corner up to a quarter of a pixel too much, and is inexact along slanted edges
    length = 2 * half * side / 140.0
    assert area == pytest.approx(length**2, rel=0, abs=1.0 + 0.03 * 4 * length)


@settings(max_examples=25)
@given(st.floats(0.2, 12), st.floats(0, 180))
def test_the_area_of_a_line_is_its_length_times_its_width_however_thin(width, angle):
    dx, dy = 30 * math.cos(math.radians(angle)), 30 * math.sin(math.radians(angle))
    line = f'<line x1="{50 - dx}" y1="{50 - dy}" x2="{50 + dx}" y2="{50 + dy}" stroke="white" stroke-width="{width}"/>'
    assert ink(scene_of(line), 64) == pytest.approx(60 * width, rel=0.06, abs=1.5)


def test_even_odd_and_nonzero_differ_exactly_where_an_outline_goes_around_twice():
    twice = 'fill="white" d="M10 10H90V90H10Z M30 30H70V70H30Z"'
    assert ink(scene_of(f"<path {twice}/>"), 50) == pytest.approx(6400.0, rel=1e-3)
    assert ink(scene_of(f'<path {twice} fill-rule="evenodd"/>'), 50) == pytest.approx(4800.0, rel=1e-3)


def test_there_is_no_seam_where_an_outline_overlaps_itself():
    scene = scene_of('<path fill="white" d="M10 10H60V60H10Z M40 40H90V90H40Z"/>')
    inside = scene.render(100, 100, BLACK)[:, 35:65, 42:58].detach()
    assert float(inside.min()) == 1.0


def test_a_group_fades_as_a_whole_and_its_shapes_do_not_show_through_each_other():
    red = '<rect width="60" height="60" fill="red"/>'
    blue = '<rect x="40" y="40" width="60" height="60" fill="blue"/>'
    as_one = scene_of(f'<g opacity=".5">{red}{blue}</g>').render(20, 20)
    each = scene_of(f'<g fill-opacity=".5">{red}{blue}</g>').render(20, 20)
    assert as_one[:, 10, 10].tolist() == pytest.approx([0.5, 0.5, 1.0])
    assert each[:, 10, 10].tolist() == pytest.approx([0.5, 0.25, 0.75])


def test_a_stroke_fades_with_its_fill_and_not_over_it():
    paint = 'fill="red" stroke="blue" stroke-width="20" opacity=".5"'
    picture = scene_of(f'<rect x="20" y="20" width="60" height="60" {paint}/>').render(20, 20).detach()
    assert picture[:, 4, 10].tolist() == pytest.approx([0.5, 0.5, 1.0])  # the inner half of the stroke
    assert picture[:, 10, 10].tolist() == pytest.approx([1.0, 0.5, 0.5])


def test_a_picture_of_another_shape_holds_the_whole_drawing_in_its_middle():
    picture = scene_of('<rect width="100" height="100"/>').render(20, 40, torch.ones(3)).detach()
    assert float(picture[:, :, 10:30].max()) == pytest.approx(0.0, abs=1e-2)
    assert float(picture[:, :, :9].min()) == 1.0 and float(picture[:, :, 31:].min()) == 1.0


def test_what_is_painted_over_has_no_gradient_and_what_is_seen_has():
    scene = scene_of('<circle cx="50" cy="50" r="10" fill="red"/><rect width="100" height="100" fill="blue"/>')
    scene.render(32, 32).square().sum().backward()
    gradient = scene.colours.values.grad
    assert gradient is not None and not gradient[0].any() and gradient[1].any()


def test_points_that_meet_leave_gradients_finite():
    scene = scene_of('<path d="M50 50 L50 50 L50 50 C 50 50 60 60 50 50 Z" stroke="black"/><path d="M1 1h50v50"/>')
    scene.points.values.data[:4] = 0.5
    scene.render(32, 32).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in scene.parameters() if p.grad is not None)
