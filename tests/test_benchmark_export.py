"""The table of what an export loses: cells are measured once, and the tables say what they hold."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import export
from export_table import CHANGES, SHARPENED_ALONE, SHIPPED, TRUE_COLOR, Cell, read_cells, report, trials_in, write_cells

from distill3d.export.exporter import MeshExporter


def finished(folder: Path) -> Path:
    (folder / "ckpts").mkdir(parents=True)
    (folder / "ckpts" / "last.ckpt").write_bytes(b"")
    return folder


def test_trials_are_those_of_a_sweep_or_the_folders_given(tmp_path):
    runs = [finished(tmp_path / "sweep" / "runs" / name) for name in ("a", "b")]
    (tmp_path / "sweep" / "runs" / "unfinished").mkdir()
    alone = finished(tmp_path / "alone")
    assert trials_in([tmp_path / "sweep", alone]) == [*runs, alone]


def test_a_stopped_table_goes_on_and_tells_what_it_holds(tmp_path, monkeypatch, capsys):
    asked = []

    def isolated(_, folder, change, resolution, threads):
        asked.append((Path(folder).name, change, resolution))
        if len(asked) == 3:
            raise KeyboardInterrupt
        found = {change: Cell(25.0 + len(asked), 0.98, 20.0, 900.0, 1)}
        return {**found, TRUE_COLOR: Cell(30.0, 0.98)} if change == SHIPPED else found

    trials = [finished(tmp_path / name) for name in ("a_fox@1", "4ed3edd6e1c2")]
    (trials[1] / "metrics.json").write_text('{"prompt": "a cow"}', encoding="utf-8")
    cells = ["--cells", str(tmp_path / "cells.json"), "--changes", SHIPPED, SHARPENED_ALONE]
    monkeypatch.setattr(export, "isolated", isolated)
    monkeypatch.setattr(sys, "argv", ["export.py", *map(str, trials), *cells])
    with pytest.raises(KeyboardInterrupt):
        export.main()
    export.main()
    names = [(trial.name, change, 256) for trial in trials for change in (SHIPPED, SHARPENED_ALONE)]
    assert asked == [*names[:3], *names[2:]]
    printed = capsys.readouterr().out
    assert "| dB on the object | a fox | a cow | mean |" in printed
    assert f"| {SHIPPED} | 26.0 | 29.0 | 27.5 |" in printed and f"| {TRUE_COLOR} | 30.0 | 30.0 | 30.0 |" in printed
    assert "2 of 2 reach 24 dB on the object and an overlap of 0.97." in printed


def test_cells_of_another_grid_are_not_taken(tmp_path):
    cells = {"a_fox@1": {SHIPPED: Cell(23.0, 0.99, 20.0, 900.0, 0)}}
    write_cells(tmp_path / "cells.json", cells, 256)
    assert read_cells(tmp_path / "cells.json", 256) == cells
    assert read_cells(tmp_path / "cells.json", 128) == {} == read_cells(tmp_path / "none.json", 256)
    assert "0 of 1 reach" in report(cells) and "| a fox | 23.0 | 0.990 | 20 | 900 | no |" in report(cells)


def test_every_change_is_a_setting_of_the_exporter_that_differs():
    shipped = vars(MeshExporter.Config(resolution=256))
    for name, change in CHANGES.items():
        changed = vars(MeshExporter.Config(**{"resolution": 256, **change}))
        assert (changed != shipped) == bool(change), name
