"""DDPM inversion: the image comes back under its own text, and turns into the target under another."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from closed_form import GaussianMixturePrior, GaussianPrior
from tiny_pipelines import embedded_own

from distill3d.priors.base import add_noise
from distill3d.priors.loader import PriorConfig, load_prior, load_prompt_encoder
from distill3d.priors.sampling import guided_prediction
from distill3d.systems.editing.ddpm_inversion import (
    ddpm_inversion,
    regenerate,
    sampling_times,
    step_mean,
    stochastic_latents,
)

SCALE = 6.5


def predictor(prior, text: str, rows: int, scale: float = SCALE):
    y, empty = prior.embed([text] * rows), prior.embed([""] * rows)
    return lambda z, t: guided_prediction(prior, z, t, y, empty, scale)


@pytest.mark.parametrize("schedule", ["sd", "cosine", "flow"])
def test_the_same_prompt_gives_the_image_back(schedule):
    prior = GaussianPrior(schedule=schedule)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 0.5
    predict = predictor(prior, "a cat", 2)
    latents = stochastic_latents(prior, x, predict, sampling_times(700, 10), torch.Generator().manual_seed(0))
    torch.testing.assert_close(regenerate(prior, latents, predict), x, rtol=0, atol=1e-4)


def test_another_prompt_moves_it_to_that_prompts_mode_and_keeps_what_it_is_not_about():
    """Two modes that differ in brightness; the picture's own pattern is about neither."""
    means = torch.stack([torch.full((3, 8, 8), -0.5), torch.full((3, 8, 8), 0.5)])
    prior = GaussianMixturePrior(means, ("dark", "light"), std=0.1)
    pattern = 0.08 * torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(2)).sign()
    x = means[:1] + pattern
    latents = stochastic_latents(
        prior, x, predictor(prior, "dark", 1, 0.0), sampling_times(999, 20), torch.Generator().manual_seed(0)
    )
    edited = regenerate(prior, latents, predictor(prior, "light", 1, 0.0))
    assert float(edited.mean()) == pytest.approx(0.5, abs=0.05)
    kept = torch.nn.functional.cosine_similarity((edited - means[1:]).flatten(), pattern.flatten(), dim=0)
    assert kept > 0.9


def test_a_step_is_diffusers_ddpm_step():
    """The mean and, with it, the variance of the posterior that DDPMScheduler samples."""
    from diffusers import DDPMScheduler

    prior = GaussianPrior()
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)
    scheduler.set_timesteps(timesteps=[600, 599])
    z = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    predict = predictor(prior, "a cat", 1)
    noise = predict(z, torch.tensor([600])).noise
    samples = [
        scheduler.step(noise, 600, z, generator=torch.Generator().manual_seed(seed)).prev_sample for seed in range(400)
    ]
    mean = step_mean(prior, z, 600, 599, predict)
    deviation = torch.stack(samples).std(0).mean()
    torch.testing.assert_close(torch.stack(samples).mean(0), mean, rtol=0, atol=float(deviation) * 5 / 400**0.5)


def test_the_embedded_kind_gives_a_picture_back(tmp_path):
    """Through encode and decode, with guidance and clipping, in a few steps of a network."""
    cfg = PriorConfig(str(embedded_own(tmp_path / "tiny")))
    prior, encoder = load_prior(cfg), load_prompt_encoder(cfg)
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    cat, fox, empty = (encoder([text]) for text in ("a cat", "a fox", ""))
    settings = {"strength": 0.7, "source_guidance_scale": 3.0, "guidance_scale": 3.0, "steps": 6, "clip": 1.0}
    run = partial(ddpm_inversion, prior, image, cat)
    same = run(cat, torch.Generator().manual_seed(0), empty, **settings)
    torch.testing.assert_close(same, image, rtol=0, atol=1e-3)
    other = run(fox, torch.Generator().manual_seed(0), empty, **settings)
    assert float((other - image).abs().mean()) > 1e-3


def test_the_path_has_noise_of_its_own_at_every_time():
    """Residuals of successive steps of a sampler are independent; these are correlated by construction (fig. 4)."""
    prior = GaussianPrior()
    x, predict = torch.zeros(1, 3, 8, 8), predictor(prior, "", 1, 0.0)
    times = sampling_times(900, 8)
    latents = stochastic_latents(prior, x, predict, times, torch.Generator().manual_seed(0))
    assert len(latents.residuals) == len(times) == 8
    rows = torch.tensor([times[0]])
    assert not torch.equal(latents.start, add_noise(prior, x, torch.zeros_like(x), rows))
    pairs = zip(latents.residuals[:-2], latents.residuals[1:-1], strict=True)
    correlations = [torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in pairs]
    assert float(torch.stack(correlations).mean()) < -0.2


def test_times_fall_from_the_start_and_end_above_the_image():
    assert sampling_times(100, 4) == (100, 75, 50, 25)
    assert sampling_times(2, 10) == (2, 1, 0)
