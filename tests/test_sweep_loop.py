"""Whole sweeps of runs that take no time: each run is done exactly once, whatever fails, and whoever is killed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from distill3d.config.check import ConfigError
from distill3d.config.files import PROJECT
from distill3d.runtime.lock import locked
from distill3d.sweep.folder import SweepFolder
from distill3d.sweep.ledger import Ledger
from distill3d.sweep.local import LocalEngine
from distill3d.sweep.loop import Sweep
from distill3d.sweep.plan import Plan, PlannedRun

FAKE = Path(__file__).with_name("sweep_launch.py")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("FAKE_SECONDS", "FAKE_FAIL", "FAKE_DIVERGE"):
        monkeypatch.delenv(name, raising=False)


def plan(root, count):
    runs = tuple(PlannedRun(f"run{i}", {"seed": str(i)}) for i in range(count))
    return Plan(SweepFolder(root), "name: tiny\n", runs)


def sweep(root, count, jobs=2, **settings):
    return Sweep(plan(root, count), LocalEngine(jobs), launch=FAKE, **settings)


def starts(root):
    return Counter(line.split()[0] for line in (root / "starts.txt").read_text().splitlines())


def events(root):
    return [(record["event"], record["run"]) for record in Ledger(root / "sweep.jsonl").records()]


def test_every_run_is_done_once_and_a_second_call_does_nothing(tmp_path):
    first = sweep(tmp_path, 4).run()
    assert (first.done, first.skipped, first.failed) == (4, 0, {})
    again = sweep(tmp_path, 5).run()
    assert (again.done, again.skipped) == (1, 4)
    assert starts(tmp_path) == {f"run{i}": 1 for i in range(5)}
    assert Counter(event for event, _ in events(tmp_path)) == {"planned": 5, "started": 5, "done": 5}


def test_failures_are_retried_told_and_stop_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "1,2:once")
    monkeypatch.setenv("FAKE_DIVERGE", "3")
    outcome = sweep(tmp_path, 4).run()
    assert (outcome.done, outcome.diverged) == (2, 1)
    assert list(outcome.failed) == ["run1"]
    assert "seed 1 cannot be trained" in outcome.failed["run1"]
    assert starts(tmp_path) == {"run0": 1, "run1": 2, "run2": 2, "run3": 1}
    assert (tmp_path / "attempts" / "run2-1").is_dir()
    monkeypatch.setenv("FAKE_FAIL", "")
    assert sweep(tmp_path, 4).run().done == 1


def test_a_truth_in_metrics_json_wins_over_the_ledger(tmp_path):
    sweep(tmp_path, 2).run()
    (tmp_path / "runs" / "run0" / "metrics.json").write_text("{")
    with (tmp_path / "sweep.jsonl").open("ab") as file:
        file.write(b'{"event": "done", "run": "ru')
    outcome = sweep(tmp_path, 2).run()
    assert (outcome.done, outcome.skipped) == (1, 1)
    assert (tmp_path / "attempts" / "run0-1" / "metrics.json").read_text() == "{"


def test_another_configuration_under_the_same_name_is_refused(tmp_path):
    sweep(tmp_path, 1).run()
    other = Plan(SweepFolder(tmp_path), "name: other\n", plan(tmp_path, 1).runs)
    with pytest.raises(ConfigError, match="begun with another configuration"):
        Sweep(other, LocalEngine(1), launch=FAKE).run()


def test_two_calls_at_once_are_refused(tmp_path):
    with locked(SweepFolder(tmp_path).lock), pytest.raises(ConfigError, match="another process runs this sweep"):
        sweep(tmp_path, 1).run()


DRIVER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_sweep_loop import sweep
sweep(Path({root!r}), {count}).run()
"""


def start_driver(root, count):
    """A sweep in a process of its own, to be killed."""
    code = DRIVER.format(tests=str(FAKE.parent), root=str(root), count=count)
    # what runs in the background of a script inherits that Ctrl-C is ignored; a user's sweep does not
    listen = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    return subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, preexec_fn=listen)


def wait_until(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def is_held(path):
    with locked(path, wait=False) as mine:
        return not mine


def some_started(root):
    return (root / "starts.txt").exists() and len((root / "starts.txt").read_text().splitlines()) >= 2


def test_after_a_kill_the_orphans_are_waited_for_and_each_run_is_done_exactly_once(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "3")
    driver = start_driver(tmp_path, 3)
    wait_until(lambda: some_started(tmp_path))
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    orphans = [line.split()[0] for line in (tmp_path / "starts.txt").read_text().splitlines()]
    assert any(is_held(SweepFolder(tmp_path).run_lock(run)) for run in orphans)
    monkeypatch.setenv("FAKE_SECONDS", "0")
    outcome = sweep(tmp_path, 3).run()
    assert outcome.done + outcome.skipped == 3
    assert starts(tmp_path) == {"run0": 1, "run1": 1, "run2": 1}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interruption_ends_all_children(tmp_path, monkeypatch, number):
    monkeypatch.setenv("FAKE_SECONDS", "600")
    driver = start_driver(tmp_path, 3)
    wait_until(lambda: some_started(tmp_path))
    children = [int(line.split()[1]) for line in (tmp_path / "starts.txt").read_text().splitlines()]
    driver.send_signal(number)
    assert driver.wait(timeout=120) != 0
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def test_a_killed_child_is_a_failure_that_is_retried(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "2")
    own = sweep(tmp_path, 1, jobs=1)
    engine, killed = own.engine.run, []

    def killing(tasks):
        for event in engine(tasks):
            if event is None and not killed and (tmp_path / "starts.txt").exists():
                killed.extend(own.engine.running.values())
                for running in killed:
                    running.process.kill()
            yield event

    monkeypatch.setattr(own.engine, "run", killing)
    assert own.run().done == 1
    assert starts(tmp_path) == {"run0": 2}
    failed = [record for record in Ledger(tmp_path / "sweep.jsonl").records() if record["event"] == "failed"]
    assert failed[0]["exit_code"] == -signal.SIGKILL
    assert failed[0]["error"] == "ended by signal 9"
