"""DDIM sampling: the prior's own distribution, guidance, and starts from an image."""

from __future__ import annotations

import pytest
import torch
from closed_form import GaussianMixturePrior, GaussianPrior

from distill3d.priors.base import add_noise
from distill3d.priors.sampling import (
    ancestral_step,
    clip_x0,
    ddim_denoise,
    ddim_sample,
    ddim_step,
    guided_prediction,
    posterior_deviation,
    posterior_mean,
)
from distill3d.types import Prediction


@pytest.mark.parametrize(("eta", "steps"), [(0.0, 100), (1.0, 900)])  # new noise needs finer steps
@pytest.mark.parametrize("schedule", ["sd", "flow"])
def test_samples_have_the_priors_mean_and_spectrum(schedule, eta, steps):
    prior = GaussianPrior((1, 8, 8), schedule=schedule)
    text = prior.embed(["a cat"] * 1000)
    x = ddim_sample(prior, text, torch.Generator().manual_seed(0), steps=steps, eta=eta)
    mean = prior.sample(4000, torch.Generator().manual_seed(1), "a cat").mean(0)
    assert (x.mean(0) - mean).abs().max() < 0.08
    variance = torch.fft.fft2(x - x.mean(0), norm="ortho").abs().square().mean((0, 1))
    ratio = variance / prior.spectrum.float()
    assert ratio.mean() == pytest.approx(1.0, abs=0.1) and ratio.min() > 0.7 and ratio.max() < 1.3


def test_samples_choose_the_mode_that_the_text_names():
    means = torch.stack([torch.full((3, 4, 4), -0.5), torch.full((3, 4, 4), 0.5)])
    prior = GaussianMixturePrior(means, ("low", "high"))
    x = ddim_sample(prior, prior.embed(["low", "high", "low"]), torch.Generator().manual_seed(0))
    torch.testing.assert_close(x.mean((1, 2, 3)), torch.tensor([-0.5, 0.5, -0.5]), rtol=0, atol=0.1)


def test_guidance_is_the_papers_and_free_where_it_is_zero():
    prior = GaussianPrior()
    z, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([300, 600])
    y, empty = prior.embed(["a cat"] * 2), prior.embed([""] * 2)
    plain, base = (guided_prediction(prior, z, t, text, None, 0.0) for text in (y, empty))
    guided = guided_prediction(prior, z, t, y, empty, 2.0)
    torch.testing.assert_close(guided.noise, 3 * plain.noise - 2 * base.noise)
    torch.testing.assert_close(guided.x0, 3 * plain.x0 - 2 * base.x0)
    prior.evaluations = 0
    guided_prediction(prior, z, t, y, empty, 0.0)
    assert prior.evaluations == 1


def test_depends_on_the_generator_alone():
    prior = GaussianPrior()
    text = prior.embed(["a cat"])
    runs = [ddim_sample(prior, text, torch.Generator().manual_seed(seed), steps=3) for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_one_step_from_a_noised_image_is_the_posterior_mean():
    """Its error is the posterior variance ``S sigma^2 / (alpha^2 S + sigma^2)``, the smallest there is."""
    prior = GaussianPrior()
    x = prior.sample(64, torch.Generator().manual_seed(0), "a cat")
    t, eps = torch.full((64,), 200), torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    back = ddim_denoise(prior, add_noise(prior, x, eps, t), 200, prior.embed(["a cat"] * 64), steps=1)
    variance = prior.spectrum * (1 - prior.wiener(prior.alpha[200], prior.sigma[200]))
    assert float((back - x).square().mean()) == pytest.approx(float(variance.mean()), rel=0.05)


def test_an_ancestral_step_forgets_and_without_fresh_noise_is_ddims():
    prior = GaussianPrior()
    z, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([600, 600])
    at = guided_prediction(prior, z, t, prior.embed(["a cat"] * 2), None, 0.0)
    step = lambda eta, seed: ancestral_step(prior, at, t, t - 200, eta, torch.Generator().manual_seed(seed))  # noqa: E731
    torch.testing.assert_close(step(0.0, 1), ddim_step(prior, at, t - 200))
    assert not torch.allclose(step(1.0, 1), step(1.0, 2), atol=0.1)


def test_clipping_changes_the_noise_with_x0():
    """``alpha x0 + sigma eps = z`` holds for what is clipped as for what is predicted."""
    prior = GaussianPrior()
    z, t = 3 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([300, 600])
    prediction = guided_prediction(prior, z, t, prior.embed(["a cat"] * 2), None, 0.0)
    clipped = clip_x0(prior, prediction, z, t, 0.5)
    alpha, sigma = prior.alpha_sigma(t)
    assert torch.equal(clipped.x0, prediction.x0.clamp(-0.5, 0.5)) and not torch.equal(clipped.x0, prediction.x0)
    torch.testing.assert_close(alpha * clipped.x0 + sigma * clipped.noise, z)


def test_a_clipped_step_goes_on_with_the_clipped_noise():
    prior = GaussianPrior()
    z, text = 3 * torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), prior.embed(["a cat"])
    first = clip_x0(prior, guided_prediction(prior, z, t := torch.tensor([800]), text, None, 0.0), z, t, 0.5)
    middle = ddim_step(prior, first, zero := torch.tensor([0]))
    expected = guided_prediction(prior, middle, zero, text, None, 0.0).x0.clamp(-0.5, 0.5)
    torch.testing.assert_close(ddim_denoise(prior, z, 800, text, steps=2, clip=0.5), expected)


def test_the_posterior_is_ddpms():
    """diffusers as oracle, for neighbouring times and for a stride."""
    from diffusers import DDIMScheduler

    prior = GaussianPrior()
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    for t, t_next in ((500, 400), (41, 40)):
        expected = float(scheduler._get_variance(t, t_next)) ** 0.5
        deviation = posterior_deviation(prior, torch.tensor([t]), torch.tensor([t_next]))
        assert float(deviation) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("schedule", ["sd", "flow"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_mean_and_deviation_leave_the_noise_level_of_the_next_time(schedule, eta):
    """Of x0 = 0 and unit noise: ``mean^2 + eta^2 s^2 = sigma'^2``."""
    prior = GaussianPrior(schedule=schedule)
    t, t_next = torch.tensor([700, 300]), torch.tensor([600, 2])
    prediction = Prediction(torch.ones(2, 3, 8, 8), torch.zeros(2, 3, 8, 8))
    mean = posterior_mean(prior, prediction, t, t_next, eta)[:, :1, :1, :1]
    deviation = eta * posterior_deviation(prior, t, t_next)
    torch.testing.assert_close(mean**2 + deviation**2, prior.alpha_sigma(t_next)[1] ** 2, rtol=1e-4, atol=1e-7)


def test_clip_keeps_pixels_in_range():
    prior = GaussianPrior()
    text, empty = prior.embed(["a cat"] * 2), prior.embed([""] * 2)
    runs = [
        ddim_sample(prior, text, torch.Generator().manual_seed(0), None, empty, 30.0, steps=10, clip=clip).abs().max()
        for clip in (None, 1.0)
    ]
    assert runs[0] > 1.5 and runs[1] <= 1.0
