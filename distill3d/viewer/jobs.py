"""Runs that the page starts: each is a process of its own, whose folder tells how far it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill3d.config.files import PROJECT
from distill3d.runtime.foreign import read_record

NAME = "web"  # the folder of the page's trials, below exp_root_dir
GRACE = 60.0  # seconds that a cancelled run has to save its checkpoint and to leave
_STEP = re.compile(r"it(\d+)-")


@dataclass(frozen=True)
class Order:
    """What a visitor asks for. ``scale`` 0 and an empty ``guidance`` leave the config's own."""

    prompt: str
    config: str
    guidance: str = ""
    scale: float = 0.0
    seed: int = 0
    settings: tuple[str, ...] = ()

    def arguments(self, root: Path, tag: str) -> list[str]:
        """The command line behind ``python -m distill3d``."""
        prompt = self.prompt.lstrip("@ \n")  # @ would name a file of this machine, which is not the visitor's
        chosen = [f"system.prompt_processor.prompt={prompt}", f"seed={int(self.seed)}"]
        if self.guidance:
            chosen.append(f"system.guidance_type={self.guidance}")
        if self.scale > 0:
            chosen.append(f"system.guidance.guidance_scale={self.scale:g}")
        place = [f"exp_root_dir={root}", f"name={NAME}", f"tag={tag}", "use_timestamp=false"]
        watch = ["trainer.val_check_interval=50", "trainer.check_val_every_n_epoch=null"]
        return ["--config", self.config, "--train", *watch, *chosen, *place, *self.settings]


@dataclass(frozen=True)
class JobState:
    """How far a run is, and what it has made."""

    text: str
    picture: Path | None = None
    mesh: Path | None = None
    done: bool = False


def run(order: Order, root: Path, pause: float = 1.0, cancelled: threading.Event | None = None) -> Iterator[JobState]:
    """Do it, telling about every ``pause`` seconds. The event, or a consumer that stops early, ends the process."""
    cancelled = cancelled or threading.Event()
    tag = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    trial, log = root / NAME / tag, root / NAME / f"{tag}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(_command(order, root, tag), stdout=out, stderr=out, env=_environment())
        try:
            while process.poll() is None and not cancelled.is_set():
                yield JobState(_state(trial) + _warnings(log), newest_picture(trial))
                cancelled.wait(pause)
        finally:
            _end(process)
    if cancelled.is_set():
        yield JobState("cancelled", newest_picture(trial), done=True)
    elif process.returncode:
        yield JobState(_error(log), done=True)
    else:
        warnings = _warnings(log)
        log.unlink()
        mesh = next(iter(sorted(trial.glob("save/*/model.glb"))), None)
        ending = ", done" if mesh else ", done, but without a mesh"
        yield JobState(_state(trial) + ending + warnings, newest_picture(trial), mesh, done=True)


def newest_picture(trial: Path) -> Path | None:
    """The picture of the latest step; of one step the contact sheet."""
    paths = list((trial / "save").glob("it*.png"))
    return max(paths, key=lambda path: (_step(path), path.name.endswith("-views.png")), default=None)


def past_trials(root: Path, count: int = 24) -> list[tuple[str, str]]:
    """Pictures of the newest trials of all names, with their prompts."""
    records = sorted(root.glob("*/*/metrics.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    found = []
    for record in records:
        picture = newest_picture(record.parent)
        if picture is not None and len(found) < count:
            found.append((str(picture), str(read_record(record).get("prompt") or record.parent.name)))
    return found


def _command(order: Order, root: Path, tag: str) -> list[str]:
    return [sys.executable, "-m", "distill3d", *order.arguments(root, tag)]


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {key: value for key, value in os.environ.items() if key != "DISTILL3D_TRIAL"} | {"PYTHONPATH": path}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a run that is not over to end: training saves its checkpoint first."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _state(trial: Path) -> str:
    metrics = read_record(trial / "metrics.json")
    return f"step {metrics['steps']}, {metrics['seconds_total']:.0f} s" if "seconds_total" in metrics else "starting"


def _warnings(log: Path) -> str:
    """What the run has warned of, a line each: such as words that the model was not taught."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "".join(f"\n{line}" for line in lines if line.startswith("warning: "))


def _error(log: Path) -> str:
    lines: Sequence[str] = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    told = [line for line in lines if line.startswith("error: ")] or list(lines[-1:]) or ["the run failed"]
    return f"{told[-1]} (all of it: {log})"


def _step(path: Path) -> int:
    match = _STEP.match(path.name)
    return int(match[1]) if match else -1
