"""DDS and PDS: formulas, exact zeros, and the released coefficients."""

from __future__ import annotations

import pytest
import torch
from closed_form import GaussianMixturePrior, GaussianPrior
from guidance_inputs import draw_at, inputs_for, make

from distill3d.guidance.pds import released_coefficients
from distill3d.types import Pass, Prompt


def by_hand(prior, inputs, draw, w):
    """``eps^w_tgt - eps^w_src``."""
    z_source = draw.alpha * inputs.source + draw.sigma * draw.eps
    pairs = [(draw.z, "conditional"), (draw.z, "negative"), (z_source, "source"), (z_source, "negative")]
    y, y_ref, s, s_ref = (p.noise for p in prior.predict([Pass(z, draw.t, inputs.texts[r]) for z, r in pairs]))
    return ((1 + w) * y - w * y_ref) - ((1 + w) * s - w * s_ref)


def test_dds_formula():
    prior, rule = GaussianPrior(), make("dds")
    inputs = inputs_for(rule, prior)
    draw = draw_at(prior, inputs.x, [300, 700], weighting="uniform")
    torch.testing.assert_close(
        rule.gradient(prior, inputs, draw)[0], by_hand(prior, inputs, draw, 6.5), rtol=1e-4, atol=1e-5
    )


def test_pds_formula_is_the_difference_of_stochastic_latents():
    """``z~ = (x_{t-1} - mu(x_t, eps_hat)) / sigma~`` of both images with shared eps_t and eps_{t-1}, in float64."""
    prior, rule = GaussianPrior(), make("pds", guidance_scale=3.0)
    inputs = inputs_for(rule, prior)
    t = torch.tensor([301, 701])
    draw = draw_at(prior, inputs.x, t.tolist(), weighting="uniform")
    abar, before, back = (prior.alpha[t - n][:, None, None, None] ** 2 for n in (0, 1, 2))
    a, eps = abar / before, torch.randn(inputs.x.shape, generator=torch.Generator().manual_seed(3)).double()
    beta = 1 - a

    def latent(x, noise_y, noise_ref):
        x, guided = x.double(), (4 * noise_y - 3 * noise_ref).double()
        x_t = abar.sqrt() * x + (1 - abar).sqrt() * draw.eps
        x_back = back.sqrt() * x + (1 - back).sqrt() * eps
        x0 = (x_t - (1 - abar).sqrt() * guided) / abar.sqrt()
        mean = back.sqrt() * beta / (1 - abar) * x0 + a.sqrt() * (1 - back) / (1 - abar) * x_t
        return (x_back - mean) / ((1 - back) / (1 - abar) * beta).sqrt()

    z_source = draw.alpha * inputs.source + draw.sigma * draw.eps
    pairs = [(draw.z, "conditional"), (draw.z, "negative"), (z_source, "source"), (z_source, "negative")]
    y, y_ref, s, s_ref = (p.noise for p in prior.predict([Pass(z, t, inputs.texts[r]) for z, r in pairs]))
    expected = latent(inputs.x, y, y_ref) - latent(inputs.source, s, s_ref)
    torch.testing.assert_close(rule.gradient(prior, inputs, draw)[0], expected.float(), rtol=1e-3, atol=1e-4)


def test_released_coefficients_at_the_schedule_of_stable_diffusion():
    psi, chi = released_coefficients(GaussianPrior(), torch.tensor([21, 101, 501, 979]))
    torch.testing.assert_close(psi.flatten(), torch.tensor([1.61, 0.314, 0.0321, 0.0042]), rtol=0.01, atol=5e-5)
    torch.testing.assert_close(chi.flatten(), torch.tensor([0.232, 0.115, 0.0821, 0.110]), rtol=0.01, atol=0)


def test_explicit_coefficients_serve_flows_and_are_scheduled():
    prior = GaussianPrior(schedule="flow")
    rule = make("pds", coefficients="explicit", psi=[0.0, 1.0, 100], chi=0.5, guidance_scale=2.0)
    inputs = inputs_for(rule, prior, step=25)
    draw = draw_at(prior, inputs.x, [300, 700], weighting="uniform")
    expected = 0.25 * (inputs.x - inputs.source) + 0.5 * by_hand(prior, inputs, draw, 2.0)
    torch.testing.assert_close(rule.gradient(prior, inputs, draw)[0], expected)
    released = make("pds")
    with pytest.raises(ValueError, match="coefficients=released"):
        released(prior, inputs_for(released, prior))


@pytest.mark.parametrize("name", ["dds", "pds"])
@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_identical_source_and_target_give_exactly_zero(name, kind):
    means = torch.stack([torch.full((3, 4, 4), -0.5), torch.full((3, 4, 4), 0.5)])
    prior = GaussianPrior() if kind == "gaussian" else GaussianMixturePrior(means, ("a red cube", "a blue cube"))
    rule = make(name)
    inputs = inputs_for(rule, prior, batch=4)
    texts = {**inputs.texts, "source": inputs.texts["conditional"]}
    same = inputs_for(rule, prior, batch=4, source=inputs.x.clone(), texts=texts)
    prior.evaluations = 0
    assert rule(prior, same).grad.abs().max() == 0
    assert prior.evaluations == 2
    assert rule(prior, inputs).grad.abs().max() > 0


@pytest.mark.parametrize("name", ["dds", "pds"])
def test_an_edit_needs_an_original(name):
    prior, rule = GaussianPrior(), make(name)
    with pytest.raises(ValueError, match=f"guidance_type={name} edits an original"):
        rule(prior, inputs_for(rule, prior, source=None))
    with pytest.raises(ValueError, match="source_prompt is not set"):
        rule.texts(Prompt("a cat"))


def test_psi_holds_the_original():
    """With the target's text equal to the source's, descent on PDS returns to the original; DDS alone need not."""
    prior = GaussianPrior((1, 4, 4))
    rule = make("pds", guidance_scale=0.0, timestep_sampling="fixed", max_step_percent=0.1)
    inputs = inputs_for(rule, prior)
    texts = {**inputs.texts, "source": inputs.texts["conditional"]}
    x = inputs.x
    for step in range(200):
        x = x - 0.3 * rule(prior, inputs_for(rule, prior, x=x, source=inputs.source, texts=texts, step=step)).grad
    torch.testing.assert_close(x, inputs.source, rtol=0, atol=1e-3)
