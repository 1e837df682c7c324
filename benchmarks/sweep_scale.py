"""What ten thousand queued runs cost the sweep itself: python benchmarks/sweep_scale.py [--runs 10000].

Planning (every configuration loaded and checked), the queue and the ledger with runs that take no time and no process,
a second call that finds all of them done, and some runs as real processes. Memory is this process's peak.
"""

# ruff: noqa: T201  a benchmark prints

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distill3d.sweep.engine import Engine, Event, Task
from distill3d.sweep.ledger import Ledger
from distill3d.sweep.local import LocalEngine
from distill3d.sweep.loop import Sweep
from distill3d.sweep.plan import Plan, make_plan

PROJECT = Path(__file__).resolve().parent.parent


class Instant:
    """An engine whose runs are done at once: what remains is the cost of the queue and the ledger."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Event | None]:
        for task in tasks:
            yield Event("started", task)
            trial = task.folder.trial(task.run_id)
            trial.mkdir(parents=True)
            (trial / "metrics.json").write_text('{"finished": true}')
            yield Event("ended", task, 0)

    def stop(self) -> None:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=50)
    given = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        begun = time.perf_counter()
        overrides = ["seed=0:" + str(given.runs - 1) + ":1", "exp_root_dir=outputs"]
        plan = make_plan(PROJECT / "configs" / "dreamfusion-quick.yaml", overrides)
        report("plan", time.perf_counter() - begun, len(plan.runs))
        before = peak_mb()
        timed("queue and ledger", plan, Instant())
        print(f"memory: {before:.0f} MB after planning, {peak_mb():.0f} MB after all runs")
        timed("second call", plan, Instant())
        ledger = Ledger(plan.folder.ledger)
        begun = time.perf_counter()
        for _ in range(20):
            ledger.append({"event": "started", "run": plan.runs[0].id})
        report("append at the end", time.perf_counter() - begun, 20)
        begun = time.perf_counter()
        found = ledger.planned(plan.runs[-1].id)
        report("find a run", time.perf_counter() - begun, 1)
        assert found is not None
        processes(given.processes)


def processes(count: int) -> None:
    """Runs as real processes, which write a metrics.json and end."""
    launch = Path("launch.py")
    launch.write_text(
        "import json, sys, pathlib\n"
        "s = dict(a.split('=', 1) for a in sys.argv[1:] if '=' in a)\n"
        "t = pathlib.Path(s['exp_root_dir']) / s['name'] / s['tag']; t.mkdir(parents=True)\n"
        "(t / 'metrics.json').write_text(json.dumps({'finished': True}))\n"
    )
    overrides = [f"seed=0:{max(count, 2) - 1}:1", "trainer.max_steps=3"]
    plan = make_plan(PROJECT / "configs" / "dreamfusion-quick.yaml", overrides)
    begun = time.perf_counter()
    outcome = Sweep(plan, LocalEngine(2), launch=launch).run()
    assert outcome.done == len(plan.runs)
    report("processes, two at once", time.perf_counter() - begun, len(plan.runs))


def timed(name: str, plan: Plan, engine: Engine) -> None:
    begun = time.perf_counter()
    outcome = Sweep(plan, engine).run()
    assert outcome.done + outcome.skipped == len(plan.runs), json.dumps(outcome.failed)
    report(name, time.perf_counter() - begun, len(plan.runs))


def report(name: str, seconds: float, count: int) -> None:
    print(f"{name:24} {seconds:8.2f} s   {1000 * seconds / count:8.3f} ms each of {count}")


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
