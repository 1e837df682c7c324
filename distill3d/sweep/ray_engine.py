"""The Ray engine: runs as tasks of Ray Core, on a cluster that exists or one that is started here.

Ray puts runs on nodes, gives each its GPU, and does a run again whose node is lost; it resumes from its checkpoint.
"""

from __future__ import annotations

import io
import logging
import os
import secrets
import socket
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from distill3d.config.check import ConfigError
from distill3d.config.files import PROJECT
from distill3d.sweep import ray_worker
from distill3d.sweep.engine import Event, Task, threads
from distill3d.sweep.folder import RUNS, SweepFolder
from distill3d.sweep.ledger import Ledger

log = logging.getLogger(__name__)

LOST_NODES = 5  # how often Ray may do one run again because its node or worker died
TICK_SECONDS = 0.25
CANCEL_SECONDS = 30.0
CONNECT_SECONDS = 10.0


class RayEngine:
    """As many runs at once as the cluster has GPUs, or ``jobs``, or cores. Raises ConfigError if Ray is missing."""

    def __init__(self, address: str | None = None, jobs: int | None = None, fetch: bool = False) -> None:
        self.ray = _import_ray()
        self.fetch = fetch
        self.started_here = not self.ray.is_initialized()
        if self.started_here:
            self._connect(address)
        have = self.ray.cluster_resources()
        cpus, gpus = max(int(have.get("CPU", 1)), 1), int(have.get("GPU", 0))
        self.slots = jobs or gpus or cpus
        self.resources = {"num_cpus": max(cpus // self.slots, 1) if cpus >= self.slots else cpus / self.slots}
        if gpus:
            self.resources["num_gpus"] = 1 if self.slots <= gpus else gpus / self.slots
        self.threads = threads(cpus, gpus)
        self.pending: dict[Any, Task] = {}

    def run(self, tasks: Iterable[Task]) -> Iterator[Event | None]:
        queue, more = iter(tasks), True
        while more or self.pending:
            while more and len(self.pending) < self.slots:
                task = next(queue, None)
                more = task is not None
                if task is not None:
                    self.pending[self._submit(task)] = task
                    yield Event("started", task)
            if self.pending:
                for reference in self.ray.wait(list(self.pending), num_returns=1, timeout=TICK_SECONDS)[0]:
                    yield self._end(reference)
            yield None

    def stop(self) -> None:
        for reference in self.pending:
            self.ray.cancel(reference, force=False)
        if self.pending:
            self.ray.wait(list(self.pending), num_returns=len(self.pending), timeout=CANCEL_SECONDS)
        self.pending.clear()
        if self.started_here:
            self.ray.shutdown()

    def _connect(self, address: str | None) -> None:
        address = address or os.environ.get("RAY_ADDRESS")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        _refuse_silence(address)
        try:
            self.ray.init(address, include_dashboard=False if address is None else None, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(_no_cluster(address, str(error)), "address") from error

    def _submit(self, task: Task) -> Any:
        self.ray.cloudpickle.register_pickle_by_value(ray_worker)
        options = {**self.resources, "max_retries": LOST_NODES, "scheduling_strategy": "SPREAD"}
        return self.ray.remote(ray_worker.run_job).options(**options).remote(self._job(task))

    def _job(self, task: Task) -> ray_worker.Job:
        folder = task.folder
        planned = Ledger(folder.ledger).planned(task.run_id)
        assert planned is not None  # the plan is written before any task
        return ray_worker.Job(
            sweep=str(folder.root.resolve()),
            run_id=task.run_id,
            command=task.command("")[1:],
            project=str(PROJECT),
            token=_token(folder),
            config_text=folder.config.read_text(encoding="utf-8"),
            overrides=planned["overrides"],
            fetch=self.fetch,
            threads=self.threads,
        )

    def _end(self, reference: Any) -> Event:
        task = self.pending.pop(reference)
        try:
            answer = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            return Event("ended", task, None, f"Ray gave the run up: {str(error).strip().splitlines()[-1]}")
        if answer.archive is not None:
            unpack(task.folder, task.run_id, answer.archive)
        return Event("ended", task, answer.exit_code, answer.tail)


def _refuse_silence(address: str | None) -> None:
    """Raise ConfigError if nothing listens at ``host:port``: Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # none, or "auto"
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ConfigError(_no_cluster(address, str(error)), "address") from error


def _no_cluster(address: str | None, reason: str) -> str:
    remedy = "start one with ray start --head, or leave --address out"
    return f"--address {address}: no Ray cluster answers there ({reason}); {remedy}"


def unpack(folder: SweepFolder, run_id: str, archive: bytes) -> None:
    """Put a trial that was fetched in its place, whole or not at all; an earlier one is set aside."""
    fresh = folder.root / RUNS / f".{run_id}.fetched"
    fresh.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as content:
        content.extractall(fresh, filter="data")
    folder.set_aside(run_id)
    os.replace(fresh / run_id, folder.trial(run_id))
    fresh.rmdir()


def _token(folder: SweepFolder) -> str:
    """A random text in the sweep's folder: a node that reads the same text there shares it."""
    path: Path = folder.root / ".token"
    if not path.is_file():
        path.write_text(secrets.token_hex(16))
    return path.read_text()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray: Ray is missing; pip install -r requirements-ray.txt", "engine") from error
    return ray
