"""Files in, files out: what is understood, what is named, and what stays as it was."""

from __future__ import annotations

import re

import numpy as np
import pytest
from svg_drawings import KINDS, drawing

from distill3d.scenes.svg.document import SvgError, parse_svg
from distill3d.scenes.svg.writer import ShapeEdit, write_svg

MIXED = """<?xml version="1.0" encoding="UTF-8"?>
<!-- drawn by hand -->
<svg xmlns="http://www.w3.org/2000/svg" xmlns:ink="urn:ink" viewBox="0 0 100 50" width="200">
  <title>mixed</title>
  <defs><pattern id="sky" width="9" height="9"><path d="M0 0h9v9z"/></pattern><path id="spare" d="M0 0h9v9z"/></defs>
  <g id="all" transform="translate(10 0)" class="group">
    <rect id="back" width="80" height="50" fill="url(#sky)"/>
    <rect id="house" ink:note="kept" x="10" y="20" width="20" height="20" fill="#abc" data-x="1"/>
    <text x="3" y="9">hello <tspan>there</tspan></text>
    <circle id="sun" r="0"/>
    <path id="roof" d="M10 20 L20 10 L30 20 Z" style="fill:#800; stroke:none"/>
    <path id="dashed" d="M0 0L9 9" stroke="red" stroke-dasharray="2 1"/>
  </g>
</svg>
"""


def test_shapes_come_in_painters_order_with_their_structure():
    document = parse_svg(MIXED)
    assert [shape.name for shape in document.shapes] == ["rect 'house'", "path 'roof'"]
    assert document.layers.items == (0, 1)
    assert document.size == (200.0, 100.0)
    np.testing.assert_allclose(document.shapes[0].to_picture, [[2, 0, 20], [0, 2, 0]])


def test_what_is_not_supported_is_named_once_and_what_draws_nothing_too():
    document = parse_svg(MIXED)
    assert document.invisible == ("circle 'sun'",)
    assert set(document.unsupported) == {
        "text",
        "rect 'back' with url(#sky), which is a pattern",
        "path 'dashed' with stroke-dasharray",
    }


def test_without_changes_the_text_is_the_same():
    for text in (MIXED, *map(drawing, KINDS.values())):
        document = parse_svg(text)
        assert write_svg(document, {i: ShapeEdit() for i in range(len(document.shapes))}) == text


def test_only_what_was_changed_is_written_anew():
    document = parse_svg(MIXED)
    moved = [part.moved(part.points + 1) for part in document.shapes[0].subpaths]
    text = write_svg(document, {0: ShapeEdit(moved, opacity=0.5), 1: ShapeEdit(fill=(1.0, 0.5, 0.0))})
    house = '<path id="house" ink:note="kept" fill="#abc" data-x="1" d="M11 21 L31 21 L31 41 L11 41 Z" opacity="0.5"/>'
    roof = '<path id="roof" d="M10 20 L20 10 L30 20 Z" style="fill:#ff8000;stroke:none"/>'
    expected = re.sub(r'<rect id="house".*/>', house, re.sub(r'<path id="roof".*/>', roof, MIXED))
    assert text == expected != MIXED


def test_a_shape_with_children_and_odd_spelling_keeps_them():
    body = "<s:circle\n  r = '3'  cx=\"5\"\tid='a>b' ><!-- r=\"9\" --><s:title>r</s:title></s:circle >"
    text = f'<s:svg xmlns:s="http://www.w3.org/2000/svg">{body}</s:svg>'
    document = parse_svg(text)
    edited = write_svg(document, {0: ShapeEdit(document.shapes[0].subpaths[:1], fill=(1.0, 0.0, 0.0))})
    assert re.search(
        r"<s:path\tid='a>b' d=\"M8 0[^\"]*\" fill=\"#ff0000\" ><!-- r=\"9\" --><s:title>r</s:title></s:path >", edited
    )
    assert len(parse_svg(edited).shapes) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_parse_write_parse_gives_the_same_drawing(kind):
    first = parse_svg(drawing(KINDS[kind]))
    wiggle = np.random.default_rng(0)
    edits = {
        i: ShapeEdit(
            [part.moved(np.round(part.points + wiggle.normal(0, 1, part.points.shape), 3)) for part in shape.subpaths],
            fill=(1 / 255, 0.2, 0.6) if shape.fill else None,
            stroke=(0.0, 1.0, 0.4) if shape.stroke else None,
            stroke_width=1.25 if shape.stroke else None,
            opacity=0.75,
        )
        for i, shape in enumerate(first.shapes)
    }
    text = write_svg(first, edits)
    second = parse_svg(text)
    assert second.layers == first.layers
    for i, (old, new) in enumerate(zip(first.shapes, second.shapes, strict=True)):
        assert (new.node, new.opacity) == (old.node, 0.75)
        np.testing.assert_array_equal(new.to_picture, old.to_picture)
        for ours, theirs in zip(edits[i].subpaths or (), new.subpaths, strict=True):
            assert (ours.degrees, ours.closed) == (theirs.degrees, theirs.closed)
            np.testing.assert_allclose(theirs.points, ours.points, atol=1e-9)
        assert new.fill is None or new.fill.colour.rgb == pytest.approx((1 / 255, 0.2, 0.6))
        assert new.stroke is None or (new.stroke.colour.rgb, new.stroke.width) == (pytest.approx((0.0, 1.0, 0.4)), 1.25)
    assert write_svg(second, edits) == text


def test_a_style_sheet_does_not_win_over_a_change():
    text = drawing('<style>rect { fill: red }</style><rect fill="blue" width="9" height="9"/>')
    document = parse_svg(text)
    assert document.shapes[0].fill is not None and document.shapes[0].fill.colour.rgb == (1.0, 0.0, 0.0)
    again = parse_svg(write_svg(document, {0: ShapeEdit(fill=(0.0, 1.0, 0.0))}))
    assert again.shapes[0].fill is not None and again.shapes[0].fill.colour.rgb == (0.0, 1.0, 0.0)


def test_opacity_that_was_part_of_a_colour_survives_a_new_colour():
    document = parse_svg(drawing('<rect fill="rgba(255,0,0,0.4)" width="9" height="9"/>'))
    again = parse_svg(write_svg(document, {0: ShapeEdit(fill=(0.0, 0.0, 1.0))}))
    fill = again.shapes[0].fill
    assert fill is not None and fill.opacity * fill.colour.alpha == pytest.approx(0.4, abs=3e-3)


@pytest.mark.parametrize(
    ("attributes", "size", "corner"),
    [
        ('viewBox="10 20 40 20"', (40, 20), (-10, -20)),
        ('width="80" height="30"', (80, 30), (0, 0)),
        ('viewBox="0 0 40 20" width="80" height="80"', (80, 80), (0, 20)),  # in the middle
        ('viewBox="0 0 40 20" width="80" height="80" preserveAspectRatio="xMinYMin"', (80, 80), (0, 0)),
        ('viewBox="0 0 10 10" width="1in" height="50%"', (96, 96), (0, 0)),
        ("", (300, 150), (0, 0)),
    ],
)
def test_the_view_box_is_fitted_into_the_picture(attributes, size, corner):
    document = parse_svg(drawing('<rect width="5" height="5"/>', attributes))
    assert document.size == size
    assert document.shapes[0].to_picture[:, 2].tolist() == pytest.approx(list(corner))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not xml", "well-formed"),
        ("<svg><g></svg>", "well-formed"),
        ("<html/>", "outermost element is 'html'"),
        (drawing(""), "nothing to draw"),
        (drawing("<text>only words</text>"), "nothing to draw .*not supported: text"),
        (drawing('<rect id="r" width="0" height="3"/>'), "nothing to draw .*without extent or paint: rect 'r'"),
        (drawing('<path d="M1 1h5v5" fill="none"/>'), "nothing to draw"),
        (drawing('<rect width="5" height="5"/>', 'viewBox="0 0 0 9"'), "viewBox='0 0 0 9'"),
        (drawing('<rect width="5" height="5"/>', 'width="-4"'), "both must be positive"),
    ],
)
def test_what_cannot_be_drawn_is_a_clear_error(text, message):
    with pytest.raises(SvgError, match=message):
        parse_svg(text, "data.svg='x.svg'")


def test_what_is_hidden_is_neither_drawn_nor_named():
    document = parse_svg(
        drawing('<g display="none"><rect width="5" height="5"/></g><rect visibility="hidden" width="5" height="5"/>'
                '<circle id="c" r="5"/>')
    )  # fmt: skip
    assert [shape.name for shape in document.shapes] == ["circle 'c'"]
    assert document.unsupported == document.invisible == ()


def test_a_line_is_not_filled_and_a_path_of_no_area_is_only_stroked():
    document = parse_svg(drawing('<path d="M0 0L9 9L3 3" stroke="red"/><line x2="4" stroke="blue"/>'))
    assert all(shape.fill is None and shape.stroke for shape in document.shapes)
    assert parse_svg(drawing('<path id="thin" d="M0 0L9 9"/><rect width="2" height="2"/>')).invisible == (
        "path 'thin'",
    )


@pytest.mark.parametrize("far", ["scale(1e200)", "translate(1e30 0)", "scale(1e9) scale(1e9)"])
def test_a_transform_without_measure_is_named(far):
    document = parse_svg(drawing(f'<rect id="a" width="9" height="9" transform="{far}"/><rect width="2" height="2"/>'))
    assert [shape.name for shape in document.shapes] == ["rect"]
    assert document.unsupported == ("rect 'a' with a transform that makes it too large",)
