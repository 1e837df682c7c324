"""The local engine: processes on this machine, one for each slot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from distill3d.config.files import PROJECT
from distill3d.sweep.engine import Event, Task, tail, threads

GRACE_SECONDS = 20.0  # to save a checkpoint after the request to end
TICK_SECONDS = 0.25
_POLL_SECONDS = 0.02


@dataclass
class _Running:
    task: Task
    process: subprocess.Popen


class LocalEngine:
    """As many runs at once as there are GPUs, or ``jobs``. Each has the same threads, however many there are."""

    def __init__(self, jobs: int | None = None) -> None:
        self.gpus = visible_gpus()
        self.slots = jobs or max(len(self.gpus), 1)
        self.running: dict[int, _Running] = {}

    def run(self, tasks: Iterable[Task]) -> Iterator[Event | None]:
        queue, more = iter(tasks), True
        ticked = time.monotonic()
        while more or self.running:
            while more and len(self.running) < self.slots:
                task = next(queue, None)
                more = task is not None
                if task is not None:
                    slot = self._start(task)
                    yield Event("started", task, detail=f"slot {slot}")
            ended = [slot for slot, running in self.running.items() if running.process.poll() is not None]
            for slot in ended:
                running = self.running.pop(slot)
                log = running.task.folder.log(running.task.run_id)
                yield Event("ended", running.task, running.process.returncode, tail(log))
            if not ended:
                time.sleep(_POLL_SECONDS)
            if time.monotonic() - ticked > TICK_SECONDS:
                ticked = time.monotonic()
                yield None

    def stop(self) -> None:
        for running in self.running.values():
            signal_group(running.process, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for running in self.running.values():
            try:
                running.process.wait(max(deadline - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                signal_group(running.process, getattr(signal, "SIGKILL", signal.SIGTERM))
                running.process.wait()
        self.running.clear()

    def _start(self, task: Task) -> int:
        slot = next(i for i in range(self.slots) if i not in self.running)
        log = task.folder.log(task.run_id)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                task.command(sys.executable),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(slot, self.gpus),
                start_new_session=True,  # a Ctrl-C in the terminal reaches the sweep alone, which ends its runs
            )
        self.running[slot] = _Running(task, process)
        return slot


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu.strip() for gpu in named.split(",") if gpu.strip() and gpu.strip() != "-1"]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []


def environment(slot: int, gpus: list[str]) -> dict[str, str]:
    """The variables of a run: its threads, and its GPU."""
    own: dict[str, Any] = dict(os.environ)
    own.pop("DISTILL3D_TRIAL", None)  # a run begins a trial of its own
    own["PYTHONUNBUFFERED"] = "1"
    own["PYTHONPATH"] = os.pathsep.join([str(PROJECT), *filter(None, [own.get("PYTHONPATH")])])
    own["OMP_NUM_THREADS"] = threads(cores(), len(gpus))
    if gpus:
        own["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return own


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def signal_group(process: subprocess.Popen, number: int) -> None:
    """To the process and its children; nothing if they have ended."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        else:
            process.terminate()
    except ProcessLookupError:
        return
