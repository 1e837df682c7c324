"""``words.json`` of a model's folder: the words of the captions that taught it, and the objects that they named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from distill3d.runtime.foreign import ForeignFileError, read_json_mapping

WORDS_FILE = "words.json"


def taught_words(folder: Path) -> frozenset[str] | None:
    """The vocabulary (``{"words": [...]}``) in lower case; None without the file. Raises ForeignFileError."""
    entries = _entries(folder, "words", None)
    return None if entries is None else frozenset(word for entry in entries for word in words_of(entry))


def taught_nouns(folder: Path) -> list[str]:
    """The objects (``{"nouns": [...]}``), in the file's order; none without such a list. Raises ForeignFileError."""
    return _entries(folder, "nouns", []) or []


def words_of(text: str) -> list[str]:
    """A text's words in lower case; ``t-rex`` is two."""
    return re.findall(r"\w+", text.lower())


def _entries(folder: Path, key: str, default: Any) -> list[str] | None:
    path = folder / WORDS_FILE
    if not path.is_file():
        return None
    try:
        entries = read_json_mapping(path).get(key, default)
    except ForeignFileError as error:
        raise ForeignFileError(f'{path} is no word list of the form {{"words": [...]}}: {error}') from error
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise ForeignFileError(f'{path} is no word list of the form {{"{key}": ["cat", "dog"]}}')
    return entries
