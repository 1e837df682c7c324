"""metrics.json and the stopwatch behind it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

import pytest
import torch

from distill3d.runtime.files import write_json
from distill3d.systems import metrics as module
from distill3d.systems.metrics import RunMetrics, Stopwatch, peak_memory_mb, read_metrics
from distill3d.systems.record import RunRecord


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told."""
    state = {"now": 0.0}
    monkeypatch.setattr(module, "_now", lambda: state["now"])
    return state


def test_round_trip_of_any_prompt(tmp_path):
    metrics = RunMetrics('a "fox" 🦊\n여우', 3, views_per_shading={"albedo": 2}, opacity_mean=0.25)
    write_json(tmp_path / "metrics.json", asdict(metrics), allow_nan=False)
    assert read_metrics(tmp_path / "metrics.json") == metrics
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"prompt": "x"}', "null"])
def test_a_damaged_record_never_costs_the_run(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    assert read_metrics(tmp_path / "metrics.json") is None
    assert read_metrics(tmp_path / "none.json") is None


def test_fields_of_other_versions_are_passed_over(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"prompt": "x", "seed": 1, "of_the_future": 2}))
    assert read_metrics(tmp_path / "metrics.json") == RunMetrics("x", 1)


def test_stages_add_up_over_steps(clock):
    watch = Stopwatch()
    for seconds in (1.0, 3.0):
        with watch("render"):
            clock["now"] += seconds
        watch.start("backward")
        clock["now"] += 0.5
        watch.stop("backward")
    assert watch.per_step(2) == {"total": 0.0, "render": 2.0, "prior": 0.0, "backward": 0.5, "optimizer": 0.0}


@pytest.mark.parametrize(("profile", "waits", "stages"), [(False, 0, {"total"}), (True, 6, {"total", "render"})])
def test_a_gpu_is_waited_for_only_where_stages_are_asked_for(monkeypatch, clock, profile, waits, stages):
    """Waiting 12 times a step was most of a short step; without it a stage of queued work has no time of its own."""
    waited = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(1))
    watch = Stopwatch(profile)
    watch.start("total")
    for _ in range(2):
        with watch("render"):
            clock["now"] += 1.0
    watch.stop("total")
    assert (len(waited), watch.seconds["total"]) == (waits, 2.0)
    assert {stage for stage, seconds in watch.seconds.items() if seconds > 0} == stages


def test_a_stage_that_was_not_started_counts_nothing(clock):
    watch = Stopwatch()
    watch.stop("prior")
    with pytest.raises(KeyError), watch("render"):
        clock["now"] += 1.0
        raise KeyError  # a stage that fails still took its time
    assert (watch.seconds["prior"], watch.seconds["render"]) == (0.0, 1.0)


def test_an_earlier_session_counts_by_its_steps(clock):
    watch = Stopwatch()
    watch.carry_on({"total": 2.0, "render": 1.0}, 10)
    with watch("total"):
        clock["now"] += 4.0
    assert watch.per_step(12)["total"] == 2.0


def test_peak_memory_is_what_this_process_has_held():
    before = peak_memory_mb(torch.device("cpu"))
    held = torch.ones(64 * 2**18 + int(before) * 2**18)  # more than the process has ever held, in floats
    after = peak_memory_mb(torch.device("cpu"))
    assert after >= before + 60
    assert held.numel() * 4 / 2**20 < after < 10 * held.numel() * 4 / 2**20


def test_files_stand_once_and_relative_to_the_trial(tmp_path):
    record = RunRecord("x", 0)
    record.attach(tmp_path)
    record.add_files(tmp_path / "save" / "a.png", tmp_path / "save" / "a.png")
    assert record.metrics.files == ["save/a.png"]


def test_the_last_exports_figures_stand_whatever_they_are(tmp_path):
    record = RunRecord("x", 0)
    record.attach(tmp_path)
    record.add_export([], {"faces": 3, "mesh_psnr": 20.0})
    record.add_export([tmp_path / "model.glb"], {"mesh_psnr": float("nan"), "blur": 0.01, "how": "auto"})
    record.write(1)
    metrics = read_metrics(tmp_path / "metrics.json")
    assert metrics is not None
    assert metrics.files == ["model.glb"]
    assert metrics.export == {"mesh_psnr": None, "blur": 0.01, "how": "auto"}


def test_a_session_goes_on_with_the_record_of_the_trial(tmp_path):
    first = RunRecord("x", 0)
    first.attach(tmp_path)
    first.watch.seconds["total"] = 8.0
    first.metrics.device = "cuda:0"
    first.add_files(tmp_path / "a.png")
    time.sleep(0.01)
    first.write(4)
    second = RunRecord("x", 0)
    second.attach(tmp_path)
    second.carry_on(2)
    second.write(2)
    metrics = read_metrics(tmp_path / "metrics.json")
    assert metrics is not None
    assert (metrics.seconds_per_step["total"], metrics.iterations_per_second) == (2.0, 0.5)
    assert metrics.seconds_total > first.metrics.seconds_total >= 0.01
    assert (metrics.files, metrics.device) == (["a.png"], "cuda:0")  # an export does not say where it ran


def test_without_a_trial_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RunRecord("x", 0).write(1)
    assert RunRecord("x", 0).save_dir is None
    assert list(tmp_path.iterdir()) == []
