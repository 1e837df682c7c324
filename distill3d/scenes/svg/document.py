"""An SVG file as what can be drawn and changed: shapes in painter's order, and groups that fade as a whole.

The file's text stays with it. Elements that are not understood (text, patterns, filters, masks, ...) are named once and
neither drawn nor changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from distill3d.runtime.foreign import reading
from distill3d.scenes.svg.clipping import ClipReader
from distill3d.scenes.svg.css_color import Rgba
from distill3d.scenes.svg.drawing import Fill, Gradient, Layer, Stroke, SvgDocument, SvgShape
from distill3d.scenes.svg.geometry import Subpath, has_extent, is_flat, shape_subpaths
from distill3d.scenes.svg.gradients import GradientReader, outline_box
from distill3d.scenes.svg.style import (
    LONGEST,
    Declarations,
    StyleSheet,
    colour,
    fraction,
    geometry,
    length,
    not_drawn,
    not_drawn_of_stroke,
    properties,
)
from distill3d.scenes.svg.style_sheet import fits_a_screen
from distill3d.scenes.svg.viewport import (
    Matrix,
    attribute_reader,
    compose,
    diagonal,
    moved,
    nested_viewport,
    root_viewport,
    transform,
)
from distill3d.scenes.svg.xml_text import SvgError, by_id, children, elements, is_svg, without_use

__all__ = ["Fill", "Layer", "Stroke", "SvgDocument", "SvgError", "SvgShape", "parse_svg"]

SHAPES = ("path", "rect", "circle", "ellipse", "line", "polyline", "polygon")
GROUPS = ("g", "a", "svg", "switch")
# nothing of their own to draw; what uses one that is not drawn here is named itself
SILENT = ("title", "desc", "metadata", "style", "script", "view")
TEMPLATES = ("defs", "symbol", "clipPath", "mask", "pattern", "marker", "filter", "linearGradient", "radialGradient")
_URL = re.compile(r"url\(\s*[\"']?#([^\"')]+)[\"']?\s*\)\s*(.*)", re.DOTALL)


def parse_svg(text: str, name: str = "the SVG") -> SvgDocument:
    """Read an SVG. Raises SvgError, beginning with ``name``, for what is no SVG or has nothing that can be drawn."""
    with reading(name, "an SVG"):
        root, text = without_use(text, name)
        document = _Reader(root, name).document(text)
    if not document.shapes:
        reasons = [f"not supported: {', '.join(document.unsupported)}"] if document.unsupported else []
        reasons += [f"without extent or paint: {', '.join(document.invisible)}"] if document.invisible else []
        because = f" ({'; '.join(reasons)})" if reasons else ""
        raise SvgError(f"{name} has nothing to draw{because}; it needs a visible {', '.join(SHAPES[:-1])} or polygon")
    return document


class _Reader:
    """One pass over a file."""

    def __init__(self, root: Any, name: str) -> None:
        self.root, self.name = root, name
        self.numbers = {id(node): i for i, node in enumerate(elements(root))}
        styles = [node for node in elements(root) if node.localName == "style" and _is_for_screens(node)]
        self.sheet = StyleSheet("".join(_text(node) for node in styles))
        self.shapes: list[SvgShape] = []
        self.unsupported: dict[str, None] = dict.fromkeys(self.sheet.unsupported)
        self.invisible: list[str] = []
        self.viewport, self.size, self.to_picture = root_viewport(root, name)
        known = by_id(root)
        self.gradients = GradientReader(known, self.numbers, self.sheet)
        self.clips = ClipReader(known, self.sheet, self.size)

    def document(self, text: str) -> SvgDocument:
        layers = self._layer(self.root, {}, self.to_picture)
        return SvgDocument(
            text,
            self.size,
            tuple(self.shapes),
            layers,
            tuple(self.unsupported),
            tuple(self.invisible),
            bool(self.sheet.rules),
            self.sheet.has_important,
            tuple(self.gradients.stops),
            tuple(self.clips.found),
        )

    def _layer(self, group: Any, inherited: Mapping[str, str], matrix: Matrix) -> Layer:
        values = properties(group, inherited, self.sheet)
        bad = not_drawn(values)
        clip = None
        try:
            clip = self.clips.read(values["clip-path"], matrix, self.viewport)
        except ValueError as error:
            bad.append(str(error))
        if bad:
            self._name(group, bad)
        if bad or values["display"] == "none":
            return Layer(1.0, ())
        items = tuple(self._items(group, values, matrix))
        return Layer(self._read(fraction, values["opacity"], 1.0), items, clip)

    def _items(self, group: Any, values: Declarations, matrix: Matrix) -> Iterator[int | Layer]:
        nodes = children(group)
        for node in _branch(nodes) if is_svg(group, "switch") else nodes:
            if is_svg(node, *GROUPS):
                layer = self._nested(node, values, matrix) if is_svg(node, "svg") else None
                layer = layer or self._layer(node, values, compose(matrix, transform(node)))
                yield from layer.items if layer.opacity == 1.0 and layer.clip is None else (layer,)
            elif is_svg(node, *SHAPES):
                yield from self._drawn(node, values, compose(matrix, transform(node)))
            elif node.namespaceURI == group.namespaceURI and not is_svg(node, *SILENT, *TEMPLATES):
                self.unsupported[node.localName] = None

    def _nested(self, node: Any, values: Declarations, matrix: Matrix) -> Layer:
        """An <svg> inside another, or a <symbol> that was used: cut to its rectangle, in units of its view box."""
        outside, said = self.viewport, properties(node, values, self.sheet)
        try:
            if any(said[name] != node.getAttribute(name).strip().lower() for name in ("x", "y", "width", "height")):
                raise ValueError("a place or a size of its style")
            self.viewport, inner, corners = nested_viewport(node, outside)
        except ValueError as error:
            self._name(node, [str(error)])
            return Layer(1.0, ())
        layer = self._layer(node, values, compose(matrix, inner))
        self.viewport = outside
        shows_all = said["overflow"] in ("visible", "auto")
        clip = None if shows_all else self.clips.rectangle(corners, matrix)
        return layer if clip is None else Layer(1.0, (layer,), clip)

    def _drawn(self, node: Any, inherited: Mapping[str, str], matrix: Matrix) -> Iterator[int | Layer]:
        """A shape's number, in a layer where it is clipped. Nothing, with its name noted, where it cannot be drawn."""
        values = properties(node, inherited, self.sheet)
        if values["display"] == "none" or values["visibility"] != "visible":
            return
        bad, shape, clip = not_drawn(values), None, None
        if node.localName in ("rect", "circle", "ellipse"):  # have no vertices that markers could stand on
            bad = [name for name in bad if not name.startswith("marker")]
        try:
            shape = self._shape(node, values, matrix)
            box = outline_box(shape.subpaths) if shape else None
            clip = self.clips.read(values["clip-path"], matrix, self.viewport, box)
            if shape and shape.stroke:
                bad += not_drawn_of_stroke(values, shape.fill is not None)
        except ValueError as error:
            bad.append(str(error))
        if bad:
            self._name(node, bad)
        elif shape is None:
            self.invisible.append(_label(node))
        else:
            self.shapes.append(shape)
            number = len(self.shapes) - 1
            yield number if clip is None else Layer(1.0, (number,), clip)

    def _shape(self, node: Any, values: Declarations, matrix: Matrix) -> SvgShape | None:
        """Raises ValueError for what is not understood; None where SVG draws nothing."""
        given = geometry(node, values)
        subpaths = tuple(shape_subpaths(node.localName, given, attribute_reader(given, self.viewport)))
        if not subpaths or abs(np.linalg.det(matrix[:, :2])) < 1e-12 or not has_extent(subpaths):
            return None
        if not all(np.abs(moved(matrix, subpath.points)).max() <= LONGEST for subpath in subpaths):
            raise ValueError("a transform that makes it too large")
        fill, stroke = self._fill(node, values, subpaths, matrix), self._stroke(values, subpaths, matrix)
        if fill is None and stroke is None:
            return None
        opacity = fraction(values["opacity"])
        number = self.numbers[id(node)]
        return SvgShape(number, node.localName, _label(node), subpaths, matrix, fill, stroke, opacity)

    def _fill(self, node: Any, values: Declarations, subpaths: tuple[Subpath, ...], matrix: Matrix) -> Fill | None:
        if node.localName == "line" or is_flat(subpaths):
            return None
        paint, gradient = self._paint(values["fill"], values["color"], subpaths, matrix)
        if paint is None:
            return None
        return Fill(paint, fraction(values["fill-opacity"]), values["fill-rule"] == "evenodd", gradient)

    def _stroke(self, values: Declarations, subpaths: tuple[Subpath, ...], matrix: Matrix) -> Stroke | None:
        paint, gradient = self._paint(values["stroke"], values["color"], subpaths, matrix)
        if paint is None:
            return None
        width = length(values["stroke-width"], diagonal(self.viewport))
        if width <= 0:
            return None
        cap: Any = values["stroke-linecap"] if values["stroke-linecap"] in ("round", "square") else "butt"
        limit = float(values["stroke-miterlimit"]) if values["stroke-linejoin"] == "miter" else 0.0
        if not limit < 1e6:
            raise ValueError(f"stroke-miterlimit {limit}")
        return Stroke(paint, fraction(values["stroke-opacity"]), width, cap, limit, gradient)

    def _paint(
        self, text: str, current: str, subpaths: tuple[Subpath, ...], matrix: Matrix
    ) -> tuple[Rgba | None, Gradient | None]:
        """A colour, or any colour and a gradient; None and None for no paint."""
        match = _URL.match(text)
        if match is None:
            return colour(text, current), None
        try:
            found = self.gradients.read(match[1], matrix, outline_box(subpaths), self.viewport)
        except ValueError:
            if not match[2].strip():
                raise
            return colour(match[2].strip(), current), None  # what the file says for such a case
        return (Rgba((0.0, 0.0, 0.0), 1.0), found) if isinstance(found, Gradient) else (found, None)

    def _name(self, node: Any, bad: list[str]) -> None:
        self.unsupported[f"{_label(node)} with {', '.join(bad)}"] = None

    @staticmethod
    def _read(function: Any, text: str, default: float) -> float:
        try:
            return function(text)
        except ValueError:
            return default


def _branch(nodes: list[Any]) -> list[Any]:
    """Of a <switch>: the first that needs no extension and can be drawn."""
    fits = [
        node
        for node in nodes
        if is_svg(node, *GROUPS, *SHAPES)
        and not node.getAttribute("requiredExtensions").strip()
        and node.getAttribute("systemLanguage").strip()[:2].lower() in ("", "en")
    ]
    return fits[:1]


def _is_for_screens(style: Any) -> bool:
    """Whether a <style> is CSS, and for a screen."""
    is_css = style.getAttribute("type").strip().lower() in ("", "text/css")
    return is_css and fits_a_screen(style.getAttribute("media") or "all")


def _label(node: Any) -> str:
    name = node.getAttribute("id")
    return f"{node.localName} {name!r}" if name else node.localName


def _text(node: Any) -> str:
    return "".join(
        child.data for child in node.childNodes if child.nodeType in (child.TEXT_NODE, child.CDATA_SECTION_NODE)
    )
