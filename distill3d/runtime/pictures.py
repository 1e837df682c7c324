"""Renders as pictures: panels, contact sheets, PNG files."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from distill3d.runtime.files import replacing
from distill3d.types import RenderOutput


def to_uint8(images: Float[Tensor, "B C H W"]) -> UInt8[Tensor, "B C H W"]:
    """Colours in [0, 1] to bytes, rounded to the nearest; what is not a number becomes black."""
    return (images.nan_to_num(0.0).clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)


def normal_picture(output: RenderOutput) -> Float[Tensor, "B 3 H W"]:
    """World normals as colours, ``(n + 1) / 2`` where the view is opaque, black where it is empty."""
    if output.normal is None:
        return torch.zeros_like(output.rgb)
    return 0.5 * (output.normal + output.opacity)


def panel(output: RenderOutput, view: int) -> UInt8[Tensor, "3 H 3W"]:
    """One view as rgb | normal | opacity."""
    parts = [output.rgb, normal_picture(output), output.opacity.expand_as(output.rgb)]
    return to_uint8(torch.cat([part[view : view + 1] for part in parts], dim=-1))[0]


def contact_sheet(rows: list[Float[Tensor, "B 3 H W"]]) -> UInt8[Tensor, "3 rH BW"]:
    """Batches of views as the rows of one picture."""
    return to_uint8(torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)[None])[0]


def write_png(path: Path, image: UInt8[Tensor, "3 H W"]) -> None:
    from PIL import Image

    with replacing(path) as temporary:
        Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy()).save(temporary, format="PNG")
