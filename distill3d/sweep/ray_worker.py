"""What a Ray worker does for one run. Sent to it by value: nothing but the standard library is imported here.

The run itself is the same child process as on one machine, so that its lock and its checkpoint count there too.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple


class Job(NamedTuple):
    """A run as plain values."""

    sweep: str
    run_id: str
    command: list[str]  # without the interpreter: each node has its own
    project: str
    token: str  # content of the sweep's .token: who reads the same there shares the folder
    config_text: str
    overrides: list[str]
    fetch: bool
    threads: str = "1"  # OMP_NUM_THREADS, which Ray would set by the cores that a run has


class Answer(NamedTuple):
    """How it ended; ``archive`` holds the trial where the folder is not shared."""

    exit_code: int
    tail: str
    archive: bytes | None


def run_job(job: Job) -> Answer:
    """Do a run where this worker is."""
    if _shared(job) and not job.fetch:
        return _run(job, Path(job.sweep), None)
    with tempfile.TemporaryDirectory(prefix="distill3d-") as scratch:
        root = Path(scratch)
        (root / "config.yaml").write_text(job.config_text, encoding="utf-8")
        planned = {"event": "planned", "run": job.run_id, "overrides": job.overrides}
        (root / "sweep.jsonl").write_text(json.dumps(planned) + "\n", encoding="utf-8")
        return _run(job, root, root / "runs" / job.run_id)


def _shared(job: Job) -> bool:
    try:
        return (Path(job.sweep) / ".token").read_text() == job.token
    except OSError:
        return False


def _run(job: Job, root: Path, fetched: Path | None) -> Answer:
    log = root / "logs" / f"{job.run_id}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, *(str(root) if part == job.sweep else part for part in job.command)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(job),
            start_new_session=True,
        )
    try:
        while process.poll() is None:  # a wait without end would not notice Ray's cancellation
            time.sleep(0.1)
    except BaseException:
        _end(process)
        raise
    text = log.read_bytes()[-16_384:].decode("utf-8", "replace")
    archive = _archive(fetched) if fetched is not None and fetched.is_dir() else None
    return Answer(process.returncode, "\n".join(text.splitlines()[-12:]), archive)


def _environment(job: Job) -> dict[str, str]:
    own: dict[str, Any] = dict(os.environ)
    own.pop("DISTILL3D_TRIAL", None)
    own["PYTHONUNBUFFERED"] = "1"
    own["OMP_NUM_THREADS"] = job.threads
    if Path(job.project).is_dir():
        own["PYTHONPATH"] = os.pathsep.join([job.project, *filter(None, [own.get("PYTHONPATH")])])
    return own


def _end(process: subprocess.Popen, grace_seconds: float = 15.0) -> None:
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        try:
            os.killpg(process.pid, number)
            process.wait(grace_seconds)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _archive(trial: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        archive.add(trial, arcname=trial.name)
    return out.getvalue()
