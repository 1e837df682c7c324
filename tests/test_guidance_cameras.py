"""Cameras reach the prior through every rule untouched, and at w = 0 no unconditional pass is computed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from closed_form import GaussianPrior
from guidance_inputs import cameras_for, inputs_for, make

from distill3d.config.registry import registered
from distill3d.priors.sampling import ddim_sample

FLOW_RULES = ("rfds",)
# rules whose formula has (1 + w) eps_y - w eps_0, and what they still evaluate at w = 0
GUIDED = {"sds": 1, "lmc-sds": 1, "asd": 2, "rfds": 1, "dds": 2, "pds": 2, "sds-bridge": 1, "vsd": 3}


def settings_of(name: str) -> dict:
    return {"corrective": "none"} if name == "lmc-sds" else {}


def prior_for(name: str) -> GaussianPrior:
    return GaussianPrior(schedule="flow" if name in FLOW_RULES else "sd")


@pytest.mark.parametrize("name", [name for name in registered("guidance") if not name.endswith("-clip")])
@pytest.mark.parametrize("perp_neg", [False, True])
def test_every_pass_of_every_rule_has_the_views_cameras(name, perp_neg):
    prior, rule = prior_for(name), make(name, use_perp_neg=perp_neg, **settings_of(name))
    inputs = inputs_for(rule, prior)
    rule(prior, inputs)
    passes = [one for call in prior.calls for one in call]
    assert len(passes) > 0 and all(one.cameras is inputs.cameras for one in passes)


@pytest.mark.parametrize("name", [name for name in registered("guidance") if not name.endswith("-clip")])
def test_views_that_the_prior_sees_together_share_every_time(name):
    """Two sets of two: rows of a set are asked at one t, the sets at times of their own."""
    prior, rule = prior_for(name), make(name, **settings_of(name))
    prior.spec = replace(prior.spec, n_view=2)
    rule(prior, inputs_for(rule, prior, batch=4))
    times = [one.t for call in prior.calls for one in call]
    assert times and all(t[0] == t[1] and t[2] == t[3] for t in times)
    assert any(t[0] != t[2] for t in times) or rule.cfg.timestep_sampling != "uniform"
    with pytest.raises(ValueError, match=r"3 views cannot be divided into sets of 2: set data\.n_view=2"):
        rule(prior, inputs_for(rule, prior, batch=3))


@pytest.mark.parametrize(("name", "evaluated"), GUIDED.items())
def test_without_guidance_the_unconditional_pass_is_not_computed(name, evaluated):
    """And the gradient is that of the formula, which an immeasurably small w computes with both passes."""
    prior = prior_for(name)
    rule = make(name, guidance_scale=0.0, **settings_of(name))
    inputs = inputs_for(rule, prior)
    prior.evaluations = 0
    grad = rule(prior, inputs).grad
    assert prior.evaluations == evaluated
    twin = make(name, guidance_scale=1e-30, **settings_of(name))
    prior.evaluations = 0
    expected = twin(prior, inputs_for(twin, prior)).grad
    assert prior.evaluations > evaluated
    assert torch.equal(grad, expected)


def test_without_guidance_the_interval_rules_save_a_pass_too():
    for name, settings in (("ism", {}), ("sdi", {"inversion_guidance_scale": 0.0})):
        counts = []
        for w in (0.0, 1e-30):
            prior, rule = GaussianPrior(), make(name, guidance_scale=w, **settings)
            rule(prior, inputs_for(rule, prior))
            counts.append(prior.evaluations)
        assert counts[0] == counts[1] - 1


@pytest.mark.parametrize("guidance_scale", [0.0, 2.0])
def test_sampling_hands_the_cameras_to_both_passes(guidance_scale):
    prior, cameras = GaussianPrior(), cameras_for(2)
    text, empty = prior.embed(["a cat"] * 2), prior.embed([""] * 2)
    generator = torch.Generator().manual_seed(0)
    ddim_sample(prior, text, generator, None, empty, guidance_scale, steps=3, cameras=cameras)
    passes = [one for call in prior.calls for one in call]
    assert len(passes) == (3 if guidance_scale == 0.0 else 6) and all(one.cameras is cameras for one in passes)
