"""The loop of a sweep: skip what is done, run the rest, retry what failed, write down what happens."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill3d.config.check import ConfigError
from distill3d.runtime.lock import locked
from distill3d.sweep.child import LAUNCH
from distill3d.sweep.engine import Engine, Event, Task
from distill3d.sweep.folder import SweepFolder
from distill3d.sweep.ledger import Ledger
from distill3d.sweep.plan import Plan, PlannedRun, write_plan
from distill3d.sweep.table import Progress, StatusTable


@dataclass
class Outcome:
    """How a sweep has ended; ``failed`` maps runs to their last lines."""

    done: int = 0
    diverged: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)


@dataclass
class Sweep:
    """One call of a sweep: each run of the plan ends done, diverged or failed, and no failure stops another run."""

    plan: Plan
    engine: Engine
    retries: int = 1
    launch: Path = LAUNCH

    def __post_init__(self) -> None:
        self.folder: SweepFolder = self.plan.folder
        self.ledger = Ledger(self.folder.ledger)
        self.words = {run.id: describe(run) for run in self.plan.runs}
        self.errors: dict[str, str] = {}

    def run(self) -> Outcome:
        """Do what is open. Raises ConfigError if another process does this sweep at the same time."""
        with locked(self.folder.lock, wait=False) as held:
            if not held:
                raise ConfigError(f"{self.folder.root}: another process runs this sweep; wait for it, or stop it")
            write_plan(self.plan)
            return self._run()

    def _run(self) -> Outcome:
        waiting = [run.id for run in self.plan.runs if self.folder.status(run.id) == "open"]
        progress = Progress(len(waiting), skipped=len(self.plan.runs) - len(waiting))
        table = StatusTable(progress)
        table.say(logging.INFO, f"sweep {self.folder.root}: {progress.line(time.monotonic())}")
        with _termination_as_interrupt():
            try:
                for attempt in range(self.retries + 1):
                    waiting = self._attempt(waiting, attempt, progress, table)
            except BaseException:
                table.clear()
                self.engine.stop()
                raise
        table.clear()
        return Outcome(progress.done, progress.diverged, progress.skipped, self.errors)

    def _attempt(self, waiting: list[str], attempt: int, progress: Progress, table: StatusTable) -> list[str]:
        """Run each once; returns those that failed. A retry begins anew: what broke may lie in the checkpoint."""
        tasks: Iterable[Task] = (Task(self.folder, run_id, attempt > 0, self.launch) for run_id in waiting)
        failed: list[str] = []
        for event in self.engine.run(tasks):
            if event is not None and event.kind == "started":
                self._note(event, "started", attempt=attempt)
                progress.running[event.task.run_id] = (self.words[event.task.run_id], time.monotonic())
            elif event is not None:
                self._ended(event, attempt, progress, table, failed)
            table.draw()
        return failed

    def _ended(self, event: Event, attempt: int, progress: Progress, table: StatusTable, failed: list[str]) -> None:
        run_id = event.task.run_id
        progress.running.pop(run_id, None)
        status = self.folder.status(run_id)  # what the run left behind is the truth, not how its process ended
        words = self.words[run_id]
        if status == "open":
            failed.append(run_id)
            last = attempt >= self.retries
            progress.failed += last
            self.errors[run_id] = event.detail or _silent_end(event.exit_code)
            self._note(event, "failed", exit_code=event.exit_code, error=self.errors[run_id])
            reason = self.errors[run_id].splitlines()[-1]
            table.say(logging.WARNING, f"failed{'' if last else ', to be tried again'}: {words}: {reason}")
            return
        self.errors.pop(run_id, None)
        progress.done += status == "done"
        progress.diverged += status == "diverged"
        self._note(event, status)
        table.say(logging.INFO, f"{status}: {words} ({progress.line(time.monotonic())})")

    def _note(self, event: Event, what: str, **more: Any) -> None:
        self.ledger.append({"event": what, "run": event.task.run_id, "time": round(time.time(), 3), **more})


def _silent_end(exit_code: int | None) -> str:
    if exit_code == 0:
        return "it ended without finishing its metrics.json: was it interrupted?"
    if exit_code is not None and exit_code < 0:
        return f"ended by signal {-exit_code}"
    return f"exit code {exit_code}, without a word"


def describe(run: PlannedRun) -> str:
    """The settings that a run has of its own, by their last names."""
    return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in run.case.items())


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the runs as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
