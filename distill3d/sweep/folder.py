"""What lies where in a sweep's folder, and what a run in it has come to. Every path is relative to the folder, so
that it may be moved."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distill3d.runtime.foreign import read_record

Status = Literal["open", "done", "diverged"]
RUNS = "runs"


@dataclass(frozen=True)
class SweepFolder:
    """``<exp_root_dir>/<name>/sweeps/<sweep>/``: sweep.jsonl, config.yaml, and for each run ID runs/ID, logs/ID.txt."""

    root: Path

    @property
    def ledger(self) -> Path:
        return self.root / "sweep.jsonl"

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def lock(self) -> Path:
        return self.root / "sweep.lock"

    def trial(self, run_id: str) -> Path:
        return self.root / RUNS / run_id

    def run_lock(self, run_id: str) -> Path:
        return self.root / RUNS / f"{run_id}.lock"

    def log(self, run_id: str) -> Path:
        return self.root / "logs" / f"{run_id}.txt"

    def status(self, run_id: str) -> Status:
        """From the run's own metrics.json: what has not finished there is open."""
        return trial_status(self.trial(run_id))

    def is_sweep(self) -> bool:
        return self.ledger.is_file()

    def set_aside(self, run_id: str) -> Path | None:
        """Move what an attempt has left out of the way of the next; nothing is deleted."""
        trial = self.trial(run_id)
        if not trial.exists():
            return None
        number = 1
        while (aside := self.root / "attempts" / f"{run_id}-{number}").exists():
            number += 1
        aside.parent.mkdir(exist_ok=True)
        os.replace(trial, aside)
        return aside


def trial_status(trial: Path) -> Status:
    """Whether a trial was trained, tested and exported to its end."""
    metrics = read_metrics(trial)
    if metrics.get("finished") is not True:
        return "open"
    return "diverged" if metrics.get("diverged") else "done"


def read_metrics(trial: Path) -> dict[str, Any]:
    """The trial's metrics.json; empty if there is none that can be read."""
    return read_record(trial / "metrics.json")
