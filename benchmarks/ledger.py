"""What a benchmark has done so far: a line of JSON for each cell, so that none is run twice."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

C = TypeVar("C")


def read_ledger(path: Path) -> dict[str, dict[str, Any]]:
    """The last line of each cell; a line that was cut by a kill is passed over."""
    lines = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        lines[line["key"]] = line
    return lines


def append(path: Path, line: Mapping[str, Any]) -> None:
    """One line, on the disk before this returns; a line that was cut before it is ended first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            file.write(b"\n")
        file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def is_done(line: Mapping[str, Any] | None) -> bool:
    """Whether a cell was run to its end; one that failed has no figures."""
    return line is not None and "figures" in line


def pending(cells: Sequence[C], keys: Sequence[str], done: Mapping[str, Any]) -> Iterator[tuple[C, str]]:
    """Cells without a line, in order."""
    return ((cell, key) for cell, key in zip(cells, keys, strict=True) if not is_done(done.get(key)))
