"""Renders to a prior's native size."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def native_size(height: int, width: int, sizes: tuple[int, ...], multiple: int) -> tuple[int, int]:
    """The size at which the prior sees an image: its short side becomes the nearest native size (the smaller one on a
    tie), its long side keeps the aspect ratio as a multiple of ``multiple``."""
    short = min(height, width)
    target = min(sizes, key=lambda size: (abs(size - short), size))
    scaled = (max(multiple, round(side * target / short / multiple) * multiple) for side in (height, width))
    height_to, width_to = scaled
    return (target if height == short else height_to, target if width == short else width_to)


def to_native(rgb: Float[Tensor, "B C H W"], sizes: tuple[int, ...], multiple: int) -> Float[Tensor, "B C h w"]:
    """Bilinear with antialiasing, in fp32; an image of a native size passes untouched."""
    size = native_size(rgb.shape[-2], rgb.shape[-1], sizes, multiple)
    rgb = rgb.float()
    if size == tuple(rgb.shape[-2:]):
        return rgb
    return F.interpolate(rgb, size=size, mode="bilinear", align_corners=False, antialias=True)
