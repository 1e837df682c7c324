"""One run at a time, as a process of its own, whose folder tells how far it is."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill3d.config.files import PROJECT

NAME = "web"  # the folder of the page's trials, below exp_root_dir
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
        chosen = [f"system.prompt_processor.prompt={self.prompt}", f"seed={int(self.seed)}"]
        if self.guidance:
            chosen.append(f"system.guidance_type={self.guidance}")
        if self.scale > 0:
            chosen.append(f"system.guidance.guidance_scale={self.scale:g}")
        place = [f"exp_root_dir={root}", f"name={NAME}", f"tag={tag}", "use_timestamp=false"]
        watch = ["trainer.val_check_interval=50", "trainer.check_val_every_n_epoch=null"]
        return ["--config", self.config, "--train", *watch, *chosen, *place, *self.settings]


@dataclass(frozen=True)
class Progress:
    """How far a run is, and what it has made."""

    text: str
    picture: Path | None = None
    mesh: Path | None = None
    done: bool = False


def run(order: Order, root: Path, pause: float = 1.0) -> Iterator[Progress]:
    """Do it, telling about every ``pause`` seconds. A consumer that stops early ends the process, which then saves."""
    tag = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
    trial = root / NAME / tag
    log = root / NAME / f"{tag}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {key: value for key, value in os.environ.items() if key != "DISTILL3D_TRIAL"} | {"PYTHONPATH": path}
    command = [sys.executable, "-m", "distill3d", *order.arguments(root, tag)]
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        try:
            while process.poll() is None:
                yield Progress(_state(trial), newest_picture(trial))
                time.sleep(pause)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)  # training saves its checkpoint, then leaves
                process.wait()
    if process.returncode:
        yield Progress(_error(log), done=True)
        return
    log.unlink()
    mesh = next(iter(sorted(trial.glob("save/*/model.glb"))), None)
    ending = ", done" if mesh else ", done, but without a mesh"
    yield Progress(_state(trial) + ending, newest_picture(trial), mesh, done=True)


def newest_picture(trial: Path) -> Path | None:
    """The picture of the latest step; of one step the contact sheet."""
    paths = list((trial / "save").glob("it*.png"))
    return max(paths, key=lambda path: (_step(path), path.name.endswith("-views.png")), default=None)


def past_trials(root: Path, count: int = 24) -> list[tuple[str, str]]:
    """Pictures of the newest finished trials of all names, with their prompts."""
    records = sorted(root.glob("*/*/metrics.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    found = []
    for record in records:
        picture = newest_picture(record.parent)
        if picture is not None and len(found) < count:
            prompt = json.loads(record.read_text(encoding="utf-8")).get("prompt") or record.parent.name
            found.append((str(picture), str(prompt)))
    return found


def _state(trial: Path) -> str:
    record = trial / "metrics.json"
    if not record.is_file():
        return "starting"
    metrics = json.loads(record.read_text(encoding="utf-8"))
    return f"step {metrics['steps']}, {metrics['seconds_total']:.0f} s"


def _error(log: Path) -> str:
    lines: Sequence[str] = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    told = [line for line in lines if line.startswith("error: ")] or list(lines[-1:]) or ["the run failed"]
    return f"{told[-1]} (all of it: {log})"


def _step(path: Path) -> int:
    match = _STEP.match(path.name)
    return int(match[1]) if match else -1
