"""metrics.json: what a run was, what it cost, and how it ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from distill3d.config.check import ConfigError, build
from distill3d.runtime.foreign import read_record

STAGES = ("total", "render", "prior", "backward", "optimizer")


def _zeros() -> dict[str, float]:
    return dict.fromkeys(STAGES, 0.0)


@dataclass
class RunMetrics:
    """The fields of metrics.json. Means are over the steps of all sessions of the run; ``files`` are relative to it."""

    prompt: str
    seed: int
    steps: int = 0
    seconds_total: float = 0.0
    seconds_per_step: dict[str, float] = field(default_factory=_zeros)
    iterations_per_second: float = 0.0
    peak_memory_mb: float = 0.0
    device: str = "cpu"
    precision: str = "32-true"
    threads: int = 1
    finished: bool = False  # trained to the end (or diverged), tested and exported
    diverged: bool = False
    skipped_steps: int = 0
    opacity_mean: float | None = None  # of recent training views
    rim_opacity: float | None = None  # of the last finished views along the rim of the bounds: 1 where it fills them
    views_per_shading: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)  # every one that the terminal showed
    export: dict[str, Any] = field(default_factory=dict)  # the last export's figures, by the exporter's names
    files: list[str] = field(default_factory=list)


class Stopwatch:
    """Seconds of each stage, added up over steps.

    On CUDA work is queued, so a stage's time is known only if one waits for the device before and after it, which
    slows every step: ``profile`` asks for that. Without it only the total is kept there, whose sum is right.
    """

    def __init__(self, profile: bool = False) -> None:
        self.profile = profile
        self.seconds = _zeros()
        self.started: dict[str, float] = {}

    def start(self, stage: str) -> None:
        if self.profile or stage == "total" or not _on_cuda():
            self._wait()
            self.started[stage] = _now()

    def stop(self, stage: str) -> None:
        """Add what has passed since the start of a stage; nothing if it was never started."""
        begun = self.started.pop(stage, None)
        if begun is not None:
            self._wait()
            self.seconds[stage] += _now() - begun

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self.start(stage)
        try:
            yield
        finally:
            self.stop(stage)

    def _wait(self) -> None:
        if self.profile and _on_cuda():
            torch.cuda.synchronize()

    def per_step(self, steps: int) -> dict[str, float]:
        return {stage: seconds / max(steps, 1) for stage, seconds in self.seconds.items()}

    def carry_on(self, per_step: dict[str, float], steps: int) -> None:
        """Count ``steps`` steps of an earlier session at their mean cost."""
        for stage, seconds in per_step.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds * steps


def read_metrics(path: Path) -> RunMetrics | None:
    """The metrics of an earlier session; None where there are none that can be read."""
    mapping = read_record(path)
    try:
        return build(RunMetrics, {f.name: mapping[f.name] for f in fields(RunMetrics) if f.name in mapping})
    except ConfigError:
        return None  # an old or damaged record costs its sums, never the run


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that this process has held: on the device, or, on a CPU, resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows counts it elsewhere, and no dependency is worth one figure
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, kilobytes here


def _now() -> float:
    return time.perf_counter()


def _on_cuda() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()
