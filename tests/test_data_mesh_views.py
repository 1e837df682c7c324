"""Cached views: relighting, overrides, captions that are true, batches that are a function of the step."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_assets import make_assets

from distill3d.config.check import build
from distill3d.data.assets import load_mesh, read_index
from distill3d.embedded import relight
from distill3d.embedded.captions import COLORS, MATERIALS
from distill3d.embedded.light_field import canonical_cameras, ray_features
from distill3d.embedded.light_views import light_batch
from distill3d.embedded.mesh_view_module import MeshViewDataModule
from distill3d.embedded.mesh_views import ShadingMix, ViewSampler, all_nouns, core_nouns, open_cache
from distill3d.scenes.mesh.raster import GBuffer, rasterize


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assets")
    assets = read_index(make_assets(folder))
    return open_cache(assets, folder / "cache", views_per_mesh=12, pair_views=12, seed=0, size=32)


@pytest.fixture(scope="module")
def full_cache(tmp_path_factory):
    """At the size that training uses, which is the light field's."""
    folder = tmp_path_factory.mktemp("full")
    assets = read_index(make_assets(folder))
    return open_cache(assets, folder / "cache", views_per_mesh=12, pair_views=6, seed=0)


def sampler(cache, **settings) -> ViewSampler:
    return ViewSampler(cache, all_nouns(cache.assets), seed=3, **settings)


def test_packing_keeps_a_buffer_within_a_byte():
    torch.manual_seed(0)
    normal = torch.nn.functional.normalize(torch.randn(2, 3, 4, 4), dim=1)
    buffer = GBuffer(torch.rand(2, 4, 4, 4), normal, torch.rand(2, 3, 4, 4) - 0.5, torch.ones(2, 1, 4, 4))
    surface = relight.unpack(relight.pack(buffer))
    assert torch.allclose(surface.albedo, buffer.attributes[:, :3], atol=0.5 / 255 + 1e-6)
    assert torch.allclose(surface.position, buffer.position, atol=0.5 * 1.5 / 255 + 1e-6)
    assert torch.allclose(surface.normal, normal, atol=0.02)


def test_a_light_at_the_camera_lights_what_faces_it(cache):
    surface, eye = cache.surface([0]), cache.eye[[0]]
    lit = relight.lambertian(surface, torch.ones_like(surface.albedo), eye, torch.tensor([0.1]))
    inside = surface.mask > 0.99
    assert float(lit[inside.expand_as(lit)].min()) >= 0.1 - 1e-6
    behind = relight.lambertian(surface, torch.ones_like(surface.albedo), -4.0 * eye, torch.tensor([0.1]))
    assert float(behind[inside.expand_as(behind)].mean()) < 0.2 < float(lit[inside.expand_as(lit)].mean())


@pytest.mark.parametrize("name", ["red", "blue", "green"])
def test_a_recoloured_object_has_the_colour(cache, name):
    row = cache.singles["van"][0]
    surface = cache.surface([row])
    albedo = relight.overridden(surface, cache.eye[[row]], [(name, None)])
    mean = albedo[0][:, surface.mask[0, 0] > 0.99].mean(dim=1)
    assert int(mean.argmax()) == max(range(3), key=lambda i: COLORS[name][i])


def test_overrides_touch_only_their_object(cache):
    row = cache.pairs[0]
    surface = cache.surface([row])
    albedo = relight.overridden(surface, cache.eye[[row]], [("blue", None)])
    second = (surface.second[0, 0] > 0.99) & (surface.mask[0, 0] > 0.99)
    first = (surface.second[0, 0] < 0.01) & (surface.mask[0, 0] > 0.99)
    assert torch.equal(albedo[0][:, second], surface.albedo[0][:, second])
    assert not torch.equal(albedo[0][:, first], surface.albedo[0][:, first])


def test_an_unknown_override_is_an_error(cache):
    with pytest.raises(ValueError, match="plaid"):
        relight.overridden(cache.surface([0]), cache.eye[[0]], [("plaid", None)])


def test_the_cache_is_made_once_and_reopened(cache, tmp_path):
    assets = read_index(make_assets(tmp_path))
    first = open_cache(assets, tmp_path / "cache", 2, 2, seed=0, size=16)
    stamp = (tmp_path / "cache").stat().st_mtime_ns
    again = open_cache(assets, tmp_path / "cache", 2, 2, seed=0, size=16)
    assert (tmp_path / "cache").stat().st_mtime_ns == stamp
    assert (first.buffers == again.buffers).all()
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_batches_are_a_function_of_seed_and_step(cache):
    sampler = ViewSampler(cache, all_nouns(cache.assets), seed=3)
    a, b = sampler.batch(5, 8, 32), ViewSampler(cache, all_nouns(cache.assets), seed=3).batch(5, 8, 32)
    assert torch.equal(a.images, b.images)
    assert a.captions == b.captions
    assert sampler.batch(6, 8, 32).captions != a.captions
    assert a.images.shape == (8, 3, 32, 32)
    assert float(a.images.min()) >= -1.0 and float(a.images.max()) <= 1.0
    assert sampler.batch(5, 8, 16).images.shape == (8, 3, 16, 16)


def test_only_the_asked_nouns_appear_and_nothing_held_out(cache):
    sampler = ViewSampler(cache, core_nouns(cache.assets), seed=0)
    for step in range(20):
        batch = sampler.batch(step, 16, 32)
        for scene in batch.scenes:
            assert {thing.noun for thing in scene.things} <= {"apple", "fox", "crown"}
            assert not sampler.held_out.contains(scene)


def test_shares_of_shadings_pairs_and_overrides(cache):
    mix = ShadingMix(albedo=0.2, lambertian=0.4, textureless=0.4)
    sampler = ViewSampler(cache, core_nouns(cache.assets), 0, pair_share=0.25, override_share=0.3, mix=mix)
    batches = [sampler.batch(step, 32, 32) for step in range(40)]
    scenes = [scene for batch in batches for scene in batch.scenes]
    pairs = [scene.second is not None for scene in scenes]
    single_overrides = [s.second is None and bool(s.first.color or s.first.material) for s in scenes]
    textureless = [t for batch in batches for t in batch.textureless]
    assert sum(pairs) / len(pairs) == pytest.approx(0.25, abs=0.04)
    assert sum(single_overrides) / len(scenes) == pytest.approx(0.3, abs=0.04)
    assert sum(textureless) / len(textureless) == pytest.approx(0.4, abs=0.04)


def test_strong_augmentation_changes_the_picture_but_not_the_caption(cache):
    plain = ViewSampler(cache, core_nouns(cache.assets), 0).batch(0, 4, 32)
    strong = ViewSampler(cache, core_nouns(cache.assets), 0, strong=True).batch(0, 4, 32)
    assert plain.captions == strong.captions
    assert float((plain.images - strong.images).abs().mean()) > 0.02


def test_backgrounds_are_constant_or_a_ramp():
    backgrounds = relight.random_backgrounds(64, 16, torch.Generator().manual_seed(0))
    assert backgrounds.shape == (64, 3, 16, 16)
    constant = backgrounds.flatten(2).std(dim=2).amax(dim=1) < 1e-6
    assert 0.65 < float(constant.float().mean()) < 0.95
    second_difference = backgrounds.diff(n=2, dim=-1).abs().amax()
    assert float(second_difference) < 0.2


def test_a_view_comes_with_the_camera_that_sees_it(full_cache):
    """The mesh, rasterised anew by the batch's camera, has the mask of the batch."""
    batch = sampler(full_cache, pair_share=0.0, override_share=0.0).batch(0, 4, 64)
    for row, scene in enumerate(batch.scenes):
        asset = next(asset for asset in full_cache.assets if asset.noun == scene.first.noun)
        mask = rasterize(load_mesh(asset), batch.cameras[[row]], supersample=2).mask
        assert float((mask[0] - batch.clean[row, 3:]).abs().max()) < 0.01


def test_clean_views_are_what_unlit_images_show_before_their_background(full_cache):
    unlit = ShadingMix(albedo=1.0, lambertian=0.0, textureless=0.0)
    batch = sampler(full_cache, mix=unlit).batch(0, 8, 64)
    inside = batch.clean[:, 3:] > 0.999
    images = 0.5 + 0.5 * batch.images
    assert inside.any() and float(((images - batch.clean[:, :3]).abs() * inside).max()) < 0.01
    assert all(field is not None and len(batch[:3].captions) == 3 for field in vars(batch[:3]).values())


def test_light_batches_are_rays_of_views_of_what_their_captions_say(full_cache):
    draw = sampler(full_cache, pair_share=0.0, override_share=0.0)
    batch = light_batch(draw, 0, scenes=6, views=3, rays=40, camera_dropout=0.5)
    assert batch.rays.shape == (6, 120, 54) and batch.clean.shape == (6, 120, 64)
    assert torch.equal(batch.rays, light_batch(draw, 0, 6, 3, 40, 0.5).rays)
    assert not torch.equal(batch.rays, light_batch(draw, 1, 6, 3, 40, 0.5).rays)
    assert set(batch.known.tolist()) == {0.0, 1.0}
    canonical = ray_features(*canonical_cameras(1))[0]
    for row, known in enumerate(batch.known.tolist()):
        nearest = torch.cdist(batch.rays[row], canonical, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
        assert bool((nearest < 1e-3).all()) == (known == 0.0)
        assert known == 0.0 or " view" not in batch.captions[row]
    apple = next(row for row, caption in enumerate(batch.captions) if "apple" in caption)
    color = batch.clean[apple].unflatten(-1, (4, 16))[:, :3].amax(dim=(0, 2))
    assert color[0] > 0.7 and color[1] < 0.2  # of the tiny assets the apple is red


def test_light_batches_know_recoloured_things_and_pairs(full_cache):
    recoloured = light_batch(sampler(full_cache, pair_share=0.0, override_share=1.0), 0, 8, 2, 64, 0.0)
    words = set(COLORS) | set(MATERIALS)
    assert all(words & set(caption.replace(",", "").split()) for caption in recoloured.captions)
    pairs = light_batch(sampler(full_cache, pair_share=1.0, override_share=0.0), 0, 4, 2, 256, 0.5)
    assert pairs.known.all()  # a pair has one view
    first, second = pairs.clean.unflatten(1, (2, 256)).sort(dim=2).values.unbind(1)
    torch.testing.assert_close(first, second)


def test_the_datamodule_needs_a_folder_and_alternates_sizes(tmp_path):
    with pytest.raises(ValueError, match=r"data\.assets"):
        _ = MeshViewDataModule(MeshViewDataModule.Config()).assets
    cfg = MeshViewDataModule.Config(
        assets=str(make_assets(tmp_path)), cache_dir=str(tmp_path / "c"), views_per_mesh=1, pair_views=2, batch_size=2
    )
    loader = iter(MeshViewDataModule(cfg).train_dataloader())
    assert [next(loader).images.shape[-1] for _ in range(3)] == [64, 32, 64]
    assert MeshViewDataModule(dataclasses.replace(cfg, noun_count=2)).nouns == ["apple", "fox"]


def test_views_are_drawn_by_the_cameras_that_are_given_or_by_a_priors(tmp_path):
    folder = make_assets(tmp_path)
    near = {"elevation_range": [20, 30], "camera_distance_range": [1.5, 1.6], "camera_perturb": 0.0}
    views = module(folder, cameras=near).cache()
    assert len(views.elevation_deg) and views.elevation_deg.min() >= 20 and views.elevation_deg.max() <= 30
    assert float(views.eye.norm(dim=1).min()) > 1.49 and float(views.eye.norm(dim=1).max()) < 1.61
    (tmp_path / "prior").mkdir()
    (tmp_path / "prior" / "cameras.json").write_text('{"elevation_range": [50, 60]}')
    like = module(folder, cameras_like=str(tmp_path / "prior"))
    assert like.cache().elevation_deg.min() >= 50
    assert like.held_out_views(["fox"], 4).images.shape == (4, 3, 64, 64)


def module(folder, **settings):
    """The datamodule as a config makes it, on four tiny meshes."""
    few = {"assets": str(folder), "cache_dir": str(folder / "cache"), "views_per_mesh": 2, "pair_views": 4}
    return MeshViewDataModule(build(MeshViewDataModule.Config, few | settings, "data"))


def test_nouns_are_all_the_core_or_those_that_are_listed(tmp_path):
    folder = make_assets(tmp_path)
    every = ["apple", "fox", "crown", "van"]
    for choice, expected in (("all", every), ("core", every[:3]), (["van", "fox", "van"], ["van", "fox"])):
        assert module(folder, nouns=choice).nouns == expected
    one = module(folder, nouns=["fox"], override_share=0.3, batch_size=64, image_sizes=[8])
    one.check()
    scenes = [scene for step in range(6) for scene in one.sampler.batch(step, 64, 8).scenes]
    assert {(scene.first.noun, scene.second) for scene in scenes} == {("fox", None)}  # and none to pair it with
    recoloured = [bool(scene.first.color or scene.first.material) for scene in scenes]
    assert sum(recoloured) / len(recoloured) == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"assets": None}, "data.assets is not set"),
        (
            {"nouns": ["fox", "crwn"]},
            "data.nouns: 'crwn' has no mesh in data.assets; the nearest that has one is 'crown'",
        ),
        ({"nouns": "fox"}, r"data.nouns='fox': choose all, core or a list such as data.nouns=\[cat, dog\]"),
        ({"nouns": []}, r"data.nouns=\[\] is empty"),
        ({"noun_count": 0}, "data.noun_count=0 must be at least 1"),
        ({"variants_per_noun": 0}, "data.variants_per_noun=0 must be at least 1"),
        ({"cameras": {"fovy_range": [40, 38]}}, r"data.cameras.fovy_range=\[40.0, 38.0\] must be \[low, high\]"),
        ({"cameras_like": "elsewhere"}, "data.cameras_like='elsewhere' is no folder with a cameras.json"),
        ({"pair_views": -1}, "data.pair_views=-1 must be at least 0"),
        ({"image_sizes": []}, r"data.image_sizes=\[\] must be a list of sizes from 1 to 64"),
        ({"image_sizes": [32, 0]}, r"data.image_sizes=\[32, 0\] must"),
        ({"image_sizes": [65]}, r"data.image_sizes=\[65\] must"),
        ({"pair_share": -0.1}, "data.pair_share=-0.1 must lie in 0 .. 1"),
        ({"override_share": 1.5}, "data.override_share=1.5 must lie in 0 .. 1"),
        ({"override_share": 0.6, "pair_share": 0.5}, "data.override_share=0.6 and pair_share=0.5 .*at most 1"),
        ({"mix": {"albedo": -1}}, "data.mix.albedo=-1.0 is a share"),
        ({"mix": {"textureless": 2}}, "data.mix.textureless=2.0 is a share"),
        ({"mix": {"albedo": 0, "lambertian": 0, "textureless": 0}}, "data.mix.albedo, lambertian and .* all 0"),
        ({"mix": {"ambient_range": [0.5, 0.1]}}, r"data.mix.ambient_range=\[0.5, 0.1\] must be"),
    ],
)
def test_each_mistake_is_told_with_its_setting(settings, message, tmp_path):
    with pytest.raises(ValueError, match=f"^{message}"):
        module(make_assets(tmp_path), **settings).check()


@pytest.mark.parametrize("settings", [{"pair_share": 0, "override_share": 1}, {"mix": {"albedo": 0, "textureless": 0}}])
def test_no_share_and_the_whole_are_shares(settings, tmp_path):
    batch = module(make_assets(tmp_path), image_sizes=[8], **settings).sampler.batch(0, 16, 8)
    for scene, textureless in zip(batch.scenes, batch.textureless, strict=True):
        assert not textureless if "mix" in settings else bool(scene.first.color or scene.first.material)
