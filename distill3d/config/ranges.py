"""Bounds of settings, checked where a dataclass is made."""

from __future__ import annotations

from typing import Any


def check_least(settings: Any, **least: float) -> None:
    """Raise ValueError for a setting below the smallest value that it may have; null is no value, and passes."""
    for name, smallest in least.items():
        value = getattr(settings, name)
        if value is not None and not value >= smallest:
            raise ValueError(f"{name}={value} must be at least {smallest}")


def check_shares(settings: Any, *names: str) -> None:
    """Raise ValueError for a setting outside 0 .. 1; null is no value, and passes."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not 0.0 <= value <= 1.0:
            raise ValueError(f"{name}={value} must lie in 0 .. 1")
