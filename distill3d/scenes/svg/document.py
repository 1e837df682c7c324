"""An SVG file as what can be drawn and changed: shapes in painter's order, and groups that fade as a whole.

The file's text stays with it. Elements that are not understood (text, gradients, filters, clipping, ...) are named once
and neither drawn nor changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from xml.dom import minidom
from xml.parsers.expat import ExpatError

import numpy as np
from jaxtyping import Float

from distill3d.scenes.svg.geometry import Subpath, has_extent, is_flat, shape_subpaths
from distill3d.scenes.svg.style import Declarations, Rgba, StyleSheet, colour, fraction, length, not_drawn, properties

NAMESPACE = "http://www.w3.org/2000/svg"
SHAPES = ("path", "rect", "circle", "ellipse", "line", "polyline", "polygon")
GROUPS = ("g", "a")
SILENT = ("title", "desc", "metadata", "defs", "style", "svg", "stop")  # nothing of their own to draw
DEFAULT_SIZE = (300.0, 150.0)  # of a picture that says none


class SvgError(ValueError):
    """An SVG that cannot be read, or in which there is nothing to draw."""


@dataclass(frozen=True)
class Fill:
    colour: Rgba
    opacity: float
    even_odd: bool


@dataclass(frozen=True)
class Stroke:
    """``width`` in the element's own units; a miter limit of 0 stands for joins that are not mitered."""

    colour: Rgba
    opacity: float
    width: float
    cap: Literal["butt", "round", "square"]
    miter_limit: float


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
class Layer:
    """Shapes (by number) and layers in painter's order, which fade as a whole."""

    opacity: float
    items: tuple[int | Layer, ...]


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


def parse_svg(text: str, name: str = "the SVG") -> SvgDocument:
    """Read an SVG. Raises SvgError, beginning with ``name``, for what is no SVG or has nothing that can be drawn."""
    root = parse_xml(text, name)
    document = _Reader(root, name).document(text)
    if not document.shapes:
        reasons = [f"not supported: {', '.join(document.unsupported)}"] if document.unsupported else []
        reasons += [f"without extent or paint: {', '.join(document.invisible)}"] if document.invisible else []
        because = f" ({'; '.join(reasons)})" if reasons else ""
        raise SvgError(f"{name} has nothing to draw{because}; it needs a visible {', '.join(SHAPES[:-1])} or polygon")
    return document


def parse_xml(text: str, name: str = "the SVG") -> Any:
    """The root element, with all that stands in the file. Raises SvgError."""
    try:
        root = minidom.parseString(text.encode()).documentElement
    except (ExpatError, ValueError, UnicodeError) as error:
        raise SvgError(f"{name} is no well-formed XML: {error}") from error
    if root is None or root.localName != "svg":
        raise SvgError(f"{name} is no SVG: its outermost element is {getattr(root, 'tagName', None)!r}, expected 'svg'")
    return root


def elements(root: Any) -> list[Any]:
    """All elements in the order of the file; a shape's ``node`` counts them."""
    return [root, *root.getElementsByTagName("*")]


class _Reader:
    """One pass over a file."""

    def __init__(self, root: Any, name: str) -> None:
        self.root, self.name = root, name
        self.numbers = {id(node): i for i, node in enumerate(elements(root))}
        styles = [node for node in elements(root) if node.localName == "style"]
        self.sheet = StyleSheet("".join(_text(node) for node in styles))
        self.shapes: list[SvgShape] = []
        self.unsupported: dict[str, None] = dict.fromkeys(self.sheet.unsupported)
        self.invisible: list[str] = []
        self.viewport, self.size, self.to_picture = _viewport(root, name)

    def document(self, text: str) -> SvgDocument:
        self._name_unsupported()
        layers = self._layer(self.root, {}, self.to_picture)
        unsupported, invisible = tuple(self.unsupported), tuple(self.invisible)
        styled = bool(self.sheet.rules)
        return SvgDocument(text, self.size, tuple(self.shapes), layers, unsupported, invisible, styled)

    def _name_unsupported(self) -> None:
        for node in elements(self.root)[1:]:
            if node.namespaceURI in (None, NAMESPACE) and node.localName not in (*SHAPES, *GROUPS, *SILENT):
                if node.parentNode.localName not in ("text", "filter", "metadata"):
                    self.unsupported[node.localName] = None
            elif node.localName == "svg":
                self.unsupported["nested svg"] = None

    def _layer(self, group: Any, inherited: Mapping[str, str], matrix: np.ndarray) -> Layer:
        values = properties(group, inherited, self.sheet)
        bad = not_drawn(values)
        if bad:
            self.unsupported[f"{_label(group)} with {', '.join(bad)}"] = None
        if bad or values["display"] == "none":
            return Layer(1.0, ())
        items = tuple(self._items(group, values, matrix))
        return Layer(self._read(fraction, values["opacity"], 1.0), items)

    def _items(self, group: Any, values: Declarations, matrix: np.ndarray) -> Iterator[int | Layer]:
        for node in (child for child in group.childNodes if child.nodeType == child.ELEMENT_NODE):
            if node.namespaceURI not in (None, NAMESPACE) or node.localName not in (*SHAPES, *GROUPS):
                continue
            inner = _compose(matrix, _transform(node))
            if node.localName in GROUPS:
                layer = self._layer(node, values, inner)
                yield from layer.items if layer.opacity == 1.0 else (layer,)
            elif self._add(node, values, inner):
                yield len(self.shapes) - 1

    def _add(self, node: Any, inherited: Mapping[str, str], matrix: np.ndarray) -> bool:
        """Note a shape. False, with its name noted, where it cannot be drawn."""
        values = properties(node, inherited, self.sheet)
        bad = not_drawn(values)
        if values["display"] == "none" or values["visibility"] != "visible":
            return False
        try:
            shape = self._shape(node, values, matrix)
        except ValueError as error:
            bad.append(str(error))
        if bad:
            self.unsupported[f"{_label(node)} with {', '.join(bad)}"] = None
            return False
        if shape is None:
            self.invisible.append(_label(node))
            return False
        self.shapes.append(shape)
        return True

    def _shape(self, node: Any, values: Declarations, matrix: np.ndarray) -> SvgShape | None:
        """Raises ValueError for what is not understood; None where SVG draws nothing."""
        subpaths = tuple(shape_subpaths(node.localName, dict(node.attributes.items()), self._length_of(node)))
        if not subpaths or abs(np.linalg.det(matrix[:, :2])) < 1e-12 or not has_extent(subpaths):
            return None
        fill, stroke = self._fill(node, values, subpaths), self._stroke(values)
        if fill is None and stroke is None:
            return None
        opacity = fraction(values["opacity"])
        number = self.numbers[id(node)]
        return SvgShape(number, node.localName, _label(node), subpaths, matrix, fill, stroke, opacity)

    def _fill(self, node: Any, values: Declarations, subpaths: tuple[Subpath, ...]) -> Fill | None:
        paint = colour(values["fill"], values["color"])
        if paint is None or node.localName == "line" or is_flat(subpaths):
            return None
        return Fill(paint, fraction(values["fill-opacity"]), values["fill-rule"] == "evenodd")

    def _stroke(self, values: Declarations) -> Stroke | None:
        paint = colour(values["stroke"], values["color"])
        width = length(values["stroke-width"], self._diagonal)
        if paint is None or width <= 0:
            return None
        cap: Any = values["stroke-linecap"] if values["stroke-linecap"] in ("round", "square") else "butt"
        limit = float(values["stroke-miterlimit"]) if values["stroke-linejoin"] == "miter" else 0.0
        return Stroke(paint, fraction(values["stroke-opacity"]), width, cap, limit)

    def _length_of(self, node: Any) -> Any:
        sides = {"x": self.viewport[0], "y": self.viewport[1], "both": self._diagonal}

        def read(attribute: str, axis: str, default: float) -> float:
            text = node.getAttribute(attribute).strip()
            return default if text in ("", "auto") else length(text, sides[axis])

        return read

    @property
    def _diagonal(self) -> float:
        return float(np.hypot(*self.viewport) / np.sqrt(2.0))

    @staticmethod
    def _read(function: Any, text: str, default: float) -> float:
        try:
            return function(text)
        except ValueError:
            return default


def _viewport(root: Any, name: str) -> tuple[tuple[float, float], tuple[float, float], np.ndarray]:
    """The view box's size, the picture's, and the map between them, as ``preserveAspectRatio`` asks."""
    words = root.getAttribute("viewBox").replace(",", " ").split()
    try:
        box = [float(word) for word in words]
        given = [_side(root.getAttribute(side)) for side in ("width", "height")]
    except ValueError as error:
        raise SvgError(f"{name}: viewBox, width or height cannot be read: {error}") from error
    if box and (len(box) != 4 or min(box[2:]) <= 0):
        raise SvgError(f"{name}: viewBox={' '.join(words)!r} must be four numbers, the last two positive")
    width, height = _sides(given, (box[2], box[3]) if box else DEFAULT_SIZE)
    if min(width, height) <= 0:
        raise SvgError(f"{name} has width {width:g} and height {height:g}; both must be positive")
    if not box:
        return (width, height), (width, height), np.eye(2, 3)
    scale = np.array([width / box[2], height / box[3]])
    ratio = root.getAttribute("preserveAspectRatio").split() or ["xMidYMid"]
    if ratio[0] != "none":
        scale[:] = scale.max() if "slice" in ratio else scale.min()
    align = {"min": 0.0, "mid": 0.5, "max": 1.0}
    share = [align.get(part.lower(), 0.5) for part in (ratio[0][1:4], ratio[0][5:8])]
    shift = (np.array([width, height]) - scale * box[2:]) * share - scale * box[:2]
    return (box[2], box[3]), (width, height), np.column_stack([np.diag(scale), shift])


def _side(text: str) -> float | None:
    return None if text.strip() in ("", "auto") or text.strip().endswith("%") else length(text, 0.0)


def _sides(given: list[float | None], box: tuple[float, float]) -> tuple[float, float]:
    width, height = given
    if width is None and height is None:
        return box
    if width is None:
        return (height or 0.0) * box[0] / box[1], height or 0.0
    return width, width * box[1] / box[0] if height is None else height


def _transform(node: Any) -> np.ndarray:
    """The element's own transform. What cannot be read is no transform."""
    from svgelements import Matrix

    try:
        m = Matrix(node.getAttribute("transform"))
        matrix = np.array([[m.a, m.c, m.e], [m.b, m.d, m.f]], np.float64)
    except (ValueError, IndexError, TypeError):
        return np.eye(2, 3)
    return matrix if np.isfinite(matrix).all() else np.eye(2, 3)


def _compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def _label(node: Any) -> str:
    name = node.getAttribute("id")
    return f"{node.localName} {name!r}" if name else node.localName


def _text(node: Any) -> str:
    return "".join(
        child.data for child in node.childNodes if child.nodeType in (child.TEXT_NODE, child.CDATA_SECTION_NODE)
    )
