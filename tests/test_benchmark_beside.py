"""What text_to_3d.py and exact.py compare: the prompts, the truth of one and of two objects, configs side by side."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import exact_report
import numpy as np
import pytest
import text_to_3d
import torch
from tiny_assets import make_assets
from truth import kilobytes, saturation_ratio

from distill3d.camera import orbit_cameras
from distill3d.config.files import EMBEDDED_WEIGHTS
from distill3d.data.posed.write import RenderedViews
from distill3d.embedded.mesh_scenes import extents_of
from distill3d.priors.parts import pair_of, read_extents


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


def test_pairs_are_drawn_alike_and_each_is_one_that_the_prior_puts_together():
    nouns = ["apple", "fox", "hamburger", "pine tree", "french fries"]
    pairs = text_to_3d.pairs_of(nouns, 6)
    assert text_to_3d.pairs_of(nouns, 8)[:6] == pairs
    assert ["on top of" in pair for pair in pairs] == [True, False] * 3
    assert all(pair_of(pair, read_extents(EMBEDDED_WEIGHTS)) is not None for pair in pairs)
    assert all(text_to_3d.is_pair(pair) for pair in pairs)


def test_the_truth_of_a_pair_is_both_meshes_in_their_places(tmp_path):
    assets = make_assets(tmp_path)
    apple, fox = (text_to_3d.taught_mesh(prompt, assets) for prompt in ("an apple", "a fox"))
    both = text_to_3d.taught_mesh("a fox next to an apple", assets)
    assert apple is not None
    assert fox is not None
    assert both is not None
    assert len(both.vertices) == len(apple.vertices) + len(fox.vertices)
    of_fox, of_apple = both.vertices[: len(fox.vertices)], both.vertices[len(fox.vertices) :]
    assert of_fox[:, 1].mean() > of_apple[:, 1].mean()
    assert text_to_3d.taught_mesh("a blue fox", assets) is None
    assert text_to_3d.taught_mesh("a van next to an apple", assets) is None  # which the prior does not know
    assert text_to_3d.taught_mesh("a fox", None) is None


def test_extents_are_those_of_each_nouns_mesh(tmp_path):
    from distill3d.data.assets import read_index

    extents = extents_of(read_index(make_assets(tmp_path)), ["apple", "fox"])
    sphere, box = extents["apple"], extents["fox"]
    assert np.allclose([*sphere["high"], sphere["seat"]], 0.5, atol=0.02)
    assert np.allclose(box["low"], -np.array(box["high"]), atol=1e-3)
    assert box["high"].index(max(box["high"])) == 0  # its long side is its front, at +x
    assert box["seat"] == pytest.approx(box["high"][2])


def test_a_grey_truth_has_no_saturation_to_compare_with():
    def views(color: tuple[float, float, float]) -> RenderedViews:
        rgb = torch.tensor(color)[None, :, None, None].expand(2, 3, 4, 4)
        return RenderedViews(orbit_cameras(2, 15.0, 1.55, 39.0, 4), rgb, torch.ones(2, 1, 4, 4))

    assert saturation_ratio(views((0.9, 0.4, 0.4)), views((0.5, 0.5, 0.5))) is None
    assert saturation_ratio(views((0.9, 0.4, 0.4)), views((0.65, 0.4, 0.4))) == pytest.approx(2.0)
