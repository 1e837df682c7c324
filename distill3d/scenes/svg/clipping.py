"""Clip paths of an SVG: outlines in the picture that others are cut to; one that covers the picture is none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from distill3d.scenes.svg.drawing import Outline
from distill3d.scenes.svg.geometry import Subpath, shape_subpaths
from distill3d.scenes.svg.style import Declarations, StyleSheet, geometry, properties
from distill3d.scenes.svg.viewport import Matrix, attribute_reader, compose, moved, transform
from distill3d.scenes.svg.xml_text import children, is_svg

_URL = re.compile(r"url\(\s*[\"']?#([^\"')]+)[\"']?\s*\)")
_SHAPES = ("path", "rect", "circle", "ellipse", "line", "polyline", "polygon")
_SLACK = 1e-3  # of the picture: a rectangle that misses its border by less covers it


class ClipReader:
    """The clip paths of one file; ``found`` collects those that cut something off."""

    def __init__(self, known: Mapping[str, Any], sheet: StyleSheet, size: tuple[float, float]) -> None:
        self.known, self.sheet, self.size = known, sheet, size
        self.found: list[tuple[Outline, ...]] = []

    def read(
        self,
        text: str,
        matrix: Matrix,
        viewport: tuple[float, float],
        box: Float[np.ndarray, "2 2"] | None = None,
    ) -> int | None:
        """The number of the clip path that ``text`` names, None where it cuts nothing off the picture.

        matrix: from the clipped element's coordinates to the picture's; box: its extent in its own. Raises ValueError
        for what is not understood.
        """
        if text == "none":
            return None
        match = _URL.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"clip-path {text[:40]!r}")
        node = self.known.get(match[1])
        if node is None or not is_svg(node, "clipPath"):
            return None  # as the standard has it: a reference to nothing does not clip
        values = properties(node, {}, self.sheet)
        if values["clip-path"] != "none":
            raise ValueError("a clip-path that is clipped itself")
        frame = compose(matrix, transform(node))
        if node.getAttribute("clipPathUnits") == "objectBoundingBox":
            if box is None:
                raise ValueError("a clip-path in units of a group's box")
            frame = compose(frame, np.column_stack([np.diag(box[1] - box[0]), box[0]]))
        outlines = [outline for child in children(node) for outline in self._outlines(child, values, frame, viewport)]
        return self._noted(tuple(outlines))

    def rectangle(self, corners: Float[np.ndarray, "4 2"], matrix: Matrix) -> int | None:
        """The number of a clip to four corners."""
        return self._noted((Outline((Subpath(moved(matrix, corners), (1, 1, 1, 1), True),), False),))

    def _outlines(
        self, node: Any, inherited: Declarations, matrix: Matrix, viewport: tuple[float, float]
    ) -> list[Outline]:
        values = properties(node, inherited, self.sheet)
        inner = compose(matrix, transform(node))
        if values["display"] == "none":
            return []
        if is_svg(node, "g"):  # a <use> that was written out
            return [part for child in children(node) for part in self._outlines(child, values, inner, viewport)]
        if not is_svg(node, *_SHAPES):
            return self._of_nothing(node)
        if values["visibility"] != "visible":
            return []
        given = geometry(node, values)
        parts = shape_subpaths(node.localName, given, attribute_reader(given, viewport))
        placed = tuple(part.moved(moved(inner, part.points)) for part in parts)
        return [Outline(placed, values["clip-rule"] == "evenodd")] if placed else []

    @staticmethod
    def _of_nothing(node: Any) -> list[Outline]:
        if is_svg(node, "text", "image", "foreignObject"):
            raise ValueError(f"a clip-path of <{node.localName}>")
        return []  # <title> and the like

    def _noted(self, outlines: tuple[Outline, ...]) -> int | None:
        if any(covers(outline, self.size) for outline in outlines):
            return None
        self.found.append(outlines)
        return len(self.found) - 1


def covers(outline: Outline, size: tuple[float, float]) -> bool:
    """Whether an outline is one rectangle along the axes that holds the whole picture."""
    if len(outline.subpaths) != 1 or set(outline.subpaths[0].degrees) != {1}:
        return False
    points = outline.subpaths[0].points
    low, high = points.min(0), points.max(0)
    slack = _SLACK * max(size)
    at_corner = (np.isclose(points, low, atol=slack) | np.isclose(points, high, atol=slack)).all()
    corners = {(bool(x), bool(y)) for x, y in np.isclose(points, low, atol=slack)}
    is_rectangle = at_corner and len(corners) == 4 and len(points) in (4, 5)
    return bool(is_rectangle and (low <= slack).all() and (high >= np.array(size) - slack).all())
