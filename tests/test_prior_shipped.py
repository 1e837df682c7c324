"""The prior that ships: its files, and that it loads offline, listens to its prompt and drives the shipped config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from distill3d.priors.base import add_noise
from distill3d.priors.loader import PretrainedDiffusionModel, PriorConfig, load_prior, load_prompt_encoder, prior_folder
from distill3d.priors.words import unknown_words
from distill3d.types import Pass

CFG = PriorConfig()


@pytest.fixture(scope="module")
def prior():
    return load_prior(CFG)


@pytest.fixture(scope="module")
def encoder():
    return load_prompt_encoder(CFG)


def shipped_files() -> list[Path]:
    folder = prior_folder(CFG)
    assert folder is not None
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def test_files_stay_within_their_budgets():
    sizes = [path.stat().st_size for path in shipped_files()]
    assert max(sizes) < 16e6 and sum(sizes) < 48e6


def test_the_weights_are_half_precision_safetensors():
    from safetensors import safe_open

    weights = [path for path in shipped_files() if path.suffix == ".safetensors" and path.parent.name != "weights"]
    assert {path.parent.name for path in weights} == {"unet", "text_encoder"}
    for path in weights:
        with safe_open(path, "pt") as file:
            assert all(file.get_tensor(key).dtype == torch.float16 for key in file.keys())  # noqa: SIM118


def test_it_works_at_both_sizes(prior, encoder):
    assert prior.spec.image_sizes == (32, 64)
    for size in prior.spec.image_sizes:
        x = prior.encode(torch.rand(2, 3, size, size))
        assert x.shape == (2, 3, size, size)
        prediction = prior.predict([Pass(x, torch.tensor([50, 900]), encoder(["a hamburger", "a fox"]))])[0]
        assert torch.isfinite(prediction.noise).all() and torch.isfinite(prediction.x0).all()


def test_it_denoises(prior, encoder):
    """At a moderate time x0 is far nearer to a clean picture than the noisy one is."""
    x = torch.full((4, 3, 64, 64), 0.9)
    x[:, :, 20:44, 20:44] = torch.tensor([0.7, -0.5, -0.5])[:, None, None]
    t = torch.full((4,), 300)
    alpha, _ = prior.alpha_sigma(t)
    z = add_noise(prior, x, torch.randn(x.shape, generator=torch.Generator().manual_seed(0)), t)
    x0 = prior.predict([Pass(z, t, encoder(["a gift box"] * 4))])[0].x0
    assert float((x0 - x).square().mean()) < 0.1 * float((z / alpha - x).square().mean())


def test_it_listens_to_the_prompt(prior, encoder):
    """From almost pure noise a strawberry becomes redder than a cactus in a pot does."""
    z = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    t = torch.full((8,), 900)

    def redness(prompt: str) -> float:
        y, empty = prior.predict([Pass(z, t, encoder([prompt] * 8)), Pass(z, t, encoder([""] * 8))])
        push = (y.x0 - empty.x0)[:, :, 8:24, 8:24].mean(dim=(0, 2, 3))
        return float(push[0] - push[1])

    assert redness("a strawberry") > redness("a cactus in a pot")


def test_words_that_it_never_saw_are_named():
    assert unknown_words("a hamburger on top of a zeppelin", PretrainedDiffusionModel(CFG).vocabulary()) == ["zeppelin"]


def test_its_cameras_are_recorded():
    folder = prior_folder(CFG)
    assert folder is not None
    record = json.loads((folder / "cameras.json").read_text())
    assert {"elevation_range", "camera_distance_range", "fovy_range", "light_distance_range"} <= set(record)


def test_the_model_card_credits_the_authors_of_the_meshes():
    folder = prior_folder(CFG)
    assert folder is not None
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert all(name in card for name in ("Quaternius", "Kenney", "Kay Lousberg", "CC0"))


@pytest.mark.parametrize("config", ["dreamfusion-quick.yaml", "dreamfusion-lmc-quick.yaml"])
def test_the_shipped_config_trains_under_it(tmp_path, config):
    from distill3d.cli import main

    settings = ["trainer.max_steps=3", "trainer.enable_progress_bar=false", f"exp_root_dir={tmp_path}"]
    small = ["data.n_test_views=2", "data.eval_width=32", "data.eval_height=32", "use_timestamp=false"]
    assert main(["--config", config, "--train", *settings, *small]) == 0
    trial = next(next(tmp_path.iterdir()).iterdir())
    metrics = json.loads((trial / "metrics.json").read_text())
    assert metrics["steps"] == 3 and not metrics["diverged"]
