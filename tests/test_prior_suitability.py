"""Models that are not what their pipeline's class says: each is told from its network's and its scheduler's configs."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from tiny_pipelines import TinyFolders, flux, sdxl_refiner, stable_diffusion

from distill3d.priors.latent import guidance_embedding
from distill3d.priors.loader import PretrainedDiffusionModel, PriorConfig, PriorError, load_prior, load_prompt_encoder
from distill3d.types import Pass


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> TinyFolders:
    return TinyFolders(tmp_path_factory.mktemp("tiny"))


def edit_json(path: Path, **entries: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def noise_of(folder: Path, **settings: object) -> torch.Tensor:
    cfg = PriorConfig(str(folder), **settings)  # type: ignore[arg-type]
    text = load_prompt_encoder(cfg)(["a cat"])
    z = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return load_prior(cfg).predict([Pass(z, torch.tensor([100]), text)])[0].noise


def test_the_refiner_is_told_its_five_numbers(tmp_path: Path) -> None:
    """As diffusers' own pipeline passes them: the score after the crop."""
    from diffusers import UNet2DConditionModel

    folder = sdxl_refiner(tmp_path / "refiner")
    cfg = PriorConfig(str(folder), aesthetic_score=2.5)
    text = load_prompt_encoder(cfg)(["a cat"])
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    z = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    told = {"text_embeds": text.pooled, "time_ids": torch.tensor([[32.0, 32.0, 0.0, 0.0, 2.5]])}
    with torch.no_grad():
        expected = unet(z, 100, encoder_hidden_states=text.tokens, added_cond_kwargs=told).sample
    torch.testing.assert_close(noise_of(folder, aesthetic_score=2.5), expected, atol=1e-5, rtol=1e-4)


def test_the_refiner_is_named_with_the_noise_that_it_knows(
    folders: TinyFolders, caplog: pytest.LogCaptureFixture
) -> None:
    load_prior(folders.config("sdxl"))
    assert "refiner" not in caplog.text
    load_prior(folders.config("sdxl-refiner"))
    assert "is SDXL's refiner" in caplog.text and "max_step_percent to 0.2 or less" in caplog.text


def test_a_consistency_model_is_told_its_guidance(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = stable_diffusion(tmp_path / "lcm", time_cond_proj_dim=8)
    with caplog.at_level(logging.WARNING, "distill3d"):
        weak, strong = (noise_of(folder, distilled_guidance=scale) for scale in (1.5, 8.0))
    assert not torch.allclose(weak, strong, atol=1e-5)
    assert "was distilled to a few steps (its network takes a guidance scale" in caplog.text
    assert "not the 100 of SDS" in caplog.text


def test_the_embedding_of_a_guidance_is_diffusers() -> None:
    from diffusers import LatentConsistencyModelPipeline

    scale = torch.tensor([0.0, 2.5, 7.0])
    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, scale, 16)  # type: ignore[arg-type]
    torch.testing.assert_close(guidance_embedding(scale, 16), theirs, atol=2e-3, rtol=1e-4)


def test_schnell_and_turbo_are_named_and_others_are_not(
    folders: TinyFolders, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    turbo = stable_diffusion(tmp_path / "plain-name")
    edit_json(
        turbo / "scheduler/scheduler_config.json", _class_name="EulerDiscreteScheduler", timestep_spacing="trailing"
    )
    edit_json(turbo / "model_index.json", scheduler=["diffusers", "EulerDiscreteScheduler"])
    schnell = flux(tmp_path / "four-steps", guidance_embeds=False)
    for folder, sign in ((turbo, "an Euler one with trailing steps"), (schnell, "takes no guidance")):
        caplog.clear()
        load_prior(PriorConfig(str(folder), image_size=32))
        assert sign in caplog.text
    caplog.clear()
    for kind in ("stable-diffusion", "sdxl", "flux", "sd3"):
        load_prior(folders.config(kind))
    assert "few steps" not in caplog.text


def test_an_edm_process_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    folder = stable_diffusion(tmp_path / "edm")
    edit_json(folder / "model_index.json", scheduler=["diffusers", "EDMEulerScheduler"])
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    with pytest.raises(PriorError, match="its scheduler is EDMEulerScheduler, a process without the times"):
        PretrainedDiffusionModel(PriorConfig(str(folder))).kind()


def test_a_network_that_wants_a_mask_is_refused(tmp_path: Path) -> None:
    folder = stable_diffusion(tmp_path / "inpainting", in_channels=9)
    with pytest.raises(PriorError, match=r"reads 9 channels and its latents have 4: it also wants a mask"):
        load_prior(PriorConfig(str(folder)))
