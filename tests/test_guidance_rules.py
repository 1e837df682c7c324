"""CSD, NFSD, ASD, SDS-Bridge, RFDS and L_cond: each published formula by hand from the prior's own passes."""

from __future__ import annotations

import pytest
import torch
from closed_form import GaussianPrior
from guidance_inputs import PROMPT, draw_at, inputs_for, make, rule_texts

from distill3d.guidance.asd import later_timesteps
from distill3d.guidance.nfsd import NEGATIVE_PROMPT
from distill3d.priors.kinds import kind_of
from distill3d.types import Pass, Prompt


@pytest.fixture
def prior():
    return GaussianPrior()


def noise(prior, inputs, draw, *roles):
    return [p.noise for p in prior.predict([Pass(draw.z, draw.t, inputs.texts[role]) for role in roles])]


def test_lmc_cond(prior):
    rule = make("lmc-cond", guidance_scale=4.0)
    inputs = inputs_for(rule, prior)
    draw = draw_at(prior, inputs.x, [300, 700])
    y, negative = noise(prior, inputs, draw, "conditional", "negative")
    torch.testing.assert_close(rule.gradient(prior, inputs, draw)[0], draw.sigma**2 * 4.0 * (y - negative))


@pytest.mark.parametrize(("step", "u", "n"), [(0, 0.0, -1.0), (10, -0.2, -0.8), (50, -1.0, 0.0), (90, -1.0, 0.0)])
def test_csd(prior, step, u, n):
    """a = 1; u falls 0 -> -1 and n rises -1 -> 0 over half the run, which is 100 steps here."""
    rule = make("csd")
    inputs = inputs_for(rule, prior, step=step)
    draw = draw_at(prior, inputs.x, [300, 700], weighting="uniform")
    y, empty, negative = noise(prior, inputs, draw, "conditional", "unconditional", "negative")
    torch.testing.assert_close(rule.gradient(prior, inputs, draw)[0], y + u * negative + n * empty)


def test_csd_as_released_weighs_by_the_variance(prior):
    paper, released, named = (
        make("csd"),
        make("csd", released=True),
        make("csd", released=True, weighting_strategy="ism"),
    )
    assert (released.cfg.weighting_strategy, named.cfg.weighting_strategy) == ("sds", "ism")
    inputs = inputs_for(paper, prior)
    plain, weighted = (
        rule.gradient(prior, inputs, draw_at(prior, inputs.x, [300, 700], weighting=rule.cfg.weighting_strategy))[0]
        for rule in (paper, released)
    )
    torch.testing.assert_close(weighted, prior.alpha_sigma(torch.tensor([300, 700]))[1] ** 2 * plain)


def test_csd_leaves_out_a_pass_of_no_weight(prior):
    for step, count in ((0, 2), (10, 3), (60, 2)):
        prior.evaluations = 0
        rule = make("csd")
        rule(prior, inputs_for(rule, prior, step=step))
        assert prior.evaluations == count


def test_nfsd_on_both_sides_of_200(prior):
    rule = make("nfsd")
    inputs = inputs_for(rule, prior)
    draw = draw_at(prior, inputs.x, [199, 200])
    y, empty, negative = noise(prior, inputs, draw, "conditional", "unconditional", "negative")
    direction = torch.stack([empty[0], empty[1] - negative[1]])
    expected = draw.sigma**2 * (direction + 7.5 * (y - empty))
    torch.testing.assert_close(rule.gradient(prior, inputs, draw)[0], expected)


def test_nfsd_brings_a_negative_prompt_where_there_is_none():
    rule = make("nfsd")
    assert rule_texts(rule)["negative"] == "ugly"
    assert rule_texts(rule, Prompt("a cat"))["negative"] == NEGATIVE_PROMPT


def test_asd(prior):
    rule = make("asd")
    inputs = inputs_for(rule, prior)
    draw = draw_at(prior, inputs.x, [300, 700])
    later = torch.tensor([325, 741])
    rule.later = lambda *_: later
    y, negative = noise(prior, inputs, draw, "conditional", "negative")
    alpha, sigma = prior.alpha_sigma(later)
    shifted = prior.predict([Pass(alpha * draw.x + sigma * draw.eps, later, inputs.texts["conditional"])])[0].noise
    expected = draw.sigma**2 * (7.5 * y - 6.5 * negative - shifted)
    torch.testing.assert_close(rule.gradient(prior, inputs, draw)[0], expected)


def test_asd_shift_is_within_a_tenth_of_the_way_from_t_min(prior):
    rule = make("asd")
    t = torch.randint(20, 1000, (4000,), generator=torch.Generator().manual_seed(0))
    inputs = inputs_for(rule, prior, batch=2)
    shift = rule.later(prior, inputs, t) - t
    bound = 0.1 * (t - 20)
    assert (shift >= 0).all() and (shift <= bound + 0.5).all() and (t + shift).max() <= 999
    inner = bound > 50
    assert abs(float((shift / bound)[inner & (t < 900)].mean()) - 0.5) < 0.02
    assert later_timesteps(torch.tensor([995]), 20, 999, 0.1, torch.ones(1)).item() == 999


@pytest.mark.parametrize("start", [None, 40])
def test_sds_bridge_has_two_stages(prior, start):
    rule, switch = make("sds-bridge", stage_two_start_step=start), 50 if start is None else start
    for step in (switch - 1, switch):
        inputs = inputs_for(rule, prior, step=step)
        draw = draw_at(prior, inputs.x, [300, 700])
        y, negative, good, bad = noise(prior, inputs, draw, "conditional", "negative", "good", "bad")
        first, second = 40 * y - 39 * negative - draw.eps, 40 * (good - bad)
        expected = draw.sigma**2 * (first if step < switch else second)
        torch.testing.assert_close(rule.gradient(prior, inputs, draw)[0], expected, rtol=1e-4, atol=1e-5)


def test_sds_bridge_describes_both_distributions():
    texts = rule_texts(make("sds-bridge"))
    assert texts["good"].startswith(PROMPT.text) and texts["bad"].startswith(PROMPT.text)
    assert "oversaturated" in texts["bad"] and "oversaturated" not in texts["good"]


def test_rfds_is_the_flow_velocity():
    """``v_hat - (eps - x) = (eps_hat - eps) / (1 - s)``, without the division."""
    prior, rule = GaussianPrior(schedule="flow"), make("rfds", guidance_scale=5.0)
    inputs = inputs_for(rule, prior)
    draw = draw_at(prior, inputs.x, [300, 700], weighting="uniform")
    y, negative = noise(prior, inputs, draw, "conditional", "negative")
    expected = (6 * y - 5 * negative - draw.eps) / draw.alpha
    torch.testing.assert_close(rule.gradient(prior, inputs, draw)[0], expected, rtol=1e-4, atol=1e-4)


def test_kinds_of_prior_that_a_rule_does_not_run_on_are_told_before_one_is_loaded():
    flow, diffusion = kind_of("FluxPipeline"), kind_of("StableDiffusionPipeline")
    make("rfds").check_kind(flow)
    make("pds").check_kind(diffusion)
    make("pds", coefficients="explicit").check_kind(flow)
    with pytest.raises(ValueError, match=r"system.guidance_type=rfds needs a flow .* this is Stable Diffusion 1.x"):
        make("rfds").check_kind(diffusion)
    with pytest.raises(ValueError, match=r"system.guidance.coefficients=released .* set it to explicit"):
        make("pds").check_kind(flow)


def test_rfds_needs_a_flow(prior):
    rule = make("rfds")
    with pytest.raises(ValueError, match="guidance_type=rfds needs a flow"):
        rule(prior, inputs_for(rule, prior))
