"""What an SVG file shows: shapes in painter's order, their paints, and groups that fade or are clipped as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

from distill3d.scenes.svg.css_color import Rgba
from distill3d.scenes.svg.geometry import Subpath


@dataclass(frozen=True)
class Stop:
    """A colour of a gradient: the number of its node in the file, its colour, and its own opacity."""

    node: int
    colour: Rgba
    opacity: float


@dataclass(frozen=True)
class Gradient:
    """A paint that runs through ``stops`` (numbers in `SvgDocument.stops`) at ascending ``offsets``.

    ``to_unit`` maps the picture's coordinates to those in which a linear gradient runs along x from 0 to 1, and a
    radial one from the circle ``focus`` (x, y, radius) to the unit circle.
    """

    kind: Literal["linear", "radial"]
    stops: tuple[int, ...]
    offsets: tuple[float, ...]
    to_unit: Float[np.ndarray, "2 3"]
    focus: tuple[float, float, float]
    spread: Literal["pad", "reflect", "repeat"]


@dataclass(frozen=True)
class Fill:
    """``colour`` is of no consequence where there is a gradient."""

    colour: Rgba
    opacity: float
    even_odd: bool
    gradient: Gradient | None = None


@dataclass(frozen=True)
class Stroke:
    """``width`` in the element's own units; a miter limit of 0 stands for joins that are not mitered."""

    colour: Rgba
    opacity: float
    width: float
    cap: Literal["butt", "round", "square"]
    miter_limit: float
    gradient: Gradient | None = None


@dataclass(frozen=True)
class SvgShape:
    """One drawn element: the number of its node in the file, and what it looks like."""

    node: int
    tag: str
    name: str  # for messages: its id, else its tag
    subpaths: tuple[Subpath, ...]
    to_picture: Float[np.ndarray, "2 3"]  # the element's coordinates to those of the picture
    fill: Fill | None
    stroke: Stroke | None
    opacity: float


@dataclass(frozen=True)
class Outline:
    """A part of a clip path, in the picture's coordinates."""

    subpaths: tuple[Subpath, ...]
    even_odd: bool


@dataclass(frozen=True)
class Layer:
    """Shapes (by number) and layers in painter's order, which fade as a whole and are cut to ``SvgDocument.clips``."""

    opacity: float
    items: tuple[int | Layer, ...]
    clip: int | None = None


@dataclass(frozen=True)
class SvgDocument:
    """``size`` is the picture's width and height in its own units."""

    text: str
    size: tuple[float, float]
    shapes: tuple[SvgShape, ...]
    layers: Layer
    unsupported: tuple[str, ...]  # neither drawn nor changed
    invisible: tuple[str, ...]  # shapes without extent or paint: nothing is drawn, nothing is changed
    styled: bool = field(default=False)  # there is a style sheet: changes must be written where they win over it
    important: bool = field(default=False)  # and it has rules that win over all that is not marked so
    stops: tuple[Stop, ...] = ()
    clips: tuple[tuple[Outline, ...], ...] = ()  # each the union of its outlines
