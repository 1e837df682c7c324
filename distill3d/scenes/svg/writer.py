"""A changed SVG: the original file to the letter, but for the start tags of the shapes that were changed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import quoteattr, unescape

from distill3d.scenes.svg.drawing import Stop, SvgDocument, SvgShape
from distill3d.scenes.svg.geometry import Subpath, number, path_data, points_attribute
from distill3d.scenes.svg.style import hexadecimal
from distill3d.scenes.svg.style_sheet import declarations, is_important

GEOMETRY = ("x", "y", "width", "height", "rx", "ry", "cx", "cy", "r", "pathLength")  # what a path has no use for


@dataclass(frozen=True)
class ShapeEdit:
    """The new values of one shape, in the element's own coordinates; None stays as it is in the file."""

    subpaths: Sequence[Subpath] | None = None
    fill: tuple[float, float, float] | None = None
    stroke: tuple[float, float, float] | None = None
    stroke_width: float | None = None
    opacity: float | None = None


@dataclass(frozen=True)
class StopEdit:
    """The new colour of a gradient's stop."""

    stop: Stop
    colour: tuple[float, float, float]


class StartTag:
    """The text of a start tag, such as ``<rect x="1"/>``, and changes to it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def get(self, name: str) -> str:
        found = self._find(name)
        return unescape(found[3][1:-1], {"&quot;": '"', "&apos;": "'"}) if found else ""

    def set(self, name: str, value: str) -> None:
        """In its place, or after the last attribute."""
        found = self._find(name)
        start, end = found.span(3) if found else (len(self.text.rstrip("/> \t\r\n")),) * 2
        self.text = self.text[:start] + ("" if found else f" {name}=") + quoteattr(value) + self.text[end:]

    def remove(self, name: str) -> None:
        found = self._find(name)
        if found:
            self.text = self.text[: found.start()] + self.text[found.end() :]

    def rename(self, local_name: str) -> None:
        self.text = re.sub(r"^(</?(?:[^\s:>/]+:)?)[^\s:>/]+", rf"\g<1>{local_name}", self.text)

    def _find(self, name: str) -> re.Match[str] | None:
        for match in re.finditer(r"\s+([^\s=]+)(\s*=\s*)(\"[^\"]*\"|'[^']*')", self.text):
            if match[1] == name:
                return match
        return None


def write_svg(
    document: SvgDocument, edits: Mapping[int, ShapeEdit], stops: Mapping[int, StopEdit] | None = None
) -> str:
    """The file with shapes (by number) and stops (by node) changed. Without edits it is the original text."""
    data = document.text.encode()
    tags = _tags(data)
    replaced: dict[tuple[int, int], bytes] = {}
    for index, edit in edits.items():
        shape = document.shapes[index]
        start, end = tags[shape.node]
        tag = StartTag(data[slice(*start)].decode())
        _apply(tag, shape, edit, document)
        replaced[start] = tag.text.encode()
        if edit.subpaths is not None and end is not None and _becomes_path(shape):
            closing = StartTag(data[slice(*end)].decode())
            closing.rename("path")
            replaced[end] = closing.text.encode()
    for node, change in (stops or {}).items():
        tag = StartTag(data[slice(*tags[node][0])].decode())
        _set(tag, "stop-color", hexadecimal(change.colour), document)
        if change.stop.colour.alpha < 1.0:  # it was part of the colour
            _set(tag, "stop-opacity", number(round(change.stop.colour.alpha * change.stop.opacity, 4)), document)
        replaced[tags[node][0]] = tag.text.encode()
    for (start, end), text in sorted(replaced.items(), reverse=True):
        data = data[:start] + text + data[end:]
    return data.decode()


def _apply(tag: StartTag, shape: SvgShape, edit: ShapeEdit, document: SvgDocument) -> None:
    if edit.subpaths is not None:
        _write_outline(tag, shape, edit.subpaths)
    for name, paint, rgb in (("fill", shape.fill, edit.fill), ("stroke", shape.stroke, edit.stroke)):
        if rgb is not None and paint is not None:
            _set(tag, name, hexadecimal(rgb), document)
            if paint.colour.alpha < 1.0:  # it was part of the colour
                _set(tag, f"{name}-opacity", number(round(paint.colour.alpha * paint.opacity, 4)), document)
    if edit.stroke_width is not None:
        _set(tag, "stroke-width", number(edit.stroke_width), document)
    if edit.opacity is not None:
        _set(tag, "opacity", number(round(edit.opacity, 4)), document)


def _write_outline(tag: StartTag, shape: SvgShape, subpaths: Sequence[Subpath]) -> None:
    """Lines, polylines and polygons stay what they are; a moved rect, circle or ellipse becomes a path."""
    if shape.tag == "line":
        for i, (x, y) in enumerate(subpaths[0].points, start=1):
            tag.set(f"x{i}", number(x))
            tag.set(f"y{i}", number(y))
    elif shape.tag in ("polyline", "polygon"):
        tag.set("points", points_attribute(subpaths[0]))
    else:
        if _becomes_path(shape):
            tag.rename("path")
            for name in GEOMETRY:
                tag.remove(name)
        tag.set("d", path_data(subpaths))


def _becomes_path(shape: SvgShape) -> bool:
    return shape.tag in ("rect", "circle", "ellipse")


def _set(tag: StartTag, name: str, value: str, document: SvgDocument) -> None:
    """Where it is said now; in the style attribute where a style sheet might say something else."""
    style = declarations(tag.get("style"))
    if document.important or is_important(style.get(name, "")):
        value += " !important"
    if name in style or document.styled:
        tag.set("style", ";".join(f"{key}:{text}" for key, text in (style | {name: value}).items()))
    else:
        tag.set(name, value)


def _tags(data: bytes) -> list[tuple[tuple[int, int], tuple[int, int] | None]]:
    """First and last byte of each element's start tag and of its end tag, which ``<a/>`` has not."""
    starts: list[int] = []
    ends: dict[int, int] = {}
    open_elements: list[int] = []
    parser: Any = expat.ParserCreate("utf-8")

    def begin(*_: Any) -> None:
        open_elements.append(len(starts))
        starts.append(parser.CurrentByteIndex)

    def finish(*_: Any) -> None:
        ends[open_elements.pop()] = parser.CurrentByteIndex

    parser.StartElementHandler, parser.EndElementHandler = begin, finish
    parser.Parse(data, True)
    opening = [_tag_at(data, start) for start in starts]
    empty = [data[stop - 2 : stop] == b"/>" for _, stop in opening]
    return [(tag, None if empty[i] else _tag_at(data, ends[i])) for i, tag in enumerate(opening)]


def _tag_at(data: bytes, start: int) -> tuple[int, int]:
    """To the next ``>`` that no quotes hold."""
    match = re.compile(rb"<(?:[^>\"']|\"[^\"]*\"|'[^']*')*>").match(data, start)
    assert match is not None  # the parser found a tag there
    return match.span()
