"""What runs the runs: the interface of engines, and the words that they exchange with a sweep."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from distill3d.sweep.child import LAUNCH
from distill3d.sweep.folder import SweepFolder

TAIL_LINES = 12


@dataclass(frozen=True)
class Task:
    """One attempt at a run."""

    folder: SweepFolder
    run_id: str
    fresh: bool = False
    launch: Path = LAUNCH

    def command(self, python: str) -> list[str]:
        """The process that does it."""
        fresh = ["--fresh"] if self.fresh else []
        sweep = str(self.folder.root.resolve())
        launch = (
            [] if self.launch == LAUNCH else ["--launch", str(self.launch.resolve())]
        )  # a node may have it elsewhere
        return [python, "-m", "distill3d.sweep.child", sweep, self.run_id, *fresh, *launch]


@dataclass(frozen=True)
class Event:
    """A task has begun, or has ended with an exit code."""

    kind: Literal["started", "ended"]
    task: Task
    exit_code: int | None = None
    detail: str = ""  # the slot, or the last lines of what went wrong


class Engine(Protocol):
    """``run`` starts tasks as slots become free and yields events; None at intervals, to redraw a table."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Event | None]: ...

    def stop(self) -> None:
        """End every process that is under way, and wait for their end."""
        ...


def threads(cores: int, gpus: int) -> str:
    """OMP_NUM_THREADS of each run: as it is given, else its GPU's share of the cores, or 1 on a CPU.

    The last bits of a result depend on it, so it does not depend on how many runs there are at once.
    """
    return os.environ.get("OMP_NUM_THREADS") or str(max(cores // gpus, 1) if gpus else 1)


def tail(path: Path, lines: int = TAIL_LINES, max_bytes: int = 16_384) -> str:
    """The last lines of a file, however long it is."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - max_bytes, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
