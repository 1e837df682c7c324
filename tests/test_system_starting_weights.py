"""``system.weights``: a training that begins with another one's scene, at step 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from system_doubles import fit, tiny_system

from distill3d.config.check import ConfigError
from distill3d.runtime.checkpoint import CheckpointError

STILL = {"optimizer": {"name": "SGD", "args": {"lr": 1e-20}}}  # what is there after training was there before it
SPLATS = {"scene_type": "splats", "scene": {"count": 30, "radius": 0.6, "init_radius": 0.3}}


@pytest.fixture(scope="module")
def nerf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nerf")
    fit(root, 2)
    return root / "ckpts" / "last.ckpt"


@pytest.fixture(scope="module")
def splats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("splats")
    fit(root, 1, **SPLATS)
    return root / "ckpts" / "last.ckpt"


def parameters(path: Path) -> dict[str, torch.Tensor]:
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name: value for name, value in state.items() if value.is_floating_point() and value.numel() > 1}


def same(system: Any, path: Path, names: str) -> bool:
    state = system.state_dict()
    found = {name: value for name, value in parameters(path).items() if names in name}
    return bool(found) and all(torch.allclose(state[name], value, rtol=0, atol=1e-12) for name, value in found.items())


def test_it_begins_with_the_other_scene_at_step_0_and_trains_on(nerf: Path, tmp_path: Path) -> None:
    system, trainer = fit(tmp_path / "still", 1, seed=7, weights=str(nerf), **STILL)
    assert trainer.global_step == 1
    assert same(system, nerf, "geometry") and same(system, nerf, "background")
    assert not same(tiny_system(7), nerf, "geometry") and not same(tiny_system(7), nerf, "background")
    moved, _ = fit(tmp_path / "moved", 1, seed=7, weights=str(nerf))
    assert not same(moved, nerf, "geometry")


def test_modules_that_are_ignored_stay_new(nerf: Path, tmp_path: Path) -> None:
    system, _ = fit(tmp_path, 1, seed=7, weights=str(nerf), weights_ignore_modules=["background"], **STILL)
    assert same(system, nerf, "geometry") and not same(system, nerf, "background")
    geometry_alone = ["material", "background", "occupancy"]  # of threestudio's geometry_convert_from
    system = tiny_system(7, weights=str(nerf), weights_ignore_modules=geometry_alone)
    system._take_weights()
    assert same(system, nerf, "geometry") and not same(system, nerf, "background")
    with pytest.raises(ConfigError, match=r"weights_ignore_modules has 'backgroud'.*did you mean 'background'"):
        tiny_system(weights=str(nerf), weights_ignore_modules=["backgroud"])._take_weights()


def test_a_run_that_resumes_has_its_own(nerf: Path, tmp_path: Path) -> None:
    whole, _ = fit(tmp_path / "whole", 2, weights=str(nerf))
    fit(tmp_path / "cut", 1, weights=str(nerf))
    fit(tmp_path / "cut", 2, resume=tmp_path / "cut" / "ckpts" / "last.ckpt", weights=str(nerf))
    assert same(whole, tmp_path / "cut" / "ckpts" / "last.ckpt", "geometry")
    system = tiny_system(weights=str(nerf))
    system.on_load_checkpoint(torch.load(tmp_path / "cut" / "ckpts" / "last.ckpt", weights_only=True))
    system._take_weights()
    assert not same(system, nerf, "geometry")


def test_what_one_of_them_lacks_is_told(nerf: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    system = tiny_system(weights=str(nerf), background_type="solid-color-background")
    system._take_weights()
    assert same(system, nerf, "geometry")
    assert "background.color; not taken: background.weights" in caplog.text


def test_splats_take_the_number_of_the_checkpoint(splats: Path, tmp_path: Path) -> None:
    fewer = {**SPLATS, "scene": {**SPLATS["scene"], "count": 10}}  # type: ignore[dict-item]
    system = tiny_system(weights=str(splats), **fewer)
    system._take_weights()
    assert system.scene.means.shape == (30, 3) and same(system, splats, "scene.means")
    fit(tmp_path, 1, weights=str(splats), **fewer)
    with pytest.raises(CheckpointError, match=r"colors is \(30, 3\) there and \(10, 3\) here"):
        tiny_system(weights=str(splats), weights_ignore_modules=["colors"], **fewer)._take_weights()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"geometry": {"mlp_network_config": {"n_neurons": 16}}}, r"system\.weights=.*geometry\.weights\.0 is \(8, "),
        ({"scene_type": "splats"}, r"is a checkpoint of a nerf, and this scene is a splats"),
    ],
)
def test_another_scene_is_refused_before_anything_is_loaded(nerf: Path, settings: dict, message: str) -> None:
    system = tiny_system(weights=str(nerf), **settings)
    with pytest.raises(CheckpointError, match=message):
        system.check()


def test_files_that_cannot_be_used_are_named_by_their_setting(nerf: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"system\.weights=.*does not exist"):
        tiny_system(weights=str(tmp_path / "none.ckpt")).check()
    content = torch.load(nerf, weights_only=True)
    content["state_dict"]["scene.renderer.geometry.weights.0"][0, 0] = torch.nan
    torch.save(content, tmp_path / "nan.ckpt")
    with pytest.raises(CheckpointError, match=r"system\.weights=.*NaN or infinity"):
        tiny_system(weights=str(tmp_path / "nan.ckpt")).check()
