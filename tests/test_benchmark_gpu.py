"""The GPU script, tried on a CPU: it measures in little, resumes, is ended at its limit, and keeps to one folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
WHAT = ("features", "with Jacobian")  # is asked of a grid


@pytest.fixture(scope="module")
def gpu() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    import gpu

    return gpu


def launched(out: Path, *arguments: str) -> str:
    environment = {**os.environ, "OUT": str(out), "PYTHON": sys.executable}
    command = [str(BENCHMARKS / "gpu.sh"), "--device", "cpu", "--tiny", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_one_command_writes_a_report_and_a_second_measures_nothing_again(tmp_path: Path) -> None:
    shown = launched(tmp_path, "--parts", "d")
    first = json.loads((tmp_path / "report.json").read_text())
    rows = first["parts"]["d"]["rows"]
    assert first["parts"]["d"]["ended"] == "done" and set(rows) == {"batch 1", "batch 4"}
    for row in rows.values():
        stages = [row[f"{name}, ms"] for name in ("render", "encode", "network", "optimizer")]
        stages += [row[f"backward through the {part}, ms"] for part in ("encoder", "scene")]
        assert min(stages) > 0.0 and sum(stages) == pytest.approx(row["sum, ms"])
        inside = row["encode, ms"] + row["network, ms"] + row["backward through the encoder, ms"]
        assert row["outside network and encoder"] == pytest.approx(1.0 - inside / row["sum, ms"])
    assert (tmp_path / "report.md").read_text() in shown and "## (d)" in shown
    launched(tmp_path, "--parts", "d")
    assert json.loads((tmp_path / "report.json").read_text()) == first


def test_the_grid_is_measured_each_way_that_runs_here(tmp_path: Path) -> None:
    launched(tmp_path, "--parts", "g")
    part = json.loads((tmp_path / "report.json").read_text())["parts"]["g"]
    assert part["ended"] == "done"
    assert set(part["rows"]) == {f"{way}, {what}" for way in ("reference", "gathered") for what in WHAT}
    assert all(min(row["forward, ms"], row["backward, ms"]) > 0.0 for row in part["rows"].values())


@pytest.mark.slow  # pytest -m slow tests/test_benchmark_gpu.py
def test_all_parts_run_in_little(tmp_path: Path) -> None:
    launched(tmp_path, "--seconds", "3000")
    report = json.loads((tmp_path / "report.json").read_text())
    assert {part: content["ended"] for part, content in report["parts"].items()} == dict.fromkeys("abcdefg", "done")
    errors = [row for part in report["parts"].values() for row in part["rows"].values() if "error" in row]
    assert errors == []
    files = list(tmp_path.iterdir())
    assert len(files) <= 8 and all(path.is_file() and path.stat().st_size < 16 << 20 for path in files)


def test_rows_that_are_there_stay_and_one_that_fails_stops_none(
    tmp_path: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def row(name: str) -> Any:
        def measure() -> dict[str, Any]:
            measured.append(name)
            if name == "broken":
                raise RuntimeError("out of memory\nand more")
            return {"ms": 1.5}

        return name, measure

    names = ["there", "broken", "last"]
    monkeypatch.setitem(sys.modules, "gpu_parts", SimpleNamespace(rows_of=lambda *_: map(row, names)))
    report = gpu.Report(tmp_path, {"device": "a"})
    report.put("c", "there", {"ms": 9.0})
    gpu.run_part(
        "c", gpu.Settings(tmp_path, torch.device("cpu"), True, time.time() + 9), gpu.Report(tmp_path, {"device": "a"})
    )
    rows = gpu.Report(tmp_path, {"device": "a"}).rows("c")
    assert measured == ["broken", "last"] and rows["there"] == {"ms": 9.0} and rows["last"]["ms"] == 1.5
    assert rows["broken"]["error"] == "RuntimeError: out of memory"
    with pytest.raises(ValueError, match=r"is of \{'device': 'a'\}, and this is \{'device': 'b'\}: set another OUT"):
        gpu.Report(tmp_path, {"device": "b"})


def test_a_second_call_goes_on_with_what_was_cut(tmp_path: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    report, run = gpu.Report(tmp_path, {"device": "a"}), []
    for part, how in {"a": "done", "c": "cut after 130 s", "d": "failed with exit status 1, see log.txt"}.items():
        report.end(part, how)
    monkeypatch.setattr(gpu, "watched", lambda command, *_: run.append(command[command.index("--part") + 1]) or "done")
    settings = gpu.Settings(tmp_path, torch.device("cpu"), True, time.time() + 99)
    gpu.run_parts(SimpleNamespace(tiny=True, device="cpu", parts="acd"), settings, report)
    assert run == ["c", "d"]
    assert [gpu.Report(tmp_path, {"device": "a"}).ended(part) for part in "acd"] == ["done"] * 3


def test_a_part_is_ended_at_its_limit_with_what_it_started(tmp_path: Path, gpu: Any) -> None:
    with (tmp_path / "log.txt").open("w") as log:
        assert gpu.watched([sys.executable, "-c", "print(1)"], 60.0, log) == "done"
        assert gpu.watched([sys.executable, "-c", "raise SystemExit(3)"], 60.0, log).startswith("failed with exit")
        child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
        start = time.monotonic()
        assert gpu.watched([sys.executable, "-c", child], 1.0, log) == "cut after 1 s"
        assert time.monotonic() - start < 30.0


def test_the_limits_fit_into_seven_minutes(gpu: Any) -> None:
    assert gpu.SECONDS <= 400.0 and set(gpu.PARTS) == set("abcdefg")
