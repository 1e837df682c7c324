"""Every kind of prior against diffusers' own pipeline of that kind: ten denoising steps give the same image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_pipelines import TinyFolders, deepfloyd_if, tiny_settings
from tiny_priors import FLOWS, TEXTS, embed, load, noisy

from distill3d.priors.base import DiffusionPrior
from distill3d.priors.loader import PriorConfig, load_prior, load_prompt_encoder
from distill3d.types import Pass, Prediction, PromptEmbedding

STEPS, SCALE, SEED = 10, 4.0, 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> TinyFolders:
    return TinyFolders(tmp_path_factory.mktemp("tiny"))


def native(prior: DiffusionPrior, kind: str, answer: Prediction, t: torch.Tensor) -> torch.Tensor:
    """The prediction in the scheduler's own form."""
    if kind in FLOWS:
        return answer.noise - answer.x0
    if kind in ("embedded", "embedded-own", "stable-diffusion-2"):
        alpha, sigma = prior.alpha_sigma(t)
        return alpha * answer.noise - sigma * answer.x0
    return answer.noise


def denoise(
    prior: DiffusionPrior, kind: str, scheduler: object, z: torch.Tensor, text: PromptEmbedding, scale: float
) -> torch.Tensor:
    """diffusers' loop with our predictions; ``scale`` is diffusers' s, 1 means no guidance."""
    generator = torch.Generator().manual_seed(SEED + 1)
    for step in scheduler.timesteps:  # type: ignore[attr-defined]
        t = torch.full((1,), round(float(step)) - (1 if kind in FLOWS else 0))
        scaled = scheduler.scale_model_input(z, step) if hasattr(scheduler, "scale_model_input") else z
        passes = [Pass(scaled, t, text[[0]]), Pass(scaled, t, text[[1]])]
        positive, negative = (native(prior, kind, answer, t) for answer in prior.predict(passes))
        output = negative + scale * (positive - negative)
        extra = {"generator": generator} if kind in ("embedded", "embedded-own", "deepfloyd-if") else {}
        z = scheduler.step(output, step, z, **extra).prev_sample  # type: ignore[attr-defined]
    return z


def pipeline_of(name: str, folder: Path, **components: object) -> Any:
    import diffusers

    pipeline = getattr(diffusers, name).from_pretrained(folder, **components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def assert_same_image(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=1e-3 * float(theirs.abs().max()), rtol=1e-3)


@pytest.mark.parametrize("kind", ["stable-diffusion", "stable-diffusion-2", "sdxl"])
def test_ten_steps_equal_the_latent_pipeline(folders: TinyFolders, kind: str) -> None:
    prior, text = load(folders, kind), embed(folders, kind)
    name = "StableDiffusionXLPipeline" if kind == "sdxl" else "StableDiffusionPipeline"
    pipeline = pipeline_of(name, folders(kind))
    pipeline.scheduler.set_timesteps(STEPS)
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(STEPS)
    z = noisy(prior, 1, SEED)
    pooled = {}
    if kind == "sdxl":
        pooled = {"pooled_prompt_embeds": text.pooled[[0]], "negative_pooled_prompt_embeds": text.pooled[[1]]}
    theirs = pipeline(
        prompt_embeds=text.tokens[[0]],
        negative_prompt_embeds=text.tokens[[1]],
        **pooled,
        latents=z,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        output_type="latent",
    ).images
    ours = denoise(prior, kind, scheduler, z * scheduler.init_noise_sigma, text, SCALE)
    assert_same_image(ours, theirs)


def test_ten_steps_equal_the_deepfloyd_pipeline(tmp_path: Path) -> None:
    from diffusers import DDPMScheduler

    cfg = PriorConfig(str(deepfloyd_if(tmp_path)), **tiny_settings("deepfloyd-if"))
    prior, text = load_prior(cfg, "cpu"), load_prompt_encoder(cfg, "cpu")(TEXTS)
    # a learned variance would need the network's other three channels, and thresholding mixes the batch
    scheduler = DDPMScheduler.from_pretrained(tmp_path / "scheduler", variance_type="fixed_small", thresholding=False)
    pipeline = pipeline_of("IFPipeline", tmp_path, scheduler=scheduler, text_encoder=None, tokenizer=None)
    draws: list[torch.Tensor] = []
    start = noisy(prior, 1, SEED)
    pipeline.prepare_intermediate_images = lambda *_args, **_kwargs: draws.append(start) or start
    theirs = pipeline(
        prompt_embeds=text.tokens[[0]],
        negative_prompt_embeds=text.tokens[[1]],
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        generator=torch.Generator().manual_seed(SEED + 1),
        output_type="pt",
    ).images
    scheduler = DDPMScheduler.from_config(scheduler.config)
    scheduler.set_timesteps(STEPS)
    assert_same_image(denoise(prior, "deepfloyd-if", scheduler, start, text, SCALE), theirs)


@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_ten_steps_equal_the_flow_pipeline(folders: TinyFolders, kind: str) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    prior, text = load(folders, kind), embed(folders, kind)
    sigmas = np.linspace(1.0, 0.1, STEPS).tolist()  # times that are whole thousandths
    z = noisy(prior, 1, SEED)
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folders(kind) / "scheduler")
    scheduler.set_timesteps(sigmas=sigmas)
    common = {
        "prompt_embeds": text.tokens[[0]],
        "pooled_prompt_embeds": text.pooled[[0]],
        "negative_prompt_embeds": text.tokens[[1]],
        "negative_pooled_prompt_embeds": text.pooled[[1]],
        "num_inference_steps": STEPS,
        "sigmas": sigmas,
        "output_type": "latent",
        "height": 32,
        "width": 32,
    }
    ours = denoise(prior, kind, scheduler, z, text, SCALE)
    if kind == "sd3":
        pipeline = pipeline_of("StableDiffusion3Pipeline", folders(kind))
        theirs = pipeline(latents=z, guidance_scale=SCALE, **common).images
    else:
        from distill3d.priors.flow import pack, unpack

        pipeline = pipeline_of("FluxPipeline", folders(kind))
        packed = pipeline(latents=pack(z), guidance_scale=3.5, true_cfg_scale=SCALE, **common).images
        theirs = unpack(packed, 8, 8)
    assert_same_image(ours, theirs)


@pytest.mark.parametrize("kind", ["embedded", "embedded-own"])
def test_ten_steps_of_the_embedded_kind_equal_its_network_and_scheduler(folders: TinyFolders, kind: str) -> None:
    from diffusers import DDPMScheduler, UNet2DConditionModel

    from distill3d.embedded.network import PixelUNet2DConditionModel

    prior, text = load(folders, kind), embed(folders, kind)
    cls = UNet2DConditionModel if kind == "embedded" else PixelUNet2DConditionModel
    unet = cls.from_pretrained(folders(kind) / "unet")
    scheduler = DDPMScheduler.from_pretrained(folders(kind) / "scheduler")
    scheduler.set_timesteps(STEPS)
    start = theirs = noisy(prior, 1, SEED)
    generator = torch.Generator().manual_seed(SEED + 1)
    for t in scheduler.timesteps:
        with torch.no_grad():
            conditions = {"text_embeds": text.pooled}
            positive, negative = unet(theirs.repeat(2, 1, 1, 1), t, text.tokens, added_cond_kwargs=conditions).sample
        output = (negative + SCALE * (positive - negative))[None]
        theirs = scheduler.step(output, t, theirs, generator=generator).prev_sample
    scheduler = DDPMScheduler.from_config(scheduler.config)
    scheduler.set_timesteps(STEPS)
    assert_same_image(denoise(prior, kind, scheduler, start, text, SCALE), theirs)
