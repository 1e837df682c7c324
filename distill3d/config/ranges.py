"""Bounds of settings, checked where a dataclass is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

LARGEST_SIDE = 16_384  # pixels of what a run draws
MOST_VIEWS = 100_000


def check_least(settings: Any, **least: float) -> None:
    """Raise ValueError for a dataclass's setting below the smallest that it may have; null is no value, and passes."""
    by_default = {field.name: field.default for field in fields(settings)}
    for name, smallest in least.items():
        value = getattr(settings, name)
        if value is not None and not value >= smallest:
            or_null = ", or null" if by_default[name] is None else ""
            raise ValueError(f"{name}={value} must be at least {smallest}{or_null}")


def check_shares(settings: Any, *names: str) -> None:
    """Raise ValueError for a setting outside 0 .. 1; null is no value, and passes."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not 0.0 <= value <= 1.0:
            raise ValueError(f"{name}={value} must lie in 0 .. 1")


def check_at_most(settings: object, limits: Mapping[Any, int]) -> None:
    """Raise ValueError for a number of a dataclass, or an entry of its list, that no machine has the memory for."""
    for name, limit in limits.items():
        value = getattr(settings, name)
        entries = value if isinstance(value, (list, tuple)) else [value]
        if any(entry is not None and entry > limit for entry in entries):
            raise ValueError(f"{name}={value} must be at most {limit}")
