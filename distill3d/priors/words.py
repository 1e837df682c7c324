"""The vocabulary of a prior, where its folder lists it, and what to tell a person whose prompt goes beyond it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill3d.config.check import edit_distance
from distill3d.priors.hub import PriorError
from distill3d.runtime.foreign import ForeignFileError, read_json_mapping

WORDS_FILE = "words.json"


def taught_words(folder: Path) -> frozenset[str] | None:
    """The list in the folder's words.json (``{"words": [...]}``), in lower case; None if it has no such file."""
    entries = _entries(folder, "words", None)
    return None if entries is None else frozenset(word for entry in entries for word in _split(entry))


def taught_nouns(folder: Path) -> tuple[str, ...]:
    """The objects that the folder's words.json names (``{"nouns": [...]}``), in its order; none without such a list."""
    return tuple(_entries(folder, "nouns", []) or ())


def advice(
    prompt: str, model: str, taught: frozenset[str] | None, nouns: Sequence[str], is_pair: bool = False
) -> list[str]:
    """What a person should hear of a prompt before a training: unknown words, and more objects than it makes.

    The nouns are listed where the prompt names none of them, since the words that it has then make no object.
    """
    told, named = [], named_nouns(prompt, nouns)
    unknown = unknown_words(prompt, taught)
    if unknown:
        text = f"not in the vocabulary of the model {model}: {', '.join(unknown)}; these words have no reliable effect"
        near = {noun: None for word in unknown for noun in nouns if _is_near(word, noun)}
        text += f"; nearest by spelling: {', '.join(near)}" if near else ""
        text += f"; its {len(nouns)} nouns: {', '.join(nouns)}" if nouns and not named else ""
        told.append(text)
    if len(named) > 1 and not is_pair:
        told.append(
            f"the prompt names {len(named)} objects ({', '.join(named)}), and the model {model} makes one, or two that "
            'stand "on top of" or "next to" each other; each may have a colour or a material'
        )
    return told


def named_nouns(prompt: str, nouns: Sequence[str]) -> list[str]:
    """The nouns of a prompt in its order, as a whole (*hot dog*) or by their last word (*taxi* for *yellow taxi*)."""
    words = [_forms(word) for word in _split(prompt)]
    whole = [(_split(noun), noun) for noun in nouns]
    last = [(parts[-1:], noun) for parts, noun in whole]
    found: dict[int, str] = {}
    for parts, noun in [*sorted(whole, key=lambda entry: -len(entry[0])), *last]:
        for i in range(len(words) - len(parts) + 1):
            if all(part in forms for part, forms in zip(parts, words[i:], strict=False)):
                found[i] = noun
                words[i : i + len(parts)] = [set() for _ in parts]  # "hot dog" names no dog
    return list(dict.fromkeys(found[i] for i in sorted(found)))


def unknown_words(prompt: str, taught: frozenset[str] | None) -> list[str]:
    """Words of the prompt that are not in the list, in their order, once each; a plural counts as its singular."""
    if taught is None:
        return []
    return list(dict.fromkeys(word for word in _split(prompt) if not _forms(word) & taught))


def _entries(folder: Path, key: str, default: Any) -> list[str] | None:
    path = folder / WORDS_FILE
    if not path.is_file():
        return None
    try:
        entries = read_json_mapping(path).get(key, default)
    except ForeignFileError as error:
        raise PriorError(f'{path} is no word list of the form {{"words": [...]}}: {error}') from error
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise PriorError(f'{path} is no word list of the form {{"{key}": ["cat", "dog"]}}')
    return entries


def _is_near(word: str, noun: str) -> bool:
    """Whether a slip of the hand makes one of the other."""
    return len(word) > 4 and any(edit_distance(word, part) <= len(word) // 3 for part in {noun, *_split(noun)})


def _split(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _forms(word: str) -> set[str]:
    forms = {word}
    if word.endswith("es"):
        forms.add(word[:-2])
    if word.endswith("s"):
        forms.add(word[:-1])
    return forms
