"""The picture of a training: spectra of b_psi(x, t) and x_hat for some t, and the loss by t."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.guidance.corrective.spectral import radial_sums
from distill3d.guidance.corrective.training import Predictor, denoise
from distill3d.priors.base import DiffusionPrior
from distill3d.runtime.pictures import figure_picture, write_png
from distill3d.types import Cameras, PromptEmbedding

COLOURS = ("#1f4e9c", "#c2410c", "#15803d", "#7e22ce", "#525252", "#b45309")


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
    cameras: Cameras | None = None,
) -> list[Line]:
    """The radial power of x_hat (dashed) and of b(x, t), at some fractions of the diffusion time."""
    lines = []
    for share, colour in zip(shares, COLOURS, strict=False):
        t = torch.full((len(x),), round(share * (prior.num_train_timesteps - 1)), device=x.device)
        eps = torch.randn(x.shape, generator=generator, device=generator.device).to(x.device)
        x_hat = denoise(prior, x, text, t, eps, cameras).x_hat
        b = corrective(x, t, *prior.alpha_sigma(t))
        for name, image, dashed in ((f"x_hat, t = {share:g} T", x_hat, True), (f"b_psi, t = {share:g} T", b, False)):
            values = radial_power(image)[1:].clamp_min(1e-12)
            lines.append(Line(name, values.tolist(), dashed, colour))
    return lines


def loss_lines(losses: Mapping[str, Sequence[float]]) -> list[Line]:
    """Each corrective's loss by t-bin; the first is drawn solid."""
    pairs = zip(losses.items(), COLOURS, strict=False)
    return [Line(name, values, i > 0, colour) for i, ((name, values), colour) in enumerate(pairs)]


def draw_report(path: Path, spectrum: Sequence[Line], loss: Sequence[Line]) -> None:
    """Both panels as one PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    titles = ("power by radial frequency (dashed: x_hat)", "loss by t")
    axes = ("cycles per image", "t-bin")
    for panel, title, axis, lines in zip(figure.subplots(1, 2), titles, axes, (spectrum, loss), strict=True):
        for line in lines:
            x = range(1, len(line.values) + 1)
            panel.plot(x, line.values, "--" if line.dashed else "-", color=line.colour, label=line.name)
        panel.set(title=title, xlabel=axis, yscale="log")
        panel.legend(fontsize="small")
    write_png(path, figure_picture(figure))
