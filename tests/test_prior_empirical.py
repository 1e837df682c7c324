"""The exact prior of posed views against the sum that defines it, against autograd, and in a short training."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from closed_form import schedule_table
from diffusers import DDPMScheduler

from distill3d.camera import VIEW_WORDS, make_cameras, view_words
from distill3d.config.registry import make
from distill3d.data.posed.images import PosedImages, StoredView
from distill3d.data.posed.write import RenderedViews, write_posed_images
from distill3d.priors.base import DiffusionPrior, add_noise
from distill3d.priors.empirical import (
    CaptionTable,
    EmpiricalPrior,
    EmpiricalPriorConfig,
    noise_schedule,
    view_angles_deg,
)
from distill3d.types import Cameras, Pass, PromptEmbedding

SIDE = 8
CAPTIONS = ("a red car", "a car")


def around(count: int, elevation: float = 20.0, distance: float = 1.6, fovy: float = 40.0) -> Cameras:
    full, azimuth = torch.ones(count), torch.arange(count) * (360.0 / count)
    return make_cameras(elevation * full, azimuth, distance * full, fovy * full, SIDE, SIDE)


def folder_of(seed: int, count: int = 12) -> PosedImages:
    """Random premultiplied pictures with an alpha, before black."""
    generator = torch.Generator().manual_seed(seed)
    alpha = torch.rand(count, 1, SIDE, SIDE, generator=generator)
    rgb = torch.rand(count, 3, SIDE, SIDE, generator=generator) * alpha
    stored = tuple(StoredView(view) for view in torch.cat([rgb, alpha], dim=1))
    return PosedImages(around(count), stored, tuple(map(str, range(count))), torch.zeros(3))


def prior_of(**settings) -> EmpiricalPrior:
    cfg = EmpiricalPriorConfig(views=["a", "b"], captions=list(CAPTIONS), **settings)
    return EmpiricalPrior([folder_of(0), folder_of(1)], cfg)


def embed(*texts: str) -> PromptEmbedding:
    return CaptionTable(CAPTIONS)(list(texts))


def noisy(rows: int, side: int = SIDE, seed: int = 3) -> torch.Tensor:
    return torch.randn(rows, 3, side, side, generator=torch.Generator().manual_seed(seed))


def brute_force(prior: EmpiricalPrior, z: torch.Tensor, t: int, weights: torch.Tensor) -> torch.Tensor:
    """``sum_i w_i N(z; alpha x_i, sigma^2) x_i`` over its sum, one view after the other, in float64."""
    background = torch.tensor(prior.cfg.background)[:, None, None]
    views = torch.cat([2 * (f.images + (1 - f.alpha) * background) - 1 for f in (folder_of(0), folder_of(1))])  # type: ignore[operator]
    views = torch.nn.functional.avg_pool2d(views, SIDE // z.shape[-1]).double()
    alpha, sigma = float(prior.alphas[t]), float(prior.sigmas[t])
    logs = [
        -0.5 * float(((z.double() - alpha * x) ** 2).sum()) / sigma**2 + (math.log(w) if w else -math.inf)
        for x, w in zip(views, weights.tolist(), strict=True)
    ]
    share = [math.exp(value - max(logs)) for value in logs]
    return sum(p * x for p, x in zip(share, views, strict=True)) / sum(share)  # type: ignore[return-value]


@pytest.mark.parametrize("side", [SIDE, SIDE // 2])
@pytest.mark.parametrize("t", [30, 300, 700, 990])
def test_it_is_the_posterior_mean_of_the_texts_views(t, side):
    prior, z = prior_of(condition="text"), noisy(3, side)
    answer = prior.predict([Pass(z, torch.full((3,), t), embed("a red car", "a car, side view", ""))])[0]
    first, both = torch.tensor([1.0] * 12 + [0.0] * 12), torch.ones(24)
    for row, weights in enumerate((first, 1.0 - first, both)):
        torch.testing.assert_close(answer.x0[row].double(), brute_force(prior, z[row], t, weights), atol=2e-4, rtol=0)
    torch.testing.assert_close(
        torch.tensor(float(prior.sigmas[t])) * answer.noise,
        z - float(prior.alphas[t]) * answer.x0,
        atol=1e-5,
        rtol=1e-4,
    )


def test_view_words_choose_the_views_that_share_them():
    prior, z, t = prior_of(condition="view-words"), noisy(2), torch.full((2,), 800)
    words = view_words(around(12).elevation_deg, around(12).azimuth_deg)
    answer = prior.predict([Pass(z, t, embed("a red car, back view", "a car, front view"))])[0].x0
    for row, (word, folder) in enumerate((("back", 0), ("front", 1))):
        weights = torch.tensor([float(w == word and f == folder) for f in (0, 1) for w in words])
        torch.testing.assert_close(answer[row].double(), brute_force(prior, z[row], 800, weights), atol=2e-4, rtol=0)
    plain = prior_of(condition="text").predict([Pass(z, t, embed("a red car, back view", "a car, front view"))])[0].x0
    assert not torch.allclose(plain, answer, atol=1e-3)


def test_a_camera_weighs_views_by_their_angle():
    prior, z = prior_of(condition="camera", camera_kernel_deg=20.0), noisy(1)
    camera = replace(around(12), azimuth_deg=around(12).azimuth_deg)[[2]]
    angles = view_angles_deg(camera, around(12))[0]
    exact = [
        2 * math.degrees(math.asin(math.cos(math.radians(20.0)) * math.sin(math.radians(15.0 * (i - 2)))))
        for i in range(12)
    ]
    torch.testing.assert_close(angles, torch.tensor(exact).abs(), atol=1e-3, rtol=1e-4)
    weights = torch.cat([torch.exp(-0.5 * (angles / 20.0) ** 2), torch.zeros(12)])
    answer = prior.predict([Pass(z, torch.tensor([950]), embed("a red car"), cameras=camera)])[0].x0[0]
    torch.testing.assert_close(answer.double(), brute_force(prior, z[0], 950, weights), atol=2e-4, rtol=0)


def test_a_change_of_size_counts_as_the_angle_that_moves_an_outline_as_far():
    near, far = around(1, distance=1.5), around(1, distance=1.5 * 1.1)
    assert float(view_angles_deg(near, far)) == pytest.approx(math.degrees(math.log(1.1)), abs=1e-3)
    narrow = around(1, distance=1.5, fovy=math.degrees(2 * math.atan(math.tan(math.radians(20.0)) / 1.1)))
    assert float(view_angles_deg(narrow, around(1, distance=1.5))) == pytest.approx(
        math.degrees(math.log(1.1)), abs=1e-3
    )


def test_a_narrow_kernel_shows_the_view_itself_however_much_noise_there_is():
    prior = prior_of(condition="camera", camera_kernel_deg=1.0)
    answer = prior.predict(
        [Pass(noisy(2), torch.tensor([999, 999]), embed("a car", "a car"), cameras=around(12)[[4, 7]])]
    )
    expected = prior._tables[SIDE]
    views = expected.centre + expected.rows.view(-1, 3, SIDE, SIDE)
    torch.testing.assert_close(answer[0].x0, views[[16, 19]], atol=1e-4, rtol=0)


def test_without_a_condition_on_cameras_they_are_ignored():
    prior, z, t = prior_of(condition="text"), noisy(2), torch.tensor([500, 500])
    first, second = prior.predict([Pass(z, t, embed("a car", "")), Pass(z, t, embed("a car", ""), cameras=around(2))])
    assert first is second and "camera" not in prior.spec.conditions


@pytest.mark.parametrize("schedule", ["cosine", "flow"])
def test_an_adapter_starts_as_the_prior_and_answers_of_the_same_image_when_trained(schedule):
    prior, t, z = prior_of(schedule=schedule), torch.tensor([30, 900]), noisy(2)
    adapter = prior.make_adapter(1)
    text = PromptEmbedding(embed("a car", "").tokens.repeat(1, 2, 1))  # as with VSD's token of the camera
    asked = lambda: prior.predict([Pass(z, t, text), Pass(z, t, text, adapter)])  # noqa: E731
    exact, adapted = asked()
    assert torch.equal(exact.x0, adapted.x0) and torch.equal(exact.noise, adapted.noise)
    torch.nn.init.normal_(adapter.net.conv_out.weight, std=0.1)  # type: ignore[union-attr, arg-type]
    exact, adapted = asked()
    alpha, sigma = prior.alpha_sigma(t)
    assert (adapted.x0 - exact.x0).abs().max() > 0.01
    torch.testing.assert_close(alpha * adapted.x0 + sigma * adapted.noise, z, atol=1e-4, rtol=1e-4)
    assert sum(parameter.numel() for parameter in prior.make_adapter(2).parameters()) > 3 * sum(
        parameter.numel() for parameter in adapter.parameters()
    )


def test_an_adapter_learns_pictures_that_the_prior_does_not_know():
    """VSD's own loss, on grey images: the exact answer knows only its views."""
    prior = prior_of()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapter = prior.make_adapter(1)
    optimizer = torch.optim.Adam(adapter.parameters(), lr=3e-3)
    x, text, generator = torch.full((8, 3, SIDE, SIDE), 0.5), embed(*["a car"] * 8), torch.Generator().manual_seed(1)
    losses = []
    for _ in range(60):
        t = torch.randint(100, 900, (8,), generator=generator)
        eps = torch.randn(x.shape, generator=generator)
        answer = prior.predict([Pass(add_noise(prior, x, eps, t), t, text, adapter)], grad=True)[0]
        loss = (answer.noise - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


@pytest.mark.parametrize("chunk", [1, 5, 24])
def test_the_chunk_does_not_change_the_result(chunk):
    z, t, text = noisy(3), torch.tensor([20, 500, 980]), embed("a red car", "", "a car")
    whole = prior_of(condition="text").predict([Pass(z, t, text)])[0]
    parts = prior_of(condition="text", chunk=chunk).predict([Pass(z, t, text)])[0]
    torch.testing.assert_close(parts.x0, whole.x0, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("schedule", ["cosine", "flow"])
def test_the_noise_is_the_score_of_the_noised_views(schedule):
    """Tweedie: ``eps = -sigma grad log p(z)``, with the density by hand and its gradient by autograd."""
    prior, t = prior_of(condition="text", schedule=schedule), 600
    z = noisy(1).double().requires_grad_()
    table = prior._tables[SIDE]
    views = (table.centre + table.rows.view(-1, 3, SIDE, SIDE)).double()
    alpha, sigma = float(prior.alphas[t]), float(prior.sigmas[t])
    density = torch.logsumexp(-0.5 * ((z - alpha * views) ** 2).flatten(1).sum(1) / sigma**2, 0)
    score = torch.autograd.grad(density, z)[0]
    answer = prior.predict([Pass(z.detach(), torch.tensor([t]), embed(""))])[0]
    torch.testing.assert_close(answer.noise, -sigma * score, atol=1e-4, rtol=1e-4)
    native = answer.noise - answer.x0 if schedule == "flow" else alpha * answer.noise - sigma * answer.x0
    again = z.detach() - sigma * native if schedule == "flow" else alpha * z.detach() - sigma * native
    torch.testing.assert_close(again, answer.x0, atol=1e-5, rtol=1e-5)


def test_the_gradient_of_the_answer_is_that_of_finite_differences():
    prior, t = prior_of(condition="text"), torch.tensor([900])
    z, step = noisy(1).double().requires_grad_(), torch.randn(1, 3, SIDE, SIDE, dtype=torch.float64) * 1e-4
    ask = lambda value: prior.predict([Pass(value, t, embed(""))], grad=True)[0].x0.square().sum()  # noqa: E731
    slope = (torch.autograd.grad(ask(z), z)[0] * step).sum()
    torch.testing.assert_close(slope, 0.5 * (ask(z + step) - ask(z - step)).detach(), rtol=1e-3, atol=1e-9)


def test_the_schedules_are_those_of_diffusers_and_of_the_flow():
    abar = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod.double()
    alpha, sigma = noise_schedule("cosine", 1000)
    torch.testing.assert_close(alpha**2, abar, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha))
    for ours, theirs in zip(noise_schedule("flow", 1000), schedule_table("flow", 1000), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_captions_are_found_within_longer_texts_and_the_longest_counts(caplog):
    rows = embed("A  red Car, front view, textureless", "a car", "", "overhead view of a car").tokens[:, 0]
    assert rows.tolist() == [[1, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0] * 6, [0, 1, 0, 0, 0, 1]]
    assert VIEW_WORDS == ("front", "side", "back", "overhead") and not caplog.records
    embed("a zebra")
    assert "'a zebra' has no caption of the prior (a red car; a car)" in caplog.text


def test_folders_are_read_with_their_captions_their_background_and_their_cameras(tmp_path):
    views = folder_of(0)
    assert views.alpha is not None
    rendered = RenderedViews(views.cameras, views.images, views.alpha)
    for name, caption in (("one", "a cup"), ("two_cups", "")):
        write_posed_images(tmp_path / name, {"train": rendered, "test": rendered}, "a test", caption=caption)
    settings = {"views": [str(tmp_path / "one"), str(tmp_path / "two_cups")], "background": [0.2, 0.4, 0.6]}
    model = make("prior", "empirical-prior", settings, "system.prior")
    assert model.captions() == ["a cup", "two cups"]
    prior = model.load("cpu")
    assert isinstance(prior, DiffusionPrior) and prior.spec.image_sizes == (SIDE // 2, SIDE)
    table = prior._tables[SIDE]
    seen = 0.5 + 0.5 * (table.centre + table.rows.view(-1, 3, SIDE, SIDE))[:12]
    color = torch.tensor([0.2, 0.4, 0.6])[:, None, None]
    assert float((seen - (views.images + (1 - views.alpha) * color)).abs().max()) < 2.5 / 255
    ranges = prior.spec.default_cameras
    assert ranges is not None and ranges.camera_perturb == 0.0
    assert ranges.elevation_range == pytest.approx((20.0, 20.0), abs=1e-3)
    assert ranges.camera_distance_range == pytest.approx((1.6, 1.6), abs=1e-4)
    for height, width in ((8, 8), (20, 16), (4, 5), (3, 8)):
        try:
            model.check_size(height, width)
            told = False
        except ValueError:
            told = True
        seen = prior.encode(torch.zeros(1, 3, height, width))
        assert told == (seen.shape[-1] != seen.shape[-2]), (height, width)
    before = model.frozen_weights()
    assert make("prior", "empirical-prior", settings, "system.prior").frozen_weights() == before
    (tmp_path / "one" / "caption.txt").write_text("a mug")
    assert model.frozen_weights() != before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": "nowhere"}, "system.prior.views='nowhere' holds no transforms.json"),
        ({"views": ""}, "system.prior.views is not set; give a folder that launch.py --render-views"),
        ({"views": "a", "camera_kernel_deg": 0.0}, "system.prior.camera_kernel_deg=0.0 must be positive"),
        ({"views": "a", "chunk": 0}, "system.prior.chunk=0 must be positive"),
        ({"views": "a", "background": [0.0, 0.0, 2.0]}, "must be a colour in 0 .. 1"),
        ({"views": ["a", "b"], "captions": ["a cup"]}, "must hold one caption for each of the 2 folders"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace("[", r"\[")):
        make("prior", "empirical-prior", settings, "system.prior").check()
