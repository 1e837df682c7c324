"""A Ray cluster of two nodes on this machine: real raylets, real workers, and one of the nodes dies."""

import time
from collections import Counter
from pathlib import Path

import pytest

from distill3d.config.check import ConfigError
from distill3d.sweep.folder import SweepFolder
from distill3d.sweep.ledger import Ledger
from distill3d.sweep.loop import Sweep
from distill3d.sweep.plan import Plan, PlannedRun
from distill3d.sweep.ray_engine import RayEngine, unpack
from distill3d.sweep.ray_worker import _archive

FAKE = Path(__file__).with_name("sweep_launch.py")


def plan(root, count):
    runs = tuple(PlannedRun(f"run{i}", {"seed": str(i)}) for i in range(count))
    return Plan(SweepFolder(root), "name: tiny\n", runs)


@pytest.fixture
def gate(tmp_path, monkeypatch):
    """No run ends before this file exists."""
    monkeypatch.setenv("FAKE_GATE", str(tmp_path / "gate"))
    return tmp_path / "gate"


@pytest.fixture
def cluster(gate, monkeypatch):
    """Two nodes of one core each, which see the gate; this process is their driver."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("FAKE_FAIL", "4:once")
    import ray
    from ray._private import services
    from ray.cluster_utils import Cluster

    monkeypatch.setattr(services, "get_node", patient(services.get_node))
    made = Cluster()
    try:
        size = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_log_monitor": False}
        made.add_node(**size, include_dashboard=False, no_monitor=True)
        second = made.add_node(**size)
        ray.init(made.address, log_to_driver=False)
        made.wait_for_nodes()
        yield made, second
    finally:
        ray.shutdown()
        made.shutdown()


def patient(function, seconds=240.0):
    """Ray gives a node half a minute to start, which on a busy machine is not enough."""

    def wait(*arguments):
        deadline = time.monotonic() + seconds
        while True:
            try:
                return function(*arguments)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    return wait


class NodeKiller:
    """An engine around an engine: once both nodes are at work, one dies, and only then may runs end.

    A node does one run at a time, so two runs that have begun and cannot end are one for each node, however slow.
    """

    def __init__(self, engine, kill, root, gate):
        self.engine, self.kill, self.root, self.gate, self.killed = engine, kill, root, gate, False

    def run(self, tasks):
        for event in self.engine.run(tasks):
            at_work = self.root / "starts.txt"
            if not self.killed and at_work.exists() and len(at_work.read_text().splitlines()) >= 2:
                self.kill()
                self.killed = True
                self.gate.touch()
            yield event

    def stop(self):
        self.engine.stop()


def test_all_runs_end_done_though_a_node_dies_and_outputs_can_be_fetched(cluster, gate, tmp_path):
    made, second = cluster
    root = tmp_path / "shared"
    engine = RayEngine()
    assert engine.slots == 2
    killer = NodeKiller(engine, lambda: made.remove_node(second, allow_graceful=False), root, gate)
    outcome = Sweep(plan(root, 5), killer, launch=FAKE).run()
    assert killer.killed
    assert (outcome.done, outcome.failed) == (5, {})
    assert all(SweepFolder(root).status(f"run{i}") == "done" for i in range(5))
    started = Counter(line.split()[0] for line in (root / "starts.txt").read_text().splitlines())
    assert started.pop("run4") == 2  # it failed by itself once
    assert sum(started.values()) <= 5  # of the others the dead node's run alone began again
    events = Counter(record["run"] for record in Ledger(root / "sweep.jsonl").records() if record["event"] == "done")
    assert events == {f"run{i}": 1 for i in range(5)}

    fetched = tmp_path / "fetched"
    outcome = Sweep(plan(fetched, 2), RayEngine(fetch=True), launch=FAKE).run()
    assert outcome.done == 2
    assert not (fetched / "starts.txt").exists()  # they ran elsewhere
    assert SweepFolder(fetched).status("run1") == "done"


def test_a_fetched_trial_takes_its_place_whole(tmp_path):
    trial = tmp_path / "elsewhere" / "run0"
    (trial / "save").mkdir(parents=True)
    (trial / "save" / "a.txt").write_text("new")
    folder = SweepFolder(tmp_path / "sweep")
    folder.trial("run0").mkdir(parents=True)
    unpack(folder, "run0", _archive(trial))
    assert (folder.trial("run0") / "save" / "a.txt").read_text() == "new"
    assert (folder.root / "attempts" / "run0-1").is_dir()
    assert sorted(path.name for path in (folder.root / "runs").iterdir()) == ["run0"]


def test_a_missing_cluster_is_one_clear_error():
    with pytest.raises(ConfigError, match="no Ray cluster answers"):
        RayEngine("127.0.0.1:1")
