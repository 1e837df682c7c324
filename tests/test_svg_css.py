"""CSS in drawings: colours of level 4, selectors, @media."""

import pytest
import torch
from svg_drawings import drawing, scene_of
from test_render_vector import reference

from distill3d.scenes.svg.css_color import parse_color
from distill3d.scenes.svg.document import parse_svg
from distill3d.scenes.svg.scene import SvgScene
from distill3d.scenes.svg.style import length
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


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        (".no " + "g " * 12 + "path", False),  # every choice of 12 among 100 groups would take years
        ("#a " + "g " * 12 + "path", True),
        ("#a > g > path", False),
        ("#a " + "> g " * 99 + "> path", True),
        ("#a > g g > g > path", True),
        ("path", True),
    ],
)
def test_a_long_selector_in_a_deep_drawing_is_decided_at_once(selector, fits):
    groups = '<g id="a">' + "<g>" * 99
    path = '<path fill="red" d="M0 0h9v9z"/>' + "</g>" * 100
    document = parse_svg(drawing(f"<style>{selector.replace('>', '&gt;')}{{fill:blue}}</style>{groups}{path}"))
    assert document.shapes[0].fill.colour.rgb == ((0.0, 0.0, 1.0) if fits else (1.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("attributes", "counts"),
    [("", True), ('media="all"', True), ('media="print"', False), ('type="TEXT/CSS"', True), ('type="x/less"', False)],
)
def test_a_style_sheet_for_printers_or_of_another_language_does_not_count(attributes, counts):
    document = parse_svg(drawing(f'<style {attributes}>path{{fill:blue}}</style><path fill="red" d="M0 0h9v9z"/>'))
    assert document.shapes[0].fill.colour.rgb == ((0.0, 0.0, 1.0) if counts else (1.0, 0.0, 0.0))


# what each drawing says with variables and !important, and what it comes to
RESOLVED = {
    "an important rule over style attributes and later rules": (
        "<style>rect{fill:red ! IMPORTANT} #a{fill:blue} .b{fill:lime!important}</style>"
        '<rect id="a" width="40" height="40" style="fill:gold"/><rect class="b" x="50" width="40" height="40"/>'
        '<rect y="50" width="40" height="40" style="fill:navy!important"/>',
        '<rect width="40" height="40" fill="red"/><rect x="50" width="40" height="40" fill="lime"/>'
        '<rect y="50" width="40" height="40" fill="navy"/>',
    ),
    "variables of the root, of a group and of the element": (
        "<style>:root{--a:red;--b:3} g{--a:lime} .x{fill:var(--a)} .y{fill:VAR( --a );--a:blue}</style>"
        '<rect class="x" width="40" height="40"/><g stroke="var(--a)" stroke-width="var(--b)">'
        '<rect class="x" x="50" width="40" height="40"/><rect class="y" y="50" width="40" height="40"/></g>',
        '<rect fill="red" width="40" height="40"/><rect fill="lime" x="50" width="40" height="40" stroke="lime"'
        ' stroke-width="3"/><rect fill="blue" y="50" width="40" height="40" stroke="lime" stroke-width="3"/>',
    ),
    "fallbacks, one within another, and parts of a colour": (
        '<g style="--h:120;--none:initial"><rect width="40" height="40" fill="var(--gone, var(--none, gold))"/>'
        '<rect x="50" width="40" height="40" fill="hsl(var(--h) 100% var(--l, 25%))"/></g>',
        '<rect width="40" height="40" fill="gold"/><rect x="50" width="40" height="40" fill="#008000"/>',
    ),
    "stops of a gradient, and variables that name others": (
        '<style>svg{--Tint:var(--base);--base:#f00;--tint:blue;color:lime}</style><linearGradient id="g">'
        '<stop stop-color="var(--Tint)"/><stop offset="1" stop-color="currentColor"/></linearGradient>'
        '<rect width="90" height="90" fill="url(#g)"/>',
        '<linearGradient id="g"><stop stop-color="red"/><stop offset="1" stop-color="lime"/></linearGradient>'
        '<rect width="90" height="90" fill="url(#g)"/>',
    ),
}


@pytest.mark.parametrize("kind", RESOLVED)
def test_variables_and_important_come_to_what_resvg_draws_of_plain_values(kind):
    """resvg knows no var(), so that it is given what the standard makes of each."""
    with_css, plain = RESOLVED[kind]
    scene = scene_of(with_css)
    assert scene.document is not None and scene.document.unsupported == ()
    assert float((scene.render(64, 64).detach() - reference(plain, 64)).abs().mean()) < 0.005


def test_important_alone_is_drawn_as_resvg_draws_it():
    """Of two that are important resvg takes the first, and the standard the one whose selector is stronger."""
    one = "<style>rect{fill:red!important} #a{fill:blue}</style>"
    one += '<rect id="a" width="40" height="40" style="fill:gold"/>'
    assert float((scene_of(one).render(64, 64).detach() - reference(one, 64)).abs().mean()) < 0.005


@pytest.mark.parametrize(
    "style",
    [
        "fill:var(--a)",
        "--a:var(--a);fill:var(--a)",
        "--a:var(--b);--b:var(--a);fill:var(--a)",
        "fill:var(--a",
        "fill:var()",
        "--a:initial;fill:var(--a)",
        "".join(f"--a{i}:var(--a{i + 1}) var(--a{i + 1});" for i in range(30)) + "--a30:x;fill:var(--a0)",
        "".join(f"--a{i}:var(--a{i + 1},var(--a{i + 1}));" for i in range(60)) + "fill:var(--a0)",
    ],
)
def test_a_variable_without_a_value_is_named_and_not_black(style):
    document = parse_svg(drawing(f'<rect id="a" width="9" height="9" style="{style}"/><rect width="2" height="2"/>'))
    assert len(document.shapes) == 1 and len(document.unsupported) == 1
    assert document.unsupported[0].startswith("rect 'a' with 'var(") and "is no colour" in document.unsupported[0]


@pytest.mark.parametrize("kind", RESOLVED)
def test_a_change_wins_over_an_important_rule_and_a_variable(kind):
    scene, again = scene_of(RESOLVED[kind][0]), SvgScene()
    with torch.no_grad():
        scene.colours.values.copy_(torch.tensor([0.2, 0.4, 0.6]).expand_as(scene.colours.values))
    again.begin(parse_svg(scene.svg()))
    torch.testing.assert_close(again.render(32, 32), scene.render(32, 32), atol=1e-4, rtol=0)


def test_a_sheet_that_is_not_closed_is_read_as_far_as_it_goes():
    assert [rule.body for rule in StyleSheet("a{fill:red} @media screen { b{fill:blue").rules] == [
        {"fill": "red"},
        {"fill": "blue"},
    ]


# -- places and sizes, and the case of words --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inner",
    [
        '<rect x="99" y="3" width="1" height="5" style="x:2px;width:4px"/>',
        '<style>rect{X:2px;width:calc-no;width:4px}</style><rect x="99" y="3" width="1" height="5"/>',
        '<rect x="2" y="3" width="4" height="5" style="x:9;width:7"/>',  # without a unit CSS passes over it
        '<rect x="2" y="3" width="4" height="5" style="fill:url(#Nothing) RED"/>',
        '<ellipse style="cx:4px;cy:5.5px;rx:2px;ry:2.5px"/>',
        '<circle cx="9" r="1" style="cx:4px;r:2px;cy:5.5px" transform="translate(0,-1.375) scale(1,1.25)"/>',
        '<rect y="3" style="x:var(--x);width:4PX;height:5px;--x:2px"/>',
    ],
)
def test_a_style_says_places_and_sizes_before_attributes_do(inner):
    document = parse_svg(drawing(inner))
    shape = document.shapes[0]
    points = shape.subpaths[0].points @ shape.to_picture[:, :2].T + shape.to_picture[:, 2]
    assert [*points.min(0), *points.max(0)] == pytest.approx([2, 3, 6, 8], abs=1e-6)


def test_a_clip_path_has_the_sizes_of_its_style():
    clip = '<clipPath id="c"><rect style="width:4px;height:4px"/></clipPath>'
    (outline,) = parse_svg(drawing(clip + '<rect width="64" height="64" clip-path="url(#c)"/>')).clips[0]
    assert outline.subpaths[0].points.max(0).tolist() == [4, 4]


@pytest.mark.parametrize(
    ("inner", "named"),
    [
        ('<path id="a" d="M0 0H9V9z" style="d:path(\'M0 0H3V3z\')"/>', "path 'a' with a d of its style"),
        ('<rect id="a" width="9" height="9" style="width:calc(1px + 2px)"/>', "'calc(1px + 2px)' is no length"),
        ('<svg id="a" style="x:3px"><rect width="9" height="9"/></svg>', "svg 'a' with a place or a size of its style"),
    ],
)
def test_places_and_sizes_that_are_not_read_are_named(inner, named):
    document = parse_svg(drawing(inner + '<rect width="2" height="2"/>'))
    assert len(document.shapes) == 1 and named in document.unsupported[0]


def test_lengths_have_the_units_of_css_and_nothing_else():
    units = {"10": 10, "1e2": 100, "2PX": 2, "1in": 96, "2.54cm": 96, "25.4mm": 96, "101.6q": 96, "72pt": 96, "6pc": 96}
    for text, expected in (units | {"10%": 20, "2em": 32, "2rem": 32, " -.5 px ": -0.5, "2ex": 16}).items():
        assert length(text, 200.0) == pytest.approx(expected)
    for text in ("", "1 2", "calc(1px)", "10foo", "2vw", "1e", "nan", "1e400", "0x10"):
        with pytest.raises(ValueError, match=r"is no length|is too long"):
            length(text, 200.0)
    assert parse_svg('<svg width="100vw" height="50VH" viewBox="0 0 9 9"><circle r="2"/></svg>').size == (9, 9)


def test_words_may_be_in_any_case():
    hidden = ['display="NONE"', 'style="display:None"', 'visibility="Hidden"', 'fill="NONE"']
    for attribute in hidden:
        document = parse_svg(drawing(f'<rect width="9" height="9" {attribute}/><circle r="2"/>'))
        assert [shape.tag for shape in document.shapes] == ["circle"] and not document.unsupported
    path = '<path d="M0 0H9V9z" fill-rule="EVENODD" stroke="RED" stroke-linecap="Round"/>'
    (shape,) = parse_svg(drawing(path)).shapes
    assert shape.fill.even_odd and shape.stroke.cap == "round"
