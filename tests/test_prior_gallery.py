"""The gallery: a posterior mean over its pictures, filled with what the views show, silent until it is trained."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny_assets import make_assets

from distill3d.data.assets import read_index
from distill3d.embedded.folder import make_scheduler
from distill3d.embedded.gallery import Gallery, Recalled, cosine_alphas_cumprod
from distill3d.embedded.gallery_fill import cluster, fill_gallery, pictures_of
from distill3d.embedded.mesh_views import ShadingMix, ViewSampler, all_nouns, open_cache
from distill3d.embedded.network import PixelUNet2DConditionModel

WORDS = 24


def encode(captions: list[str]) -> torch.Tensor:
    """A pooled text that tells words apart: the sum of a random vector for each."""
    rows = []
    for caption in captions:
        row = torch.zeros(WORDS)
        for word in caption.lower().replace(",", "").split():
            row += torch.randn(WORDS, generator=torch.Generator().manual_seed(sum(map(ord, word))))
        rows.append(row)
    return torch.stack(rows)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    assets = read_index(make_assets(folder))
    return open_cache(assets, folder / "cache", views_per_mesh=24, pair_views=0, seed=0, size=32)


@pytest.fixture(scope="module")
def filled(cache):
    nouns = all_nouns(cache.assets)
    gallery = Gallery(16 * len(nouns), 16, WORDS, (16, 16, 32)).requires_grad_(False)
    fill_gallery(gallery, cache, nouns, encode, seed=0)
    return gallery


def noised(images, t):
    abar = cosine_alphas_cumprod(torch.full((len(images),), float(t)))[:, None, None, None]
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(t))
    return abar.sqrt() * images + (1.0 - abar).sqrt() * noise, torch.full((len(images),), float(t))


def test_the_schedule_is_that_of_the_folder():
    t = torch.arange(1000)
    torch.testing.assert_close(cosine_alphas_cumprod(t), make_scheduler().alphas_cumprod, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("t", [300, 700, 900])
def test_what_is_recalled_is_the_mean_over_pictures_and_lights(filled, t):
    """The oracle draws every picture in every light before the background that was found, and compares pixels."""
    torch.manual_seed(0)
    noisy, when = noised(torch.rand(5, 3, 32, 32) - 0.5, t)
    text = encode(["an apple", "a fox", "", "a van", "a fox, side view"])
    maps = filled.recall(noisy, when, text)
    abar = cosine_alphas_cumprod(when[:1])
    alpha, sigma = abar.sqrt(), (1.0 - abar).sqrt() / 2.0
    cells = F.avg_pool2d(noisy, 2)
    lights = torch.linspace(-0.6, 2.4, 601)[:, None, None, None, None]
    prior = -((lights.flatten() - 0.9) ** 2) / (2.0 * 0.04)
    for row, background in enumerate(maps[:, 4:, 0, 0]):
        color, mask = filled.pictures[:, :3], filled.pictures[:, 3:]
        every = lights * color - mask + (1.0 - mask) * background[:, None, None]  # L N 3 s s
        spread = sigma**2 + (alpha * filled.log_spread.exp()) ** 2
        fits = -(cells[row] - alpha * every).square().sum(dim=(2, 3, 4)) / (2.0 * spread) + prior[:, None]
        weights = torch.softmax((fits + filled.keys(text[row])).flatten(), dim=0)
        oracle = torch.einsum("n,nchw->chw", weights, every.flatten(0, 1))
        torch.testing.assert_close(maps[row, :3], oracle, rtol=1e-3, atol=2e-3)


LIGHTS = (0.5, 0.8, 1.1)


@pytest.mark.parametrize("light", LIGHTS)
def test_a_picture_is_known_in_another_light(cache, filled, light):
    picture = pictures_of(cache, cache.singles["fox"], 16)[:1]
    color, mask = picture[:, :3], picture[:, 3:]
    image = light * color - mask
    noisy, when = noised(F.interpolate(image, scale_factor=4.0, mode="nearest"), 300)
    recalled = filled.recall(noisy, when, encode(["a fox"]))[:, :3]
    unlit = torch.tensor([float((s * color - mask - recalled).square().mean()) for s in LIGHTS])
    assert LIGHTS[int(unlit.argmin())] == light


@pytest.mark.parametrize("trust", [0.0, 0.3, 1.0])
def test_steering_moves_what_is_coarse_and_leaves_the_detail(trust):
    torch.manual_seed(0)
    v, said = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 1, 1).expand(2, 3, 16, 16)
    level = v.mean(dim=(2, 3), keepdim=True)
    v = v - F.interpolate(F.avg_pool2d(v, 4), scale_factor=4.0) + level  # one coarse value, and detail about it
    empty = torch.zeros(())
    steered = Recalled(empty, empty, empty, said, torch.full((2, 1, 1, 1), trust)).steer(v)
    coarse = torch.lerp(level.expand_as(said), said, trust)
    torch.testing.assert_close(F.avg_pool2d(steered, 4), coarse)
    torch.testing.assert_close(steered - F.interpolate(coarse, scale_factor=4.0), v - level)


@pytest.mark.parametrize("size", [32, 64])
def test_it_finds_the_object_in_the_noise(cache, filled, size):
    """At t = 700 what is recalled is nearer to the image than the mean view of its noun is."""
    nouns = all_nouns(cache.assets)
    batch = ViewSampler(cache, nouns, 3, 0.0, 0.0, ShadingMix(1.0, 0.0, 0.0)).batch(0, 48, 32)
    images = F.interpolate(batch.images, (size, size), mode="nearest")
    noisy, when = noised(images, 700)
    truth = F.avg_pool2d(images, size // 16)
    recalled = filled.recall(noisy, when, encode(batch.captions))
    behind = recalled[:, 4:]
    found = (recalled[:, :3] - truth).square().mean()
    mean_view = []
    for scene in batch.scenes:
        pictures = pictures_of(cache, cache.singles[scene.first.noun], 16).mean(dim=0)
        mean_view.append(pictures)
    mean = torch.stack(mean_view)
    mean = mean[:, :3] - mean[:, 3:] + (1.0 - mean[:, 3:]) * behind
    assert float(found) < 0.5 * float((mean - truth).square().mean())


@pytest.mark.parametrize("color", [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.6, -0.8, 0.2)])
def test_the_background_is_seen_where_the_noise_allows(filled, color):
    images = torch.tensor(color)[None, :, None, None].expand(1, 3, 64, 64)
    noisy, when = noised(images, 200)
    assert torch.allclose(filled.recall(noisy, when, encode([""]))[0, 4:, 0, 0], torch.tensor(color), atol=0.05)
    blind, when = noised(images, 999)
    assert filled.recall(blind, when, encode([""]))[0, 4:].abs().max() < 0.5  # no extreme is believed without a sight


def test_words_choose_among_the_pictures(cache, filled):
    nouns = all_nouns(cache.assets)
    weights = torch.softmax(filled.keys(encode([f"a {noun}" for noun in nouns])), dim=1)
    for index, row in enumerate(weights.unflatten(1, (len(nouns), -1)).sum(dim=2)):
        assert int(row.argmax()) == index and float(row[index]) > 0.9
    anything = torch.softmax(filled.keys(encode([""])), dim=1).unflatten(1, (len(nouns), -1)).sum(dim=2)
    assert float(anything.max()) < 0.9


def test_clusters_stand_for_all_views(cache):
    pictures = pictures_of(cache, cache.singles["fox"], 16)
    few, members = cluster(pictures, 4, seed=0)
    many, _ = cluster(pictures, 16, seed=0)
    error = lambda middles: float(torch.cdist(pictures.flatten(1), middles.flatten(1)).amin(dim=1).mean())  # noqa: E731
    assert error(many) < error(few) and len(members) == len(pictures)
    assert torch.equal(few, cluster(pictures, 4, seed=0)[0])


def test_a_table_too_small_for_the_nouns_is_an_error(cache):
    with pytest.raises(ValueError, match="gallery_size=2 is too small for"):
        fill_gallery(Gallery(2, 16, WORDS, (16, 16, 32)), cache, all_nouns(cache.assets), encode, 0)


def test_a_network_hears_its_gallery_once_it_is_trained():
    settings = {"outer_channels": 16, "block_out_channels": (16, 32), "cross_attention_dim": 8, "pooled_dim": WORDS}
    torch.manual_seed(0)
    network = PixelUNet2DConditionModel(
        **settings, middle_layers=1, attention_head_dim=16, time_channels=32, gallery_size=6
    )
    torch.nn.init.normal_(network.inner_out.conv.weight)

    def call():
        text = {"text_embeds": encode(["a fox", "a van"])}
        return network(torch.ones(2, 3, 32, 32), 500, torch.zeros(2, 4, 8), text).sample

    with torch.no_grad():
        network.gallery.trust.fill_(-1e4)
    before = call()
    torch.nn.init.normal_(network.gallery.pictures, std=0.05)
    assert torch.equal(call(), before)
    torch.nn.init.normal_(network.gallery.to_fine.weight)
    after = call()
    assert not torch.allclose(after, before)
    torch.nn.init.zeros_(network.gallery.trust)
    assert not torch.allclose(call(), after)
    after = call()
    after.square().mean().backward()
    assert network.gallery.pictures.grad.abs().max() > 0 and network.gallery.keys.weight.grad.abs().max() > 0
