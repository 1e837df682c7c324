"""Files and folders that are whole or absent: written under another name beside the target, then renamed."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write a file at, in the folder of ``path``, which is made; the file replaces ``path`` at the end.

    It has the suffix of ``path``, since many libraries choose a format by it, and is on the disk before it counts. An
    error or an interruption leaves the old file, or none.
    """
    with _beside(path) as temporary:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside ``path``, which takes its place at the end; what ``path`` held is removed."""
    with _beside(path) as temporary:
        temporary.mkdir()
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)


def write_atomically(path: Path, data: bytes | str) -> Path:
    """Write bytes, or text as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))
    return path


def write_json(path: Path, content: Any, allow_nan: bool = True) -> Path:
    """Write indented JSON; without ``allow_nan`` infinity and NaN, which strict readers refuse, are a ValueError."""
    return write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=allow_nan) + "\n")


def finite_or_none(value: float | None) -> float | None:
    """A figure for JSON, which has no word for what is not finite but null."""
    return value if value is not None and math.isfinite(value) else None


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)
