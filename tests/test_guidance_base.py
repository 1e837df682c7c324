"""What all guidances share: properties of every rule, times, weights, clamps, and one settings object."""

from __future__ import annotations

import itertools

import pytest
import torch
from closed_form import GaussianPrior
from guidance_inputs import draw_at, inputs_for, make, rule_texts

from distill3d.config.experiment import build
from distill3d.config.registry import find, registered
from distill3d.guidance.base import Draw, ScoreDistillation, classifier_free, make_draw
from distill3d.guidance.corrective import CorrectiveNetwork, save_corrective
from distill3d.guidance.timesteps import draw_timesteps, dreamtime_weights, time_weight, timestep_bounds
from distill3d.runtime.rng import rng

FLOW_ONLY = {"rfds"}
RULES = sorted(set(registered("guidance")) - FLOW_ONLY)
KNOWN = {"sds", "lmc-sds", "lmc-cond", "csd", "nfsd", "vsd", "ism", "sdi", "sds-bridge", "asd", "dds", "pds", "rfds"}


@pytest.fixture
def prior():
    return GaussianPrior()


@pytest.fixture
def ready(prior, tmp_path):
    """Makes a rule without random numbers of its own, its parameters and its corrective away from their start."""
    torch.manual_seed(0)
    network = CorrectiveNetwork(3, prior.num_train_timesteps, width=4)
    for parameter in network.net.head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_corrective(network, tmp_path / "psi.safetensors", prior.identity, 8)
    own = {
        "lmc-sds": {"corrective": str(tmp_path / "psi.safetensors")},
        "sdi": {"inversion_eta": 0.0, "inversion_overshoot": False},
    }

    def make_ready(name: str, **settings) -> ScoreDistillation:
        rule = make(name, **{**own.get(name, {}), **settings})
        if name == "asd":
            rule.later = lambda prior, inputs, t: (t + 30).clamp_max(999)
        if name == "vsd":
            rule.prepare(prior, {role: prior.embed([text]) for role, text in rule_texts(rule).items()})
            with torch.no_grad():
                for parameter in rule.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        return rule

    return make_ready


def gradient(rule, prior, inputs, t) -> torch.Tensor:
    return rule.gradient(prior, inputs, draw_at(prior, inputs.x, t))[0]


def test_every_published_rule_is_registered():
    rules = registered("guidance")
    assert set(rules) >= KNOWN
    assert [name for name in sorted(KNOWN) if "arXiv" not in (rules[name].__doc__ or "")] == []


def test_no_rule_is_another_up_to_scale(prior, ready):
    """Over two steps of a run, with each rule's own weight of t, which is a part of it."""
    grads = {}
    for name in RULES:
        rule = ready(name, guidance_scale=0.5)  # so small that L_cond, which most rules share, does not hide the rest
        steps = []
        for step in (20, 70):
            inputs = inputs_for(rule, prior, step=step)
            draw = draw_at(prior, inputs.x, [300, 700], weighting=rule.cfg.weighting_strategy)
            steps.append(rule.gradient(prior, inputs, draw)[0].flatten())
        grads[name] = torch.cat(steps)
    for a, b in itertools.combinations(RULES, 2):
        assert torch.cosine_similarity(grads[a], grads[b], dim=0).abs() < 0.99, (a, b)


@pytest.mark.parametrize("name", RULES)
def test_rows_do_not_depend_on_their_order(prior, ready, name):
    rule, order = ready(name, use_perp_neg=name in ("sds", "lmc-sds")), [2, 0, 1]
    inputs, t = inputs_for(rule, prior, batch=3, step=70), [200, 500, 800]
    draw = draw_at(prior, inputs.x, t)
    shuffled = inputs_for(
        rule,
        prior,
        batch=3,
        step=70,
        x=inputs.x[order],
        source=inputs.source[order],
        texts={role: text[order] for role, text in inputs.texts.items()},
        cameras=permuted(inputs.cameras, order),
    )
    permuted_draw = make_draw(prior, inputs.x[order], draw.t[order], draw.eps[order])
    first, second = rule.gradient(prior, inputs, draw)[0], rule.gradient(prior, shuffled, permuted_draw)[0]
    torch.testing.assert_close(second, first[order], rtol=1e-4, atol=1e-5)


def permuted(cameras, order):
    from dataclasses import replace

    rows = {name: value[order] for name, value in vars(cameras).items() if isinstance(value, torch.Tensor)}
    return replace(cameras, **rows)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", RULES)
def test_half_precision_is_finite_at_both_ends_of_time(prior, ready, name, dtype):
    rule = ready(name, min_step_percent=0.0, max_step_percent=1.0)
    inputs = inputs_for(rule, prior)
    inputs = inputs_for(rule, prior, x=inputs.x.to(dtype), source=inputs.source.to(dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for t in ([0, 999], [500, 1]):
            grad = gradient(rule, prior, inputs, t)
            assert grad.dtype == torch.float32 and grad.shape == inputs.x.shape and grad.isfinite().all()


@pytest.mark.parametrize("name", RULES)
def test_randomness_comes_from_the_generator_alone(prior, ready, name):
    rule = make(name) if name in ("asd", "sdi") else ready(name)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = rule(prior, inputs_for(rule, prior)).grad
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(rule(prior, inputs_for(rule, prior)).grad, first)
    assert not torch.equal(rule(prior, inputs_for(rule, prior, generator=rng("noise", 9))).grad, first)


@pytest.mark.parametrize("name", sorted(set(RULES) - {"ism", "sdi"}))  # these two draw no noise to be rid of
def test_the_noise_leaves_no_bias(prior, ready, name):
    """The Gaussian's denoiser is affine: the mean over eps is the gradient without noise, and +-eps have that mean.

    What a rule subtracts (eps, another prediction) is of mean zero, or cancels the noise of what it is subtracted from.
    """
    affine = {"recon_std_rescale": 0.0} if name == "reconstruction-sds" else {}  # a ratio of deviations is not
    rule = ready(name, guidance_scale=2.0, **affine)
    inputs = inputs_for(rule, prior, step=20)
    draw = draw_at(prior, inputs.x, [300, 700])
    grads = [
        rule.gradient(prior, inputs, make_draw(prior, inputs.x, draw.t, sign * draw.eps))[0] for sign in (1, -1, 0)
    ]
    torch.testing.assert_close((grads[0] + grads[1]) / 2, grads[2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(set(RULES) - {"ism", "sdi"}))
def test_one_call_of_the_prior(prior, ready, name):
    rule = ready(name)
    inputs = inputs_for(rule, prior)
    draw = draw_at(prior, inputs.x, [300, 700])
    prior.calls.clear()
    rule.gradient(prior, inputs, draw)
    assert len(prior.calls) == 1


@pytest.mark.parametrize("name", RULES)
def test_gradient_carries_no_graph(prior, ready, name):
    rule = ready(name)
    inputs = inputs_for(rule, prior)
    leaf = inputs.x.clone().requires_grad_()
    assert not rule(prior, inputs_for(rule, prior, x=leaf * 1.0)).grad.requires_grad


@pytest.mark.parametrize("name", RULES)
def test_settings_are_checked_and_null_is_the_published_value(name):
    cls = find("guidance", name)
    published = build(cls.Config, {}, "system.guidance")
    null = build(cls.Config, {"guidance_scale": None, "min_step_percent": None, "timestep_sampling": None})
    assert published == null and published.guidance_scale is not None
    with pytest.raises(ValueError, match=r"system\.guidance\.guidance_scal"):
        build(cls.Config, {"guidance_scal": 3}, "system.guidance")
    with pytest.raises(ValueError, match=r"guidance_scale"):
        build(cls.Config, {"guidance_scale": [1, 2]}, "system.guidance")


def test_scale_is_the_papers():
    y, empty = torch.tensor([3.0]), torch.tensor([1.0])
    assert classifier_free(y, empty, 0.0) == y
    assert classifier_free(y, empty, 6.5) == empty + 7.5 * (y - empty)  # diffusers' s = w + 1


def test_clip_is_scheduled(prior):
    rule = make("sds", guidance_scale=100.0, grad_clip=[0.5, 2.0, 100])
    for step, limit in ((0, 0.5), (50, 1.25), (100, 2.0)):
        grad = rule(prior, inputs_for(rule, prior, step=step)).grad
        assert grad.abs().max() == limit
    free = make("sds", guidance_scale=100.0)(prior, inputs_for(rule, prior, step=100)).grad
    torch.testing.assert_close(grad, free.clamp(-2, 2))


def test_bounds_are_inclusive_and_inside_the_schedule():
    assert timestep_bounds(0.02, 0.98, 1000) == (20, 980)
    assert timestep_bounds(0.05, 0.948, 1000) == (50, 948)
    assert timestep_bounds(0.0, 1.0, 1000) == (0, 999)
    with pytest.raises(ValueError, match=r"min_step_percent=0.9 and max_step_percent=0.5"):
        timestep_bounds(0.9, 0.5, 1000)


@pytest.mark.parametrize(
    ("low", "high"), [(0.02, 0.98), ([0.5, 0.02, 100], [0.98, 0.5, 100]), (0.02, [200, 0.98, 0.5, 200]), (None, 0.5)]
)
def test_bounds_that_never_cross_are_accepted(low, high):
    build(find("guidance", "sds").Config, {"min_step_percent": low, "max_step_percent": high})  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.9, 0.5), (0.02, 98), (-0.1, 0.5), (0.6, [0, 0.98, 0.5, 100]), ([0.02, 0.9, 50], [0.98, 0.5, 100])],
)
def test_bounds_that_cross_in_some_step_are_refused_before_the_run(low, high):
    settings = {"min_step_percent": low, "max_step_percent": high}
    with pytest.raises(ValueError, match=r"system.guidance.min_step_percent=.* set 0 <= min_step_percent <= max"):
        build(find("guidance", "sds").Config, settings, "system.guidance")  # type: ignore[attr-defined]


def test_uniform_times_cover_their_range_evenly():
    t = draw_timesteps("uniform", 50_000, (20, 29), 0.5, 1000, torch.Generator().manual_seed(0))
    counts = torch.bincount(t - 20, minlength=10)
    assert len(counts) == 10 and (counts - 5000).abs().max() < 350


@pytest.mark.parametrize("sampling", ["hifa-sqrt", "dreamtime", "linear", "fixed"])
def test_annealed_times_fall_and_draw_nothing(sampling):
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    times = [draw_timesteps(sampling, 2, (20, 980), step / 100, 1000, generator)[0].item() for step in range(101)]
    assert torch.equal(generator.get_state(), before)
    assert times[0] == 980 and all(a >= b for a, b in itertools.pairwise(times))
    assert times[-1] == (980 if sampling == "fixed" else 20)


def test_hifa_falls_with_the_root_and_dreamtime_spends_the_weights():
    generator = torch.Generator()
    assert draw_timesteps("hifa-sqrt", 1, (0, 1000), 0.25, 1001, generator).item() == 500
    weights = dreamtime_weights(1000)[20:981]
    for progress in (0.1, 0.5, 0.9):
        t = draw_timesteps("dreamtime", 1, (20, 980), progress, 1000, generator).item()
        assert abs(float(weights[t - 20 :].sum() / weights.sum()) - progress) < 2e-3


def test_weights_mean_the_same_for_flows_and_variance_preserving_priors():
    alpha, sigma = torch.tensor([0.6]), torch.tensor([0.8])
    for strategy, value in (("sds", 0.64), ("uniform", 1.0), ("fantasia3d", 0.384), ("ism", 0.1 * 0.8 / 0.6)):
        assert float(time_weight(strategy, alpha, sigma)) == pytest.approx(value)
        assert float(time_weight(strategy, 0.5 * alpha, 0.5 * sigma)) == pytest.approx(value)
    with pytest.raises(ValueError, match="weighting_strategy='cubic' is unknown"):
        time_weight("cubic", alpha, sigma)  # type: ignore[arg-type]


def test_draw_is_what_its_name_says(prior):
    rule = make("sds", weighting_strategy="uniform")
    inputs = inputs_for(rule, prior, batch=3)
    draw = rule.draw(prior, inputs)
    assert isinstance(draw, Draw) and draw.t.shape == (3,) and draw.eps.shape == inputs.x.shape
    torch.testing.assert_close(draw.z, draw.alpha * inputs.x + draw.sigma * draw.eps)
    assert (draw.weight == 1).all() and ((draw.t >= 20) & (draw.t <= 980)).all()
