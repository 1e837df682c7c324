"""DDIM inversion, and the rules that take their noise from it: ISM and SDI."""

from __future__ import annotations

import pytest
import torch
from closed_form import GaussianPrior
from guidance_inputs import draw_at, inputs_for, make

from distill3d.guidance.inversion import inversion_stops, invert
from distill3d.priors.sampling import ddim_denoise, posterior_deviation
from distill3d.types import Pass


@pytest.fixture
def prior():
    return GaussianPrior()


def step_up(prior, z, t, t_next, prediction):
    alpha, sigma = prior.alpha_sigma(torch.tensor([t_next]))
    return alpha * prediction.x0 + sigma * prediction.noise


def test_stops_end_where_each_row_ends():
    until, last = torch.tensor([450, 200, 0]), torch.tensor([470, 230, 0])
    stops = torch.stack(inversion_stops(until, last, 200))
    assert stops.tolist() == [[0, 0, 0], [200, 230, 0], [400, 230, 0], [470, 230, 0]]


def test_inversion_and_denoising_are_inverse(prior):
    """In small steps; the text is the same both ways."""
    x = prior.sample(2, torch.Generator().manual_seed(0), "a cat")
    text, until = prior.embed(["a cat"] * 2), torch.tensor([900, 900])
    stops = inversion_stops(until, until, 5)
    z = invert(prior, x, stops, lambda z, t: prior.predict([Pass(z, t, text)])[0], torch.Generator())
    back = ddim_denoise(prior, z, 900, text, steps=180)
    assert (back - x).abs().mean() < 0.02
    assert (z - x).abs().mean() > 0.3


def test_ism_formula(prior):
    rule = make("ism")
    inputs = inputs_for(rule, prior, batch=1)
    draw = draw_at(prior, inputs.x, [500], weighting="ism")
    z, empty = inputs.x, inputs.texts["unconditional"]
    for t, t_next in ((0, 200), (200, 400), (400, 420)):
        z = step_up(prior, z, t, t_next, prior.predict([Pass(z, torch.tensor([t]), empty)])[0])
    at_s = prior.predict([Pass(z, torch.tensor([420]), empty)])[0]
    z_t = step_up(prior, z, 420, 500, at_s)
    y, ref = prior.predict([Pass(z_t, draw.t, inputs.texts[role]) for role in ("conditional", "negative")])
    expected = 0.1 * draw.sigma / draw.alpha * (7.5 * y.noise - 6.5 * ref.noise - at_s.noise)
    torch.testing.assert_close(rule.gradient(prior, inputs, draw)[0], expected)


def test_ism_as_released_starts_with_a_noised_image(prior):
    rule = make("ism", released=True)
    inputs = inputs_for(rule, prior, batch=1)
    draw = draw_at(prior, inputs.x, [250], weighting="ism")
    alpha, sigma = prior.alpha_sigma(torch.tensor([0]))
    z, empty = alpha * inputs.x + sigma * draw.eps, inputs.texts["unconditional"]
    z = step_up(prior, z, 0, 170, prior.predict([Pass(z, torch.tensor([0]), empty)])[0])
    at_s = prior.predict([Pass(z, torch.tensor([170]), empty)])[0]
    z_t = step_up(prior, z, 170, 250, at_s)
    y, ref = prior.predict([Pass(z_t, draw.t, inputs.texts[role]) for role in ("conditional", "negative")])
    expected = 0.1 * draw.sigma / draw.alpha * (7.5 * y.noise - 6.5 * ref.noise - at_s.noise)
    torch.testing.assert_close(rule.gradient(prior, inputs, draw)[0], expected)


@pytest.mark.parametrize(("t", "times"), [(250, [1, 101, 201]), (101, [1]), (102, [1, 101])])
def test_sdi_as_released_reads_the_inverted_state_as_one_of_t(prior, t, times):
    """Times below t, each one more than a multiple of the stride; then a last one, which overshoots t."""
    rule = make("sdi", released=True, inversion_eta=0.0)
    inputs = inputs_for(rule, prior, batch=1)
    draw = draw_at(prior, inputs.x, [t], weighting="uniform")
    state = inputs.generator.get_state()
    last = t + int(torch.rand(1, generator=inputs.generator) * 100)
    inputs.generator.set_state(state)

    def guided(z, time, w):
        y, ref = prior.predict([Pass(z, torch.tensor([time]), inputs.texts[r]) for r in ("conditional", "negative")])
        return (1 + w) * y.noise - w * ref.noise, (1 + w) * y.x0 - w * ref.x0

    alpha, sigma = prior.alpha_sigma(torch.tensor([times[0]]))
    z = alpha * inputs.x + sigma * guided(inputs.x, 0, -8.5)[0]
    for now, following in zip(times, [*times[1:], last], strict=True):
        noise, x0 = guided(z, now, -8.5)
        alpha, sigma = prior.alpha_sigma(torch.tensor([following]))
        z = alpha * x0 + sigma * noise
    expected = inputs.x - guided(z, t, 6.5)[1]
    torch.testing.assert_close(rule.gradient(prior, inputs, draw)[0], expected, rtol=1e-4, atol=1e-4)


def test_sdi_formula(prior):
    rule = make("sdi", inversion_eta=0.0, inversion_overshoot=False)
    inputs = inputs_for(rule, prior, batch=1)
    draw = draw_at(prior, inputs.x, [250], weighting="uniform")

    def guided(z, t, w, kind):
        y, ref = prior.predict([Pass(z, torch.tensor([t]), inputs.texts[r]) for r in ("conditional", "negative")])
        return (1 + w) * getattr(y, kind) - w * getattr(ref, kind)

    z = inputs.x
    for t, t_next in ((0, 100), (100, 200), (200, 250)):
        alpha, sigma = prior.alpha_sigma(torch.tensor([t_next]))
        z = alpha * guided(z, t, -8.5, "x0") + sigma * guided(z, t, -8.5, "noise")
    kappa = (z - draw.alpha * inputs.x) / draw.sigma
    x_hat = guided(draw.alpha * inputs.x + draw.sigma * kappa, 250, 6.5, "x0")
    torch.testing.assert_close(rule.gradient(prior, inputs, draw)[0], inputs.x - x_hat, rtol=1e-4, atol=1e-4)


def test_inversion_adds_eta_times_the_reverse_deviation(prior):
    x = prior.sample(400, torch.Generator().manual_seed(0), "a cat")
    text, stops = prior.embed(["a cat"] * 400), [torch.full((400,), t) for t in (300, 500)]
    predict = lambda z, t: prior.predict([Pass(z, t, text)])[0]  # noqa: E731
    calm, noisy = (invert(prior, x, stops, predict, torch.Generator().manual_seed(1), eta) for eta in (0.0, 0.3))
    deviation = 0.3 * float(posterior_deviation(prior, stops[1], stops[0])[0])
    assert float((noisy - calm).std()) == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize("released", [False, True])
def test_sdi_inverts_with_its_own_eta(prior, released):
    """Without the overshoot nothing else is drawn at random."""

    def kappas(eta):
        rule = make("sdi", inversion_eta=eta, inversion_overshoot=False, released=released)
        inputs = inputs_for(rule, prior)
        draw = draw_at(prior, inputs.x, [500, 500], weighting="uniform")
        return [rule.inverted_noise(prior, inputs, draw) for _ in range(2)]

    (calm, same), (little, other), (much, _) = (kappas(eta) for eta in (0.0, 0.05, 0.3))
    assert torch.equal(calm, same) and not torch.equal(little, other)
    assert (much - calm).norm() > 3 * (little - calm).norm() > 0


def test_sdi_draws_little_noise_and_follows_a_line(prior):
    rule = make("sdi")
    times = [rule.draw(prior, inputs_for(rule, prior, step=step)).t[0].item() for step in (0, 50, 100)]
    assert times == [999, 600, 200]
    inputs = inputs_for(rule, prior)
    draw = draw_at(prior, inputs.x, [500, 500], weighting="uniform")
    first, second = (rule.gradient(prior, inputs, draw)[0] for _ in range(2))
    assert not torch.equal(first, second)
    calm = make("sdi", inversion_eta=0.0, inversion_overshoot=False)
    assert torch.equal(calm.gradient(prior, inputs, draw)[0], calm.gradient(prior, inputs, draw)[0])
