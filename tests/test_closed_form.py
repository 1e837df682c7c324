"""The oracles themselves: their predictions are posterior means, by Tweedie's formula and by regression."""

from __future__ import annotations

import pytest
import torch
from closed_form import SCHEDULES, ClosedFormPrior, GaussianMixturePrior, GaussianPrior

from distill3d.priors.base import DiffusionPrior, add_noise
from distill3d.types import Pass


def mixture(schedule: str = "sd") -> GaussianMixturePrior:
    means = torch.stack([torch.full((1, 2, 2), -0.5), torch.full((1, 2, 2), 0.7)])
    return GaussianMixturePrior(means, ("low", "high"), std=0.3, schedule=schedule)


def priors() -> list[ClosedFormPrior]:
    return [kind for name in SCHEDULES for kind in (GaussianPrior((1, 2, 2), schedule=name), mixture(name))]


@pytest.mark.parametrize("prior", priors(), ids=lambda prior: prior.identity)
def test_noise_and_x0_are_one_answer(prior):
    generator = torch.Generator().manual_seed(0)
    z, t = torch.randn(3, 1, 2, 2, generator=generator, dtype=torch.float64), torch.tensor([20, 500, 980])
    answer = prior.predict([Pass(z, t, prior.embed(["high", "", "low"]))])[0]
    alpha, sigma = prior.alpha[t][:, None, None, None], prior.sigma[t][:, None, None, None]
    torch.testing.assert_close(alpha * answer.x0 + sigma * answer.noise, z, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("prior", priors(), ids=lambda prior: prior.identity)
def test_satisfies_the_protocol(prior):
    assert isinstance(prior, DiffusionPrior)


def test_mixture_noise_is_the_score():
    """``eps_hat = -sigma grad log p(z)`` with the density written out by hand."""
    prior, t = mixture(), torch.tensor([300, 700])
    z = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(2, 1, 2, 2).requires_grad_()
    alpha, sigma = prior.alpha[t], prior.sigma[t]
    variance = alpha**2 * prior.std**2 + sigma**2
    squares = ((z[:, None] - alpha[:, None, None, None, None] * prior.means.double()) ** 2).flatten(2).sum(-1)
    log_density = torch.logsumexp(-squares / (2 * variance[:, None]), 1).sum()
    score = torch.autograd.grad(log_density, z)[0]
    noise = prior.predict([Pass(z.detach(), t, prior.embed(["", ""]))])[0].noise
    torch.testing.assert_close(noise, -sigma[:, None, None, None] * score)


def test_gaussian_x0_is_the_regression_of_x_on_z():
    prior, generator = GaussianPrior((1, 4, 4)), torch.Generator().manual_seed(1)
    x = prior.sample(20_000, generator, text="a cat")
    t = torch.full((len(x),), 400)
    z = add_noise(prior, x, torch.randn(x.shape, generator=generator), t)
    x0 = prior.predict([Pass(z, t, prior.embed(["a cat"]))])[0].x0
    error = x - x0
    assert error.mean(0).abs().max() < 0.02
    assert torch.einsum("bi,bj->ij", error.flatten(1), z.flatten(1)).abs().max() / len(x) < 0.02


def test_equal_passes_are_evaluated_once_and_images_round_trip():
    prior = GaussianPrior((3, 8, 8))
    z, t = torch.zeros(1, 3, 8, 8), torch.tensor([100])
    first, second, _ = prior.predict([Pass(z, t, prior.embed([word])) for word in ("a", "a", "b")])
    assert prior.evaluations == 2 and first is second
    rgb = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(prior.decode(prior.encode(rgb)), rgb)
