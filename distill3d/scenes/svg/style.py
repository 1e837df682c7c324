"""Properties of SVG elements: presentation attributes, style attributes, plain rules of a style sheet, inheritance."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from distill3d.scenes.svg.css_color import Rgba, parse_color
from distill3d.scenes.svg.style_sheet import Declarations, StyleSheet
from distill3d.scenes.svg.variables import resolved

LONGEST = 1e9  # user units: what is longer is a mistake, and its square is no number for float32

INITIAL: Mapping[str, str] = {
    "fill": "black",
    "fill-opacity": "1",
    "fill-rule": "nonzero",
    "clip-rule": "nonzero",
    "stroke": "none",
    "stroke-width": "1",
    "stroke-opacity": "1",
    "stroke-linecap": "butt",
    "stroke-linejoin": "miter",
    "stroke-miterlimit": "4",
    "stroke-dasharray": "none",
    "vector-effect": "none",
    "paint-order": "normal",
    "color": "black",
    "visibility": "visible",
    "marker-start": "none",
    "marker-mid": "none",
    "marker-end": "none",
}
# places and sizes are properties, too, which a style may say instead of an attribute (SVG 2, 8.11)
GEOMETRY = ("x", "y", "width", "height", "rx", "ry", "cx", "cy", "r", "d")
_LENGTH = re.compile(r"(?P<number>[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?)\s*(?P<unit>[a-z]*|%)", re.IGNORECASE)
# user units; letters have 16 of them, and an x half of that
UNITS: Mapping[str | None, float] = {"": 1.0, "px": 1.0, "em": 16.0, "rem": 16.0, "ex": 8.0, "ch": 8.0, "in": 96.0}
UNITS = {**UNITS, "cm": 96.0 / 2.54, "mm": 96.0 / 25.4, "q": 96.0 / 101.6, "pt": 96.0 / 72.0, "pc": 16.0}
# those that a child does not take from its parent
OWN: Mapping[str, str] = {
    "opacity": "1",
    "display": "inline",
    "clip-path": "none",
    "transform": "none",
    "overflow": "",
    "stop-color": "black",
    "stop-opacity": "1",
    "mask": "none",
    "filter": "none",
    "mix-blend-mode": "normal",
} | dict.fromkeys(GEOMETRY, "")
# properties that change a picture in a way that is not drawn here, with the values that do not
PLAIN: Mapping[str, tuple[str, ...]] = {
    "mask": ("none",),
    "filter": ("none",),
    "mix-blend-mode": ("normal",),
    "marker-start": ("none",),
    "marker-mid": ("none",),
    "marker-end": ("none",),
    "transform": ("none",),
}
# those that matter only where there is a stroke
PLAIN_STROKE: Mapping[str, tuple[str, ...]] = {"stroke-dasharray": ("none", "0"), "vector-effect": ("none",)}


def properties(node: Any, inherited: Mapping[str, str], sheet: StyleSheet) -> Declarations:
    """All properties of an element: from its style attribute, else the style sheet, its attributes, its parent.

    Custom properties (``--name``) are among them, and put in where ``var(--name)`` asks for them.
    """
    known = {**INITIAL, **OWN}
    own = {name: node.getAttribute(name).strip() for name in known if node.hasAttribute(name) and name != "transform"}
    own = resolved(own | _valid(sheet.properties(node)), inherited)
    result = {name: inherited.get(name, value) for name, value in INITIAL.items()} | dict(OWN)
    result |= {name: value for name, value in own.items() if name.startswith("--")}
    if "marker" in own:
        own |= {f"marker-{place}": own["marker"] for place in ("start", "mid", "end")}
    for name, value in own.items():
        plain = _lower(name, value)
        if name in known and plain not in ("", "inherit"):
            result[name] = plain
        elif plain == "inherit":
            result[name] = inherited.get(name, known.get(name, ""))
    return result


def _lower(name: str, value: str) -> str:
    """CSS's words, colours and units in lower case, in attributes as well; names of elements and paths as they are."""
    keeps_case = name.startswith("--") or name == "d" or "url(" in value.lower()
    return value if keeps_case else value.lower()


def _valid(declared: Declarations) -> Declarations:
    """Without lengths that have no unit, which CSS passes over for places and sizes."""
    return {
        name: value
        for name, value in declared.items()
        if not (name in GEOMETRY and (m := _LENGTH.fullmatch(value)) and not m["unit"] and float(m["number"]))
    }


def geometry(node: Any, values: Mapping[str, str]) -> dict[str, str]:
    """The attributes of an element, places and sizes as its style has them. Raises ValueError for a ``d`` there."""
    if node.localName == "path" and values["d"] != node.getAttribute("d").strip():
        raise ValueError("a d of its style")
    return dict(node.attributes.items()) | {name: value for name in GEOMETRY if (value := values[name])}


def computed(node: Any, sheet: StyleSheet) -> Declarations:
    """`properties` of an element with all that it takes from the elements above it."""
    above = node.parentNode
    inherited = {} if above is None or above.nodeType != above.ELEMENT_NODE else computed(above, sheet)
    return properties(node, inherited, sheet)


def not_drawn(values: Mapping[str, str]) -> list[str]:
    """The properties that change the picture in a way that is not drawn here."""
    return [name for name, plain in PLAIN.items() if values[name] not in plain]


def not_drawn_of_stroke(values: Mapping[str, str], is_filled: bool) -> list[str]:
    """The same of a shape that has a stroke."""
    bad = [name for name, plain in PLAIN_STROKE.items() if values[name] not in plain]
    order = values["paint-order"].split()
    strokes_first = "stroke" in order and order.index("stroke") < (order.index("fill") if "fill" in order else 9)
    return [*bad, "paint-order"] if is_filled and strokes_first else bad


def colour(text: str, current: str) -> Rgba | None:
    """A colour; None for ``none`` and ``transparent``. Raises ValueError for what is no colour."""
    text = current if text.lower() == "currentcolor" else text
    if text.lower() in ("none", "transparent"):
        return None
    return parse_color(text)


def fraction(text: str) -> float:
    """An opacity, as a number or a percentage, kept in [0, 1]."""
    value = float(text[:-1]) / 100.0 if text.endswith("%") else float(text)
    if value != value:
        raise ValueError(f"{text!r} is no number")
    return min(max(value, 0.0), 1.0)


def length(text: str, relative_to: float) -> float:
    """A length in user units (96 an inch); a percentage is one of ``relative_to``. Raises ValueError."""
    match = _LENGTH.fullmatch(text.strip())
    unit = match["unit"].lower() if match else None
    scale = relative_to / 100.0 if unit == "%" else UNITS.get(unit)
    if match is None or scale is None:
        raise ValueError(f"{text[:40]!r} is no length")
    number = float(match["number"]) * scale
    if not abs(number) <= LONGEST:
        raise ValueError(f"{text[:40]!r} is too long")
    return number


def hexadecimal(rgb: tuple[float, float, float]) -> str:
    """``#rrggbb``."""
    return "#" + "".join(f"{round(255 * min(max(part, 0.0), 1.0)):02x}" for part in rgb)
