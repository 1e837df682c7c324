"""Small diagrams: lines, marks and words in the units of their axes, drawn large and made small again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

FINER = 3  # pixels of the drawing for one of the picture, along each side
MARGIN = 40  # pixels around the axes
INK, PALE = (40, 40, 40), (215, 215, 215)

Color = tuple[int, int, int]
Span = tuple[float, float]
Place = Sequence[float]


class Diagram:
    """Axes with a frame. Points are (x, y) in their units; sizes and widths are pixels of the picture."""

    def __init__(self, size: tuple[int, int], x: Span, y: Span, title: str, labels: tuple[str, str] = ("", "")) -> None:
        from PIL import Image, ImageDraw

        self.size, self.x, self.y = size, x, y
        self.image = Image.new("RGB", (FINER * size[0], FINER * size[1]), "white")
        self.draw: Any = ImageDraw.Draw(self.image)
        corners = [self._at((x[0], y[1])), self._at((x[1], y[0]))]
        self.draw.rectangle(corners, outline=PALE, width=FINER)
        self._write((size[0] / 2, 14), title, 15)
        self._write((size[0] / 2, size[1] - 10), labels[0], 12)
        self._write((MARGIN, MARGIN - 9), labels[1], 12)

    def ticks(self, x: Sequence[float], y: Sequence[float]) -> None:
        """Numbers below and beside the axes."""
        for value in x:
            self._write((self._at((value, self.y[0]))[0] / FINER, self.size[1] - MARGIN + 10), f"{value:g}", 11)
        for value in y:
            self._write((MARGIN - 16, self._at((self.x[0], value))[1] / FINER), f"{value:g}", 11)

    def shade(self, colors: UInt8[np.ndarray, "h w 3"]) -> None:
        """Colours over the whole of the axes, the first row at the top."""
        from PIL import Image

        (left, top), (right, bottom) = self._at((self.x[0], self.y[1])), self._at((self.x[1], self.y[0]))
        shape = round(right - left), round(bottom - top)
        self.image.paste(Image.fromarray(colors).resize(shape, Image.Resampling.BILINEAR), (round(left), round(top)))

    def line(self, points: Sequence[Place], color: Color, width: float = 1.5) -> None:
        places = [self._at(point) for point in points]
        self.draw.line(places, fill=color, width=round(FINER * width), joint="curve")

    def dot(self, point: Place, color: Color, radius: float = 4.0, hollow: bool = False) -> None:
        across, down = self._at(point)
        box = [across - FINER * radius, down - FINER * radius, across + FINER * radius, down + FINER * radius]
        self.draw.ellipse(box, fill="white" if hollow else color, outline=color, width=round(1.5 * FINER))

    def text(self, point: Place, text: str, color: Color = INK, shift: tuple[float, float] = (0.0, 0.0)) -> None:
        """Centred at a point; ``shift`` is right and down, in pixels."""
        across, down = self._at(point)
        self._write((across / FINER + shift[0], down / FINER + shift[1]), text, 12, color)

    def picture(self) -> UInt8[Tensor, "3 H W"]:
        from PIL import Image

        small = self.image.resize(self.size, Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1)

    def _write(self, place: tuple[float, float], text: str, height: int, color: Color = INK) -> None:
        from PIL import ImageFont

        across, down = place
        font = ImageFont.load_default(FINER * height)
        self.draw.text((FINER * across, FINER * down), text, fill=color, font=font, anchor="mm")

    def _at(self, point: Place) -> tuple[float, float]:
        across = (float(point[0]) - self.x[0]) / (self.x[1] - self.x[0])
        up = (float(point[1]) - self.y[0]) / (self.y[1] - self.y[0])
        width, height = (side - 2 * MARGIN for side in self.size)
        return FINER * (MARGIN + across * width), FINER * (MARGIN + (1.0 - up) * height)
