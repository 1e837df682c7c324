"""How many values are written in one setting: ``a,b``, ``start:stop:step``, ``a;b`` for prompts, ``@file.txt``."""

from __future__ import annotations

import re
from decimal import Decimal

from distill3d.config.check import ConfigError
from distill3d.config.files import values_of_file
from distill3d.config.yaml_text import is_text_key

MAX_VALUES = 100_000  # of one range: more is a slip of the keyboard
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER}):({_NUMBER}):({_NUMBER})")
_CLOSING = {"[": "]", "{": "}", "(": ")"}


def split_values(key: str, text: str) -> list[str]:
    """The values that ``key=text`` stands for; one where nothing separates.

    Prompts are split at semicolons alone; other values at commas outside brackets and quotes, and numbers between
    colons count from the first to the last inclusive: ``0:1:0.25`` is 0, 0.25, 0.5, 0.75, 1. ``@file.txt`` takes each
    line as one value, but for blank ones and those that begin with ``#``. Raises ConfigError for an empty value or a
    file that cannot be read.
    """
    if text.startswith("@"):
        return values_of_file(key, text)
    if is_text_key(key.rpartition(".")[2]):
        parts = [part.strip() for part in text.split(";")]
    else:
        parts = [value for part in _split_commas(key, text) for value in _range(key, part.strip())]
    if len(parts) > 1 and "" in parts:
        raise ConfigError(f"{key}={text}: value {parts.index('') + 1} of {len(parts)} is empty; remove it", key)
    return parts


def _range(key: str, part: str) -> list[str]:
    match = _RANGE.fullmatch(part)
    if match is None:
        return [part]
    start, stop, step = (Decimal(number) for number in match.groups())
    if step == 0:
        raise ConfigError(f"{key}={part}: the step of a range start:stop:step must not be 0", key)
    count = int((stop - start) / step) + 1
    if (stop - start) / step < 0 or count > MAX_VALUES:
        found = "is empty" if count <= MAX_VALUES else f"has {count} values"
        raise ConfigError(f"{key}={part}: the range {found}; write start:stop:step, such as 0:10:2", key)
    return [format((start + i * step).normalize(), "f") for i in range(count)]


def _split_commas(key: str, text: str) -> list[str]:
    """Split at commas that no bracket or quote holds. A quote opens only where a value begins: don't is a word."""
    parts, start, open_brackets, quote, before = [], 0, [], "", ","
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'" and before in ",[{(:":
            quote = character
        elif character in _CLOSING:
            open_brackets.append(_CLOSING[character])
        elif open_brackets and character == open_brackets[-1]:
            open_brackets.pop()
        elif character == "," and not open_brackets:
            parts.append(text[start:i])
            start = i + 1
        before = before if character.isspace() else character
    if open_brackets or quote:
        raise ConfigError(f"{key}={text}: {open_brackets[-1] if open_brackets else quote} is missing at the end", key)
    return [*parts, text[start:]]
