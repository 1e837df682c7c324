"""Outlines of SVG shapes as Bezier curves of degree 1, 2 and 3, and curves as path data again.

Control points are in the coordinates of the element that they belong to. A curve starts where the one before it ends;
where a subpath is closed its last curve ends at its first point, so a shape never opens when its points move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

KAPPA = 4.0 / 3.0 * (math.sqrt(2.0) - 1.0)  # control arm of a quarter circle of radius 1 as a cubic
COMMANDS = {1: "L", 2: "Q", 3: "C"}

Length = Callable[[str, str, float], float]  # (attribute, axis x | y | both, default) -> user units


@dataclass(frozen=True)
class Subpath:
    """Control points in order, and the degree of each curve. Closed: as many points as their sum, else one more."""

    points: Float[np.ndarray, "n 2"]
    degrees: tuple[int, ...]
    closed: bool

    def moved(self, points: Float[np.ndarray, "n 2"]) -> Subpath:
        return replace(self, points=points)

    def curves(self) -> list[list[int]]:
        """The numbers of the control points of each curve."""
        rows, first = [], 0
        for degree in self.degrees:
            rows.append([(first + k) % len(self.points) for k in range(degree + 1)])
            first += degree
        return rows


def path_subpaths(data: str) -> list[Subpath]:
    """Path data as subpaths; arcs become cubics, relative and smooth commands plain ones.

    Subpaths without any curve are left out. Raises ValueError for data that cannot be read.
    """
    from svgelements import Close, Move, Path

    try:
        path = Path(data)
        path.approximate_arcs_with_cubics()
        if len(path) and not isinstance(path[0], Move):
            raise ValueError("no M at its start")
    except (ValueError, IndexError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(f"path data {data[:40]!r} cannot be read") from error
    subpaths: list[Subpath] = []
    points: list[tuple[float, float]] = []
    degrees: list[int] = []
    for segment in path:
        if isinstance(segment, Close):
            subpaths += _finished(points, degrees, True)
            points, degrees = [*points[:1]], []
        elif isinstance(segment, Move):
            subpaths += _finished(points, degrees, False)
            points, degrees = [_pair(segment.end)], []
        else:
            new = _controls(segment)
            points += new
            degrees.append(len(new))
    return subpaths + _finished(points, degrees, False)


def shape_subpaths(tag: str, attributes: Mapping[str, str], length: Length) -> list[Subpath]:
    """The outline of a path or a basic shape; empty where SVG draws nothing (no radius, no width, no data)."""
    if tag == "path":
        return path_subpaths(attributes.get("d", ""))
    if tag in ("polygon", "polyline"):
        numbers = _numbers(attributes.get("points", ""))
        pairs = list(zip(numbers[::2], numbers[1::2], strict=False))
        return _finished(pairs, [1] * (len(pairs) - 1), tag == "polygon")
    if tag == "line":
        ends = [(length(f"x{i}", "x", 0.0), length(f"y{i}", "y", 0.0)) for i in (1, 2)]
        return _finished(ends, [1], False)
    if tag == "rect":
        return _rectangle(attributes, length)
    radius = length("r", "both", 0.0)
    rx, ry = (length("rx", "x", 0.0), length("ry", "y", 0.0)) if tag == "ellipse" else (radius, radius)
    return _ellipse(length("cx", "x", 0.0), length("cy", "y", 0.0), rx, ry) if rx > 0 and ry > 0 else []


def path_data(subpaths: Iterable[Subpath]) -> str:
    """Subpaths as the ``d`` of a path, in absolute commands."""
    words = []
    for subpath in subpaths:
        words.append("M" + _join(subpath.points[:1]))
        for row, degree in zip(subpath.curves(), subpath.degrees, strict=True):
            returns = subpath.closed and row[-1] == 0
            if not (returns and degree == 1):  # Z draws that line itself
                words.append(COMMANDS[degree] + _join(subpath.points[row[1:]]))
        if subpath.closed:
            words.append("Z")
    return " ".join(words)


def points_attribute(subpath: Subpath) -> str:
    """The ``points`` of a polygon or polyline."""
    return " ".join(f"{number(x)},{number(y)}" for x, y in subpath.points)


def number(value: float) -> str:
    """Seven significant digits, without an exponent where there need be none."""
    text = f"{value:.7g}"
    return "0" if text in ("-0", "0") else text


def is_flat(subpaths: Iterable[Subpath]) -> bool:
    """Whether all points lie on one line, so that nothing can be filled."""
    points = np.concatenate([subpath.points for subpath in subpaths])
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return len(spread) < 2 or bool(spread[1] <= 1e-9 * max(spread[0], 1e-12))


def has_extent(subpaths: Iterable[Subpath]) -> bool:
    """Whether any two points differ."""
    points = np.concatenate([subpath.points for subpath in subpaths])
    return bool(np.ptp(points, axis=0).max() > 0)


def _finished(points: list[tuple[float, float]], degrees: list[int], closed: bool) -> list[Subpath]:
    """A subpath from what was collected, if anything was; a closing line is added unless the end meets the start."""
    if not degrees or len(points) < 2:
        return []
    array = np.array(points, np.float64)
    if not np.isfinite(array).all():
        raise ValueError("an outline has coordinates that are not finite")
    if not closed:
        return [Subpath(array, tuple(degrees), False)]
    scale = max(float(np.ptp(array, axis=0).max()), 1e-12)
    if len(points) > 2 and np.abs(array[-1] - array[0]).max() <= 1e-6 * scale:
        return [Subpath(array[:-1], tuple(degrees), True)]
    return [Subpath(array, (*degrees, 1), True)]


def _rectangle(attributes: Mapping[str, str], length: Length) -> list[Subpath]:
    x, y = length("x", "x", 0.0), length("y", "y", 0.0)
    width, height = length("width", "x", 0.0), length("height", "y", 0.0)
    if width <= 0 or height <= 0:
        return []
    given = {name: attributes.get(name, "auto") not in ("", "auto") for name in ("rx", "ry")}
    rx = length("rx", "x", 0.0) if given["rx"] else length("ry", "y", 0.0) if given["ry"] else 0.0
    ry = length("ry", "y", 0.0) if given["ry"] else rx
    rx, ry = min(max(rx, 0.0), width / 2), min(max(ry, 0.0), height / 2)
    if rx == 0 or ry == 0:
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        return _finished(corners, [1, 1, 1], True)
    return _rounded(x, y, width, height, rx, ry)


def _rounded(x: float, y: float, width: float, height: float, rx: float, ry: float) -> list[Subpath]:
    """A rectangle with quarter ellipses at its corners, clockwise from the end of the first."""
    ax, ay = (1 - KAPPA) * rx, (1 - KAPPA) * ry
    right, bottom = x + width, y + height
    points = [(x + rx, y), (right - rx, y)]
    points += [(right - ax, y), (right, y + ay), (right, y + ry), (right, bottom - ry)]
    points += [(right, bottom - ay), (right - ax, bottom), (right - rx, bottom), (x + rx, bottom)]
    points += [(x + ax, bottom), (x, bottom - ay), (x, bottom - ry), (x, y + ry)]
    points += [(x, y + ay), (x + ax, y), (x + rx, y)]
    return _finished(points, [1, 3, 1, 3, 1, 3, 1, 3], True)


def _ellipse(cx: float, cy: float, rx: float, ry: float) -> list[Subpath]:
    kx, ky = KAPPA * rx, KAPPA * ry
    points = [(cx + rx, cy), (cx + rx, cy + ky), (cx + kx, cy + ry), (cx, cy + ry)]
    points += [(cx - kx, cy + ry), (cx - rx, cy + ky), (cx - rx, cy)]
    points += [(cx - rx, cy - ky), (cx - kx, cy - ry), (cx, cy - ry)]
    points += [(cx + kx, cy - ry), (cx + rx, cy - ky), (cx + rx, cy)]
    return _finished(points, [3, 3, 3, 3], True)


def _controls(segment: object) -> list[tuple[float, float]]:
    """The control points of a segment after its first."""
    names = ("control", "control1", "control2", "end")
    return [_pair(point) for name in names if (point := getattr(segment, name, None)) is not None]


def _pair(point: object) -> tuple[float, float]:
    return float(point.x), float(point.y)  # type: ignore[attr-defined]


def _numbers(text: str) -> list[float]:
    import re

    return [float(word) for word in re.findall(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", text)]


def _join(points: Float[np.ndarray, "n 2"]) -> str:
    return " ".join(f"{number(x)} {number(y)}" for x, y in points)
