"""The picture of a training: spectra of b_psi(x, t) and x_hat for some t, and the loss by t."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.guidance.corrective.spectral import radial_sums
from distill3d.guidance.corrective.training import Predictor
from distill3d.priors.base import DiffusionPrior, add_noise
from distill3d.types import Pass, PromptEmbedding

COLOURS = ("#1f4e9c", "#c2410c", "#15803d", "#7e22ce", "#525252", "#b45309")
PANEL = (420, 320)
MARGIN = 48
DASH = 5


@dataclass(frozen=True)
class Line:
    """One curve; dashed ones are references."""

    name: str
    values: Sequence[float]
    dashed: bool = False
    colour: str = COLOURS[0]


def radial_power(image: Float[Tensor, "B C h w"]) -> Float[Tensor, "F"]:
    """Mean power of each radial frequency, in cycles over the image's longer side; without the mean colour."""
    height, width = image.shape[-2:]
    bins = max(height, width) // 2 + 1
    centred = image - image.mean((2, 3), keepdim=True)
    power = (torch.fft.rfft2(centred, norm="ortho").abs() ** 2).mean((0, 1))
    return radial_sums(power, height, width, bins) / radial_sums(torch.ones_like(power), height, width, bins).clamp_min(
        1
    )


@torch.no_grad()
def spectra(
    corrective: Predictor,
    prior: DiffusionPrior,
    x: Float[Tensor, "B C h w"],
    text: PromptEmbedding,
    generator: torch.Generator,
    shares: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
) -> list[Line]:
    """log10 of the radial power of x_hat (dashed) and of b(x, t), at some fractions of the diffusion time."""
    lines = []
    for share, colour in zip(shares, COLOURS, strict=False):
        t = torch.full((len(x),), round(share * (prior.num_train_timesteps - 1)), device=x.device)
        eps = torch.randn(x.shape, generator=generator, device=generator.device).to(x.device)
        x_hat = prior.predict([Pass(add_noise(prior, x, eps, t), t, text)])[0].x0
        b = corrective(x, t, *prior.alpha_sigma(t))
        for name, image, dashed in ((f"x_hat, t = {share:g} T", x_hat, True), (f"b_psi, t = {share:g} T", b, False)):
            values = radial_power(image)[1:].clamp_min(1e-12).log10()
            lines.append(Line(name, values.tolist(), dashed, colour))
    return lines


def loss_lines(losses: Mapping[str, Sequence[float]]) -> list[Line]:
    """log10 of each corrective's loss by t-bin; the first is drawn solid."""
    logarithm = {name: torch.tensor(values).clamp_min(1e-12).log10().tolist() for name, values in losses.items()}
    pairs = zip(logarithm.items(), COLOURS, strict=False)
    return [Line(name, values, i > 0, colour) for i, ((name, values), colour) in enumerate(pairs)]


def draw_report(path: Path, spectrum: Sequence[Line], loss: Sequence[Line]) -> None:
    """Both panels as one PNG."""
    from PIL import Image

    titles = (
        ("log10 of power by radial frequency (dashed: x_hat)", "cycles per image", spectrum),
        ("log10 of the loss by t", "t-bin", loss),
    )
    sheet = Image.new("RGB", (2 * PANEL[0], PANEL[1]), "white")
    for i, (title, axis, lines) in enumerate(titles):
        sheet.paste(draw_panel(title, axis, lines), (i * PANEL[0], 0))
    sheet.save(path)


def draw_panel(title: str, axis: str, lines: Sequence[Line]) -> Any:
    """A line chart with a legend; x counts from 1."""
    from PIL import Image, ImageDraw

    panel = Image.new("RGB", PANEL, "white")
    draw = ImageDraw.Draw(panel)
    values = [v for line in lines for v in line.values]
    low, high = min(values), max(max(values), min(values) + 1e-6)
    left, right, top, bottom = MARGIN, PANEL[0] - 12, 30, PANEL[1] - 36
    count = max(len(line.values) for line in lines)

    def place(i: int, value: float) -> tuple[float, float]:
        x = left + (right - left) * i / max(count - 1, 1)
        return x, bottom - (bottom - top) * (value - low) / (high - low)

    draw.rectangle((left, top, right, bottom), outline="#a3a3a3")
    draw.text((left, 8), title, fill="black")
    draw.text(((left + right) / 2, PANEL[1] - 16), axis, fill="black", anchor="mm")
    for value in (low, (low + high) / 2, high):
        draw.text((left - 4, place(0, value)[1]), f"{value:.1f}", fill="black", anchor="rm")
    for i in (0, count - 1):
        draw.text((place(i, low)[0], bottom + 8), str(i + 1), fill="black", anchor="mm")
    for line in lines:
        points = [place(i, value) for i, value in enumerate(line.values)]
        _draw_line(draw, points, line)
    for row, line in enumerate(line for line in lines if not _has_solid_twin(line, lines)):
        draw.text((right - 6, top + 8 + 12 * row), line.name, fill=line.colour, anchor="rm")
    return panel


def _draw_line(draw: Any, points: list[tuple[float, float]], line: Line) -> None:
    """A polyline; a dashed one has a dash and a gap of DASH pixels each, across its corners."""
    travelled = 0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        pieces = max(1, round(math.hypot(x1 - x0, y1 - y0) / DASH)) if line.dashed else 1
        for piece in range(pieces):
            travelled += 1
            if line.dashed and travelled % 2:
                continue
            ends = [(x0 + (x1 - x0) * k / pieces, y0 + (y1 - y0) * k / pieces) for k in (piece, piece + 1)]
            draw.line((*ends[0], *ends[1]), fill=line.colour, width=2)


def _has_solid_twin(line: Line, lines: Sequence[Line]) -> bool:
    """Dashed lines share their colour, and so their place in the legend, with a solid one."""
    return line.dashed and any(other.colour == line.colour and not other.dashed for other in lines)
