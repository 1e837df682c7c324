"""Two configs side by side, over what both have: text_to_3d.py and exact.py with --against."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import exact_report
import text_to_3d
from truth import kilobytes


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def result(prompt: str, **figures) -> text_to_3d.Result:
    own = {
        "f_score": None,
        "psnr_db": 20.0,
        "by_eye": "",
        "mesh_db": None,
        "overlap": None,
        "seconds": 100.0,
        "warnings": [],
        "pictures": [],
    }
    return text_to_3d.Result(prompt, 2.0, 5, [], **{**own, **figures})


def test_prompts_are_compared_that_both_configs_have():
    old = {"prompt": "a car", "psnr_db": 18.0, "seconds": 200.0, "median_rank": 1.0}  # written before there was an IoU
    other = {"config": "nerf.yaml", "results": [old, {**old, "prompt": "a cat"}]}
    made = [result("a car", iou=0.75, kilobytes=64.0, detail=0.8), result("a dog", iou=0.1)]
    assert cells(text_to_3d.beside(other, "splats.yaml", made)) == [
        ["mean of 1", "nerf.yaml", "200", "-", "-", "18.0", "-", "-", "1.0", "-"],
        ["mean of 1", "splats.yaml", "100", "-", "0.750", "20.0", "0.80", "-", "2.0", "64"],
        ["a car", "nerf.yaml", "200", "-", "-", "18.0", "-", "-", "1.0", "-"],
        ["a car", "splats.yaml", "100", "-", "0.750", "20.0", "0.80", "-", "2.0", "64"],
    ]


def test_settings_are_compared_over_the_objects_that_both_have():
    def row(name: str, obj: str, iou: float, kilobytes: float | None = None) -> exact_report.Row:
        return exact_report.Row(name, obj, "camera", "sds", iou, 2.0, 20.0, 0.0, 60.0, "key", kilobytes=kilobytes)

    rows = [row("shipped", "car", 0.8), row("shipped", "duck", 0.2), row("splats", "car", 0.9, 90.0)]
    lines = cells(exact_report.beside(rows, ["shipped", "splats"]))
    assert [line[3:5] + line[-1:] for line in lines] == [
        ["shipped, mean of 1", "0.800", "-"],
        ["splats, mean of 1", "0.900", "90"],
    ]


def test_the_size_is_that_of_the_scenes_own_file(tmp_path):
    folder = tmp_path / "save" / "it9-export"
    folder.mkdir(parents=True)
    assert kilobytes(tmp_path) is None
    (folder / "model.glb").write_bytes(bytes(5000))
    assert kilobytes(tmp_path) == 5.0
    (folder / "gaussians.splat").write_bytes(bytes(3200))
    assert kilobytes(tmp_path) == 3.2
