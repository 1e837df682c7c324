"""Renders as pictures: panels, contact sheets, PNG files."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from distill3d.runtime.files import write_atomically
from distill3d.runtime.foreign import open_image
from distill3d.types import RenderOutput

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STRIP = 16  # height of a line of labels, in pixels
LABEL_FONT = 12  # height of their letters, in pixels; in smaller ones words run together
CHARACTER = 7  # width of a letter: more than the mean, so that a line of them fits
GAP = 2  # between labelled pictures
MAX_LINES = 3  # of a label; what does not fit is left out
COLUMNS = ("colour", "normal", "opacity")  # of a panel
HEAD, HEAD_FONT = 32, 20  # of an enlarged panel: height of its line of labels, and of their letters
MAX_LEFT = 140  # of the names of rows; longer ones have several lines


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


def large_panel(panel: UInt8[Tensor, "3 H NW"], side: int, columns: Sequence[str] = COLUMNS) -> UInt8[Tensor, "3 h w"]:
    """A panel whose pictures are enlarged (bicubic) until the longer side is ``side``, below the names of its columns.

    A panel that is larger stays as it is; all sides of the result are even.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = panel.shape[1], panel.shape[2] // len(columns)
    factor = max(1.0, side / max(height, width))
    tall, wide = (2 * round(size * factor / 2) for size in (height, width))
    sheet = Image.new("RGB", (len(columns) * wide, HEAD + tall), "white")
    pencil, font = ImageDraw.Draw(sheet), ImageFont.load_default(HEAD_FONT)
    for i, (name, part) in enumerate(zip(columns, panel.split(width, dim=2), strict=True)):
        picture = Image.fromarray(part.permute(1, 2, 0).contiguous().numpy())
        sheet.paste(picture.resize((wide, tall), Image.Resampling.BICUBIC), (i * wide, HEAD))
        pencil.text(((i + 0.5) * wide, HEAD / 2), name, fill="black", font=font, anchor="mm")
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1)


def contact_sheet(rows: list[Float[Tensor, "B 3 H W"]]) -> UInt8[Tensor, "3 rH BW"]:
    """Batches of views as the rows of one picture."""
    return to_uint8(torch.cat([torch.cat(list(row), dim=-1) for row in rows], dim=-2)[None])[0]


def tiled(images: Float[Tensor, "N 3 H W"], columns: int) -> UInt8[Tensor, "3 rH cW"]:
    """A batch in rows of ``columns`` at the most; the last row is filled up with white."""
    columns = min(len(images), columns)
    white = images.new_ones(-len(images) % columns, *images.shape[1:])
    return contact_sheet(list(torch.cat([images, white]).split(columns)))


def labelled_grid(
    cells: Sequence[Sequence[UInt8[Tensor, "3 H W"]]], columns: Sequence[str], rows: Sequence[str]
) -> UInt8[Tensor, "3 h w"]:
    """Pictures of one size under the names of their columns and beside those of their rows, on white."""
    height, width = cells[0][0].shape[-2:]
    left = min(CHARACTER * max(len(name) for name in rows), MAX_LEFT) + GAP if any(rows) else 0
    top = STRIP * max(len(_lines(name, width + GAP)) for name in columns)
    lines = [torch.cat([blank(top, left), *(label(name, width + GAP, top) for name in columns)], dim=2)]
    for name, pictures in zip(rows, cells, strict=True):
        beside = label(name, left, height + GAP) if left else blank(height + GAP, 0)
        lines.append(torch.cat([beside, *(_spaced(picture) for picture in pictures)], dim=2))
    return torch.cat(lines, dim=1)


def label(text: str, width: int, height: int = STRIP) -> UInt8[Tensor, "3 h w"]:
    """Text in the middle of a white strip, black, in up to three lines."""
    from PIL import Image, ImageDraw, ImageFont

    strip, font = Image.new("RGB", (width, height), "white"), ImageFont.load_default(LABEL_FONT)
    pencil, lines = ImageDraw.Draw(strip), _lines(text, width, height)
    top = (height - STRIP * (len(lines) - 1)) / 2  # the middle of the first line
    for i, line in enumerate(lines):
        pencil.text((width / 2, top + STRIP * i), line, fill="black", font=font, anchor="mm")
    return torch.from_numpy(np.array(strip)).permute(2, 0, 1)


def whole_label(text: str) -> int:
    """The width in pixels at which a label has its words whole, in lines of about equal length."""
    words = text.split() or [""]
    letters = max(max(map(len, words)), -(-len(text) // MAX_LINES))
    while len(textwrap.wrap(text, letters)) > MAX_LINES:
        letters += 1
    return CHARACTER * letters


def blank(height: int, width: int) -> UInt8[Tensor, "3 h w"]:
    """White."""
    return torch.full((3, height, width), 255, dtype=torch.uint8)


def _lines(text: str, width: int, height: int = 0) -> list[str]:
    plain = text.encode("latin-1", "replace").decode("latin-1")  # what the font has
    return textwrap.wrap(plain, max(width // CHARACTER, 1))[: max(MAX_LINES, height // STRIP)] or [""]


def _spaced(picture: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "3 h w"]:
    """With a white gap below and to the right."""
    height, width = picture.shape[-2:]
    canvas = blank(height + GAP, width + GAP)
    canvas[:, :height, :width] = picture.cpu()
    return canvas


def figure_picture(figure: Figure) -> UInt8[Tensor, "3 H W"]:
    """A matplotlib figure as pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy()).permute(2, 0, 1)


def png_bytes(image: UInt8[Tensor, "3 H W"]) -> bytes:
    """The picture in the format of a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy()).save(buffer, format="PNG")
    return buffer.getvalue()


def read_rgb(path: Path) -> UInt8[Tensor, "3 H W"]:
    """The pixels of a picture in a file, without its alpha. Raises ForeignFileError."""
    return torch.from_numpy(np.array(open_image(path).convert("RGB"))).permute(2, 0, 1)


def write_png(path: Path, image: UInt8[Tensor, "3 H W"]) -> None:
    """Write a PNG file."""
    write_atomically(path, png_bytes(image))
