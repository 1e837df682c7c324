"""View consistency: projection inverts rays, pictures of one coloured surface agree, and noise is found."""

from __future__ import annotations

import math

import pytest
import torch

from distill3d.camera import CameraRanges, camera_rays, orbit_cameras, random_cameras
from distill3d.systems.editing.consistency import project, view_inconsistency, world_points


def ball(cameras, radius=0.4):
    """Depth and opacity of a ball at the origin, and its colours, which vary smoothly over the surface."""
    rays = camera_rays(cameras)
    along = -(rays.origins * rays.directions).sum(-1)
    closest = (rays.origins.square().sum(-1) - along**2).clamp_min(0.0)
    hit = closest < radius**2
    depth = torch.where(hit, along - (radius**2 - closest).clamp_min(0.0).sqrt(), 0.0)
    points = rays.origins + depth[..., None] * rays.directions
    colors = (0.5 + 0.5 * torch.sin(4.0 * points)) * hit[..., None]
    return colors.permute(0, 3, 1, 2), depth[:, None], hit[:, None].float()


def test_projection_inverts_the_rays():
    cameras = random_cameras(CameraRanges(), 3, 12, 20, torch.Generator().manual_seed(0))
    depth = 0.5 + torch.rand(3, 1, 12, 20, generator=torch.Generator().manual_seed(1))
    at, distance, inside = project(world_points(cameras, depth), cameras)
    assert inside.all()
    torch.testing.assert_close(distance, depth[:, 0], rtol=1e-5, atol=1e-5)
    x, y = (torch.arange(20) + 0.5) / 10 - 1, (torch.arange(12) + 0.5) / 6 - 1
    torch.testing.assert_close(at[..., 0], x.expand(3, 12, 20), rtol=0, atol=1e-4)
    torch.testing.assert_close(at[..., 1], y[:, None].expand(3, 12, 20), rtol=0, atol=1e-4)


def test_points_behind_a_camera_are_not_in_its_image():
    cameras = orbit_cameras(2, 0.0, 1.5, 40.0, 8)
    behind = 2.0 * cameras.position[:, None, None].expand(2, 8, 8, 3)
    assert not project(behind, cameras)[2].any()


def test_pictures_of_one_scene_agree_and_pictures_drawn_apart_do_not():
    cameras = orbit_cameras(12, 15.0, 1.6, 40.0, 48)
    colors, depth, opacity = ball(cameras)
    same = view_inconsistency(colors, cameras, depth, opacity)
    assert same is not None and same < 0.02
    shifts = 0.2 * torch.randn(12, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    found = view_inconsistency(colors + shifts, cameras, depth, opacity)
    # the mean absolute difference of two normal numbers of deviation .2
    assert found == pytest.approx(0.2 * 2 / math.sqrt(math.pi), rel=0.35)


def test_there_is_nothing_to_compare_where_no_two_views_share_a_point():
    cameras = orbit_cameras(2, 0.0, 1.6, 40.0, 16)  # front and back
    assert view_inconsistency(*_scene(cameras)) is None
    one = cameras[[0]]
    assert view_inconsistency(*_scene(one)) is None


def _scene(cameras):
    colors, depth, opacity = ball(cameras)
    return colors, cameras, depth, opacity
