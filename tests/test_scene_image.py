"""Windows and tiles of a picture."""

from __future__ import annotations

import pytest
import torch
from closed_form import GaussianPrior
from picture_doubles import LatentGaussian

from distill3d.scenes.image import ImageScene, cut_windows, draw_corners
from distill3d.systems.images import encode_tiles


def test_windows_lie_inside_and_cover_the_borders_as_often_as_the_middle():
    generator = torch.Generator().manual_seed(0)
    size, window = (20, 40), 8
    corners = draw_corners(size, window, 20_000, generator)
    assert corners.min() == 0 and corners.amax(0).tolist() == [12, 32]
    seen = torch.zeros(size)
    for (top, left), count in zip(*torch.unique(corners, dim=0, return_counts=True), strict=True):
        seen[top : top + 8, left : left + 8] += count
    share = seen / seen.mean()
    assert share.min() > 0.35 and share[0, 0] > 0.35 and share.max() < 2.5


@pytest.mark.parametrize("size", [(8, 8), (8, 20)])
def test_a_side_of_the_windows_length_is_always_seen_whole(size):
    corners = draw_corners(size, 8, 50, torch.Generator().manual_seed(0))
    assert (corners[:, 0] == 0).all()


def test_gradients_reach_the_windows_pixels_alone():
    scene = ImageScene()
    scene.begin(torch.zeros(1, 3, 10, 10))
    cut_windows(scene.values, torch.tensor([[2, 5]]), 4).sum().backward()
    assert scene.values.grad is not None
    inside = torch.zeros(10, 10)
    inside[2:6, 5:9] = 1
    assert torch.equal(scene.values.grad[0, 0], inside)


def test_tiles_of_the_priors_size_make_the_latents_of_any_size():
    prior = LatentGaussian((4, 8, 8))
    picture = torch.rand(3, 40, 22, generator=torch.Generator().manual_seed(0))
    latents = encode_tiles(prior, picture)
    assert latents.shape == (4, 20, 11)
    torch.testing.assert_close(latents[:, :8, :3], prior.encode(picture[None, :, :16, :16])[0, :, :, :3])
    torch.testing.assert_close(latents[:, 12:, 3:], prior.encode(picture[None, :, 24:, 6:])[0])


def test_pixels_are_their_own_latents_where_the_prior_sees_pixels():
    picture = torch.rand(3, 17, 11, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encode_tiles(GaussianPrior(), picture), 2 * picture - 1)
