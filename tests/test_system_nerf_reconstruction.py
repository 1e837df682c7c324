"""Reconstruction: it comes to show its images, to the same bits each time, and leaves what edits start from."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from posed_scenes import make_data_set
from system_doubles import TINY_SYSTEM, make_trainer, merged, tiny_system

from distill3d import cli
from distill3d.config.check import ConfigError, build
from distill3d.config.registry import find
from distill3d.data.posed.module import PosedImageDataModule
from distill3d.evaluation.metrics import psnr_db
from distill3d.runtime.checkpoint import CheckpointError, read_checkpoint
from distill3d.types import RenderOutput

SCENE = {key: TINY_SYSTEM[key] for key in ("geometry", "renderer")}
SETTINGS = merged(
    SCENE,
    {
        "geometry": {"pos_encoding_config": {"n_levels": 2}},
        "renderer": {"num_samples_per_ray": 32},
        "optimizer": {"args": {"lr": 0.05, "betas": [0.9, 0.99]}},
    },
)


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    return make_data_set(tmp_path_factory.mktemp("posed") / "box")


def tiny_reconstruction(seed=0, **changes):
    cls = find("system", "nerf-reconstruction-system")
    return cls(build(cls.Config, merged(SETTINGS, changes), "system"), seed=seed)


def tiny_views(root, seed=0, **changes):
    settings = {"root": str(root), "n_test_views": 2, **changes}
    return PosedImageDataModule(build(PosedImageDataModule.Config, settings, "data"), seed=seed)


def reconstruct(folder: Path, root: Path, steps: int, resume: Path | None = None, seed: int = 0, **changes):
    data = tiny_views(root, seed, **changes.pop("data", {}))
    system = tiny_reconstruction(seed, **changes)
    system.attach(SimpleNamespace(root=folder))
    trainer = make_trainer(folder, steps)
    trainer.fit(system, data, ckpt_path=resume)
    return system, trainer


def last(folder: Path) -> Path:
    return folder / "ckpts" / "last.ckpt"


def test_it_comes_to_show_views_that_it_was_never_given(tmp_path, box):
    before = tiny_reconstruction()
    seen, truth = before.rendered(tiny_views(box).test_views)
    system, _ = reconstruct(tmp_path, box, 80)
    after, _ = system.rendered(tiny_views(box).test_views)
    assert psnr_db(after, truth).mean() > 15.5
    assert psnr_db(after, truth).mean() > psnr_db(seen, truth).mean() + 5.0


@pytest.mark.parametrize("background", ["white", "black", "alpha"])
def test_what_is_behind_the_alpha_does_not_colour_the_scene(tmp_path, box, background):
    system, _ = reconstruct(tmp_path, box, 60, data={"background": background})
    views = tiny_views(box, background="black").test_views
    batch = views.batch(range(len(views)))
    assert batch.alpha is not None
    empty = (batch.alpha == 0).expand_as(batch.images)
    assert system.view(batch)[empty].mean() < 0.1


def test_the_render_before_another_background_is_exact(box):
    system, views = tiny_reconstruction(), tiny_views(box, background="white").train_views
    batch = views.batch([0, 1])
    white = system.renderer.render(batch.cameras, None, "albedo", torch.ones(3))
    green = torch.tensor([0.0, 1.0, 0.0])
    moved = system.before(white, batch.over(green.expand(2, 3)))
    assert torch.allclose(moved, system.renderer.render(batch.cameras, None, "albedo", green).rgb, atol=1e-6)


@pytest.mark.parametrize("kind", ["solid-color-background", "neural-environment-map-background"])
def test_a_background_behind_an_alpha_is_not_trained_and_one_in_photographs_is(box, tmp_path, kind):
    color = {"background": {"learned": True}} if kind.startswith("solid") else {}
    system = tiny_reconstruction(background_type=kind, **color)
    batch = tiny_views(box).batch(0)
    for with_alpha in (True, False):
        shown = batch if with_alpha else SimpleNamespace(**{**vars(batch), "alpha": None, "background": None})
        output = system.renderer(batch.cameras, None, "albedo", 0, 0)
        system.zero_grad()
        system.losses(output, shown, ["rgb"])["rgb"].backward()
        gradient = torch.cat([p.grad.flatten() for p in system.renderer.background.parameters()])
        assert bool(gradient.abs().max() < 1e-6) == with_alpha


def test_losses_are_the_mean_squared_errors(box):
    system, batch = tiny_reconstruction(), tiny_views(box, background="white").batch(0)
    output = RenderOutput(batch.images + 0.1, batch.alpha - 0.2, torch.zeros_like(batch.alpha), None, "albedo")
    shown = SimpleNamespace(**{**vars(batch), "background": None})
    losses = system.losses(output, shown, ["rgb", "opacity"])
    assert float(losses["rgb"]) == pytest.approx(0.01) and float(losses["opacity"]) == pytest.approx(0.04)
    without = SimpleNamespace(**{**vars(shown), "alpha": None})
    assert set(system.losses(output, without, ["rgb", "opacity", "opaque"])) == {"rgb", "opaque"}


def test_the_same_seed_gives_the_same_checkpoint_file_and_another_another(tmp_path, box):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(hash(name) % 1000)  # nothing depends on the global generator
        reconstruct(tmp_path / name, box, 4, seed=seed)
    a, b, c = (last(tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("stop", [1, 5])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, box, stop):
    reconstruct(tmp_path / "whole", box, 8)
    reconstruct(tmp_path / "parts", box, stop)
    reconstruct(tmp_path / "parts", box, 8, resume=last(tmp_path / "parts"))
    whole, parts = (read_checkpoint(last(tmp_path / name)) for name in ("whole", "parts"))
    assert whole["global_step"] == parts["global_step"] == 8
    assert all(torch.equal(tensor, parts["state_dict"][name]) for name, tensor in whole["state_dict"].items())
    moments = [checkpoint["optimizer_states"][0]["state"] for checkpoint in (whole, parts)]
    assert all(torch.equal(moments[0][i][k], moments[1][i][k]) for i in moments[0] for k in ("exp_avg", "exp_avg_sq"))


def test_its_checkpoint_has_the_names_of_text_to_3d(tmp_path, box):
    reconstruct(tmp_path, box, 1)
    scene = tiny_system(background_type="solid-color-background", geometry=SETTINGS["geometry"])
    assert read_checkpoint(last(tmp_path))["state_dict"].keys() == scene.state_dict().keys()
    scene.load_state_dict(read_checkpoint(last(tmp_path))["state_dict"])


def test_a_checkpoint_of_another_system_is_refused(tmp_path, box):
    reconstruct(tmp_path, box, 1)
    with pytest.raises(CheckpointError, match="its system is 'NeRFReconstruction', not 'TextTo3D'"):
        tiny_system().on_load_checkpoint(read_checkpoint(last(tmp_path)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"background": {"random_aug": True}}, "system.background.random_aug=true"),
        ({"loss": {"lambda_sds": 1.0}}, "system.loss.lambda_sds is not a setting"),
        ({"loss": {"lambda_rgb": "much"}}, "system.loss.lambda_rgb"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        tiny_reconstruction(**settings)


LITTLE = (
    "system.geometry.pos_encoding_config.n_levels=4",
    "system.contact_views=2",
    "system.exporter.resolution=24",
    "system.exporter.mode=vertex",
    "system.exporter.view_size=16",
    "system.exporter.turntable_views=0",
    "system.exporter.viewer=false",
    "data.n_test_views=2",
    "trainer.max_steps=30",
    "trainer.val_check_interval=15",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
)


@pytest.fixture
def launched(box, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL3D_TRIAL", raising=False)
    config = ("--config", "nerf-reconstruction.yaml")
    assert cli.main([*config, f"data.root={box}", *LITTLE]) == 0
    (trial,) = (tmp_path / "outputs/nerf-reconstruction").iterdir()
    return trial


def test_the_shipped_config_leaves_figures_pictures_a_turntable_and_a_mesh(launched, box):
    metrics = json.loads((launched / "metrics.json").read_text())
    assert (metrics["steps"], metrics["finished"], metrics["diverged"]) == (30, True, False)
    assert launched.name.startswith("box@")
    assert 8.0 < metrics["test_psnr_db"] < 60.0 and 0.0 < metrics["test_ssim"] <= 1.0
    pictures = {"it15-0.png", "it30-0.png", "it30-test-views.png", "it30-test.mp4", "it30-views.png"}
    assert {f"save/{name}" for name in pictures | {"it30-export/model.glb"}} <= set(metrics["files"])
    assert all((launched / file).stat().st_size > 0 for file in metrics["files"])
    figures = [metrics["test_psnr_db"], metrics["test_ssim"]]
    parsed, last_one = launched / "configs/parsed.yaml", last(launched)
    assert cli.main(["--config", str(parsed), "--test", f"resume={last_one}"]) == 0
    again = json.loads((launched / "metrics.json").read_text())
    assert [again["test_psnr_db"], again["test_ssim"]] == pytest.approx(figures)
    assert cli.main(["--config", str(parsed), "--export", f"resume={last_one}", "data.root=gone"]) == 0


def test_a_mistake_in_the_data_set_leaves_no_trial(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    config = ("--config", "nerf-reconstruction.yaml")
    assert cli.main([*config, "data.root=nowhere"]) == 2
    assert cli.main(config) == 2
    assert "transforms_train.json" in caplog.text and "data.root: missing" in caplog.text
    assert list(tmp_path.iterdir()) == []
