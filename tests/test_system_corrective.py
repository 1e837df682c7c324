"""The corrective system from its shipped config to a file that LMC-SDS takes, under a tiny embedded prior."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from models_in_memory import InMemory
from picture_doubles import make_data
from tiny_pipelines import embedded_own, flux

from distill3d.config.check import ConfigError
from distill3d.data.image_batch import ImageBatch, ImageBatches
from distill3d.guidance.corrective import CorrectiveNetwork, load_corrective
from distill3d.guidance.corrective.files import read_corrective
from distill3d.priors.loader import PriorConfig, load_prior, load_prompt_encoder
from distill3d.run import prepare, train
from distill3d.systems import corrective
from distill3d.systems.corrective import CorrectiveSystem
from distill3d.verbs import Request

CONFIG = Path(__file__).parents[1] / "configs" / "lmc" / "corrective.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return embedded_own(tmp_path_factory.mktemp("prior") / "tiny")


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path_factory):
    """A cache of its own, and few images for the spectral fit."""
    monkeypatch.setattr(corrective, "FIT_IMAGES", 4)
    monkeypatch.setenv("DISTILL3D_CACHE", str(tmp_path_factory.mktemp("cache")))


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


@pytest.fixture
def captioned(tmp_path):
    """A folder of two images with captions."""
    from PIL import Image

    root = tmp_path / "images"
    root.mkdir()
    for colour in ("red", "green"):
        image = Image.linear_gradient("L").convert("RGB").resize((40, 32))
        Image.blend(image, Image.new("RGB", image.size, colour), 0.5).save(root / f"{colour}.png")
        (root / f"{colour}.txt").write_text(f"a {colour} wall")
    return root


def assert_told(system, folder, captions):
    expected = load_prompt_encoder(PriorConfig(str(folder)))(captions)
    assert torch.equal(system.text(captions).tokens, expected.tokens)


def test_image_folder_with_captions(folder, tmp_path, captioned):
    data = ("data_type=image-folder-datamodule", f"data.root={captioned}", "data.image_size=32")
    run, save = trained(folder, tmp_path / "out", *data, "system.use_captions=true")
    assert (save / "corrective-32.safetensors").is_file()
    assert_told(run.system, folder, ["a red wall", "a green wall"])


def built(folder, data, **settings):
    """The system as it is when training begins."""
    prior = {"pretrained_model_name_or_path": str(folder), "image_size": 16}
    settings = {"prior": prior, "width": 4, **settings}
    system = CorrectiveSystem(CorrectiveSystem.Config(**settings))
    system.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))  # type: ignore
    system.build(data)
    return system


def test_text_encoders_are_gone_before_the_network_comes(tmp_path, monkeypatch, captioned):
    """FLUX has two of them; neither may be beside the transformer, whatever the images are."""
    model, alive = flux(tmp_path / "flux"), InMemory(monkeypatch)
    encoders = [["text_encoder"], ["text_encoder", "text_encoder_2"]]
    networks = [["transformer"], ["transformer", "vae"]]
    images = make_data("image-folder-datamodule", root=str(captioned), image_size=16, batch_size=2)
    assert len(built(model, images, use_captions=True).text(["a red wall", "a green wall"])) == 2
    assert alive.moments == encoders + networks
    for moments in (encoders + networks, networks):  # at the second time every text comes from the cache
        alive.moments.clear()
        samples = {"prompts": ["a cat", "a dog"], "count": 2, "sampling_steps": 1, "batch_size": 2}
        built(model, make_data("prior-samples-datamodule", **samples))
        assert alive.moments == moments


class EndlessCaptions(ImageBatches):
    """Images whose captions nobody can list, as those of mesh views."""

    def batch(self, step):
        return ImageBatch(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(step)), [f"view {step}"] * 4)


def test_small_encoders_stay_for_captions_without_end(folder, monkeypatch):
    alive, data = InMemory(monkeypatch), EndlessCaptions(SimpleNamespace())
    system = built(folder, data, use_captions=True)
    assert alive.names() == ["text_encoder", "unet"]
    assert_told(system, folder, ["view 7", "view 8"])
    del system
    alive.moments.clear()
    built(folder, data)
    assert alive.moments == [["text_encoder"], ["unet"]]  # the empty prompt needs no encoder later


def test_large_encoders_are_refused_for_captions_without_end(folder, monkeypatch):
    alive = InMemory(monkeypatch)
    monkeypatch.setattr(corrective, "MOST_TEXT_PARAMETERS", 1000)
    with pytest.raises(ConfigError, match=r"system\.use_captions=true.*use_captions=false.*image-folder-datamodule"):
        built(folder, EndlessCaptions(SimpleNamespace()), use_captions=True)
    assert alive.moments == []


def test_prior_is_in_no_checkpoint(folder, tmp_path):
    run, _ = trained(folder, tmp_path, "data.count=4", "data.sampling_steps=2", "data.image_size=16")
    state = torch.load(run.trial.ckpts / "last.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in state} == {"network", "ema_network"}


def test_resumed_equals_uninterrupted(folder, tmp_path):
    """Bit for bit, with what is replayed among what goes on."""
    settings = ("data.count=6", "data.sampling_steps=2", "data.image_size=16", "system.replay=2")
    whole, _ = trained(folder, tmp_path / "whole", *settings, "trainer.max_steps=4")
    part, _ = trained(folder, tmp_path / "part", *settings, "trainer.max_steps=2")
    last = part.trial.ckpts / "last.ckpt"
    assert len(torch.load(last, weights_only=True)["replay"]) == 2
    again, _ = trained(folder, tmp_path / "part", *settings, "trainer.max_steps=4", f"resume={last}")
    assert len(again.system._memory) == 4
    for name, value in whole.system.state_dict().items():
        assert torch.equal(again.system.state_dict()[name], value), name
