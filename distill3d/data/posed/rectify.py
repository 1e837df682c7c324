"""Photographs of a real lens as those of an ideal one: square pixels, the principal point in the middle."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill3d.data.posed.transforms_json import Lens

CENTRED_WITHIN = 0.01  # pixels; a difference that no one sees is not worth a resampling
ASPECT_TOLERANCE = 0.01  # of an image whose stated size is another than its own


def scaled_lens(lens: Lens, height: int, width: int, where: str) -> Lens:
    """The lens in the pixels of the image that there is: data sets keep smaller copies under the large one's lens.

    Raises ValueError where the shapes differ.
    """
    fl_x, fl_y = lens.focal_lengths(lens.width or width)
    given_width, given_height = lens.width or width, lens.height or height
    scale_x, scale_y = width / given_width, height / given_height
    if abs(scale_x / scale_y - 1.0) > ASPECT_TOLERANCE:
        raise ValueError(
            f"{where} is {width}x{height}, but its frame says w={given_width}, h={given_height}; correct one of the two"
        )
    cx = 0.5 * given_width if lens.cx is None else lens.cx
    cy = 0.5 * given_height if lens.cy is None else lens.cy
    return Lens(None, fl_x * scale_x, fl_y * scale_y, cx * scale_x, cy * scale_y, width, height, lens.distortion)


def is_ideal(lens: Lens) -> bool:
    """Whether a `scaled_lens` is that of the project's cameras already."""
    assert lens.fl_x and lens.fl_y and lens.width and lens.height and lens.cx is not None and lens.cy is not None
    off_centre = max(abs(lens.cx - 0.5 * lens.width), abs(lens.cy - 0.5 * lens.height))
    stretched = abs(lens.fl_x / lens.fl_y - 1.0) * 0.5 * lens.width  # pixels at the border
    return max(off_centre, stretched) < CENTRED_WITHIN and not any(lens.distortion)


def fovy_rad(lens: Lens) -> float:
    """The vertical angle of the ideal camera: 2 atan(h / 2 fl_y)."""
    assert lens.fl_y and lens.height
    return 2.0 * math.atan(0.5 * lens.height / lens.fl_y)


def rectified(pixels: Float[Tensor, "C H W"], lens: Lens) -> Float[Tensor, "C H W"]:
    """The image as a lens without distortion, with square pixels of 1 / fl_y and its axis in the middle, would take it.

    OpenCV's model: with (x, y) a ray's point at depth 1, ``r^2 = x^2 + y^2``, ``s = 1 + k1 r^2 + k2 r^4 + k3 r^6``:
    ``x' = s x + 2 p1 x y + p2 (r^2 + 2 x^2)``, ``y' = s y + p1 (r^2 + 2 y^2) + 2 p2 x y``, seen at ``fl x' + c``.
    What the photograph does not show repeats its border.
    """
    assert lens.fl_x and lens.fl_y and lens.cx is not None and lens.cy is not None
    height, width = pixels.shape[-2:]
    row = (torch.arange(height) + 0.5 - 0.5 * height) / lens.fl_y
    column = (torch.arange(width) + 0.5 - 0.5 * width) / lens.fl_y
    y, x = torch.meshgrid(row, column, indexing="ij")  # down and right, OpenCV's axes
    k1, k2, p1, p2, k3 = lens.distortion
    r2 = x * x + y * y
    radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
    u = lens.fl_x * (radial * x + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x)) + lens.cx
    v = lens.fl_y * (radial * y + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y) + lens.cy
    grid = torch.stack([2.0 * u / width - 1.0, 2.0 * v / height - 1.0], dim=-1)
    return F.grid_sample(pixels[None], grid[None], padding_mode="border", align_corners=False)[0]
