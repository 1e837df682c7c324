"""The corrective system from its shipped config to a file that LMC-SDS takes, under a tiny embedded prior."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_pipelines import embedded_own

from distill3d.guidance.corrective import CorrectiveNetwork, load_corrective
from distill3d.guidance.corrective.files import read_corrective
from distill3d.prior.loader import PriorConfig, load_prior
from distill3d.run import prepare, train
from distill3d.verbs import Request

CONFIG = Path(__file__).parents[1] / "configs" / "lmc" / "corrective.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return embedded_own(tmp_path_factory.mktemp("prior") / "tiny")


def trained(folder, out, *overrides):
    """A short training; the run and its trial's save folder."""
    settings = [
        f"system.prior.pretrained_model_name_or_path={folder}",
        f"exp_root_dir={out}",
        "data.batch_size=4",
        "trainer.max_steps=3",
        "system.width=4",
        *overrides,
    ]
    run = prepare(Request("train", str(CONFIG), tuple(settings)))
    train(run)
    return run, run.trial.save


def test_prior_samples_to_a_corrective(folder, tmp_path):
    run, save = trained(folder, tmp_path, "data.count=6", "data.sampling_steps=2", "data.image_size=16")
    prior = load_prior(PriorConfig(str(folder)))
    made = read_corrective(save / "corrective-16.safetensors", prior.identity)
    assert isinstance(made, CorrectiveNetwork) and made.width == 4 and made.sigma_data > 0
    used = load_corrective(str(save / "corrective-16.safetensors"), prior, run.system.embed([""]), 16)
    t = torch.tensor([100, 900])
    assert used(torch.rand(2, 3, 16, 16), t, *prior.alpha_sigma(t)).isfinite().all()
    assert (save / "corrective.png").is_file()
    losses = json.loads((save / "validation.json").read_text())["loss_by_time"]
    assert set(losses) == {"b_psi", "spectral", "none (SDS)", "floor"} and all(len(v) == 10 for v in losses.values())


def test_image_folder_with_captions(folder, tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    for i, colour in enumerate(("red", "green")):
        image = Image.linear_gradient("L").convert("RGB").resize((40, 32))
        Image.blend(image, Image.new("RGB", image.size, colour), 0.5).save(tmp_path / "images" / f"{i}.png")
        (tmp_path / "images" / f"{i}.txt").write_text(f"a {colour} wall")
    overrides = ("data_type=image-folder-datamodule", f"data.root={tmp_path / 'images'}", "data.image_size=32")
    run, save = trained(folder, tmp_path / "out", *overrides, "system.use_captions=true")
    assert (save / "corrective-32.safetensors").is_file()
    assert {"a red wall", "a green wall"} <= set(run.system._embedded)


def test_prior_is_in_no_checkpoint(folder, tmp_path):
    run, _ = trained(folder, tmp_path, "data.count=4", "data.sampling_steps=2", "data.image_size=16")
    state = torch.load(run.trial.ckpts / "last.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in state} == {"network", "ema_network"}
