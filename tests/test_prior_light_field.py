"""The light field: its rays are the camera's, and its mixed layer is the layer that it stands for."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from distill3d.camera import camera_rays, make_cameras
from distill3d.embedded.folder import make_scheduler
from distill3d.embedded.light_field import (
    CELLS,
    LightField,
    LightIn,
    MixedLinear,
    Seen,
    as_blocks,
    as_picture,
    canonical_cameras,
    cosine_alphas_cumprod,
    ray_features,
)


def some_cameras(size: int = CELLS):
    angles = (torch.tensor([0.0, 30.0, -10.0]), torch.tensor([0.0, 120.0, -75.0]))
    return make_cameras(*angles, torch.tensor([1.5, 1.6, 2.0]), torch.tensor([39.0, 38.0, 60.0]), size, size)


def test_the_rays_are_those_that_the_renderer_casts():
    """At a size of 16 the renderer's pixels are the light field's cells."""
    cameras = some_cameras()
    rays = camera_rays(cameras)
    features = ray_features(cameras.c2w, cameras.fovy_rad)
    origin, direction = rays.origins.flatten(1, 2), rays.directions.flatten(1, 2)
    foot = origin - (origin * direction).sum(-1, keepdim=True) * direction
    torch.testing.assert_close(features[..., 3:6], direction, atol=1e-5, rtol=0)
    torch.testing.assert_close(features[..., :3], 2.0 * foot, atol=1e-5, rtol=0)
    torch.testing.assert_close(features[..., 6:9], (math.pi * foot).sin(), atol=1e-4, rtol=0)
    assert features.shape == (3, CELLS**2, 54)


def test_a_ray_has_one_name_wherever_its_camera_stands_on_it():
    """Foot point and direction do not change as the camera moves along its axis: the middle ray is the same ray."""
    near, far = (make_cameras(*torch.tensor([[20.0], [40.0], [d], [30.0]]), 1, 1) for d in (1.0, 2.0))
    middle = lambda camera: ray_features(camera.c2w, torch.zeros(1))[:, 0]  # noqa: E731, all rays are the axis at fov 0
    torch.testing.assert_close(middle(near), middle(far), atol=1e-5, rtol=0)


def test_the_canonical_camera_looks_at_the_front():
    expected = make_cameras(*torch.tensor([[15.0], [0.0], [1.55], [39.0]]), 16, 16).c2w
    c2w, fovy_rad = canonical_cameras(1)
    torch.testing.assert_close(c2w, expected, atol=1e-6, rtol=0)
    assert math.degrees(float(fovy_rad)) == pytest.approx(39.0)


def test_blocks_and_pictures_are_inverse_and_cells_lie_where_their_rays_point():
    picture = torch.rand(2, 4, 64, 64)
    torch.testing.assert_close(as_picture(as_blocks(picture)), picture)
    corner = torch.zeros(1, 4, 64, 64)
    corner[..., :4, -4:] = 1.0  # top right
    assert as_blocks(corner)[0].sum(-1).nonzero().flatten().tolist() == [CELLS - 1]
    features = ray_features(*(getattr(some_cameras(), name)[:1] for name in ("c2w", "fovy_rad")))[0, CELLS - 1]
    assert features[5] > 0 and features[4] > 0  # from the front, up is +z and right is +y


def test_the_mixed_layer_is_a_linear_layer_of_the_mixed_matrix():
    torch.manual_seed(0)
    layer = MixedLinear(8, 5, 3).requires_grad_(False)
    h, text, scale, shift = torch.randn(2, 7, 8), torch.randn(2, 5), torch.randn(2, 8), torch.randn(2, 8)
    shares = torch.softmax(layer.choice(text), dim=-1)
    for row in range(2):
        matrix = sum(share * weight for share, weight in zip(shares[row], layer.weights, strict=True))
        inside = F.layer_norm(h[row], (8,)) * scale[row] + shift[row]
        torch.testing.assert_close(layer(h, text, scale, shift)[row], inside @ matrix + layer.bias, atol=1e-5, rtol=0)


def test_rays_of_a_row_answer_for_themselves_alone():
    torch.manual_seed(0)
    field = LightField(6, 16, 2, 2).requires_grad_(False)
    rays, known, text = torch.randn(2, 9, 54), torch.ones(2), torch.randn(2, 6)
    whole = field.along(rays, known, text)
    torch.testing.assert_close(field.along(rays[:, 3:5], known, text), whole[:, 3:5], atol=1e-5, rtol=0)


def test_a_light_field_learns_a_picture_by_its_camera():
    """Two views of a two-sided object: red before, blue behind."""
    torch.manual_seed(0)
    field = LightField(4, 32, 2, 2)
    optimizer = torch.optim.Adam(field.parameters(), lr=3e-3)
    cameras = make_cameras(*torch.tensor([[10.0, 10.0], [0.0, 180.0], [1.5, 1.5], [39.0, 39.0]]), 64, 64)
    target = torch.zeros(2, 4, 64, 64)
    target[0, 0, 16:48, 16:48], target[1, 2, 16:48, 16:48], target[:, 3, 16:48, 16:48] = 1.0, 1.0, 1.0
    text = torch.ones(2, 4)
    for _ in range(80):
        loss = (field(cameras.c2w, cameras.fovy_rad, torch.ones(2), text).guess - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.2 * float(target.square().mean())


def steered(trust: float, known: float = 1.0):
    """x0 before and after, trusting ``trust`` (a logit) where a camera is given, its opposite else."""
    torch.manual_seed(0)
    into = LightIn(8, (4, 4, 4), 6).requires_grad_(False)
    into.trust[:, 1], into.trust[:, 0] = trust, -trust
    seen = Seen(torch.randn(1, 8, 16, 16), torch.rand(1, 4, 64, 64), torch.tensor([known]))
    t = torch.tensor([700])
    abar = make_scheduler().alphas_cumprod[t].float()[:, None, None, None]
    alpha, sigma = abar.sqrt(), (1.0 - abar).sqrt()
    z, v = torch.randn(1, 3, 64, 64), torch.randn(1, 3, 64, 64)
    after = into.steer(v, z, t, seen, torch.randn(1, 6), large=True)
    return alpha * z - sigma * v, alpha * z - sigma * after, seen.guess


def test_full_trust_puts_what_was_seen_before_the_background_of_the_network():
    x0, after, guess = steered(50.0)
    color, mask = guess[:, :3], guess[:, 3:]
    expected = 2.0 * color - mask + (1.0 - mask) * x0  # colour times mask, in [-1, 1]
    torch.testing.assert_close(after, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("trust", "known"), [(-50.0, 1.0), (50.0, 0.0)])
def test_no_trust_leaves_the_answer_and_a_dropped_camera_has_a_trust_of_its_own(trust, known):
    x0, after, _ = steered(trust, known)
    torch.testing.assert_close(after, x0, atol=1e-4, rtol=0)


def test_the_schedule_is_the_schedulers():
    t = torch.arange(1000)
    torch.testing.assert_close(cosine_alphas_cumprod(t), make_scheduler().alphas_cumprod.float(), atol=1e-5, rtol=1e-3)


def test_rays_stay_in_half_precision_under_autocast() -> None:
    light = LightField(16, hidden=32, layers=2, experts=2)
    rays, known, text = torch.randn(2, 5, 54), torch.ones(2), torch.randn(2, 16)
    assert light.along(rays, known, text).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert light.along(rays, known, text).dtype == torch.bfloat16
