"""Scheduled values: a setting that is a number, or a piecewise linear function of the step or the epoch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Scheduled = float | int | Sequence[float | int]


def check_schedule(spec: Scheduled, setting: str = "schedule") -> None:
    """Raise ValueError, naming the setting, unless ``spec`` is a form that `scheduled` reads."""
    if not is_finite_number(spec) and (isinstance(spec, str) or not isinstance(spec, Sequence)):
        raise ValueError(f"{setting}={spec!r} is neither a number nor a schedule; {_FORMS}")
    if isinstance(spec, Sequence):
        if len(spec) < 3 or (len(spec) > 4 and len(spec) % 2):
            raise ValueError(f"{setting}={list(spec)!r} has {len(spec)} entries; {_FORMS}")
        if not all(is_finite_number(v) for v in spec):
            raise ValueError(f"{setting}={list(spec)!r} contains an entry that is not a number; {_FORMS}")
        steps = _knots(spec)[0]
        if any(b < a for a, b in itertools.pairwise(steps)):
            raise ValueError(f"{setting}={list(spec)!r} has steps that go backwards; {_FORMS}")


def scheduled(spec: Scheduled, step: int, epoch: int = 0) -> float:
    """The value of ``spec`` at a step: constant before the first knot and after the last, linear between.

    Forms: ``v``; ``[v0, v1, end]``; ``[start, v0, v1, end]``; ``[s0, v0, v1, s1, v2, s2, ...]``.
    An int end counts steps, a float end counts epochs.
    """
    if not isinstance(spec, Sequence):
        return float(spec)
    steps, values = _knots(spec)
    now = epoch if isinstance(steps[-1], float) else step
    if now <= steps[0]:
        return float(values[0])
    for s0, s1, v0, v1 in zip(steps, steps[1:], values, values[1:], strict=False):
        if now <= s1:
            # a segment of no length is a jump; its later value holds from the knot on
            return float(v1) if s1 == s0 else float(v0 + (v1 - v0) * (now - s0) / (s1 - s0))
    return float(values[-1])


def knots(spec: Scheduled) -> list[float | int]:
    """Where ``spec`` bends: steps, or epochs where the last is a float; empty for a number. It is linear between."""
    return _knots(spec)[0] if isinstance(spec, Sequence) else []


def largest(spec: Scheduled) -> float:
    """The largest value that ``spec`` ever takes."""
    return float(max(_knots(spec)[1])) if isinstance(spec, Sequence) else float(spec)


def smallest(spec: Scheduled) -> float:
    """The smallest value that ``spec`` ever takes."""
    return float(min(_knots(spec)[1])) if isinstance(spec, Sequence) else float(spec)


def cosine(step: int, total: int, start: float = 1.0, end: float = 0.0) -> float:
    """Half a cosine from ``start`` to ``end`` over ``total`` steps."""
    progress = min(max(step / max(total, 1), 0.0), 1.0)
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * progress))


def is_finite_number(value: object) -> bool:
    """Whether it is a number that a float can hold: no truth value, and no integer of hundreds of digits."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _knots(spec: Sequence[float | int]) -> tuple[list[float | int], list[float | int]]:
    if len(spec) == 3:
        return [0, spec[2]], [spec[0], spec[1]]
    return [spec[0], *spec[3::2]], [spec[1], *spec[2::2]]


_FORMS = (
    "write a number, [v0, v1, end], [start, v0, v1, end] or [s0, v0, v1, s1, v2, s2, ...] "
    "(int end: step, float end: epoch)"
)
