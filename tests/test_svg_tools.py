"""Drawings as Figma, Illustrator, Inkscape and icon sets write them: drawn like resvg draws them, and written back."""

import pytest
import torch
from svg_drawings import drawing, scene_of
from test_render_vector import reference

from distill3d.scenes.svg.document import SvgError, parse_svg
from distill3d.scenes.svg.scene import SvgScene

GRADIENT = (
    '<linearGradient id="a"><stop offset="0" stop-color="#f00"/><stop offset="1" stop-color="#ff0"/></linearGradient>'
)

WRITTEN = {
    "a clip as large as the picture": """
        <g clip-path="url(#c)"><path d="M10 10H90V90H10Z" fill="#E53935"/><circle cx="50" cy="50" r="20"/></g>
        <defs><clipPath id="c"><rect width="100" height="100" fill="white"/></clipPath></defs>""",
    "a clip that cuts": """
        <clipPath id="c"><circle cx="40" cy="40" r="30"/><path d="M60 60h30v30h-30z"/></clipPath>
        <g clip-path="url(#c)" opacity=".8"><rect width="100" height="100" fill="teal"/></g>
        <rect clip-path="url(#d)" x="70" width="30" height="30"/>
        <clipPath id="d" clipPathUnits="objectBoundingBox"><path d="M0 0L1 0L.5 1z"/></clipPath>""",
    "a switch": """
        <switch><foreignObject requiredExtensions="urn:x" width="1" height="1"/>
        <g><circle fill="#C62828" cx="50" cy="60" r="30"/></g><rect width="100" height="100"/></switch>""",
    "dashes without a stroke and the usual paint order": """
        <path style="fill:#c62828;stroke:none;stroke-dasharray:4, 2" d="M8 8H56V56H8Z"/>
        <circle style="fill:#ffeb3b;stroke:#000;stroke-width:4;paint-order:fill markers stroke" cx="60" cy="60"
        r="20"/>""",
    "use and symbol": """
        <defs><path id="leaf" d="M0 0C8 -8 16 -8 20 0C16 8 8 8 0 0Z" fill="#2E7D32"/></defs>
        <symbol id="s" viewBox="0 0 10 10"><circle cx="5" cy="5" r="6" fill="#C62828"/></symbol>
        <use href="#s" x="12" y="20" width="60" height="40"/><use href="#leaf" x="30" y="14"/>
        <g id="two"><use href="#leaf" x="10" y="80"/><use href="#leaf" x="40" y="80" transform="rotate(5)"/></g>
        <use href="#two" y="-15" opacity=".5"/>""",
    "an svg inside": """
        <svg x="20" y="10" width="50" height="40" viewBox="0 0 10 10"><circle cx="5" cy="5" r="8" fill="navy"/></svg>
        <svg x="60" y="60" overflow="visible"><rect x="-10" width="20" height="20" fill="gold"/></svg>""",
    "linear gradients": f"""
        <defs>{GRADIENT}<linearGradient id="b" href="#a" x2="0" y2="1" spreadMethod="reflect"
        gradientTransform="scale(.3)"/></defs><circle cx="30" cy="32" r="24" fill="url(#a)"/>
        <rect x="50" y="50" width="40" height="45" fill="url(#b)" stroke="url(#a)" stroke-width="6"/>""",
    "a radial gradient with a focus": """
        <radialGradient id="r" gradientUnits="userSpaceOnUse" cx="50" cy="50" r="45" fx="35" fy="40">
        <stop offset=".1" stop-color="white"/><stop offset="60%" stop-color="blue" stop-opacity=".6"/>
        <stop offset="1" style="stop-color:black"/></radialGradient><rect width="100" height="100" fill="url(#r)"/>""",
    "a repeated radial gradient": """
        <radialGradient id="r" r=".2" spreadMethod="repeat"><stop offset="0" stop-color="red"/>
        <stop offset="1" stop-color="green"/></radialGradient>
        <ellipse cx="50" cy="50" rx="45" ry="30" fill="url(#r)"/>""",
    "gradients that are no more than a colour": """
        <linearGradient id="one"><stop offset=".5" stop-color="red"/></linearGradient>
        <linearGradient id="point" x2="0"><stop stop-color="red"/><stop offset="1" stop-color="lime"/></linearGradient>
        <linearGradient id="none"/><rect width="30" height="30" fill="url(#one)"/>
        <rect x="40" width="30" height="30" fill="url(#point)"/><rect y="40" width="30" height="30" fill="url(#none)"/>
        <rect x="40" y="40" width="30" height="30" fill="url(#missing) purple"/>""",
    "markers where none can be": '<rect width="30" height="30" style="marker:url(#m)"/><marker id="m"/>',
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_it_is_drawn_whole_and_like_resvg(kind):
    scene = scene_of(WRITTEN[kind])
    assert scene.document is not None and scene.document.unsupported == ()
    assert float((scene.render(128, 128).detach() - reference(WRITTEN[kind], 128)).abs().mean()) < 0.01


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_is_written_back_shows_the_same(kind):
    scene, again = scene_of(WRITTEN[kind]), SvgScene()
    again.begin(parse_svg(scene.svg()))
    assert torch.equal(again.render(64, 64), scene.render(64, 64))


def test_colours_of_stops_are_trained_and_written():
    scene = scene_of(WRITTEN["linear gradients"])
    first = scene.colours.values.shape[0] - 2
    scene.render(32, 32)[2].sum().backward()  # more blue
    gradient = scene.colours.values.grad
    assert gradient is not None and (gradient[first:, 2] > 1.0).all()
    with torch.no_grad():
        scene.colours.values[first:, 2] += torch.tensor([0.4, 0.8])
    again = SvgScene()
    again.begin(parse_svg(scene.svg()))
    assert 'stop-color="#ff0066"' in scene.svg() and 'stop-color="#ffffcc"' in scene.svg()
    torch.testing.assert_close(again.render(32, 32), scene.render(32, 32), atol=0.004, rtol=0)


def test_each_copy_of_what_is_used_can_change_by_itself():
    scene = scene_of('<defs><rect id="r" width="9" height="9"/></defs><use href="#r"/><use href="#r" x="50"/>')
    with torch.no_grad():
        scene.colours.values[1, 0] = 1.0
    again = SvgScene()
    again.begin(parse_svg(scene.svg()))
    assert again.colours.values.tolist() == [[0, 0, 0], [1, 0, 0]]


def test_entities_of_illustrator_are_read():
    text = '<!DOCTYPE svg [<!ENTITY ns "http://x/">]><svg xmlns:x="&ns;" xmlns="http://www.w3.org/2000/svg">'
    assert len(parse_svg(text + '<g x:e="self"><rect width="9" height="9"/></g></svg>').shapes) == 1


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (
            '<rect id="a" width="9" height="9" fill="url(#p)"/><pattern id="p"/>',
            "rect 'a' with url(#p), which is a pattern",
        ),
        ('<rect id="a" width="9" height="9" fill="url(#p)"/>', "rect 'a' with url(#p), which is missing"),
        ('<g id="a" mask="url(#m)"><rect width="9" height="9"/></g>', "g 'a' with mask"),
        ('<g id="a" style="transform:scale(2)"><rect width="9" height="9"/></g>', "g 'a' with transform"),
        ('<path id="a" d="M0 0L9 9" stroke="red" stroke-dasharray="2"/>', "path 'a' with stroke-dasharray"),
        ('<rect id="a" width="9" height="9" stroke="red" paint-order="stroke"/>', "rect 'a' with paint-order"),
        ('<use href="other.svg#x"/>', "use"),
        ("<image/>", "image"),
    ],
)
def test_what_is_not_drawn_is_named(body, named):
    assert parse_svg(drawing(body + '<circle r="5"/>')).unsupported == (named,)


LAUGHS = "".join(f'<g id="l{i + 1}">' + f'<use href="#l{i}"/>' * 10 + "</g>" for i in range(8))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (drawing('<rect width="5" height="5"/>', 'width="1e400"'), "is too long"),
        (drawing('<rect width="5" height="5"/>', 'viewBox="0 0 nan 9"'), "must be four numbers"),
        (drawing("<g>" * 500 + "</g>" * 500), "more than 150 elements inside one another"),
        (drawing("<g>" * 5_000 + "</g>" * 5_000), "more than 150 elements inside one another"),
        (drawing('<g id="a"><use href="#a"/></g>'), "inside itself"),
        (drawing('<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/></g>'), "inside itself"),
        (drawing(f'<rect id="l0" width="1" height="1"/>{LAUGHS}'), "more than 20000 elements"),
        (
            "<!DOCTYPE svg [<!ENTITY a0 'lol'>"
            + "".join(f"<!ENTITY a{i + 1} '{f'&a{i};' * 10}'>" for i in range(9))
            + "]><svg>&a9;</svg>",
            "no well-formed XML",
        ),
    ],
)
def test_hostile_drawings_are_refused(text, message):
    with pytest.raises(SvgError, match=message):
        parse_svg(text)
