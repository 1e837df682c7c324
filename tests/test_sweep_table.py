"""Counts, time left, and what a terminal sees."""

import io

import pytest

from distill3d.sweep import local
from distill3d.sweep.engine import tail
from distill3d.sweep.table import Progress, StatusTable, duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("seconds", "text"), [(8.4, "8 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_time_left_follows_from_the_pace():
    progress = Progress(total=10, skipped=3, started=100.0)
    assert progress.seconds_left(150.0) is None
    progress.done, progress.failed, progress.running = 3, 1, {"a": ("seed=1", 140.0)}
    assert progress.seconds_left(140.0) == pytest.approx(60.0)
    assert progress.line(140.0) == "1 running, 5 waiting, 3 done, 1 failed, 3 done before; 1 min 0 s left"
    assert progress.lines(145.0)[1].split() == ["5", "s", "seed=1"]


def test_a_terminal_is_drawn_in_place_and_a_file_is_left_alone():
    progress = Progress(total=20, running={str(i): (f"run {i}", 0.0) for i in range(12)})
    out = Terminal()
    table = StatusTable(progress, out)
    table.draw(force=True)
    table.draw(force=True)
    assert "and 4 more" in out.getvalue()
    assert out.getvalue().count("\033[10F\033[J") == 1  # ten lines up: the counts, eight runs, and the rest
    plain = io.StringIO()
    StatusTable(progress, plain).draw(force=True)
    assert plain.getvalue() == ""


def test_runs_share_cores_and_gpus(monkeypatch):
    monkeypatch.setattr(local, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    own = [local.environment(slot, ["4", "7"]) for slot in range(3)]
    assert [env["OMP_NUM_THREADS"] for env in own] == ["4"] * 3
    assert local.environment(0, [])["OMP_NUM_THREADS"] == "1"  # however many are run at once
    assert [env["CUDA_VISIBLE_DEVICES"] for env in own] == ["4", "7", "4"]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert local.environment(0, [])["OMP_NUM_THREADS"] == "5"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3,-1")
    assert local.visible_gpus() == ["2", "3"]
    assert local.LocalEngine().slots == 2


def test_the_tail_of_a_long_file(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("".join(f"line {i}\n" for i in range(100_000)))
    assert tail(path, 2) == "line 99998\nline 99999"
    assert tail(tmp_path / "nowhere") == ""
