"""Conversions between a network's native output and (noise, clean image)."""

from __future__ import annotations

import pytest
import torch

from distill3d.priors.prediction import MIN_ALPHA, from_clean, from_flow, from_noise, from_velocity
from distill3d.types import Prediction


def level(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


@pytest.fixture
def truth() -> Prediction:
    generator = torch.Generator().manual_seed(0)
    return Prediction(*(torch.randn(3, 2, 4, 4, generator=generator) for _ in range(2)))


def test_every_form_recovers_noise_and_clean_image(truth: Prediction) -> None:
    alpha = level(0.99, 0.6, 0.2)
    sigma = (1 - alpha**2).sqrt()
    z = alpha * truth.x0 + sigma * truth.noise
    for answer in (
        from_noise(z, truth.noise, alpha, sigma),
        from_velocity(z, alpha * truth.noise - sigma * truth.x0, alpha, sigma),
        from_clean(z, truth.x0, alpha, sigma),
    ):
        torch.testing.assert_close(answer.noise, truth.noise, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(answer.x0, truth.x0, atol=1e-5, rtol=1e-4)


def test_flow_recovers_noise_and_clean_image_at_both_ends(truth: Prediction) -> None:
    s = level(0.001, 0.5, 1.0)
    z = (1 - s) * truth.x0 + s * truth.noise
    answer = from_flow(z, truth.noise - truth.x0, 1 - s, s)
    torch.testing.assert_close(answer.noise, truth.noise)
    torch.testing.assert_close(answer.x0, truth.x0)


def test_velocity_is_exact_at_zero_terminal_snr(truth: Prediction) -> None:
    alpha, sigma = level(0.0, 0.0, 0.0), level(1.0, 1.0, 1.0)
    answer = from_velocity(truth.noise, -truth.x0, alpha, sigma)
    assert torch.equal(answer.noise, truth.noise) and torch.equal(answer.x0, truth.x0)


def test_noise_form_never_divides_by_a_small_alpha(truth: Prediction) -> None:
    """At the end of a cosine schedule alpha is 5e-5, where an error of the network would be multiplied by 20 000."""
    alpha = level(5e-5, 0.0, 1e-3)
    sigma = (1 - alpha**2).sqrt()
    z = alpha * truth.x0 + sigma * truth.noise
    wrong = from_noise(z, truth.noise + 0.1, alpha, sigma)
    assert wrong.x0.abs().max() < (0.1 + alpha.max() * truth.x0.abs().max()) / MIN_ALPHA * 1.01
