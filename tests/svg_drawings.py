"""Drawings that the tests write themselves, one of each kind, on a board of 100 by 100."""

from __future__ import annotations

from distill3d.scenes.svg.document import parse_svg
from distill3d.scenes.svg.scene import SvgScene

KINDS = {
    "rectangles, one rounded and translucent": """
        <rect x="10" y="10" width="30" height="50" fill="red"/>
        <rect x="30.5" y="33.3" width="60" height="40" rx="9" fill="#08f" fill-opacity=".6" stroke="black"
              stroke-width="3"/>""",
    "circle and ellipse": """
        <circle cx="50" cy="50" r="30" fill="green" stroke="orange" stroke-width="7"/>
        <ellipse cx="30" cy="70" rx="25" ry="10" opacity=".5"/>""",
    "star that overlaps itself, nonzero": '<polygon points="50,5 79,95 2,39 98,39 21,95" fill="purple"/>',
    "star that overlaps itself, even-odd": """
        <polygon points="50,5 79,95 2,39 98,39 21,95" fill="purple" fill-rule="evenodd" stroke="gold"
                 stroke-width="2"/>""",
    "ends of lines": """
        <g fill="none" stroke-width="12"><path d="M20 20 H80" stroke="red"/>
        <path d="M20 45 H80" stroke="green" stroke-linecap="round"/>
        <path d="M20 70 H80" stroke="blue" stroke-linecap="square"/>
        <path d="M10 95 Q 50 60 90 92" stroke="navy"/></g>""",
    "joins of lines": """
        <g fill="none" stroke="teal" stroke-width="10"><path d="M20 80 L40 20 L60 80"/>
        <polyline points="60,30 75,20 90,60" stroke-linejoin="round"/>
        <polygon points="70,70 95,75 80,95"/></g>""",
    "arcs and smooth curves": """
        <path d="M10 50 A 40 25 30 1 1 60 80 L 50 50 Z" fill="coral"/>
        <path d="M20 20 q 10 -10 20 0 t 20 10 m 5 5 c 0 10 10 10 10 20 s 5 10 20 10" fill="none" stroke="black"/>""",
    "groups with transforms, one fading as a whole": """
        <g transform="translate(50 50) rotate(30) scale(1.5 .7)">
        <rect x="-20" y="-20" width="40" height="40" fill="#a33"/>
        <g opacity=".5"><circle r="15" fill="blue"/><circle cx="10" r="15" fill="lime"/></g></g>""",
    "lines thinner than a pixel": """
        <g stroke="black" fill="none"><line x1="5" y1="5" x2="95" y2="40" stroke-width=".3"/>
        <path d="M5 50 C 30 0 60 100 95 50" stroke-width=".8"/></g>""",
    "holes": """
        <path d="M10 10H90V90H10Z M30 30V70H70V30Z" fill="#555"/>
        <path d="M40 40H60V60H40Z M45 45H55V55H45Z" fill="red" fill-rule="evenodd"/>""",
    "a curve that crosses itself, open but filled": """
        <path d="M10 80 C 120 0 -20 0 90 80" fill="gold" stroke="black" stroke-width="2"/>""",
    "beyond the picture": """
        <circle cx="95" cy="90" r="40" fill="navy" stroke="aqua" stroke-width="10"/>
        <rect x="-50" y="-50" width="80" height="80" fill="tomato"/><rect x="200" y="0" width="9" height="9"/>""",
    "a style sheet and style attributes": """
        <style>.warm { fill: orange; stroke: red } #cold { fill: blue }</style>
        <rect class="warm" x="10" y="10" width="30" height="70" stroke-width="4"/>
        <rect class="warm" id="cold" x="50" y="20" width="40" height="40" style="stroke: none; opacity: 50%"/>""",
}


def drawing(body: str, attributes: str = 'viewBox="0 0 100 100"') -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" {attributes}>{body}</svg>'


def scene_of(body: str, attributes: str = 'viewBox="0 0 100 100"') -> SvgScene:
    scene = SvgScene()
    scene.begin(parse_svg(drawing(body, attributes)))
    return scene
