"""The text of an SVG file and its elements: encodings, compression, and <use> written out."""

from __future__ import annotations

import re
import zlib
from typing import Any
from xml.dom import minidom
from xml.parsers.expat import ExpatError

from distill3d.runtime.foreign import MAX_TEXT_BYTES, ForeignFileError

NAMESPACE = "http://www.w3.org/2000/svg"
MAX_DEPTH = 150  # elements inside one another
MAX_ELEMENTS = 20_000  # after <use> is written out: a few nested ones can stand for millions
_ENCODING = re.compile(r"""(<\?xml[^>]*?encoding\s*=\s*)(["'])([\w.:-]+)\2""")


class SvgError(ForeignFileError):
    """An SVG that cannot be read, or in which there is nothing to draw."""


def decode(data: bytes, name: str) -> str:
    """The text of a file, unpacked (.svgz) and in the encoding that it declares, which becomes UTF-8.

    Raises SvgError for an unknown encoding and for what is not text.
    """
    if data[:2] == b"\x1f\x8b":
        data = _unpacked(data, name)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        declared = "utf-16"
    else:
        match = _ENCODING.match(data.removeprefix(b"\xef\xbb\xbf")[:200].decode("ascii", "replace"))
        declared = match[3] if match else "utf-8"
    try:
        text = data.decode("utf-8-sig" if declared.lower() in ("utf-8", "utf8") else declared)
    except LookupError as error:
        raise SvgError(f"{name} is in an unknown encoding, {declared!r}; save it in UTF-8") from error
    except (UnicodeError, ValueError) as error:
        raise SvgError(f"{name} is not text in {declared}, as it should be; save the SVG in UTF-8") from error
    text = text.replace("\r\n", "\n")
    match = _ENCODING.match(text)
    if match and match[3].lower() != "utf-8":
        text = f"{match[1]}{match[2]}UTF-8{match[2]}{text[match.end() :]}"
    return text


def _unpacked(data: bytes, name: str) -> bytes:
    try:
        text = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(data, MAX_TEXT_BYTES + 1)
    except zlib.error as error:
        raise SvgError(f"{name} cannot be unpacked: {error}; save it as a plain SVG") from error
    if len(text) > MAX_TEXT_BYTES:
        raise SvgError(f"{name} unpacks to more than {MAX_TEXT_BYTES >> 20} MB; make it smaller")
    return text


def parse_xml(text: str, name: str = "the SVG") -> Any:
    """The root element, with all that stands in the file. Raises SvgError."""
    try:
        root = minidom.parseString(text.encode()).documentElement
    except (ExpatError, ValueError, UnicodeError) as error:
        raise SvgError(f"{name} is no well-formed XML: {error}") from error
    if root is None or root.localName != "svg":
        raise SvgError(f"{name} is no SVG: its outermost element is {getattr(root, 'tagName', None)!r}, expected 'svg'")
    _check_depth(root, name)
    return root


def elements(root: Any) -> list[Any]:
    """All elements in the order of the file; a shape's ``node`` counts them."""
    return [root, *root.getElementsByTagName("*")]


def children(node: Any) -> list[Any]:
    """The elements directly inside one."""
    return [child for child in node.childNodes if child.nodeType == child.ELEMENT_NODE]


def is_svg(node: Any, *names: str) -> bool:
    """Whether an element is SVG's, by one of these names."""
    return node.namespaceURI in (None, NAMESPACE) and node.localName in names


def reference(node: Any) -> str:
    """What ``href`` or ``xlink:href`` names: an id of this file, else nothing."""
    target = node.getAttribute("href") or node.getAttribute("xlink:href")
    return target.strip()[1:] if target.strip().startswith("#") else ""


def by_id(root: Any) -> dict[str, Any]:
    """Elements by their id; of two alike the first."""
    found: dict[str, Any] = {}
    for node in elements(root):
        if node.getAttribute("id"):
            found.setdefault(node.getAttribute("id"), node)
    return found


def without_use(text: str, name: str) -> tuple[Any, str]:
    """The root and the text with each <use> written out as a group with a copy of what it names.

    Each copy can then be changed by itself. Text without <use> stays as it is, to the letter. Raises SvgError for a
    <use> inside itself, and for too many elements.
    """
    root = parse_xml(text, name)
    if not any(is_svg(node, "use") for node in elements(root)):
        return root, text
    _expand(root, by_id(root), (), [len(elements(root))], name)
    text = root.ownerDocument.toxml()
    return parse_xml(text, name), text


def _expand(node: Any, known: dict[str, Any], inside: tuple[str, ...], count: list[int], name: str) -> None:
    for child in children(node):
        target = known.get(reference(child)) if is_svg(child, "use") else None
        if target is None:
            _expand(child, known, inside, count, name)
            continue
        label = reference(child)
        if label in inside or _holds(target, child):
            raise SvgError(f"{name}: <use> of {label!r} is inside itself; remove it")
        count[0] += 1 + len(elements(target))
        if count[0] > MAX_ELEMENTS:
            raise SvgError(f"{name} has more than {MAX_ELEMENTS} elements once <use> is written out; simplify it")
        group = _written_out(child, target)
        node.replaceChild(group, child)
        _expand(group, known, (*inside, label), count, name)


def _written_out(use: Any, target: Any) -> Any:
    """``<g transform="... translate(x, y)">`` around a copy; of a <symbol> a nested <svg> with its view box."""
    document, prefix = use.ownerDocument, f"{use.prefix}:" if use.prefix else ""
    group = document.createElementNS(use.namespaceURI, f"{prefix}g")
    for key, value in use.attributes.items():
        if key not in ("x", "y", "width", "height", "href", "xlink:href"):
            group.setAttribute(key, value)
    place = [use.getAttribute(axis).strip() or "0" for axis in ("x", "y")]
    if place != ["0", "0"]:
        group.setAttribute("transform", f"{use.getAttribute('transform')} translate({place[0]},{place[1]})".strip())
    copy = target.cloneNode(True)
    if copy.localName in ("symbol", "svg"):
        document.renameNode(copy, copy.namespaceURI, f"{prefix}svg")
        for side in ("width", "height"):
            if use.hasAttribute(side):
                copy.setAttribute(side, use.getAttribute(side))
    group.appendChild(copy)
    return group


def _holds(outer: Any, node: Any) -> bool:
    while node is not None:
        if node is outer:
            return True
        node = node.parentNode
    return False


def _check_depth(root: Any, name: str) -> None:
    level, depth = [root], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise SvgError(f"{name} has more than {MAX_DEPTH} elements inside one another; simplify it")
        level = [child for node in level for child in children(node)]
