"""Every option of ``system.prior`` runs on a tiny model: an option that nobody ever executed is a defect."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from ldm_checkpoints import SD1, checkpoint
from safetensors.torch import load_file, save_file
from test_prior_hub import cached_snapshot
from tiny_pipelines import TinyFolders

from distill3d.priors.frozen import offload
from distill3d.priors.loader import PriorConfig, load_prior, load_prompt_encoder
from distill3d.types import Pass, Prediction

# each option of PriorConfig with a value other than its default, and the tiny model that it means something to
OPTIONS: dict[str, tuple[str, object]] = {
    "pretrained_model_name_or_path": ("stable-diffusion", None),
    "revision": ("stable-diffusion", "v2"),
    "variant": ("stable-diffusion", "fp16"),
    "single_file_config": ("stable-diffusion", None),
    "precision": ("stable-diffusion", "bfloat16"),
    "camera_conditioning": ("embedded-own", "none"),
    "image_size": ("stable-diffusion", 64),
    "lora_weights": ("stable-diffusion", "lora.safetensors"),
    "lora_scale": ("stable-diffusion", 0.5),
    "distilled_guidance": ("flux", 2.0),
    "reference": ("zero123", None),
    "aesthetic_score": ("sdxl-refiner", 2.5),
    "text_tokens": ("deepfloyd-if", 9),
    "text_encoder_device": ("sd3", "cpu"),
    "text_encoder_bits": ("sdxl", 8),
    "network_bits": ("sdxl", 4),
    "channels_last": ("stable-diffusion", False),
    "compile": ("stable-diffusion", True),
    "compile_backend": ("stable-diffusion", "eager"),
    "cpu_offload": ("stable-diffusion", True),
    "vae_checkpointing": ("stable-diffusion", True),
    "vae_slicing": ("stable-diffusion", True),
    "vae_tiling": ("stable-diffusion", True),
}
# on a device; with cameras, in test_prior_zero123.py; in test_prior_quantised.py
ELSEWHERE = ("cpu_offload", "reference", "text_encoder_bits", "network_bits")
# with these the model says something else, or the same less exactly
CHANGE_THE_ANSWER = {
    *("precision", "image_size", "lora_weights", "lora_scale", "distilled_guidance", "text_tokens"),
    "aesthetic_score",
    "vae_tiling",  # by a little: its image is larger than the tiny VAE's tile
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> TinyFolders:
    return TinyFolders(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def forget_compiled() -> Iterator[None]:
    yield
    torch.compiler.reset()


def settings_for(option: str, folders: TinyFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PriorConfig:
    """The option in use, with the files that it needs."""
    kind, value = OPTIONS[option]
    extra = {} if value is None else {option: value}
    if option in ("lora_weights", "lora_scale"):
        extra["lora_weights"] = str(_lora(tmp_path / "lora.safetensors", folders(kind)))
    if option == "single_file_config":
        save_file(checkpoint(folders(kind), SD1), tmp_path / "model.safetensors")
        return PriorConfig(str(tmp_path / "model.safetensors"), single_file_config=str(folders(kind)))
    if option == "compile":
        extra["compile_backend"] = "eager"
    if option == "compile_backend":
        extra["compile"] = True
    cfg = folders.config(kind, **extra)
    if option == "variant":
        cfg.pretrained_model_name_or_path = str(_as_variant(folders(kind), tmp_path / "model", str(value)))
    if option == "revision":
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        cached_snapshot(tmp_path / "hub", "owner/model", folders(kind), revision=str(value))
        cfg.pretrained_model_name_or_path = "owner/model"
    return cfg


def _lora(file: Path, folder: Path) -> Path:
    """One that changes the first layer that reads the text by much."""
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v"
    rows, columns = load_file(next((folder / "unet").glob("*.safetensors")))[f"{name}.weight"].shape
    generator = torch.Generator().manual_seed(0)
    pair = {"lora_A": torch.randn(2, columns, generator=generator), "lora_B": torch.randn(rows, 2, generator=generator)}
    save_file({f"unet.{name}.{end}.weight": tensor for end, tensor in pair.items()}, file)
    return file


def _as_variant(folder: Path, copy: Path, variant: str) -> Path:
    shutil.copytree(folder, copy)
    for file in copy.rglob("*.safetensors"):
        file.rename(file.with_suffix(f".{variant}.safetensors"))
    return copy


def answer(cfg: PriorConfig) -> Prediction:
    """What the model says of a noised image, and a check that the image gets a gradient."""
    text = load_prompt_encoder(cfg, "cpu")(["a cat"])
    prior = load_prior(cfg, "cpu")
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(1, 3, 32, 32, generator=generator, requires_grad=True)
    x = prior.encode(rgb)
    (gradient,) = torch.autograd.grad(x.square().sum(), rgb)
    assert gradient.abs().sum() > 0
    noise = torch.randn(x.shape, generator=generator)
    (prediction,) = prior.predict([Pass(x.detach() + noise, torch.tensor([600]), text)])
    assert bool(torch.isfinite(prior.decode(prediction.x0)).all())
    return prediction


def test_each_option_is_in_the_table() -> None:
    assert list(OPTIONS) == [field.name for field in fields(PriorConfig)]


@pytest.mark.parametrize("option", [option for option in OPTIONS if option not in ELSEWHERE])
def test_it_runs(option: str, folders: TinyFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = settings_for(option, folders, tmp_path, monkeypatch)
    plain, changed = answer(folders.config(OPTIONS[option][0])), answer(cfg)
    assert bool(torch.isfinite(changed.noise).all())
    same = plain.noise.shape == changed.noise.shape and torch.allclose(plain.noise, changed.noise, atol=1e-5)
    assert same is (option not in CHANGE_THE_ANSWER)


def test_layers_that_visit_the_device_answer_as_those_that_stay(folders: TinyFolders) -> None:
    """The device is the CPU itself, since the double's tensors cannot be swapped; the hooks are those of a GPU."""
    cfg = folders.config("stable-diffusion")
    plain, prior = load_prior(cfg, "cpu"), load_prior(cfg, "cpu")
    offload(prior.network, torch.device("cpu"))  # type: ignore[attr-defined]
    assert any("_diffusers_hook" in vars(layer) for layer in prior.network.modules())  # type: ignore[attr-defined]
    text = load_prompt_encoder(cfg, "cpu")(["a cat"])
    item = Pass(torch.randn(1, 4, 16, 16), torch.tensor([600]), text)
    torch.testing.assert_close(prior.predict([item])[0].noise, plain.predict([item])[0].noise)


def test_what_offloading_and_tokenizers_need_is_installed_with_the_program() -> None:
    root = Path(__file__).parents[1]
    needed = [line.split("==")[0] for line in (root / "requirements.txt").read_text().splitlines()]
    assert {"accelerate", "sentencepiece"} <= set(needed)
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    for package in ("accelerate", "sentencepiece"):
        assert any(line.startswith(f"{package}>") for line in project["dependencies"])
