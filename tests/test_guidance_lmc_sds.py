"""LMC-SDS: the formula, its limits, its options, and what it is for."""

from __future__ import annotations

import pytest
import torch
from closed_form import GaussianPrior
from guidance_inputs import draw_at, inputs_for, make, power_change

from distill3d.guidance.corrective import CorrectiveNetwork, save_corrective
from distill3d.types import Pass


@pytest.fixture
def prior():
    return GaussianPrior((3, 8, 8))


@pytest.fixture
def network_file(prior, tmp_path):
    """A b_psi with random weights: no identity, no blur."""
    torch.manual_seed(0)
    network = CorrectiveNetwork(3, prior.num_train_timesteps, width=4)
    for parameter in network.net.head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path / "psi.safetensors"
    save_corrective(network, path, prior.identity, 8)
    return str(path), network


def by_hand(prior, inputs, draw, x_hat_role="conditional"):
    """eps_y, eps_ref and x_hat of the prior."""
    roles = ("conditional", "negative", x_hat_role)
    y, negative, x_hat = prior.predict([Pass(draw.z, draw.t, inputs.texts[role]) for role in roles])
    return y.noise, negative.noise, x_hat.x0


@pytest.mark.parametrize("x_hat", ["conditional", "unconditional"])
def test_formula(prior, network_file, x_hat):
    path, network = network_file
    rule = make("lmc-sds", guidance_scale=5.0, corrective=path, x_hat=x_hat)
    inputs = inputs_for(rule, prior)
    draw = draw_at(prior, inputs.x, [200, 800])
    grad, _ = rule.gradient(prior, inputs, draw)
    y, negative, x0 = by_hand(prior, inputs, draw, x_hat)
    b = network(draw.x, draw.t, draw.alpha, draw.sigma)
    expected = draw.sigma**2 * (5.0 * (y - negative) + draw.alpha / draw.sigma * (b - x0))
    torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(grad, make("sds", guidance_scale=5.0).gradient(prior, inputs, draw)[0], rtol=0.01)


def test_x_space_weight(prior, network_file):
    path, network = network_file
    rule = make("lmc-sds", guidance_scale=5.0, corrective=path, corrective_weight="x")
    inputs = inputs_for(rule, prior)
    draw = draw_at(prior, inputs.x, [200, 800])
    y, negative, x0 = by_hand(prior, inputs, draw)
    b = network(draw.x, draw.t, draw.alpha, draw.sigma)
    expected = draw.sigma**2 * 5.0 * (y - negative) + b - x0
    torch.testing.assert_close(rule.gradient(prior, inputs, draw)[0], expected)


def test_jacobian_is_the_gradient_of_the_squared_distance(prior, network_file):
    path, network = network_file
    rule = make("lmc-sds", guidance_scale=0.0, corrective=path, corrective_weight="x", corrective_jacobian=True)
    inputs = inputs_for(rule, prior)
    draw = draw_at(prior, inputs.x, [200, 800])
    x0 = by_hand(prior, inputs, draw)[2]
    x = draw.x.clone().requires_grad_()
    loss = 0.5 * ((network(x, draw.t, draw.alpha, draw.sigma) - x0) ** 2).sum()
    torch.testing.assert_close(rule.gradient(prior, inputs, draw)[0], torch.autograd.grad(loss, x)[0])


@pytest.mark.parametrize("jacobian", [False, True])
@pytest.mark.parametrize("settings", [{"k": 1.0}, {"corrective": "none"}])
def test_identity_corrective_is_sds_bit_for_bit(prior, network_file, settings, jacobian):
    settings = {"corrective": network_file[0], **settings}
    rule = make("lmc-sds", guidance_scale=20.0, corrective_jacobian=jacobian, **settings)
    expected = make("sds", guidance_scale=20.0)(prior, inputs_for(make("sds"), prior)).grad
    for rule.look in (False, True):
        assert torch.equal(rule(prior, inputs_for(rule, prior)).grad, expected)


def test_k_is_scheduled(prior, network_file):
    rule = make("lmc-sds", corrective=network_file[0], k=[1.0, 0.0, 100])
    inputs = inputs_for(rule, prior, step=25)
    draw = draw_at(prior, inputs.x, [500, 600])
    sds = make("sds", guidance_scale=20.0).gradient(prior, inputs, draw)[0]
    full = make("lmc-sds", corrective=network_file[0]).gradient(prior, inputs, draw)[0]
    torch.testing.assert_close(rule.gradient(prior, inputs, draw)[0], 0.75 * sds + 0.25 * full)


def test_fixed_noise_is_for_the_condition_alone(prior, network_file):
    rule = make("lmc-sds", corrective=network_file[0], fixed_condition_noise=True)
    inputs = inputs_for(rule, prior)
    draw = draw_at(prior, inputs.x, [200, 800])
    prior.evaluations = 0
    grad, _ = rule.gradient(prior, inputs, draw)
    assert prior.evaluations == 3
    z = draw.alpha * draw.x + draw.sigma * rule.draw_noise(inputs, fixed=True)
    y, negative = prior.predict([Pass(z, draw.t, inputs.texts[role]) for role in ("conditional", "negative")])
    plain = make("lmc-sds", corrective=network_file[0], guidance_scale=0.0).gradient(prior, inputs, draw)[0]
    torch.testing.assert_close(grad, plain + draw.weight * 20.0 * (y.noise - negative.noise))


def test_fixed_noise_depends_on_the_seed_and_on_no_step(prior):
    rule = make("lmc-sds", corrective="none", noise="fixed")
    runs = ((1, 3), (1, 9), (2, 3))
    eps = [rule.draw(prior, inputs_for(rule, prior, seed=seed, step=step)).eps for seed, step in runs]
    assert torch.equal(eps[0], eps[1]) and not torch.equal(eps[0], eps[2])


def test_two_passes_in_one_call(prior, network_file):
    rule = make("lmc-sds", corrective=network_file[0])
    rule(prior, inputs_for(rule, prior))
    assert len(prior.calls) == 1 and prior.evaluations == 2


def test_keeps_high_frequencies_where_sds_contracts_them(tmp_path):
    """With the Wiener b_psi, fitted to the prior's own samples, the contraction of SDS at w = 0 is gone."""
    prior = GaussianPrior((1, 16, 16))
    rule = make("lmc-sds", guidance_scale=0.0, corrective="spectral", corrective_cache_dir=str(tmp_path))
    x = prior.sample(256, torch.Generator().manual_seed(0))
    inputs = inputs_for(rule, prior, batch=256, x=x)
    draw = draw_at(prior, x, [100] * 256)
    sds, lmc = (r.gradient(prior, inputs, draw)[0] for r in (make("sds", guidance_scale=0.0), rule))
    contraction, remainder = power_change(x, sds), power_change(x, lmc)
    assert (remainder[2:].abs() < 0.1 * contraction[2:].abs()).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_give_finite_fp32_gradients(prior, network_file, dtype):
    rule = make("lmc-sds", corrective=network_file[0], min_step_percent=0.0, max_step_percent=1.0)
    inputs = inputs_for(rule, prior, batch=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        grad = rule(prior, inputs_for(rule, prior, batch=8, x=inputs.x.to(dtype))).grad
    assert grad.dtype == torch.float32 and grad.isfinite().all()
