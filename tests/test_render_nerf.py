"""The volume renderer: what a training view holds, determinism, chunks, and settings."""

import itertools
import logging
import math

import pytest
import torch
from torch import nn

from distill3d.camera import make_cameras
from distill3d.config.check import ConfigError, build
from distill3d.scenes.nerf.background import NeuralEnvironmentMapBackground as NeuralBackground
from distill3d.scenes.nerf.background import SolidColorBackground
from distill3d.scenes.nerf.field import ImplicitVolume
from distill3d.scenes.nerf.material import DiffuseWithPointLightMaterial as Material
from distill3d.scenes.nerf.renderer import NeRFVolumeRenderer
from distill3d.types import SHADING_MODES, FieldSample, Light

SIZE = 12
ENCODING = {"otype": "HashGrid", "n_levels": 3, "base_resolution": 4, "log2_hashmap_size": 8}


class Fog(nn.Module):
    """A white ball of radius .5 of constant density."""

    radius = 1.0

    def update_step(self, step: int) -> None:
        pass

    def density(self, points):
        return 0.7 * (points.norm(dim=-1) < 0.5)

    def sample(self, points, need_normal):
        return FieldSample(self.density(points), torch.ones_like(points), None)


class Ball(nn.Module):
    """An opaque white ball of radius .4, dark red inside a cap above z = .2."""

    radius = 1.0

    def update_step(self, step: int) -> None:
        self.last_step = step

    def density(self, points):
        return 500.0 * (points.norm(dim=-1) < 0.4)

    def sample(self, points, need_normal):
        albedo = torch.where(points[:, 2:] > 0.2, torch.tensor([0.5, 0.0, 0.0]), torch.ones(3))
        normal = nn.functional.normalize(points, dim=-1) if need_normal else None
        return FieldSample(self.density(points), albedo, normal)


def _renderer(geometry=None, background=None, material=None, **settings) -> NeRFVolumeRenderer:
    torch.manual_seed(0)
    if geometry is None:
        geometry = ImplicitVolume(build(ImplicitVolume.Config, {"pos_encoding_config": ENCODING}, "geometry"))
    material = Material(build(Material.Config, material, "material"))
    background = background or NeuralBackground(NeuralBackground.Config())
    settings = {"occupancy_resolution": 16, **settings}
    renderer = NeRFVolumeRenderer(
        build(NeRFVolumeRenderer.Config, settings, "renderer"), geometry, material, background
    )
    for step in range(0, 8 * renderer.cfg.occupancy_update_interval, renderer.cfg.occupancy_update_interval):
        renderer.update_step(step, 0)  # each looks at one random point of every cell
    return renderer


def _views(count: int = 2, size: int = SIZE):
    values = [torch.linspace(0.0, 40.0, count), torch.linspace(0.0, 90.0, count)]
    cameras = make_cameras(*values, torch.full((count,), 1.8), torch.full((count,), 45.0), size, size)
    return cameras, Light(cameras.position)


def test_a_training_view_fills_every_field():
    cameras, light = _views()
    out = _renderer()(cameras, light, "lambertian", 5, 0)
    count = len(out.samples)
    assert out.rgb.shape == (2, 3, SIZE, SIZE) and out.normal.shape == (2, 3, SIZE, SIZE)
    assert out.opacity.shape == out.depth.shape == (2, 1, SIZE, SIZE)
    assert out.samples.ray_count == 2 * SIZE * SIZE and count > 100
    assert out.weights.shape == (count,)
    assert out.sample_normals.shape == out.sample_directions.shape == (count, 3)
    torch.testing.assert_close(out.opacity.sum(), out.weights.sum())


@pytest.mark.parametrize("mode", SHADING_MODES)
def test_gradients_reach_every_parameter_that_a_mode_uses(mode):
    renderer = _renderer()
    nn.init.uniform_(renderer.geometry.encoding.table, -1.0, 1.0)
    renderer(*_views(), mode, 5, 0).rgb.square().sum().backward()
    grads = [p.grad is not None and float(p.grad.abs().sum()) > 0 for p in renderer.parameters()]
    assert all(grads) and len(grads) == 6


def test_normals_are_there_when_the_mode_or_the_caller_needs_them():
    renderer, (cameras, light) = _renderer(), _views()
    assert renderer(cameras, light, "albedo", 5, 0).sample_normals is None
    assert renderer(cameras, light, "textureless", 5, 0).sample_normals is not None
    assert renderer(cameras, light, "albedo", 5, 0, need_normal=True).sample_normals is not None


def test_nearby_normals_are_of_points_a_hundredth_away():
    renderer, (cameras, light) = _renderer(), _views()
    plain = renderer(cameras, light, "albedo", 5, 0, need_normal=True)
    seen = renderer(cameras, light, "albedo", 5, 0, need_normal=True, nearby_normals=True)
    assert plain.nearby_normals is None and torch.equal(plain.rgb, seen.rgb)
    asked: list[torch.Tensor] = []
    sample, renderer.geometry.sample = renderer.geometry.sample, lambda *a: asked.append(a[0]) or sample(*a)  # type: ignore[method-assign]
    renderer(cameras, light, "albedo", 5, 0, need_normal=True, nearby_normals=True)
    assert float((asked[1] - asked[0]).std()) == pytest.approx(0.01, rel=0.1)


def test_a_view_is_a_function_of_step_seed_and_rank():
    renderer, (cameras, light) = _renderer(), _views()
    image = lambda *key: renderer(cameras, light, "lambertian", *key).rgb  # noqa: E731
    first = image(3, 1, 0)
    assert torch.equal(first, image(3, 1, 0))
    assert not any(torch.equal(first, image(*key)) for key in ((4, 1, 0), (3, 2, 0), (3, 1, 1)))


def test_training_gradients_are_bitwise_reproducible():
    grads = []
    for _ in range(2):
        renderer = _renderer()
        renderer(*_views(), "lambertian", 3, 1).rgb.square().sum().backward()
        grads.append([p.grad for p in renderer.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_without_randomization_views_do_not_depend_on_the_step():
    renderer, (cameras, light) = _renderer(randomized=False), _views()
    images = [renderer(cameras, light, "albedo", step, 0).rgb for step in (1, 2)]
    assert torch.equal(*images)


def test_a_ball_looks_like_a_ball():
    white = SolidColorBackground(SolidColorBackground.Config(color=(0.0, 0.0, 1.0)))
    cameras, _ = _views(1, 33)
    out = _renderer(Ball(), white, num_samples_per_ray=256).render(cameras)
    middle, corner = (..., 16, 16), (..., 0, 0)
    torch.testing.assert_close(out.rgb[middle], torch.ones(1, 3), atol=1e-3, rtol=0)
    torch.testing.assert_close(out.rgb[corner], torch.tensor([[0.0, 0.0, 1.0]]))
    torch.testing.assert_close(out.depth[middle], torch.full((1, 1), 1.4), atol=0.02, rtol=0)
    torch.testing.assert_close(out.normal[middle], torch.tensor([[1.0, 0.0, 0.0]]), atol=0.02, rtol=0)
    assert out.opacity[corner] == 0 and out.depth[corner] == 0
    top = out.rgb[0, :, 16 - 7, 16]  # the cap is seen in the upper part of the image, not in the lower one
    assert top[1] < 0.2 and out.rgb[0, 1, 16 + 7, 16] > 0.8


def test_depth_is_the_mean_distance_also_where_light_passes_through():
    """Of a slab of density s from a to b: ``integral t s exp(-s (t - a)) dt / (1 - exp(-s (b - a)))``."""
    cameras, _ = _views(1, 33)
    renderer = _renderer(Fog(), num_samples_per_ray=2000, eval_chunk_size=10**6, grid_prune=False)
    out = renderer.render(cameras, need_normal=False)
    density, near, thickness = 0.7, 1.3, 1.0
    opacity = -math.expm1(-density * thickness)
    mean = near + 1 / density - thickness * math.exp(-density * thickness) / opacity
    torch.testing.assert_close(out.opacity[0, 0, 16, 16], torch.tensor(opacity), atol=5e-3, rtol=0)
    torch.testing.assert_close(out.depth[0, 0, 16, 16], torch.tensor(mean), atol=5e-3, rtol=0)


def test_the_light_falls_on_the_side_that_it_stands_on():
    cameras, _ = _views(1, 33)
    renderer = _renderer(Ball(), SolidColorBackground(SolidColorBackground.Config()))
    above = renderer.render(cameras, Light(torch.tensor([[0.0, 0.0, 3.0]])), "textureless").rgb[0, 0]
    assert above[9, 16] > 0.6 and above[23, 16] < 0.2
    frontal = renderer.render(cameras, None, "textureless").rgb[0, 0]
    torch.testing.assert_close(frontal[16, 16], torch.tensor(1.0), atol=0.01, rtol=0)


def test_each_view_has_its_own_light():
    cameras, _ = _views(2, 17)
    lights = Light(torch.stack([cameras.position[0], -cameras.position[1]]))
    renderer = _renderer(Ball(), SolidColorBackground(SolidColorBackground.Config()))
    for out in (renderer(cameras, lights, "textureless", 1, 0), renderer.render(cameras, lights, "textureless")):
        assert out.rgb[0, 0, 8, 8] > 0.9 and out.rgb[1, 0, 8, 8] < 0.15


def test_pictures_do_not_depend_on_the_size_of_chunks():
    cameras, _ = _views()
    pictures = [_renderer(eval_chunk_size=size).render(cameras, shading="lambertian") for size in (97, 10**6)]
    for name in ("rgb", "opacity", "depth", "normal"):
        torch.testing.assert_close(getattr(pictures[0], name), getattr(pictures[1], name))


def test_pictures_have_no_gradient_no_samples_and_no_randomness():
    renderer, (cameras, _) = _renderer(), _views()
    first = renderer.render(cameras)
    assert not first.rgb.requires_grad and first.samples is None
    assert torch.equal(first.rgb, renderer.render(cameras).rgb)
    assert renderer.render(cameras, need_normal=False).normal is None


def test_a_given_background_replaces_the_scenes():
    cameras, _ = _views(1)
    out = _renderer(Ball()).render(cameras, background=torch.tensor([0.2, 0.4, 0.6]))
    torch.testing.assert_close(out.rgb[0, :, 0, 0], torch.tensor([0.2, 0.4, 0.6]))


def test_views_of_one_batch_are_augmented_independently():
    background = NeuralBackground(NeuralBackground.Config(random_aug=True, random_aug_prob=1.0))
    corners = _renderer(Ball(), background)(*_views(3), "albedo", 1, 0).rgb[:, :, 0, 0]
    assert len(corners.unique(dim=0)) == 3


def test_views_of_one_batch_share_their_augmentation_where_asked():
    background = NeuralBackground(NeuralBackground.Config(random_aug=True, random_aug_prob=1.0, share_aug_bg=True))
    renderer = _renderer(Ball(), background)
    corners = [renderer(*_views(3), "albedo", step, 0).rgb[:, :, 0, 0] for step in (1, 2)]
    assert all(len(each.unique(dim=0)) == 1 for each in corners) and not torch.equal(*corners)


def test_pictures_are_never_augmented():
    plain, augmented = (
        NeuralBackground(NeuralBackground.Config(random_aug=aug, random_aug_prob=1.0)) for aug in (False, True)
    )
    augmented.load_state_dict(plain.state_dict())
    cameras, light = _views(3)
    pictures = [_renderer(Ball(), background).render(cameras).rgb for background in (plain, augmented)]
    assert torch.equal(*pictures)
    assert not torch.equal(_renderer(Ball(), augmented)(cameras, light, "albedo", 1, 0).rgb, pictures[0])


def test_samples_are_capped_by_longer_steps_that_still_cover_the_object():
    cameras, light = _views()
    full = _renderer(num_samples_per_ray=300, max_samples_per_ray=500)(cameras, light, "albedo", 1, 0)
    capped = _renderer(num_samples_per_ray=300, max_samples_per_ray=8)(cameras, light, "albedo", 1, 0)
    assert len(full.samples) > 8 * full.samples.ray_count >= len(capped.samples)
    assert len(capped.samples) > 6 * capped.samples.ray_count
    torch.testing.assert_close(capped.opacity.mean(), full.opacity.mean(), rtol=0.05, atol=0)


def test_the_cap_is_said_once_and_can_be_taken_off(caplog):
    cameras, light = _views()
    capped, free = (_renderer(num_samples_per_ray=300, max_samples_per_ray=cap) for cap in (8, None))
    with caplog.at_level(logging.INFO, "distill3d"):
        renders = [renderer(cameras, light, "albedo", step, 0) for renderer in (free, capped) for step in (1, 2)]
    (line,) = caplog.messages
    assert f"max_samples_per_ray=8 shortens training views: the first had {len(renders[0].samples)} samples" in line
    full = _renderer(num_samples_per_ray=300, max_samples_per_ray=500)(cameras, light, "albedo", 1, 0)
    assert torch.equal(renders[0].rgb, full.rgb)


@pytest.mark.parametrize("background", [None, torch.tensor([0.2, 0.4, 0.6])])
def test_a_picture_is_marched_a_chunk_of_rays_at_a_time(background, monkeypatch):
    from distill3d.scenes.nerf import renderer as module

    marched, sample = [], module.sample_rays
    monkeypatch.setattr(module, "sample_rays", lambda *args: marched.append(len(args[0])) or sample(*args))
    cameras, _ = _views(2)
    at_once, in_chunks = (
        _renderer(eval_ray_chunk_size=size).render(cameras, background=background) for size in (SIZE**2, 50)
    )
    assert marched == [144, 144, 50, 50, 44, 50, 50, 44]
    for name in ("rgb", "opacity", "depth", "normal"):
        torch.testing.assert_close(getattr(in_chunks, name), getattr(at_once, name), atol=1e-6, rtol=1e-5)


def test_pruning_changes_the_number_of_samples_and_not_the_picture():
    cameras, _ = _views(1)
    light = Light(cameras.position)
    pruned, whole = (_renderer(Ball(), grid_prune=prune)(cameras, light, "albedo", 1, 0) for prune in (True, False))
    assert len(pruned.samples) < 0.5 * len(whole.samples)
    torch.testing.assert_close(pruned.rgb, whole.rgb, atol=0.02, rtol=0)


def test_planes_cut_the_scene():
    cameras, light = _views(1)
    renderer = _renderer(Ball(), near_plane=1.5, far_plane=1.6, num_samples_per_ray=200)
    samples = renderer(cameras, light, "albedo", 1, 0).samples
    assert samples.t_start.min() >= 1.5 and samples.t_end.max() < 1.6 + 0.02


def test_a_scene_of_nothing_is_its_background():
    renderer, (cameras, light) = _renderer(), _views()
    renderer.occupancy.occupied.zero_()
    out = renderer(cameras, light, "lambertian", 1, 0)
    out.rgb.sum().backward()
    assert len(out.samples) == 0 and (out.opacity == 0).all() and (out.depth == 0).all()
    assert (renderer.render(cameras, shading="normal").opacity == 0).all()


def test_the_grid_is_renewed_every_few_steps_and_the_geometry_told_every_step():
    renderer = _renderer(Ball(), occupancy_update_interval=4)
    states = []
    for step in range(1, 9):
        renderer.update_step(step, 0)
        states.append(renderer.occupancy.values.clone())
    changed = [not torch.equal(a, b) for a, b in itertools.pairwise(states)]
    assert changed == [False, False, True, False, False, False, True] and renderer.geometry.last_step == 8


def test_a_restored_renderer_draws_the_same_pictures():
    cfg = {**ENCODING, "otype": "ProgressiveBandHashGrid", "start_level": 1, "update_steps": 5}
    make = lambda: _renderer(ImplicitVolume(ImplicitVolume.Config(pos_encoding_config=dict(cfg))))  # noqa: E731
    trained, restored, (cameras, _) = make(), make(), _views()
    nn.init.uniform_(trained.geometry.encoding.table, -1.0, 1.0)
    trained.update_step(16, 0)
    restored.load_state_dict(trained.state_dict())
    assert torch.equal(trained.render(cameras).rgb, restored.render(cameras).rgb)


def test_the_materials_activation_is_the_geometrys():
    renderer = _renderer(material={"albedo_activation": "scale_-11_01"})
    points = torch.rand(4, 3)
    with torch.no_grad():
        plain = _renderer().geometry.sample(points, False).albedo
        scaled = renderer.geometry.sample(points, False).albedo
    torch.testing.assert_close(scaled, 0.5 * plain.logit() + 0.5)


def test_soft_shading_draws_its_own_light_for_each_step():
    renderer, (cameras, light) = _renderer(Ball(), material={"soft_shading": True}), _views(1)
    renderer.cfg.randomized = False
    images = torch.stack([renderer(cameras, light, "textureless", step, 0).rgb[0, 0] for step in range(4)])
    assert len(images[:, 0, 6].unique()) == 1 and len(images[:, 3, 6].unique()) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples_per_ray": 0}, "renderer.num_samples_per_ray=0 must be at least 1"),
        ({"radius": -1.0}, "renderer.radius=-1.0 must be positive"),
        ({"near_plane": 3.0, "far_plane": 2.0}, "renderer.near_plane=3.0 must lie in 0 .. far_plane=2.0"),
        ({"occupancy_ema_decay": 1.5}, "renderer.occupancy_ema_decay=1.5 must lie in 0 .. 1"),
        ({"bound": "cube"}, "renderer.bound='cube' is not a choice"),
        ({"num_samples_per_rays": 4}, "did you mean 'num_samples_per_ray'"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        build(NeRFVolumeRenderer.Config, settings, "renderer")
