"""Custom properties of CSS, ``--name: value``, and what ``var(--name, fallback)`` makes of them.

After CSS Custom Properties Level 1 of the W3C.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress

LONGEST = 4096  # characters of a value: what grows beyond it was made to grow
_VAR = re.compile(r"\bvar\(", re.IGNORECASE)
_PARTS = re.compile(r"\s*(--[^\s,()]+)\s*(?:,(.*))?", re.DOTALL)


def resolved(own: Mapping[str, str], inherited: Mapping[str, str]) -> dict[str, str]:
    """All properties of an element with their variables put in, and the variables themselves.

    own: what is declared for it, custom properties among them; inherited: its parent's. A value with a variable that is
    missing, names itself or grows too long stays as it is written: it is no colour and no length, and named as such.
    """
    above = {name: value for name, value in inherited.items() if name.startswith("--")}
    declared = {name: value for name, value in own.items() if name.startswith("--")}
    variables = _Variables(above | declared)
    result = above if not declared else {name: v for name in variables.written if (v := variables.value(name))}
    for name, value in own.items():
        if not name.startswith("--"):
            try:
                result[name] = variables.put_into(value)
            except ValueError:
                result[name] = value
    return result


class _Variables:
    """The custom properties of one element, each worked out once."""

    def __init__(self, written: Mapping[str, str]) -> None:
        self.written = written
        self._known: dict[str, str | None] = {}  # None where there is no value, or while it is worked out

    def value(self, name: str) -> str | None:
        if name not in self._known:
            self._known[name] = None
            written = self.written.get(name, "initial")
            if written.lower() != "initial":
                with suppress(ValueError):
                    self._known[name] = self.put_into(written)
        return self._known[name]

    def put_into(self, text: str) -> str:
        """The text with values in the place of variables. Raises ValueError where one has none and no fallback."""
        done = ""
        while match := _VAR.search(text):
            end = closing(text, match.end(), "()")
            if end is None:
                raise ValueError(text)
            parts = _PARTS.fullmatch(text[match.end() : end])
            value = self.value(parts[1]) if parts else None
            if value is None:
                if parts is None or parts[2] is None:
                    raise ValueError(text)
                value = self.put_into(parts[2])
            done = f"{done}{text[: match.start()]} {value.strip()} "  # what is put in is a word of its own
            text = text[end + 1 :]
            if len(done) > LONGEST:
                raise ValueError(text)
        return (done + text).strip()


def closing(text: str, place: int, pair: str) -> int | None:
    """Where the bracket of a pair, such as ``{}``, that was opened before ``place`` is closed; None if nowhere."""
    depth = 1
    for match in re.compile(f"[{re.escape(pair)}]").finditer(text, place):
        depth += 1 if match[0] == pair[0] else -1
        if depth == 0:
            return match.start()
    return None
