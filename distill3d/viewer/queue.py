"""The page's queue: one run at a time, in the order in which they were asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from distill3d.viewer.jobs import JobState, Order, run

Work = Callable[[Order, Path, float, threading.Event], Iterator[JobState]]


@dataclass(eq=False)
class _Ticket:
    visitor: str
    cancelled: threading.Event = field(default_factory=threading.Event)


class JobQueue:
    """Hands one visitor after another to ``work``, which is a process unless a test gives something else."""

    def __init__(self, root: Path, pause: float = 1.0, work: Work = run) -> None:
        self.root = root
        self.pause = pause
        self._work = work
        self._tickets: list[_Ticket] = []  # the first one runs
        self._changed = threading.Condition()

    def submit(self, order: Order, visitor: str = "") -> Iterator[JobState]:
        """Wait for one's turn, then run, telling about every ``pause`` seconds; the last JobState is done."""
        ticket = _Ticket(visitor)
        with self._changed:
            self._tickets.append(ticket)
        return self._follow(order, ticket)

    def cancel(self, visitor: str = "") -> int:
        """End what this visitor waits for or runs; returns how many that were."""
        with self._changed:
            own = [ticket for ticket in self._tickets if ticket.visitor == visitor]
            for ticket in own:
                ticket.cancelled.set()
            self._changed.notify_all()
        return len(own)

    def _follow(self, order: Order, ticket: _Ticket) -> Iterator[JobState]:
        try:
            while (before := self._before(ticket)) and not ticket.cancelled.is_set():
                yield JobState(f"waiting: {before} before this one")
                with self._changed:
                    self._changed.wait_for(lambda: ticket.cancelled.is_set() or not self._before(ticket), self.pause)
            if ticket.cancelled.is_set():
                yield JobState("cancelled", done=True)
            else:
                yield from self._work(order, self.root, self.pause, ticket.cancelled)
        finally:
            with self._changed:
                self._tickets.remove(ticket)
                self._changed.notify_all()

    def _before(self, ticket: _Ticket) -> int:
        return self._tickets.index(ticket)
