"""Pictures that show none of the nouns, which the judge must learn to reject: what a failed scene looks like."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill3d.embedded.relight import random_backgrounds

CELLS = 4  # to a side: of what a lump keeps, and of pieces that change places
SHARP = 12.0  # how fast a lump ends at its outline


def pictures_of_nothing(
    images: Float[Tensor, "B 3 S S"], clean: Float[Tensor, "B 4 H W"], generator: torch.Generator
) -> Float[Tensor, "B 3 S S"]:
    """One picture in [0, 1] for each image in [0, 1], in turn: the object blurred to a lump; a shaded ball of its mean
    colour; the image cut into pieces that change places; a blend with the next image.

    ``clean`` is what the images show unlit, before black, and its mask (`ViewBatch.clean`).
    """
    size = images.shape[-1]
    clean = F.interpolate(clean, (size, size), mode="area")
    behind = random_backgrounds(len(images), size, generator)
    kinds = (
        _lumps(clean, behind),
        _balls(clean, behind, generator),
        _shuffled(images, generator),
        0.5 * (images + images.roll(1, dims=0)),
    )
    return torch.stack([kinds[row % len(kinds)][row] for row in range(len(images))]).clamp(0.0, 1.0)


def _lumps(clean: Float[Tensor, "B 4 S S"], behind: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 3 S S"]:
    coarse = F.interpolate(F.adaptive_avg_pool2d(clean, CELLS), clean.shape[-2:], mode="bicubic", align_corners=False)
    color = coarse[:, :3] / coarse[:, 3:].clamp_min(0.1)
    return torch.lerp(behind, color, torch.sigmoid(SHARP * (coarse[:, 3:] - 0.4)))


def _balls(
    clean: Float[Tensor, "B 4 S S"], behind: Float[Tensor, "B 3 S S"], generator: torch.Generator
) -> Float[Tensor, "B 3 S S"]:
    count, size = len(clean), clean.shape[-1]
    color = clean[:, :3].mean(dim=(2, 3)) / clean[:, 3:].mean(dim=(2, 3)).clamp_min(1e-3)
    unit = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    radius, middle = 0.5 + 0.4 * unit(count, 2), 0.2 * (unit(count, 2) - 0.5)  # of half the picture
    line = torch.linspace(-1.0, 1.0, size)
    x = (line[None, None, :] - middle[:, 0, None, None]) / radius[:, 0, None, None]
    y = (line[None, :, None] - middle[:, 1, None, None]) / radius[:, 1, None, None]
    inside = 1.0 - x.square() - y.square()
    z = inside.clamp_min(0.0).sqrt()
    light = F.normalize(torch.randn(count, 3, generator=generator), dim=1)[:, :, None, None]
    shade = 0.6 + 0.4 * (light[:, 0] * x + light[:, 1] * y + light[:, 2].abs() * z).clamp(0.0, 1.0)
    return torch.where(inside[:, None] > 0.0, color[:, :, None, None] * shade[:, None], behind)


def _shuffled(images: Float[Tensor, "B 3 S S"], generator: torch.Generator) -> Float[Tensor, "B 3 S S"]:
    side = images.shape[-1] // CELLS
    blocks = images.unfold(2, side, side).unfold(3, side, side).flatten(2, 3)  # B 3 CELLS^2 side side
    order = torch.rand(len(images), CELLS**2, generator=generator).argsort(dim=1)
    taken = torch.gather(blocks, 2, order[:, None, :, None, None].expand_as(blocks))
    rows = taken.unflatten(2, (CELLS, CELLS)).permute(0, 1, 2, 4, 3, 5)
    return rows.reshape(images.shape)
