"""What a sweep shows while it lasts: how much is running, done and failed, and how long it will take."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

log = logging.getLogger(__name__)

_REDRAW_SECONDS = 0.5
_SHOWN = 8  # running runs that are listed


@dataclass
class Progress:
    """Counts of a sweep. ``total`` are the runs that this call has to do."""

    total: int
    skipped: int = 0
    done: int = 0
    diverged: int = 0
    failed: int = 0
    running: dict[str, tuple[str, float]] = field(default_factory=dict)  # id -> (words, since)
    started: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> int:
        return self.done + self.diverged + self.failed

    def seconds_left(self, now: float) -> float | None:
        """From the mean pace so far; None before the first run has ended."""
        if not self.ended:
            return None
        return (now - self.started) / self.ended * (self.total - self.ended)

    def line(self, now: float) -> str:
        left = self.seconds_left(now)
        waiting = self.total - self.ended - len(self.running)
        parts = [f"{len(self.running)} running", f"{waiting} waiting", f"{self.done} done"]
        parts += [f"{self.diverged} diverged"] if self.diverged else []
        parts += [f"{self.failed} failed"]
        parts += [f"{self.skipped} done before"] if self.skipped else []
        return ", ".join(parts) + (f"; {duration(left)} left" if left is not None else "")

    def lines(self, now: float) -> list[str]:
        """The table: the counts, then the runs under way."""
        running = sorted(self.running.values(), key=lambda item: item[1])
        rows = [f"  {duration(now - since):>8}  {words}" for words, since in running[:_SHOWN]]
        more = len(running) - _SHOWN
        return [self.line(now), *rows, *([f"  and {more} more"] if more > 0 else [])]


class StatusTable:
    """Draws the table in place on a terminal; elsewhere each run that ends is one line of the log."""

    def __init__(self, progress: Progress, out: TextIO = sys.stderr) -> None:
        self.progress, self.out = progress, out
        self.live = out.isatty()
        self.drawn = 0
        self._next = 0.0

    def draw(self, force: bool = False) -> None:
        now = time.monotonic()
        if not self.live or (now < self._next and not force):
            return
        self._next = now + _REDRAW_SECONDS
        width = shutil.get_terminal_size().columns - 1
        lines = [line[:width] for line in self.progress.lines(now)]
        self.clear()
        self.out.write("".join(f"{line}\n" for line in lines))
        self.out.flush()
        self.drawn = len(lines)

    def clear(self) -> None:
        if self.drawn:
            self.out.write(f"\033[{self.drawn}F\033[J")
            self.drawn = 0

    def say(self, level: int, text: str) -> None:
        """One line of the log, above the table."""
        self.clear()
        log.log(level, "%s", text)
        self.draw(force=True)


def duration(seconds: float) -> str:
    """``8 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
