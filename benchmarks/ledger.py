"""What a benchmark has done so far: a line of JSON for each cell, so that none is run twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from distill3d.sweep.ledger import Ledger

C = TypeVar("C")


def read_ledger(path: Path) -> dict[str, dict[str, Any]]:
    """The last line of each cell."""
    return {line["key"]: line for line in Ledger(path).records()}


def append(path: Path, line: Mapping[str, Any]) -> None:
    """One line, on the disk before this returns."""
    Ledger(path).append(line)


def is_done(line: Mapping[str, Any] | None) -> bool:
    """Whether a cell was run to its end; one that failed has no figures."""
    return line is not None and "figures" in line


def pending(cells: Sequence[C], keys: Sequence[str], done: Mapping[str, Any]) -> Iterator[tuple[C, str]]:
    """Cells without a line, in order."""
    return ((cell, key) for cell, key in zip(cells, keys, strict=True) if not is_done(done.get(key)))
