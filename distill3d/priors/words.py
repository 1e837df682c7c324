"""The vocabulary of a prior, where its folder lists it."""

from __future__ import annotations

import re
from pathlib import Path

from distill3d.priors.hub import PriorError
from distill3d.runtime.foreign import ForeignFileError, read_json_mapping

WORDS_FILE = "words.json"


def taught_words(folder: Path) -> frozenset[str] | None:
    """The list in the folder's words.json (``{"words": [...]}``), in lower case; None if it has no such file."""
    path = folder / WORDS_FILE
    if not path.is_file():
        return None
    try:
        entries = read_json_mapping(path).get("words")
    except ForeignFileError as error:
        raise PriorError(f'{path} is no word list of the form {{"words": [...]}}: {error}') from error
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise PriorError(f'{path} is no word list of the form {{"words": ["cat", "dog"]}}')
    return frozenset(word for entry in entries for word in _split(entry))


def unknown_words(prompt: str, taught: frozenset[str] | None) -> list[str]:
    """Words of the prompt that are not in the list, in their order, once each; a plural counts as its singular."""
    if taught is None:
        return []
    return list(dict.fromkeys(word for word in _split(prompt) if not _forms(word) & taught))


def _split(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _forms(word: str) -> set[str]:
    forms = {word}
    if word.endswith("es"):
        forms.add(word[:-2])
    if word.endswith("s"):
        forms.add(word[:-1])
    return forms
