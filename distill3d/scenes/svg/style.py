"""Properties of SVG elements: presentation attributes, style attributes, plain rules of a style sheet, inheritance."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

INITIAL: Mapping[str, str] = {
    "fill": "black",
    "fill-opacity": "1",
    "fill-rule": "nonzero",
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
# those that a child does not take from its parent
OWN: Mapping[str, str] = {
    "opacity": "1",
    "display": "inline",
    "clip-path": "none",
    "mask": "none",
    "filter": "none",
    "mix-blend-mode": "normal",
}
# properties that change a picture in a way that is not drawn here, with the values that do not
PLAIN: Mapping[str, tuple[str, ...]] = {
    "clip-path": ("none",),
    "mask": ("none",),
    "filter": ("none",),
    "mix-blend-mode": ("normal",),
    "stroke-dasharray": ("none", "0"),
    "vector-effect": ("none",),
    "paint-order": ("normal", "fill", "fill stroke", "fill stroke markers"),
    "marker-start": ("none",),
    "marker-mid": ("none",),
    "marker-end": ("none",),
}

Declarations = dict[str, str]


@dataclass(frozen=True)
class Rgba:
    """A colour in sRGB with its own opacity, all in [0, 1]."""

    rgb: tuple[float, float, float]
    alpha: float


class StyleSheet:
    """Rules whose selectors are one tag, class or id each; ``unsupported`` names the others."""

    def __init__(self, text: str = "") -> None:
        self.rules: list[tuple[int, str, Declarations]] = []
        self.unsupported: list[str] = []
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
        for selectors, body in re.findall(r"([^{}]+)\{([^{}]*)\}", text):
            for selector in (part.strip() for part in selectors.split(",")):
                if re.fullmatch(r"[.#]?[\w-]+|\*", selector):
                    rank = {"#": 2, ".": 1}.get(selector[0], 0)
                    self.rules.append((rank, selector, declarations(body)))
                else:
                    self.unsupported.append(f"style rule {selector!r}")
        self.rules.sort(key=lambda rule: rule[0])  # stable: of two alike the later one wins

    def properties(self, node: Any) -> Declarations:
        """What the rules say of an element."""
        names = {"*", node.localName, "#" + node.getAttribute("id")}
        names |= {"." + name for name in node.getAttribute("class").split()}
        found: Declarations = {}
        for _, selector, body in self.rules:
            if selector in names:
                found |= body
        return found


def declarations(text: str) -> Declarations:
    """``fill: red; stroke: none`` as a mapping."""
    pairs = (part.partition(":") for part in text.split(";") if ":" in part)
    return {name.strip(): value.replace("!important", "").strip() for name, _, value in pairs}


def properties(node: Any, inherited: Mapping[str, str], sheet: StyleSheet) -> Declarations:
    """All properties of an element: from its style attribute, else the style sheet, its attributes, its parent."""
    known = {**INITIAL, **OWN}
    own = {name: node.getAttribute(name).strip() for name in known if node.hasAttribute(name)}
    own |= sheet.properties(node) | declarations(node.getAttribute("style"))
    result = {name: inherited.get(name, value) for name, value in INITIAL.items()} | dict(OWN)
    for name, value in own.items():
        if name in known and value not in ("", "inherit"):
            result[name] = value
        elif value == "inherit":
            result[name] = inherited.get(name, known.get(name, ""))
    return result


def not_drawn(values: Mapping[str, str]) -> list[str]:
    """The properties that change the picture in a way that is not drawn here."""
    return [name for name, plain in PLAIN.items() if values[name] not in plain]


def colour(text: str, current: str) -> Rgba | None:
    """A colour; None for ``none`` and ``transparent``. Raises ValueError for what is no colour, such as a gradient."""
    from svgelements import Color

    text = current if text.lower() == "currentcolor" else text
    if text.lower() in ("none", "transparent"):
        return None
    if text.lower().startswith("url"):
        raise ValueError(f"{text} is a gradient or a pattern")
    try:
        read = Color(text)
        if read.value is None:
            raise ValueError(text)
        channels: list[Any] = [read.red, read.green, read.blue, read.alpha]
        parts = tuple(channel / 255.0 for channel in channels)
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{text!r} is no colour") from error
    return Rgba(parts[:3], parts[3])  # type: ignore[arg-type]


def fraction(text: str) -> float:
    """An opacity, as a number or a percentage, kept in [0, 1]."""
    value = float(text[:-1]) / 100.0 if text.endswith("%") else float(text)
    return min(max(value, 0.0), 1.0)


def length(text: str, relative_to: float) -> float:
    """A length in user units (96 a inch); a percentage is one of ``relative_to``. Raises ValueError."""
    from svgelements import Length

    try:
        value = Length(text).value(ppi=96.0, relative_length=relative_to, font_size=16.0, font_height=16.0)
        return float(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{text!r} is no length") from error


def hexadecimal(rgb: tuple[float, float, float]) -> str:
    """``#rrggbb``."""
    return "#" + "".join(f"{round(255 * min(max(part, 0.0), 1.0)):02x}" for part in rgb)
