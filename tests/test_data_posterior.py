"""Posterior means: the softmax over all pictures, the same gradient on average, and less chance in each draw."""

from __future__ import annotations

import pytest
import torch
from tiny_assets import make_assets

from distill3d.data.assets import read_index
from distill3d.embedded import relight
from distill3d.embedded.mesh_views import ShadingMix, ViewSampler, all_nouns, open_cache
from distill3d.embedded.posterior import posterior_means

FLAT = ShadingMix(1.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    assets = read_index(make_assets(folder))
    return open_cache(assets, folder / "cache", views_per_mesh=24, pair_views=12, seed=0, size=32)


def drawn(cache, size=16, count=24, **settings):
    return ViewSampler(cache, all_nouns(cache.assets), 0, mix=FLAT, with_others=True, **settings).batch(0, count, size)


def pictures(others):
    """All that an image could have been, in [-1, 1]: the oracle."""
    views = others.views
    mask = views.mask.float()
    flat = views.color.float() + (1.0 - mask) * others.background[:, None, None]
    return 2.0 * relight.shifted(flat, torch.tensor([list(others.shift)] * len(flat))) - 1.0


@pytest.mark.parametrize("size", [32, 16])
def test_an_image_is_one_of_its_own_alternatives(cache, size):
    batch = drawn(cache, size, pair_share=0.0, override_share=0.0)
    known = [(x, o) for x, o in zip(batch.images, batch.others, strict=True) if o is not None]
    assert len(known) > len(batch.images) / 2  # all but those before a gradient
    for image, others in known:
        assert float((pictures(others) - image).abs().amax(dim=(1, 2, 3)).min()) < 3e-3


@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.6])
def test_the_mean_is_the_softmax_over_all_pictures(cache, alpha):
    batch = drawn(cache, pair_share=0.0, override_share=0.0)
    sigma = (1.0 - alpha**2) ** 0.5
    generator = torch.Generator().manual_seed(1)
    for image, others in zip(batch.images, batch.others, strict=True):
        if others is None or others.shift != (0, 0):  # a shift leaves a border that only the oracle compares
            continue
        noisy = alpha * image + sigma * torch.randn(image.shape, generator=generator)
        every = pictures(others)
        logits = -(noisy - alpha * every).square().sum(dim=(1, 2, 3)) / (2.0 * sigma**2)
        if others.same_words is not None:
            logits[~others.same_words] = -torch.inf
        oracle = torch.einsum("n,nchw->chw", torch.softmax(logits, 0), every)
        assert torch.allclose(others.mean(noisy, alpha, sigma), oracle, atol=2e-3)


def test_without_noise_the_mean_is_the_image(cache):
    batch = drawn(cache, pair_share=0.0, override_share=0.0)
    one, little = torch.ones(len(batch.images), 1, 1, 1), torch.full((len(batch.images), 1, 1, 1), 0.02)
    means = posterior_means(batch.images, batch.images, one, little, batch.others)
    assert torch.allclose(means, batch.images, atol=3e-3)


def test_the_mean_predicts_the_image_better_than_any_other_target_could(cache):
    """E[x | x_t] has the least square error, so less than the image of the nearest view and than the mean of all."""
    batch = drawn(cache, 32, 64, pair_share=0.0, override_share=0.0)
    alpha, sigma = 0.2, (1.0 - 0.2**2) ** 0.5
    generator = torch.Generator().manual_seed(2)
    by_mean = by_nearest = by_plain_mean = 0.0
    for image, others in zip(batch.images, batch.others, strict=True):
        if others is None or others.same_words is not None:
            continue
        noisy = alpha * image + sigma * torch.randn(image.shape, generator=generator)
        every = pictures(others)
        nearest = every[(noisy - alpha * every).square().sum(dim=(1, 2, 3)).argmin()]
        by_mean += float((others.mean(noisy, alpha, sigma) - image).square().mean())
        by_nearest += float((nearest - image).square().mean())
        by_plain_mean += float((every.mean(dim=0) - image).square().mean())
    assert 0.0 < by_mean < min(by_nearest, by_plain_mean)


def test_the_view_words_of_a_caption_narrow_what_is_possible(cache):
    batch = drawn(cache, count=64, pair_share=0.0, override_share=0.0)
    told = 0
    for caption, view, others in zip(batch.captions, batch.views, batch.others, strict=True):
        if others is None:
            continue
        assert (others.same_words is not None) == (f"{view} view" in caption)
        told += others.same_words is not None
        assert others.same_words is None or 0 < int(others.same_words.sum()) < len(others.same_words)
    assert told


def test_nothing_is_known_of_pairs_overrides_and_lit_views(cache):
    assert not any(drawn(cache, pair_share=1.0, override_share=0.0).others)
    assert not any(drawn(cache, pair_share=0.0, override_share=1.0).others)
    nouns = all_nouns(cache.assets)
    lit = ViewSampler(cache, nouns, 0, 0.0, 0.0, ShadingMix(0.0, 1.0, 0.0), with_others=True).batch(0, 8, 16)
    assert not any(lit.others)


def test_images_of_which_nothing_is_known_are_left_as_they_are(cache):
    batch = drawn(cache, pair_share=0.5, override_share=0.5)
    half = torch.full((len(batch.images), 1, 1, 1), 0.5)
    means = posterior_means(batch.images, torch.randn_like(batch.images), half, half, batch.others)
    for image, mean, others in zip(batch.images, means, batch.others, strict=True):
        assert others is not None or torch.equal(image, mean)
    assert torch.equal(posterior_means(batch.images, batch.images, half, half, []), batch.images)
