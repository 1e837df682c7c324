"""The last lines of a run."""

from __future__ import annotations

import json

from distill3d.runtime.summary import summary

FILES = ("save/it4-test.mp4", "save/it4-views.png", "save/it4-export/model.glb", "save/it4-export/viewer.html")


def trial(tmp_path, files=FILES, **metrics):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    content = {"prompt": "a fox", "steps": 4, "seconds_total": 83.4, "files": list(files), **metrics}
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    return tmp_path


def test_three_lines_say_what_was_made_what_to_open_and_where_the_rest_is(tmp_path):
    root = trial(tmp_path, export={"faces": 10000, "watertight": 1})
    (root / "ckpts").mkdir()
    (root / "ckpts/last.ckpt").write_bytes(b"")
    made, to_open, more = summary(root, "distill3d")
    assert made == 'made: "a fox" in 4 steps and 83 s, 10000 faces, closed'
    assert to_open == f"open: {root}/save/it4-export/viewer.html (a page that opens by double-click)"
    assert more.startswith(
        f"more: {root} (mesh, video, pictures, figures in metrics.json); train on: distill3d --config "
    )
    assert more.endswith(f"resume={root}/ckpts/last.ckpt trainer.max_steps=N")


def test_the_file_to_open_is_the_best_that_exists_and_the_newest_of_its_kind(tmp_path):
    root = trial(tmp_path, (*FILES, "save/it8-test.mp4"))
    for name in FILES[2:]:
        (root / name).unlink()
    assert summary(root, "x")[1] == f"open: {root}/save/it8-test.mp4 (the video)"
    assert "train on" not in summary(root, "x")[2]


def test_a_run_that_diverged_says_so(tmp_path):
    assert "diverged" in summary(trial(tmp_path, diverged=True), "x")[0]


def test_a_run_without_files_names_its_folder(tmp_path):
    assert summary(tmp_path, "x") == [f"done: {tmp_path}"]
