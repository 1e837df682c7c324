"""The rules of a <style> element: selectors of tags, classes, ids and :root, one inside another, @media, !important."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from distill3d.scenes.svg.variables import closing

Declarations = dict[str, str]

_COMPOUND = re.compile(r"([\w-]+|\*)?((?:[.#][\w-]+|:root)*)", re.IGNORECASE)
_IMPORTANT = re.compile(r"\s*!\s*important\s*", re.IGNORECASE)
_BLOCK = re.compile(r"([^{};]*)(\{|;|\})")
_SCREEN = re.compile(r"(only\s+)?(all|screen)|\(\s*prefers-color-scheme\s*:\s*light\s*\)", re.IGNORECASE)
_WITHOUT_EFFECT = ("@import", "@charset", "@namespace", "@font-face", "@keyframes", "@page")


def declarations(text: str) -> Declarations:
    """``fill: red; stroke: none !important`` as a mapping with such marks; names in lower case but for ``--Own``."""
    pairs = (part.partition(":") for part in text.split(";") if ":" in part)
    named = ((name.strip(), value.strip()) for name, _, value in pairs)
    return {name if name.startswith("--") else name.lower(): value for name, value in named}


def is_important(value: str) -> bool:
    """Whether a declaration wins over those that are not marked so."""
    return _IMPORTANT.search(value) is not None


def _plain(found: Declarations) -> Declarations:
    return {name: _IMPORTANT.sub("", value) for name, value in found.items()}


@dataclass(frozen=True)
class Compound:
    """``path.outline#first``, and whether the element before it is its parent (``>``) or any ancestor."""

    tag: str
    classes: frozenset[str]
    ids: frozenset[str]
    is_root: bool
    is_child: bool

    def matches(self, node: Any) -> bool:
        return (
            self.tag in ("*", node.localName)
            and self.classes <= set(node.getAttribute("class").split())
            and self.ids <= {node.getAttribute("id")}
            and not (self.is_root and node is not node.ownerDocument.documentElement)
        )


@dataclass(frozen=True)
class Rule:
    """``rank`` is CSS's specificity: ids, classes, tags."""

    compounds: tuple[Compound, ...]
    rank: tuple[int, int, int]
    body: Declarations

    def matches(self, node: Any) -> bool:
        """Whether the last compound fits the element, and those before it its ancestors.

        From the root down, so that a long selector in a deep file is not tried in every way: a compound may fit an
        element where the one before it has fitted its parent (``>``) or any ancestor.
        """
        if not self.compounds[-1].matches(node):
            return False
        path = [node]
        while path[-1].parentNode is not None and path[-1].parentNode.nodeType == node.ELEMENT_NODE:
            path.append(path[-1].parentNode)
        count = len(self.compounds)
        above, parent = [False] * count, [False] * count  # fitted by any ancestor, by the parent
        for element in reversed(path):
            before = (not i or (parent if c.is_child else above)[i - 1] for i, c in enumerate(self.compounds))
            parent = [fits and c.matches(element) for fits, c in zip(list(before), self.compounds, strict=True)]
            above = [a or b for a, b in zip(above, parent, strict=True)]
        return parent[-1]


class StyleSheet:
    """Rules in the order in which they win; ``unsupported`` names selectors that are not understood."""

    def __init__(self, text: str = "") -> None:
        self.rules: list[Rule] = []
        self.unsupported: list[str] = []
        text = re.sub(r"/\*.*?\*/|<!--|-->", "", text, flags=re.DOTALL)
        for selectors, body in _blocks(text):
            for selector in (part.strip() for part in selectors.split(",")):
                rule = _rule(selector, declarations(body))
                if rule is None:
                    self.unsupported.append(f"style rule {selector!r}")
                else:
                    self.rules.append(rule)
        self.rules.sort(key=lambda rule: rule.rank)  # stable: of two alike the later one wins

    @property
    def has_important(self) -> bool:
        return any(is_important(value) for rule in self.rules for value in rule.body.values())

    def properties(self, node: Any) -> Declarations:
        """What the rules and its style attribute say of an element; what is !important wins over what is not."""
        bodies = [rule.body for rule in self.rules if rule.matches(node)]
        found: Declarations = {}
        marked: Declarations = {}
        for body in (*bodies, declarations(node.getAttribute("style"))):
            found |= body
            marked |= {name: value for name, value in body.items() if is_important(value)}
        return _plain(found | marked)


def _rule(selector: str, body: Declarations) -> Rule | None:
    words = re.sub(r"\s*>\s*", " > ", selector).split()
    compounds, is_child = [], False
    for word in words:
        if word == ">":
            is_child = True
            continue
        match = _COMPOUND.fullmatch(word)
        if match is None:
            return None
        marks = re.findall(r"[.#][\w-]+", match[2])
        classes, ids = (frozenset(mark[1:] for mark in marks if mark[0] == sign) for sign in ".#")
        compounds.append(Compound(match[1] or "*", classes, ids, ":root" in match[2].lower(), is_child))
        is_child = False
    if not compounds or is_child:
        return None
    rank = (
        sum(len(c.ids) for c in compounds),
        sum(len(c.classes) + c.is_root for c in compounds),
        sum(c.tag != "*" for c in compounds),
    )
    return Rule(tuple(compounds), rank, body)


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Selectors and bodies, those in a fitting @media included; other at-rules have no effect on shapes."""
    place = 0
    while match := _BLOCK.match(text, place):
        head, place = match[1].strip(), match.end()
        if match[2] != "{":
            continue
        end = closing(text, place, "{}")
        end = len(text) if end is None else end
        body, place = text[place:end], end + 1
        if head.startswith("@media"):
            if fits_a_screen(head[6:]):
                yield from _blocks(body)
        elif not head.startswith(_WITHOUT_EFFECT):
            yield head, body


def fits_a_screen(queries: str) -> bool:
    """Whether one of some media queries is of a screen. What is not understood is none."""
    return any(_SCREEN.fullmatch(query.strip()) for query in queries.split(","))
