"""Pictures in rows and columns that say what they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

STRIP = 16  # height of a line of labels, in pixels
CHARACTER = 7  # width of a letter, at most
GAP = 2


def labelled_grid(
    cells: Sequence[Sequence[UInt8[Tensor, "3 H W"]]], columns: Sequence[str], rows: Sequence[str]
) -> UInt8[Tensor, "3 h w"]:
    """Pictures of one size under the names of their columns and beside those of their rows, on white."""
    height, width = cells[0][0].shape[-2:]
    left = CHARACTER * max(len(name) for name in rows) + GAP if any(rows) else 0
    lines = [torch.cat([blank(STRIP, left), *(label(name, width + GAP) for name in columns)], dim=2)]
    for name, pictures in zip(rows, cells, strict=True):
        beside = label(name, left, height + GAP) if left else blank(height + GAP, 0)
        lines.append(torch.cat([beside, *(padded(picture) for picture in pictures)], dim=2))
    return torch.cat(lines, dim=1)


def label(text: str, width: int, height: int = STRIP) -> UInt8[Tensor, "3 h w"]:
    """A line of text, centred, in black on white."""
    from PIL import Image, ImageDraw

    strip = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(strip).text((width / 2, height / 2), text, fill="black", anchor="mm")
    return torch.from_numpy(np.array(strip)).permute(2, 0, 1)


def padded(picture: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 h w"]:
    """With a white gap below and to the right."""
    height, width = picture.shape[-2:]
    canvas = blank(height + GAP, width + GAP)
    canvas[:, :height, :width] = picture.cpu()
    return canvas


def blank(height: int, width: int) -> UInt8[Tensor, "3 h w"]:
    return torch.full((3, height, width), 255, dtype=torch.uint8)
