"""Trials of before scenes were a kind of their own (commit 17c2bfb): their settings and checkpoints load as ever."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from distill3d.cli import main
from distill3d.evaluation.loaded_trial import load_trial

TRIALS = Path(__file__).parent / "data" / "trials_of_17c2bfb"
SCENES = {"nerf": "nerf", "reconstruction": "nerf", "image": "image", "svg": "svg", "translation": "translator"}


def state_of(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True)["state_dict"]


def without_scene(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("scene."): value for name, value in state.items()}


@pytest.mark.parametrize("name", SCENES)
def test_a_trial_loads_with_every_tensor_in_its_place(name):
    loaded = load_trial(TRIALS / name)
    assert loaded.system.identity()["scene"] == SCENES[name]
    before, now = without_scene(state_of(loaded.checkpoint)), without_scene(loaded.system.state_dict())
    assert before.keys() == now.keys()
    assert all(torch.equal(before[key], now[key]) for key in before)
    assert loaded.system.loaded_step == 2


def test_an_edit_loads_upon_the_scene_that_it_started_from(tmp_path):
    shutil.copytree(TRIALS / "edit", tmp_path / "edit")
    parsed = tmp_path / "edit/configs/parsed.yaml"
    text = parsed.read_text(encoding="utf-8")
    source = TRIALS / "nerf/ckpts/last.ckpt"
    parsed.write_text(text.replace("/tmp/old/old/nerf/ckpts/last.ckpt", str(source)), encoding="utf-8")
    system = load_trial(tmp_path / "edit").system
    start = without_scene(state_of(source))["renderer.geometry.encoding.table"]
    assert torch.equal(system.original.renderer.geometry.encoding.table, start)
    assert not torch.equal(system.renderer.geometry.encoding.table, start)
    assert len(system.changing.edited()) > 0


def test_a_run_is_resumed_with_the_optimisers_memory(tmp_path):
    shutil.copytree(TRIALS / "nerf", tmp_path / "old/nerf")
    trial = tmp_path / "old/nerf"
    resume = [f"resume={trial}/ckpts/last.ckpt", "trainer.max_steps=3", f"exp_root_dir={tmp_path}"]
    assert main(["--config", str(trial / "configs/parsed.yaml"), "--train", *resume]) == 0
    saved = torch.load(trial / "ckpts/last.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    assert {float(state["step"]) for state in saved["optimizer_states"][0]["state"].values()} == {3.0}
    assert (trial / "save/it3-export").is_dir()
