"""Coordinate systems of an SVG: view boxes, sizes, transforms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from distill3d.scenes.svg.style import length
from distill3d.scenes.svg.xml_text import SvgError

DEFAULT_SIZE = (300.0, 150.0)  # of a picture that says none
Matrix = Float[np.ndarray, "2 3"]


def root_viewport(root: Any, name: str) -> tuple[tuple[float, float], tuple[float, float], Matrix]:
    """The view box's size, the picture's, and the map between them, as ``preserveAspectRatio`` asks."""
    try:
        box = view_box(root)
        given = [_side(root.getAttribute(side)) for side in ("width", "height")]
    except ValueError as error:
        raise SvgError(f"{name}: viewBox, width or height cannot be read: {error}") from error
    width, height = _sides(given, (box[2], box[3]) if box else DEFAULT_SIZE)
    if min(width, height) <= 0:
        raise SvgError(f"{name} has width {width:g} and height {height:g}; both must be positive")
    if not box:
        return (width, height), (width, height), np.eye(2, 3)
    return (box[2], box[3]), (width, height), fitted(root, box, (width, height))


def nested_viewport(
    node: Any, viewport: tuple[float, float]
) -> tuple[tuple[float, float], Matrix, Float[np.ndarray, "4 2"]]:
    """Of an <svg> inside another: its view box's size, the map to its parent, and the corners that it is cut to.

    Raises ValueError for sizes that cannot be read.
    """
    x, y = (length(node.getAttribute(a).strip() or "0", side) for a, side in zip("xy", viewport, strict=True))
    width, height = (
        length(text, side) if (text := node.getAttribute(name).strip()) not in ("", "auto") else side
        for name, side in zip(("width", "height"), viewport, strict=True)
    )
    if min(width, height) <= 0:
        raise ValueError("width or height is not positive")
    corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
    box, shift = view_box(node), np.column_stack([np.eye(2), [x, y]])
    if not box:
        return (width, height), shift, corners
    return (box[2], box[3]), compose(shift, fitted(node, box, (width, height))), corners


def view_box(node: Any) -> list[float]:
    """Left, top, width, height; empty where there is none. Raises ValueError."""
    words = node.getAttribute("viewBox").replace(",", " ").split()
    try:
        box = [length(word, 0.0) for word in words]
    except ValueError:
        box = [0.0]
    if box and (len(box) != 4 or min(box[2:]) <= 0):
        raise ValueError(f"viewBox={' '.join(words)[:60]!r} must be four numbers, the last two positive")
    return box


def fitted(node: Any, box: list[float], size: tuple[float, float]) -> Matrix:
    """From a view box to a rectangle of ``size`` at the origin, as ``preserveAspectRatio`` asks."""
    width, height = size
    scale = np.array([width / box[2], height / box[3]])
    ratio = node.getAttribute("preserveAspectRatio").split() or ["xMidYMid"]
    if ratio[0] != "none":
        scale[:] = scale.max() if "slice" in ratio else scale.min()
    align = {"min": 0.0, "mid": 0.5, "max": 1.0}
    share = [align.get(part.lower(), 0.5) for part in (ratio[0][1:4], ratio[0][5:8])]
    shift = (np.array([width, height]) - scale * box[2:]) * share - scale * box[:2]
    return np.column_stack([np.diag(scale), shift])


def _side(text: str) -> float | None:
    """A side of the picture; None where it depends on the page that shows it."""
    text = text.strip().lower()
    return None if text in ("", "auto") or text.endswith(("%", "vw", "vh", "vmin", "vmax")) else length(text, 0.0)


def _sides(given: list[float | None], box: tuple[float, float]) -> tuple[float, float]:
    width, height = given
    if width is None and height is None:
        return box
    if width is None:
        return (height or 0.0) * box[0] / box[1], height or 0.0
    return width, width * box[1] / box[0] if height is None else height


def transform(node: Any, attribute: str = "transform") -> Matrix:
    """The element's own transform. What cannot be read is no transform."""
    from svgelements import Matrix

    try:
        m = Matrix(node.getAttribute(attribute))
        matrix = np.array([[m.a, m.c, m.e], [m.b, m.d, m.f]], np.float64)
    except (ValueError, IndexError, TypeError, OverflowError):
        return np.eye(2, 3)
    return matrix if np.isfinite(matrix).all() else np.eye(2, 3)


def compose(outer: Matrix, inner: Matrix) -> Matrix:
    """First ``inner``, then ``outer``."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def inverse(matrix: Matrix) -> Matrix:
    """The way back. Raises ValueError for a matrix that has none."""
    if abs(np.linalg.det(matrix[:, :2])) < 1e-18:
        raise ValueError("a transform cannot be undone")
    back = np.linalg.inv(matrix[:, :2])
    return np.column_stack([back, -back @ matrix[:, 2]])


def moved(matrix: Matrix, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Points under a matrix."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def attribute_reader(attributes: Mapping[str, str], viewport: tuple[float, float]) -> Any:
    """A function of an attribute's name, its axis and its default: the length that is said there."""
    sides = {"x": viewport[0], "y": viewport[1], "both": diagonal(viewport)}

    def read(attribute: str, axis: str, default: float) -> float:
        text = attributes.get(attribute, "").strip()
        return default if text in ("", "auto") else length(text, sides[axis])

    return read


def diagonal(viewport: tuple[float, float]) -> float:
    """What percentages of neither width nor height are of."""
    return float(np.hypot(*viewport) / np.sqrt(2.0))
