"""Rectified photographs: a picture that is a function of the ray is the same function under the ideal lens."""

import math

import pytest
import torch

from distill3d.data.posed.rectify import fovy_rad, is_ideal, rectified, scaled_lens
from distill3d.data.posed.transforms_json import Lens


def pattern(x, y):
    """A smooth picture of the ray (x right, y down, at depth 1)."""
    return torch.stack([0.5 + 0.4 * torch.sin(5 * x + 1), 0.5 + 0.4 * torch.cos(4 * y - x)])


def photograph(lens, height, width):
    """What the lens shows of the pattern: its own pixels' rays by fixed-point inversion of the distortion."""
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    seen_x, seen_y = (u - lens.cx) / lens.fl_x, (v - lens.cy) / lens.fl_y
    x, y = seen_x.clone(), seen_y.clone()
    k1, k2, p1, p2, k3 = lens.distortion
    for _ in range(50):
        r2 = x * x + y * y
        s = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        x = (seen_x - 2 * p1 * x * y - p2 * (r2 + 2 * x * x)) / s
        y = (seen_y - p1 * (r2 + 2 * y * y) - 2 * p2 * x * y) / s
    return pattern(x, y)


@pytest.mark.parametrize(
    "lens",
    [
        Lens(None, 90.0, 80.0, 50.0, 32.0, 96, 64),
        Lens(None, 80.0, 80.0, 45.5, 34.0, 96, 64),
        Lens(None, 80.0, 80.0, 48.0, 32.0, 96, 64, (-0.1, 0.03, 0.01, -0.005, 0.01)),
    ],
)
def test_lens_and_distortion_are_undone(lens):
    height, width = 64, 96
    row = (torch.arange(height) + 0.5 - height / 2) / lens.fl_y
    column = (torch.arange(width) + 0.5 - width / 2) / lens.fl_y
    y, x = torch.meshgrid(row, column, indexing="ij")
    photo = photograph(lens, height, width)
    inside = (slice(None), slice(12, -12), slice(12, -12))  # the border repeats where nothing was photographed
    error = (rectified(photo, lens) - pattern(x, y))[inside].abs().max()
    assert error < 2e-3 < (photo - pattern(x, y))[inside].abs().max()
    assert not is_ideal(lens)


def test_an_ideal_lens_changes_nothing():
    lens = scaled_lens(Lens(camera_angle_x=0.8), 20, 30, "here")
    image = torch.rand(3, 20, 30)
    assert is_ideal(lens)
    assert torch.allclose(rectified(image, lens), image, atol=1e-5)
    assert math.tan(0.5 * fovy_rad(lens)) == pytest.approx(math.tan(0.4) * 20 / 30)


def test_a_smaller_copy_of_an_image_keeps_its_angles():
    large = Lens(None, 100.0, 100.0, 60.0, 40.0, 120, 80)
    small = scaled_lens(large, 40, 60, "here")
    assert (small.fl_x, small.cx, small.cy) == (50.0, 30.0, 20.0)
    assert fovy_rad(small) == pytest.approx(fovy_rad(scaled_lens(large, 80, 120, "here")))


def test_an_image_of_another_shape_than_its_frame_says_is_refused():
    with pytest.raises(ValueError, match=r"a.png is 60x50, but its frame says w=120, h=80"):
        scaled_lens(Lens(None, 100.0, 100.0, 60.0, 40.0, 120, 80), 50, 60, "a.png")
