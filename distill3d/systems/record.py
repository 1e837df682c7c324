"""The record of a run while it lasts: costs, warnings, files."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from distill3d.runtime.files import finite_or_none, write_json
from distill3d.runtime.logs import warnings_shown
from distill3d.systems.metrics import RunMetrics, Stopwatch, peak_memory_mb, read_metrics


class RunRecord:
    """Collects the content of metrics.json; resumes from an earlier session of the same trial."""

    def __init__(self, prompt: str, seed: int, profile: bool = False) -> None:
        self.metrics = RunMetrics(prompt=prompt, seed=seed)
        self.watch = Stopwatch(profile)
        self.figures: dict[str, Any] = {}  # that one system alone measures, behind those of all
        self.gradient_norm = 0.0
        self.described = False
        self.folder: Path | None = None
        self.device = torch.device("cpu")
        self.started = time.perf_counter()
        self.seconds_before = 0.0
        self._earlier: RunMetrics | None = None

    def attach(self, folder: Path) -> None:
        """Take a trial's folder; a metrics.json there is an earlier session's."""
        self.folder = folder
        self._earlier = read_metrics(folder / "metrics.json")

    def describe(self, trainer: Any) -> None:
        """Note where the run takes place."""
        self.device = trainer.strategy.root_device
        self.metrics.device = str(self.device)
        self.metrics.precision = str(trainer.precision)
        self.metrics.threads = torch.get_num_threads()
        self.described = True

    def carry_on(self, step: int) -> None:
        """Add up with the session that made the checkpoint of ``step``."""
        if self._earlier is None:
            return
        earlier, self._earlier = self._earlier, None
        self.seconds_before = earlier.seconds_total
        self.watch.carry_on(earlier.seconds_per_step, step)
        now = self.metrics
        place = {name: getattr(now if self.described else earlier, name) for name in ("device", "precision", "threads")}
        self.metrics = replace(earlier, prompt=now.prompt, seed=now.seed, **place)

    @property
    def save_dir(self) -> Path | None:
        """Where pictures go; None without a trial."""
        if self.folder is None:
            return None
        path = self.folder / "save"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def add_files(self, *paths: Path) -> None:
        """Note files, relative to the trial, each once."""
        for path in paths:
            inside = self.folder is not None and path.is_relative_to(self.folder)
            name = path.relative_to(self.folder).as_posix() if inside and self.folder else str(path)
            if name not in self.metrics.files:
                self.metrics.files.append(name)

    def _forget_removed_files(self) -> None:
        folder = self.folder
        if folder is not None:
            self.metrics.files = [name for name in self.metrics.files if (folder / name).exists()]

    def add_export(self, files: Iterable[Path], figures: Mapping[str, float | int | str]) -> None:
        """Note what an export wrote and measured; a figure that is not finite becomes None, which JSON can hold."""
        self._forget_removed_files()
        self.add_files(*files)
        self.metrics.export = {
            name: finite_or_none(value) if isinstance(value, float) else value for name, value in figures.items()
        }

    def write(self, steps: int) -> None:
        """Bring metrics.json up to date; nothing without a trial."""
        if self.folder is None:
            return
        metrics = self.metrics
        metrics.steps = steps
        metrics.warnings = list(dict.fromkeys([*metrics.warnings, *warnings_shown()]))
        metrics.seconds_total = self.seconds_before + time.perf_counter() - self.started
        metrics.seconds_per_step = self.watch.per_step(steps)
        total = metrics.seconds_per_step["total"]
        metrics.iterations_per_second = 1.0 / total if total > 0 else 0.0
        metrics.peak_memory_mb = max(metrics.peak_memory_mb, peak_memory_mb(self.device))
        write_json(self.folder / "metrics.json", asdict(metrics) | self.figures, allow_nan=False)
