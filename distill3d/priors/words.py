"""What to tell a person whose prompt goes beyond the words and objects that a prior was taught."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distill3d.config.check import edit_distance
from distill3d.runtime.word_list import words_of


def advice(
    prompt: str, model: str, taught: frozenset[str] | None, nouns: Mapping[str, str], is_pair: bool = False
) -> list[str]:
    """What a person should hear of a prompt before a training, one sentence each; nothing where all is known.

    ``nouns`` has every name of an object that the model was taught, and the noun that it stands for. They are listed
    where the prompt names none of them, since the words that it has then make no object.
    """
    told, known = [], list(dict.fromkeys(nouns.values()))
    unknown = unknown_words(prompt, taught)
    if unknown:
        near = {noun: None for word in unknown for name, noun in nouns.items() if _is_near(word, name)}
        text = f"not in the vocabulary of the model {model}: {', '.join(unknown)}; these words have no reliable effect"
        told.append(text + (f"; nearest by spelling: {', '.join(near)}" if near else ""))
    named, rest = named_objects(prompt, nouns)
    for word in rest:
        longer = {noun: None for name, noun in nouns.items() if words_of(name)[-1] in _forms(word)}
        if longer and word not in unknown:
            told.append(f'"{word}" by itself is not known to the model {model}; near: {", ".join(longer)}')
    for mention in named:
        if not mention.is_exact:
            told.append(f'the model {model} knows "{mention.name}", and not "{mention.written}": write the singular')
    objects = list(dict.fromkeys(mention.noun for mention in named))
    if known and not objects:
        told.append(f"the prompt names none of the {len(known)} nouns of the model {model}: {', '.join(known)}")
    if len(objects) > 1 and not is_pair:
        told.append(
            f"the prompt names {len(objects)} objects ({', '.join(objects)}), and the model {model} makes one, or two "
            'that stand "on top of" or "next to" each other; each may have a colour or a material'
        )
    return told


@dataclass(frozen=True)
class Mention:
    """Where a prompt names an object: as it is written there, the name that was taught, and the noun it stands for."""

    written: str
    name: str
    noun: str

    @property
    def is_exact(self) -> bool:
        """Whether it is the name itself; else a plural, which a model reads as another word."""
        return words_of(self.written) == words_of(self.name)


def named_objects(prompt: str, nouns: Mapping[str, str]) -> tuple[list[Mention], list[str]]:
    """The objects that a prompt names, in its order, and its other words, once each. *Hot dog* names no dog."""
    words: list[str | None] = [*words_of(prompt)]
    found: dict[int, Mention] = {}
    for name, parts in sorted(((name, words_of(name)) for name in nouns), key=lambda entry: -len(entry[1])):
        for i in range(len(words) - len(parts) + 1):
            span = words[i : i + len(parts)]
            if all(word is not None and part in _forms(word) for part, word in zip(parts, span, strict=True)):
                found[i] = Mention(" ".join(filter(None, span)), name, nouns[name])
                words[i : i + len(parts)] = [None] * len(parts)
    return [found[i] for i in sorted(found)], list(dict.fromkeys(filter(None, words)))


def unknown_words(prompt: str, taught: frozenset[str] | None) -> list[str]:
    """Words of the prompt that are not in the list, in their order, once each; a plural counts as its singular."""
    if taught is None:
        return []
    return list(dict.fromkeys(word for word in words_of(prompt) if not _forms(word) & taught))


def _is_near(word: str, name: str) -> bool:
    """Whether a slip of the hand makes one of the other; short words are near to too many."""
    parts = [part for part in (name, *words_of(name)) if len(part) > 4]
    return len(word) > 4 and any(edit_distance(word, part) <= len(word) // 3 for part in parts)


def _forms(word: str) -> set[str]:
    """The word, and what it may be the plural of."""
    singular = {"ies": "y", "es": "", "s": ""}
    return {word} | {word.removesuffix(end) + letter for end, letter in singular.items() if word.endswith(end)}
