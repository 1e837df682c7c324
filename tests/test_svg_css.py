"""CSS in drawings: colours of level 4, selectors, @media."""

import pytest
from svg_drawings import drawing

from distill3d.scenes.svg.css_color import parse_color
from distill3d.scenes.svg.document import parse_svg
from distill3d.scenes.svg.style_sheet import StyleSheet

BRICK = (198, 40, 40)


@pytest.mark.parametrize(
    ("text", "rgb", "alpha"),
    [
        ("rgb(198 40 40)", BRICK, 1.0),
        ("rgb(198 40 40 / 80%)", BRICK, 0.8),
        ("rgba(198,40,40,.8)", BRICK, 0.8),
        ("RGB( 198 , 40 , 40 )", BRICK, 1.0),
        ("#c62828", BRICK, 1.0),
        ("#C62828CC", BRICK, 0.8),
        ("#f80", (255, 136, 0), 1.0),
        ("#f808", (255, 136, 0), 136 / 255),
        ("rgb(78.5%, 15.7%, 15.7%)", (200.175, 40.035, 40.035), 1.0),
        ("hsl(0 66% 47%)", (198.951, 40.749, 40.749), 1.0),
        ("hsl(120deg, 100%, 25%)", (0, 127.5, 0), 1.0),
        ("hsl(.5turn 100 50 / 0.5)", (0, 255, 255), 0.5),
        ("hwb(120 10% 20%)", (25.5, 204, 25.5), 1.0),
        ("rebeccapurple", (102, 51, 153), 1.0),
        ("CornflowerBlue", (100, 149, 237), 1.0),
        # the examples of the standard and of its author's converters
        ("oklch(60% 0.2 20)", (222.1, 57.4, 75.5), 1.0),
        ("oklab(100% 0 0)", (255, 255, 255), 1.0),
        ("lab(29.2345% 39.3825 20.0664)", (125, 35, 41), 1.0),
        ("lch(52.2345% 72.2 56.2)", (198, 93, 6), 1.0),
        ("color(srgb 1 0.5 0)", (255, 127.5, 0), 1.0),
        ("color(display-p3 0 0 0)", (0, 0, 0), 1.0),
        ("rgb(300 -5 none)", (255, 0, 0), 1.0),
    ],
)
def test_colours_of_css_4(text, rgb, alpha):
    color = parse_color(text)
    assert [255 * part for part in color.rgb] == pytest.approx(rgb, abs=0.6)
    assert color.alpha == pytest.approx(alpha, abs=1e-3)


@pytest.mark.parametrize(
    "text", ["", "rgb(1 2)", "#12", "#ggg", "rgb(nan 1 1)", "rgb(1e999 0 0)", "hsl(a b c)", "teall"]
)
def test_what_is_no_colour_is_refused(text):
    with pytest.raises(ValueError, match="is no colour"):
        parse_color(text)


def test_a_colour_that_is_not_understood_is_named_and_never_black():
    document = parse_svg(drawing('<rect id="a" width="9" height="9" fill="var(--x)"/><rect width="2" height="2"/>'))
    assert document.unsupported == ("rect 'a' with 'var(--x)' is no colour",)
    assert len(document.shapes) == 1


SHEET = """
    /* comment */ @import url("a.css");
    path { fill: red } .b { fill: blue } #c { fill: green }
    g .inner, g > .child { fill: yellow }
    @media print { path { fill: black } }
    @media screen { .d { fill: white } }
    a:hover { fill: pink }
"""


@pytest.mark.parametrize(
    ("body", "rgb"),
    [
        ("<path {d}/>", (1, 0, 0)),
        ('<path class="x b" {d}/>', (0, 0, 1)),
        ('<path class="b" id="c" {d}/>', (0, 128 / 255, 0)),
        ('<g><a><path class="inner" {d}/></a></g>', (1, 1, 0)),
        ('<g><a><path class="child" {d}/></a></g>', (1, 0, 0)),
        ('<g><path class="child" {d}/></g>', (1, 1, 0)),
        ('<path class="d" {d}/>', (1, 1, 1)),
    ],
)
def test_rules_win_by_their_selectors(body, rgb):
    text = drawing(f"<style>{SHEET.replace('>', '&gt;')}</style>" + body.format(d='d="M0 0h9v9z"'))
    document = parse_svg(text)
    assert document.shapes[0].fill is not None
    assert document.shapes[0].fill.colour.rgb == pytest.approx(rgb)
    assert document.unsupported == ("style rule 'a:hover'",)


def test_a_sheet_that_is_not_closed_is_read_as_far_as_it_goes():
    assert [rule.body for rule in StyleSheet("a{fill:red} @media screen { b{fill:blue").rules] == [
        {"fill": "red"},
        {"fill": "blue"},
    ]
