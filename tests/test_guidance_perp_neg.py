"""Perp-Neg: nothing where nothing is due, the right negatives for each row, the paper's formula."""

from __future__ import annotations

import math

import pytest
import torch
from closed_form import GaussianPrior
from guidance_inputs import PROMPT, draw_at, inputs_for, make

from distill3d.camera import make_cameras
from distill3d.guidance.perp_neg import ViewDecays, perp_neg, perpendicular, view_requests, view_texts
from distill3d.types import Pass, Prediction, Prompt


@pytest.fixture
def prior():
    return GaussianPrior()


def cameras_at(azimuth_deg, elevation_deg):
    azimuth, elevation = torch.tensor(azimuth_deg), torch.tensor(elevation_deg)
    full = torch.ones(len(azimuth))
    return make_cameras(elevation, azimuth, full, full * 50, 8, 8)


def view_embeddings(prior, batch):
    return {view: prior.embed([PROMPT.views[view]] * batch) for view in ("front", "side", "back", "overhead")}


def prediction(seed):
    generator = torch.Generator().manual_seed(seed)
    return Prediction(*(torch.randn(2, 3, 4, 4, generator=generator) for _ in range(2)))


def test_nothing_is_added_where_negative_equals_positive():
    positive, reference = prediction(0), prediction(1)
    answer = perp_neg(positive, reference, [positive, positive], torch.full((2, 2), -3.0))
    torch.testing.assert_close(answer.noise, positive.noise, rtol=0, atol=1e-5)
    torch.testing.assert_close(answer.x0, positive.x0, rtol=0, atol=1e-5)


def test_formula():
    positive, reference, negative = (prediction(seed) for seed in range(3))
    weights = torch.tensor([[-1.0], [-2.0]])
    answer = perp_neg(positive, reference, [negative], weights)
    for row in range(2):
        e, e_neg = positive.noise[row] - reference.noise[row], negative.noise[row] - reference.noise[row]
        part = e_neg - (e_neg * e).sum() / (e * e).sum() * e
        torch.testing.assert_close(answer.noise[row], reference.noise[row] + e + weights[row, 0] * part)


def test_perpendicular_part():
    vector, direction = prediction(0).noise, prediction(1).noise
    part, _ = perpendicular(vector, direction)
    assert ((part * direction).flatten(1).sum(1) / direction.flatten(1).norm(dim=1)).abs().max() < 1e-4
    assert torch.equal(perpendicular(vector, torch.zeros_like(vector))[0], vector)


def test_x0_and_noise_stay_one_answer(prior):
    """alpha x0 + sigma noise = z after Perp-Neg, as before."""
    rule = make("sds", use_perp_neg=True)
    inputs = inputs_for(rule, prior)
    draw = draw_at(prior, inputs.x, [300, 700])
    answer = rule.predict(prior, inputs, {"y": draw.query("conditional")})["y"]
    torch.testing.assert_close(draw.alpha * answer.x0 + draw.sigma * answer.noise, draw.z, rtol=1e-3, atol=1e-4)


def test_views_are_interpolated_and_have_their_neighbours_as_negatives(prior):
    texts = view_embeddings(prior, 5)
    views = view_texts(
        texts, cameras_at([0.0, 45.0, 90.0, 180.0, 30.0], [0.0, 0.0, 0.0, 0.0, 80.0]), ViewDecays(), 60.0
    )
    front, side, back, overhead = (texts[v].tokens[0] for v in ("front", "side", "back", "overhead"))
    expected = torch.stack([front, (front + side) / 2, side, back, overhead])
    torch.testing.assert_close(views.positive.tokens, expected)
    torch.testing.assert_close(views.negatives[0].tokens[:4], torch.stack([front, front, side, side]))
    torch.testing.assert_close(views.negatives[1].tokens[:4], torch.stack([side, side, front, front]))
    assert (views.weights <= 1e-3).all() and (views.weights[4] == 0).all()
    assert views.weights[0, 0].abs() < 1e-3  # the front is not pushed from itself
    assert views.weights[3, 1] == pytest.approx(-(1.0 + 0.967))  # but the back is, fully, from the front


def test_each_quarter_turn_has_its_own_two_decays(prior):
    """``-(a exp(-b r) + c)``, r the distance from the nearer view: (front, side) before 90 deg, (side, back) after."""
    decays = ViewDecays((2.0, 0.3, 0.1), (3.0, 0.4, 0.2), (5.0, 0.5, 0.3), (7.0, 0.6, 0.4))
    azimuth = [30.0, -30.0, 120.0, -120.0]
    weights = view_texts(view_embeddings(prior, 4), cameras_at(azimuth, [0.0] * 4), decays, 60.0).weights

    def decay(name, r):
        a, b, c = getattr(decays, name)
        return -(a * math.exp(-b * r) + c)

    fore = [decay("front_side", 2 / 3), decay("side_front", 1 / 3)]
    aft = [decay("side_back", 2 / 3), decay("front_side_back", 2 / 3)]
    torch.testing.assert_close(weights, torch.tensor([fore, fore, aft, aft]))


def test_each_row_has_its_own_negatives(prior):
    """A batch gives what its rows give alone."""
    rule = make("sds", use_perp_neg=True)
    cameras = cameras_at([0.0, 70.0, 150.0], [10.0, 10.0, 75.0])
    inputs = inputs_for(rule, prior, batch=3, cameras=cameras)
    draw = draw_at(prior, inputs.x, [200, 500, 800])
    together = rule.gradient(prior, inputs, draw)[0]
    for row in range(3):
        azimuth, elevation = [cameras.azimuth_deg[row].item()], [cameras.elevation_deg[row].item()]
        texts = {role: text[[row]] for role, text in inputs.texts.items()}
        alone = inputs_for(rule, prior, batch=1, x=inputs.x[[row]], texts=texts, cameras=cameras_at(azimuth, elevation))
        one = draw_at(prior, alone.x, [int(draw.t[row])])
        one = type(one)(one.x, one.t, draw.eps[[row]], one.alpha, one.sigma, one.weight)
        torch.testing.assert_close(together[[row]], rule.gradient(prior, alone, one)[0], rtol=1e-4, atol=1e-4)


def test_guidance_is_the_papers(prior):
    """``eps_0 + (w + 1) (e+ + sum_i w_i perp(e_i, e+))``."""
    rule = make("sds", use_perp_neg=True, guidance_scale=4.0, weighting_strategy="uniform")
    cameras = cameras_at([60.0], [0.0])
    inputs = inputs_for(rule, prior, batch=1, cameras=cameras)
    draw = draw_at(prior, inputs.x, [500], weighting="uniform")
    views = view_texts(view_embeddings(prior, 1), cameras, ViewDecays(), 60.0)
    texts = [inputs.texts["negative"], views.positive, *views.negatives]
    base, *rest = (p.noise for p in prior.predict([Pass(draw.z, draw.t, text) for text in texts]))
    positive, *negatives = (noise - base for noise in rest)
    pushed = positive + sum(w * perpendicular(e, positive)[0] for w, e in zip(views.weights[0], negatives, strict=True))
    expected = base + 5.0 * pushed - draw.eps
    torch.testing.assert_close(rule.gradient(prior, inputs, draw)[0], expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, make("sds", guidance_scale=4.0).gradient(prior, inputs, draw)[0], atol=0.01)


def test_asks_for_the_views_and_says_what_is_missing(prior):
    assert set(view_requests(PROMPT)) == {"front", "side", "back", "overhead"}
    with pytest.raises(ValueError, match="use_perp_neg=true needs the prompts of all views"):
        make("sds", use_perp_neg=True).texts(Prompt("a cat"))
    rule = make("sds", use_perp_neg=True)
    with pytest.raises(ValueError, match="needs cameras, and this system has none"):
        rule(prior, inputs_for(rule, prior, cameras=None))
