"""Linear and radial gradients of an SVG as the maps from the picture to where along them a point lies."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from distill3d.scenes.svg.css_color import Rgba
from distill3d.scenes.svg.drawing import Gradient, Stop
from distill3d.scenes.svg.geometry import Subpath
from distill3d.scenes.svg.style import StyleSheet, colour, computed, fraction, length
from distill3d.scenes.svg.viewport import Matrix, compose, inverse, transform
from distill3d.scenes.svg.xml_text import children, is_svg, reference

_KINDS = ("linearGradient", "radialGradient")
_LONGEST_CHAIN = 32  # gradients that take their stops from others


class GradientReader:
    """The gradients of one file. ``stops`` collects the colours of those that are used, each once."""

    def __init__(self, known: Mapping[str, Any], numbers: Mapping[int, int], sheet: StyleSheet) -> None:
        self.known, self.numbers, self.sheet = known, numbers, sheet
        self.stops: list[Stop] = []
        self._first: dict[int, tuple[int, ...]] = {}  # of an element with stops: their numbers

    def read(
        self,
        name: str,
        to_picture: Matrix,
        box: Float[np.ndarray, "2 2"],
        viewport: tuple[float, float],
    ) -> Gradient | Rgba | None:
        """The gradient of an id for an element; one colour or nothing where SVG says that it is no more than that.

        to_picture: from the element's coordinates; box: its least and largest coordinates. Raises ValueError for an
        id that is missing or no gradient, and for numbers that cannot be read.
        """
        chain = self._chain(name)
        holder = next((node for node in chain if self._stops_of(node)), None)
        if holder is None:
            return None
        stops, offsets = self._stops_of(holder), self._offsets(holder)
        last = self.stops[stops[-1]]
        solid = Rgba(last.colour.rgb, last.colour.alpha * last.opacity)
        if len(stops) == 1:
            return solid
        frame = _frame(chain, box)
        if frame is None:
            return None
        user = compose(compose(to_picture, frame), transform(_holding(chain, "gradientTransform"), "gradientTransform"))
        whole = (1.0, 1.0) if _is_of_box(chain) else viewport
        shape = _linear(chain, whole) if chain[0].localName == "linearGradient" else _radial(chain, whole)
        if shape is None:
            return solid
        own, focus = shape
        spread: Any = _attribute(chain, "spreadMethod", "pad")
        kind = "linear" if chain[0].localName == "linearGradient" else "radial"
        to_unit = compose(own, inverse(user))
        return Gradient(kind, stops, offsets, to_unit, focus, spread if spread in ("reflect", "repeat") else "pad")

    def _chain(self, name: str) -> list[Any]:
        """The element, and those that it names for what it does not say itself."""
        node, chain = self.known.get(name), []
        if node is None or not is_svg(node, *_KINDS):
            kind = "missing" if node is None else f"a {node.localName}"
            raise ValueError(f"url(#{name}), which is {kind}")
        while node is not None and is_svg(node, *_KINDS) and len(chain) < _LONGEST_CHAIN:
            chain.append(node)
            node = self.known.get(reference(node))
        return chain

    def _stops_of(self, node: Any) -> tuple[int, ...]:
        if id(node) not in self._first:
            first = len(self.stops)
            self.stops += [self._stop(child) for child in children(node) if is_svg(child, "stop")]
            self._first[id(node)] = tuple(range(first, len(self.stops)))
        return self._first[id(node)]

    def _stop(self, node: Any) -> Stop:
        values = computed(node, self.sheet)
        paint = colour(values["stop-color"], values["color"]) or Rgba((0.0, 0.0, 0.0), 0.0)
        return Stop(self.numbers[id(node)], paint, fraction(values["stop-opacity"]))

    @staticmethod
    def _offsets(node: Any) -> tuple[float, ...]:
        given = [fraction(c.getAttribute("offset").strip() or "0") for c in children(node) if is_svg(c, "stop")]
        return tuple(float(offset) for offset in np.maximum.accumulate(given))


def outline_box(subpaths: Sequence[Subpath]) -> Float[np.ndarray, "2 2"]:
    """The least and largest coordinates of outlines, by points along their curves."""
    t = np.linspace(0.0, 1.0, 33)[:, None]
    points = [subpath.points for subpath in subpaths if set(subpath.degrees) <= {1}]
    for subpath in subpaths:
        for row, degree in zip(subpath.curves(), subpath.degrees, strict=True):
            if degree > 1:
                controls = [subpath.points[i] for i in row]
                for _ in range(degree):  # de Casteljau
                    controls = [(1.0 - t) * a + t * b for a, b in itertools.pairwise(controls)]
                points.append(np.broadcast_to(controls[0], (len(t), 2)))
            else:
                points.append(subpath.points[row])
    together = np.concatenate(points)
    return np.stack([together.min(0), together.max(0)])


def _frame(chain: list[Any], box: Float[np.ndarray, "2 2"]) -> Matrix | None:
    """From the gradient's units to the element's coordinates; None for a share of a box of no area."""
    if not _is_of_box(chain):
        return np.eye(2, 3)
    size = box[1] - box[0]
    return None if min(size) <= 0 else np.column_stack([np.diag(size), box[0]])


def _is_of_box(chain: list[Any]) -> bool:
    return _attribute(chain, "gradientUnits", "objectBoundingBox") != "userSpaceOnUse"


def _linear(chain: list[Any], whole: tuple[float, float]) -> tuple[Matrix, tuple[float, float, float]] | None:
    """``t = (p - p1) . d / |d|^2``; None where both ends are one point."""
    default = {"x1": "0%", "y1": "0%", "x2": "100%", "y2": "0%"}
    x1, y1, x2, y2 = (length(_attribute(chain, name, text), whole[name[0] == "y"]) for name, text in default.items())
    d = np.array([x2 - x1, y2 - y1])
    if not d.any():
        return None
    along, across = d / (d @ d), np.array([-d[1], d[0]]) / (d @ d)
    turned = np.stack([along, across])
    return np.column_stack([turned, -turned @ [x1, y1]]), (0.0, 0.0, 0.0)


def _radial(chain: list[Any], whole: tuple[float, float]) -> tuple[Matrix, tuple[float, float, float]] | None:
    """The end circle becomes the unit circle; None where it has no radius."""
    diagonal = float(np.hypot(*whole) / np.sqrt(2.0))
    cx, cy = (length(_attribute(chain, name, "50%"), side) for name, side in zip(("cx", "cy"), whole, strict=True))
    r, fr = length(_attribute(chain, "r", "50%"), diagonal), length(_attribute(chain, "fr", "0%"), diagonal)
    fx, fy = (
        length(text, side) if (text := _attribute(chain, name, "")) else center
        for name, side, center in zip(("fx", "fy"), whole, (cx, cy), strict=True)
    )
    if r <= 0:
        return None
    focus = np.array([(fx - cx) / r, (fy - cy) / r])
    distance = float(np.linalg.norm(focus))
    if distance > 0.999:  # outside: SVG 1.1 moves it to the circle, just inside of which the equation has a solution
        focus *= 0.999 / distance
    return np.array([[1.0 / r, 0.0, -cx / r], [0.0, 1.0 / r, -cy / r]]), (
        float(focus[0]),
        float(focus[1]),
        max(fr / r, 0.0),
    )


def _attribute(chain: list[Any], name: str, default: str) -> str:
    return _holding(chain, name).getAttribute(name).strip() or default


def _holding(chain: list[Any], name: str) -> Any:
    """The first that says something; the last if none does."""
    return next((node for node in chain if node.hasAttribute(name)), chain[-1])
