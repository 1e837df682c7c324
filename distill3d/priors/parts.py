"""A prompt of two objects as its parts and their places, for a model whose folder says how large its objects are.

``parts.json`` of a model's folder gives, for each noun, ``low`` and ``high``, the corners of its box in its own frame
(front at +x, z up, the farthest point at 0.5), ``seat``, the height at which another object stands on it, and
``names``, other words for it.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.priors.hub import PriorError
from distill3d.runtime.foreign import ForeignFileError, read_json_mapping

PARTS_FILE = "parts.json"
Point = tuple[float, float, float]
_ON, _BESIDE = "on", "beside"
_RELATIONS = {"on top of": _ON, "on": _ON, "next to": _BESIDE, "and": _BESIDE}
_RELATION = re.compile(rf"[\s,]+({'|'.join(sorted(_RELATIONS, key=len, reverse=True))})\s+")
# of the first object against the second; the means of what pairs were made with for training
_SCALE = {_ON: 0.8, _BESIDE: 0.92}
_SUNK, _GAP, _RADIUS = 0.01, 0.04, 0.5


@dataclass(frozen=True)
class Extent:
    """An object's box in its own frame, the height at which another one stands on it, and its noun."""

    low: Point
    high: Point
    seat: float
    noun: str


@dataclass(frozen=True)
class Placed:
    """One of two objects: what it is called, and its own frame in the world."""

    text: str
    scale: float
    center: Point


@dataclass(frozen=True)
class Pair:
    """Two objects, and the plane between them: a normal towards the first, and its offset."""

    first: Placed
    second: Placed
    normal: Point
    offset: float

    def numbers(self) -> list[float]:
        """Scale and centre of both, then the plane: 12 numbers, which `embedded.light_parts.whole_and_parts` reads."""
        first, second = self.first, self.second
        return [first.scale, *first.center, second.scale, *second.center, *self.normal, self.offset]


def read_extents(folder: Path) -> dict[str, Extent]:
    """Extents by noun and by its other names, in lower case; none without the file. Raises PriorError if damaged."""
    path = folder / PARTS_FILE
    if not path.is_file():
        return {}
    extents: dict[str, Extent] = {}
    try:
        for noun, entry in read_json_mapping(path).items():
            extent = Extent(_point(entry["low"]), _point(entry["high"]), float(entry["seat"]), noun)
            if not all(math.isfinite(x) for x in (*extent.low, *extent.high, extent.seat)):
                raise ValueError("a number is not finite")
            extents |= {str(name).lower(): extent for name in (noun, *entry.get("names", ()))}
    except (ForeignFileError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise PriorError(f"{path} is no list of extents ({error}); fetch the model's folder again") from error
    return extents


def pair_of(prompt: str, extents: dict[str, Extent]) -> Pair | None:
    """The two objects that a prompt puts on top of or next to each other; None unless each names one known object.

    What follows a comma after the second, as a view's words, is told of both.
    """
    pieces = _RELATION.split(prompt.lower())
    if len(pieces) != 3:
        return None
    told, comma, rest = pieces[2].partition(",")
    texts = [piece.strip(" ,.;:!?") for piece in (pieces[0], told)]
    first, second = (_named(text, extents) for text in texts)
    if first is None or second is None:
        return None
    relation = _RELATIONS[pieces[1]]
    center, normal, offset = _beside(first, second) if relation == _BESIDE else _on_top(first, second)
    placed = (
        Placed(texts[0] + comma + rest, _SCALE[relation], center),
        Placed(texts[1] + comma + rest, 1.0, (0, 0, 0)),
    )
    return _normalised(placed, (first, second), normal, offset)


def packed(whole: Float[Tensor, "1 D"], parts: Float[Tensor, "2 D"], pair: Pair) -> Float[Tensor, "1 E"]:
    """Pooled text of a pair, of each of its objects, and their places: ``E = 3 D + 12``."""
    places = whole.new_tensor([pair.numbers()])
    return torch.cat([whole, parts.flatten()[None], places], dim=-1)


def _named(piece: str, extents: dict[str, Extent]) -> Extent | None:
    """The known noun that a piece ends with."""
    words = piece.split()
    names = (" ".join(words[i:]) for i in range(len(words)))
    return next((extents[name] for name in names if name in extents), None)


def _on_top(first: Extent, second: Extent) -> tuple[Point, Point, float]:
    return (0.0, 0.0, second.seat - _SUNK - first.low[2] * _SCALE[_ON]), (0.0, 0.0, 1.0), second.seat


def _beside(first: Extent, second: Extent) -> tuple[Point, Point, float]:
    """On the same floor, to +y."""
    scale = _SCALE[_BESIDE]
    y = second.high[1] + _GAP - scale * first.low[1]
    return (0.0, y, second.low[2] - scale * first.low[2]), (0.0, 1.0, 0.0), second.high[1] + 0.5 * _GAP


def _normalised(placed: tuple[Placed, Placed], extents: tuple[Extent, Extent], normal: Point, offset: float) -> Pair:
    """Centred by the box of both, and scaled into the ball that every object fills."""
    low, high = (
        [
            pick(p.center[i] + p.scale * getattr(e, side)[i] for p, e in zip(placed, extents, strict=True))
            for i in range(3)
        ]
        for side, pick in (("low", min), ("high", max))
    )
    middle = [0.5 * (a + b) for a, b in zip(low, high, strict=True)]
    corner = max(math.dist(middle, corner) for corner in itertools.product(*zip(low, high, strict=True)))
    balls = max(math.dist(middle, p.center) + _RADIUS * p.scale for p in placed)
    scale = _RADIUS / min(corner, balls)
    moved = lambda point: tuple((a - b) * scale for a, b in zip(point, middle, strict=True))  # noqa: E731
    first, second = (Placed(p.text, p.scale * scale, moved(p.center)) for p in placed)
    return Pair(first, second, normal, (offset - sum(n * m for n, m in zip(normal, middle, strict=True))) * scale)


def _point(value: object) -> Point:
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"{value!r} is no point of three numbers")
    x, y, z = (float(part) for part in value)
    return x, y, z
