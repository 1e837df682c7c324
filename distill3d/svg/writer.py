"""A changed SVG: the original file, in which only what was changed is written anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill3d.svg.document import SvgDocument, SvgShape, elements, parse_xml
from distill3d.svg.geometry import Subpath, number, path_data, points_attribute
from distill3d.svg.style import declarations, hexadecimal

GEOMETRY = ("x", "y", "width", "height", "rx", "ry", "cx", "cy", "r", "pathLength")  # what a path has no use for


@dataclass(frozen=True)
class ShapeEdit:
    """The new values of one shape, in the element's own coordinates; None stays as it is in the file."""

    subpaths: Sequence[Subpath] | None = None
    fill: tuple[float, float, float] | None = None
    stroke: tuple[float, float, float] | None = None
    stroke_width: float | None = None
    opacity: float | None = None


def write_svg(document: SvgDocument, edits: Mapping[int, ShapeEdit]) -> str:
    """The file with the shapes (by number) changed. Without edits it is the original text, unchanged."""
    if not any(edit != ShapeEdit() for edit in edits.values()):
        return document.text
    root = parse_xml(document.text)
    nodes = elements(root)
    for index, edit in edits.items():
        shape = document.shapes[index]
        _apply(nodes[shape.node], shape, edit, document.styled)
    body = root.ownerDocument.toxml()
    declared = document.text.lstrip("\ufeff \n").startswith("<?xml")
    return (body if declared else body.partition("?>")[2]).rstrip() + "\n"


def _apply(node: Any, shape: SvgShape, edit: ShapeEdit, styled: bool) -> None:
    if edit.subpaths is not None:
        _write_outline(node, shape.tag, edit.subpaths)
    for name, paint, rgb in (("fill", shape.fill, edit.fill), ("stroke", shape.stroke, edit.stroke)):
        if rgb is not None and paint is not None:
            _set(node, name, hexadecimal(rgb), styled)
            if paint.colour.alpha < 1.0:  # it was part of the colour
                _set(node, f"{name}-opacity", number(paint.colour.alpha * paint.opacity), styled)
    if edit.stroke_width is not None:
        _set(node, "stroke-width", number(edit.stroke_width), styled)
    if edit.opacity is not None:
        _set(node, "opacity", number(round(edit.opacity, 4)), styled)


def _write_outline(node: Any, tag: str, subpaths: Sequence[Subpath]) -> None:
    """Lines, polylines and polygons stay what they are; a moved rect, circle or ellipse becomes a path."""
    if tag == "line":
        for i, (x, y) in enumerate(subpaths[0].points, start=1):
            node.setAttribute(f"x{i}", number(x))
            node.setAttribute(f"y{i}", number(y))
    elif tag in ("polyline", "polygon"):
        node.setAttribute("points", points_attribute(subpaths[0]))
    else:
        if tag != "path":
            prefix = f"{node.prefix}:" if node.prefix else ""
            node.tagName = node.nodeName = f"{prefix}path"
            for name in GEOMETRY:
                if node.hasAttribute(name):
                    node.removeAttribute(name)
        node.setAttribute("d", path_data(subpaths))


def _set(node: Any, name: str, value: str, styled: bool) -> None:
    """Where it is said now; in the style attribute where a style sheet might say something else."""
    style = declarations(node.getAttribute("style"))
    if name in style or styled:
        node.setAttribute("style", ";".join(f"{key}:{text}" for key, text in (style | {name: value}).items()))
    else:
        node.setAttribute(name, value)
