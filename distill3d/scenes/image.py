"""A picture as the scene: its pixels or latents are the parameters, and random windows are its views."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distill3d.priors.base import DiffusionPrior


class ImageScene(nn.Module):
    """Pictures as parameters: colours in [0, 1] (which nothing enforces), or a prior's latents.

    Their size is known only with the first picture or a checkpoint: before `begin` the scene is empty.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.empty(0))

    @property
    def is_empty(self) -> bool:
        return self.values.numel() == 0

    def begin(self, values: Float[Tensor, "N C h w"]) -> None:
        """Start from these pictures."""
        self.values = nn.Parameter(values.detach().clone())


def draw_corners(size: tuple[int, int], window: int, count: int, generator: torch.Generator) -> Int[Tensor, "count 2"]:
    """Top and left of random square windows within a picture of (height, width).

    Drawn from half a window beyond the borders and pushed back inside: borders are seen as often as the middle.
    """
    sides = []
    for whole in size:
        margin = window // 2 if whole > window else 0
        drawn = torch.randint(-margin, whole - window + margin + 1, (count,), generator=generator)
        sides.append(drawn.clamp(0, whole - window))
    return torch.stack(sides, dim=1)


def cut_windows(values: Float[Tensor, "N C H W"], corners: Int[Tensor, "B 2"], window: int) -> Float[Tensor, "B C s s"]:
    """B square windows, the same number of each picture, in the order of the pictures."""
    each = len(corners) // len(values)
    rows = [
        values[i // each, :, top : top + window, left : left + window] for i, (top, left) in enumerate(corners.tolist())
    ]
    return torch.stack(rows)


def centre_square(picture: Float[Tensor, "3 H W"]) -> Float[Tensor, "3 S S"]:
    """The largest square in the middle."""
    height, width = picture.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[:, top : top + side, left : left + side]


def encode_tiles(prior: DiffusionPrior, picture: Float[Tensor, "3 H W"]) -> Float[Tensor, "C h w"]:
    """Latents of a picture of any size, tile by tile in the prior's own size.

    Raises ValueError for a picture that is smaller than a tile, or no multiple of a latent's size.
    """
    size, (height, width) = prior.image_sizes[-1], picture.shape[-2:]
    tile = prior.encode(torch.zeros(1, 3, size, size, device=picture.device))
    factor = size // tile.shape[-1]
    if min(height, width) < size or height % factor or width % factor:
        raise ValueError(
            f"data.width={width} and data.height={height}: latents of this prior need at least {size} pixels, in "
            f"multiples of {factor}; change them, or set system.parameters=pixels"
        )
    latents = tile.new_zeros(tile.shape[1], height // factor, width // factor)
    side = size // factor
    for top in _tile_starts(height, size):
        for left in _tile_starts(width, size):
            part = prior.encode(picture[None, :, top : top + size, left : left + size])[0]
            y, x = top // factor, left // factor
            latents[:, y : y + side, x : x + side] = part
    return latents


def _tile_starts(length: int, tile: int) -> list[int]:
    return [*range(0, length - tile, tile), length - tile]
