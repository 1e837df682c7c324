"""--sweep: many runs of one experiment, and a report on all of them."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from distill3d.verbs import Request, Verb

if TYPE_CHECKING:
    from distill3d.sweep.engine import Engine
    from distill3d.sweep.plan import Plan

log = logging.getLogger(__name__)

VERB = Verb(
    "sweep",
    "train every combination of the values given (a,b  0:10:2  'a fox;a hat'  @file.txt), then evaluate all",
    accompanies=("train",),
    options={
        "sweep-name": "of the sweep's folder; a hash of its runs by default, so that the same command resumes it",
        "jobs": "sweep: runs at once on this machine; the number of GPUs, or 1, by default",
        "retries": "sweep: further attempts at a run that failed (1)",
        "engine": "sweep: local (default) or ray (pip install -r requirements-ray.txt)",
        "address": "sweep: of a Ray cluster; one is started by default",
        "emit": "sweep: slurm writes a job array instead of running",
    },
    flags={
        "dry-run": "sweep: list the runs and stop",
        "fetch": "sweep: with ray, bring outputs back from nodes that do not share this machine's folders",
    },
)


def run(request: Request) -> int:
    """0 if every run is done, 1 if some failed."""
    from distill3d.config.check import ConfigError
    from distill3d.sweep.plan import make_plan, write_plan

    options = request.options
    jobs, retries = _count(options, "jobs", 1), _count(options, "retries", 0)
    for name, choices in (("engine", ("local", "ray")), ("emit", ("slurm",))):
        if options.get(name) not in (None, *choices):
            raise ConfigError(f"--{name} {options[name]}: choose {' or '.join(choices)}")
    assert request.config is not None  # the command line sees to it
    plan = make_plan(request.config, request.overrides, options.get("sweep-name"))
    if options.get("dry-run"):
        return _list(plan)
    if options.get("emit"):
        from distill3d.sweep.slurm import write_slurm

        write_plan(plan)
        waiting = [run.id for run in plan.runs if plan.folder.status(run.id) == "open"]
        if not waiting:
            log.info("all %d runs are done: %s", len(plan.runs), plan.folder.root)
            return 0
        log.info("%d runs; submit with: sbatch %s", len(waiting), write_slurm(plan.folder, waiting, jobs))
        return 0
    return _do(plan, _engine(request, jobs), 1 if retries is None else retries)


def _do(plan: Plan, engine: Engine, retries: int) -> int:
    from distill3d.evaluation.evaluation import evaluate_folder
    from distill3d.sweep.loop import Sweep

    outcome = Sweep(plan, engine, retries).run()
    log.info("%d done, %d diverged, %d done earlier", outcome.done, outcome.diverged, outcome.skipped)
    for run_id, error in outcome.failed.items():
        log.error("failed: %s\n%s", plan.folder.log(run_id), error)
    evaluate_folder(plan.folder.root)
    return 1 if outcome.failed else 0


def _list(plan: Plan) -> int:
    from distill3d.sweep.loop import describe

    for planned in plan.runs:
        sys.stdout.write(f"{planned.id}  {plan.folder.status(planned.id):8}  {describe(planned)}\n")
    sys.stdout.write(f"{len(plan.runs)} runs in {plan.folder.root}\n")
    return 0


def _engine(request: Request, jobs: int | None) -> Engine:
    if request.options.get("engine") == "ray":
        from distill3d.sweep.ray_engine import RayEngine

        return RayEngine(request.options.get("address"), jobs, fetch=bool(request.options.get("fetch")))
    from distill3d.sweep.local import LocalEngine

    return LocalEngine(jobs)


def _count(options: dict, name: str, at_least: int) -> int | None:
    from distill3d.config.check import ConfigError

    text = options.get(name)
    if text is None:
        return None
    if not text.isdigit() or int(text) < at_least:
        raise ConfigError(f"--{name} {text}: expected a whole number from {at_least} on")
    return int(text)
