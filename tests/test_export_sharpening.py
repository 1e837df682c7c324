"""Sharpening: a soft volume becomes thin and still looks the same, a thin one is left alone, and so is the original."""

import copy

import pytest
import torch

from distill3d.config.check import build
from distill3d.config.registry import find
from distill3d.export.query import SceneField
from distill3d.export.sharpening import RayTargets, _thickness, composite, sharpened
from distill3d.export.surface.extraction import object_box, seen_views
from distill3d.export.views import fitting_cameras

SIZE = 1.0


def make(kind: str, name: str, settings: dict, *parts):
    cls = find(kind, name, kind)
    return cls(build(cls.Config, settings, kind), *parts)


@pytest.fixture(scope="module")
def soft():
    """A ball whose density rises slowly inwards, in colours that differ with the depth."""
    torch.manual_seed(0)
    encoding = {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 12, "per_level_scale": 1.5}
    field = {"radius": 0.6, "density_blob_scale": 12.0, "density_blob_std": 0.5, "pos_encoding_config": encoding}
    geometry = make("geometry", "implicit-volume", field)
    material = make("material", "diffuse-with-point-light-material", {})
    background = make("background", "solid-color-background", {})
    settings = {"num_samples_per_ray": 48, "occupancy_resolution": 16}
    renderer = make("renderer", "nerf-volume-renderer", settings, geometry, material, background)
    renderer.update_step(0, 0)
    return renderer


def test_a_soft_volume_becomes_thin_and_looks_the_same(soft):
    before = copy.deepcopy(soft.state_dict())
    box = object_box(SceneField.of(soft), None)
    views = seen_views(soft, fitting_cameras(box, 12, 24))
    size = float(box.extent.max())
    sharp = sharpened(soft, views, size, steps=60)
    rays = RayTargets.of(views)
    assert _thickness(sharp, rays, size) < 0.6 * _thickness(soft, rays, size)
    others = fitting_cameras(box, 3, 24)
    seen, truth = seen_views(sharp, others), seen_views(soft, others)
    assert float((seen.color - truth.color).square().mean()) < 10.0**-1.8
    for name, value in soft.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(p.requires_grad for p in sharp.parameters())


def test_a_thin_volume_is_given_back(soft, monkeypatch):
    monkeypatch.setattr("distill3d.export.sharpening.THIN", 1.0)
    views = seen_views(soft, fitting_cameras(object_box(SceneField.of(soft), None), 2, 16))
    assert sharpened(soft, views, SIZE, steps=5) is soft


def test_rays_composite_to_what_the_renderer_draws(soft):
    cameras = fitting_cameras(object_box(SceneField.of(soft), None), 2, 16)
    views = seen_views(soft, cameras)
    rays = RayTargets.of(views)
    seen = composite(soft, rays, torch.full((len(rays),), 0.5))
    torch.testing.assert_close(seen.opacity, rays.opacity, atol=5e-3, rtol=0.0)
    torch.testing.assert_close(seen.color, rays.color, atol=5e-3, rtol=0.0)
