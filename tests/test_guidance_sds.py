"""SDS: the published formula, its decomposition, the Jacobian."""

from __future__ import annotations

import pytest
import torch
from closed_form import GaussianPrior
from guidance_inputs import draw_at, inputs_for, make, power_change

from distill3d.guidance.base import classifier_free, distillation_loss
from distill3d.types import Pass


@pytest.mark.parametrize("schedule", ["sd", "flow"])
def test_formula(schedule):
    prior, rule = GaussianPrior(schedule=schedule), make("sds", guidance_scale=7.0)
    inputs = inputs_for(rule, prior)
    draw = draw_at(prior, inputs.x, [300, 700])
    grad, _ = rule.gradient(prior, inputs, draw)
    alpha, sigma = prior.alpha_sigma(draw.t)
    z = alpha * inputs.x + sigma * draw.eps
    y, negative = prior.predict([Pass(z, draw.t, inputs.texts[role]) for role in ("conditional", "negative")])
    guided = 8.0 * y.noise - 7.0 * negative.noise
    torch.testing.assert_close(guided, classifier_free(y.noise, negative.noise, 7.0))
    torch.testing.assert_close(grad, sigma**2 / (alpha**2 + sigma**2) * (guided - draw.eps))


def test_residual_identity():
    """``eps_hat - eps = (alpha/sigma) (x - x_hat)``: at w = 0, SDS pulls x towards x_hat."""
    prior, rule = GaussianPrior(), make("sds", guidance_scale=0.0, weighting_strategy="uniform")
    inputs = inputs_for(rule, prior)
    draw = draw_at(prior, inputs.x, [100, 800], weighting="uniform")
    rule.look = True
    grad, diagnostics = rule.gradient(prior, inputs, draw)
    torch.testing.assert_close(grad, draw.alpha / draw.sigma * (inputs.x - diagnostics["x_hat"]), rtol=1e-4, atol=1e-5)


def test_jacobian_is_the_gradient_of_the_diffusion_loss():
    prior, rule = GaussianPrior(), make("sds", guidance_scale=3.0, jacobian=True)
    inputs = inputs_for(rule, prior, batch=1)
    draw = draw_at(prior, inputs.x, [400])
    grad, _ = rule.gradient(prior, inputs, draw)

    def loss(x):
        z = draw.alpha * x + draw.sigma * draw.eps
        y, negative = prior.predict([Pass(z.double(), draw.t, inputs.texts[r]) for r in ("conditional", "negative")])
        return 0.5 * (draw.weight * (4 * y.noise - 3 * negative.noise - draw.eps) ** 2).sum()

    direction = torch.randn(inputs.x.shape, generator=torch.Generator().manual_seed(1)).double()
    x, step = inputs.x.double(), 1e-4
    numeric = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    torch.testing.assert_close((grad.double() * direction).sum(), numeric, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(grad, make("sds", guidance_scale=3.0).gradient(prior, inputs, draw)[0], rtol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_loss_gives_the_gradient_divided_by_the_batch(dtype):
    x = torch.zeros(4, 3, 8, 8, dtype=dtype, requires_grad=True)
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distillation_loss(x, grad).backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, (grad / 4).to(dtype), rtol=0, atol=0)


def test_one_call_and_two_passes():
    prior, rule = GaussianPrior(), make("sds")
    rule(prior, inputs_for(rule, prior))
    assert len(prior.calls) == 1 and prior.evaluations == 2


def test_contracts_high_frequencies_without_guidance():
    """At w = 0 SDS takes contrast from a sample of the data itself, and most at high frequencies."""
    prior, rule = GaussianPrior((1, 16, 16)), make("sds", guidance_scale=0.0, weighting_strategy="uniform")
    x = prior.sample(64, torch.Generator().manual_seed(0))
    inputs = inputs_for(rule, prior, batch=64, x=x)
    draw = draw_at(prior, x, [100] * 64, weighting="uniform")
    grad, _ = rule.gradient(prior, inputs, draw)
    change = power_change(x, grad)
    assert change.max() < 0 and change[6:].mean() < 2.5 * change[1]
    alpha, sigma = prior.alpha[100], prior.sigma[100]
    exact = -alpha / sigma * (1 - prior.wiener(alpha, sigma)[0, 1:9].float())  # on the axis of horizontal frequencies
    torch.testing.assert_close(change[1:], exact, rtol=0.15, atol=0)
