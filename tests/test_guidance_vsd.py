"""VSD: the formula, and a LoRA that learns, resumes, and stays away from x."""

from __future__ import annotations

import pytest
import torch
from closed_form import GaussianPrior
from guidance_inputs import cameras_for, draw_at, inputs_for, make, rule_texts

from distill3d.priors.base import no_adapter
from distill3d.runtime.rng import rng
from distill3d.types import Pass


@pytest.fixture
def prior():
    return GaussianPrior()


def prepared(prior, **settings):
    rule = make("vsd", **settings)
    rule.prepare(prior, {role: prior.embed([text]) for role, text in rule_texts(rule).items()})
    return rule


def train(rule, prior, optimizer, x, steps):
    """Own losses of some steps on fixed images."""
    losses = []
    for step in steps:
        inputs = inputs_for(rule, prior, batch=len(x), x=x, generator=rng("noise", 0, step), step=step)
        loss = rule(prior, inputs).own_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_formula(prior):
    rule = prepared(prior)
    with torch.no_grad():
        for parameter in rule.parameters():
            parameter.add_(0.1)
    inputs = inputs_for(rule, prior)
    draw = draw_at(prior, inputs.x, [300, 700])
    grad, _ = rule.gradient(prior, inputs, draw)
    y, ref = prior.predict([Pass(draw.z, draw.t, inputs.texts[role]) for role in ("conditional", "negative")])
    text = rule.camera_token(inputs.texts["object"], inputs.cameras)
    lora = prior.predict([Pass(draw.z, draw.t, text, rule.adapter)])[0].noise
    torch.testing.assert_close(grad, (draw.sigma**2 * (7.5 * y.noise - 6.5 * ref.noise - lora)).detach())
    assert not grad.requires_grad and not torch.allclose(lora, y.noise, atol=0.01)


def test_starts_from_the_prior_and_sees_the_camera(prior):
    rule = prepared(prior)
    inputs = inputs_for(rule, prior)
    text = rule.lora_text(inputs)
    assert text.tokens.shape[1] == 2 and text.tokens[:, 1].abs().max() == 0
    assert rule.lora_text(inputs_for(rule, prior, cameras=None)).tokens.shape[1] == 1
    torch.nn.init.normal_(rule.camera_token.net[-1].weight)
    front, back = rule.lora_text(inputs).tokens[:, 1]
    assert not torch.allclose(front, back)


def test_lora_learns_the_renders(prior):
    """Its loss falls, on the same draws of t and noise."""
    rule, x = prepared(prior), torch.full((8, *prior.shape), 0.8)
    still = torch.optim.SGD(rule.parameters(), lr=0.0)
    before = train(rule, prior, still, x, range(100, 120))
    train(rule, prior, torch.optim.Adam(rule.parameters(), lr=1e-2), x, range(100))
    after = train(rule, prior, still, x, range(100, 120))
    assert sum(after) < 0.8 * sum(before)


def test_own_loss_reaches_the_parameters_alone(prior):
    rule = prepared(prior)
    x = torch.zeros(2, *prior.shape, requires_grad=True)
    output = rule(prior, inputs_for(rule, prior, x=x))
    output.own_loss.backward()
    assert x.grad is None
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in rule.adapter.parameters())


def test_resumes(prior):
    x = torch.ones(2, *prior.shape) * 0.5
    rule = prepared(prior)
    optimizer = torch.optim.Adam(rule.parameters(), lr=1e-2)
    train(rule, prior, optimizer, x, range(5))
    saved = ({k: v.clone() for k, v in rule.state_dict().items()}, optimizer.state_dict())
    expected = train(rule, prior, optimizer, x, range(5, 8))
    again = prepared(prior)
    again.load_state_dict(saved[0])
    resumed = torch.optim.Adam(again.parameters(), lr=1e-2)
    resumed.load_state_dict(saved[1])
    assert train(again, prior, resumed, x, range(5, 8))[0] == expected[0]


def test_largest_time_falls_at_a_fifth_of_the_run(prior):
    rule = prepared(prior)
    values = [rule.at("max_step_percent", inputs_for(rule, prior, step=step)) for step in (0, 19, 21, 99)]
    assert values == [0.98, 0.98, 0.5, 0.5]
    fixed = make("vsd", max_step_percent=0.7)
    assert fixed.at("max_step_percent", inputs_for(rule, prior, step=99)) == 0.7


def test_prior_without_an_adapter_is_an_error(prior):
    class Bare:
        def make_adapter(self, rank):
            no_adapter("a table of views")

    with pytest.raises(ValueError, match="guidance_type=vsd needs a prior that takes an adapter"):
        make("vsd").prepare(Bare(), {"object": prior.embed([""])})


def test_camera_mask_grows_with_the_tokens(prior):
    from distill3d.types import PromptEmbedding

    rule = prepared(prior)
    text = PromptEmbedding(torch.zeros(2, 3, 4), torch.tensor([[True, True, False]] * 2))
    assert rule.camera_token(text, cameras_for(2)).mask.tolist() == [[True, True, False, True]] * 2
