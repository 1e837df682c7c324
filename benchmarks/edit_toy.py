"""Score distillation between two modes in the plane, under a prior in closed form: python benchmarks/edit_toy.py.

The prior is ``p(x) = 1/2 N(m_a, S_a) + 1/2 N(m_b, S_b)``, both modes long in y, b less so; its prompts are the modes.
Points of mode a are edited to b by the project's own rules. Where a point lies along y is its identity: it tells it
from other points of its mode. What is drawn is the mean path over many draws of time and noise. Writes edit_toy.png
and edit_toy.json.
"""

# ruff: noqa: T201  a benchmark prints

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from distill3d.config.check import build
from distill3d.config.registry import find, import_rooms
from distill3d.priors.base import PriorSpec, no_adapter
from distill3d.runtime.files import write_json
from distill3d.runtime.pictures import figure_picture, write_png
from distill3d.runtime.rng import rng
from distill3d.types import GuidanceInput, Pass, Prediction, PromptEmbedding

MEANS = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])  # of the modes a and b
DEVIATIONS = torch.tensor([[0.25, 0.7], [0.25, 0.5]])
STARTS = torch.tensor([[-1.2, 1.3], [-0.9, 0.7], [-1.1, 0.1], [-0.8, -0.5], [-1.15, -1.2]])
DRAWS = 64  # of time and noise for each point in each step
STEPS = 300
ACROSS, UP = (-1.9, 4.7), (-2.2, 2.2)  # what is drawn
SCALE = 6.5  # of all rules
COLORS = ("#1b5eb4", "#c44e14", "#14825a", "#8c3ca0", "#967814")
COLUMNS = 3


@dataclass(frozen=True)
class Panel:
    """A rule with its settings. ``rate``: of gradient descent; gradients of different rules differ in their scale."""

    title: str
    rule: str
    rate: float
    settings: dict[str, Any] = field(default_factory=dict)


def explicit(psi: float, rate: float = 0.2) -> Panel:
    return Panel(f"PDS, psi = {psi:g}, chi = 0.1", "pds", rate, {"coefficients": "explicit", "psi": psi, "chi": 0.1})


PANELS = (
    Panel("SDS", "sds", 0.05),
    Panel("DDS", "dds", 0.03),
    Panel("PDS, released psi and chi", "pds", 0.2),
    explicit(0.0),
    explicit(0.03),
    explicit(0.3),
)


class TwoModes:
    """The mixture as a diffusion prior of points (B 2 1 1), under Stable Diffusion's schedule.

    The text of a mode is a one-hot row; the empty text is zeros, and stands for both.
    """

    identity = "two modes"
    num_train_timesteps = 1000
    spec = PriorSpec((1,), "latents", channels=2)
    device = torch.device("cpu")

    def __init__(self) -> None:
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, self.num_train_timesteps, dtype=torch.float64) ** 2
        self.abar = torch.cumprod(1.0 - betas, 0)

    def embed(self, mode: int | None, rows: int) -> PromptEmbedding:
        token = torch.zeros(2) if mode is None else torch.eye(2)[mode]
        return PromptEmbedding(token.expand(rows, 1, 2))

    def encode(self, rgb: Tensor) -> Tensor:
        return rgb

    def decode(self, x: Tensor) -> Tensor:
        return x

    def alpha_sigma(self, t: Int[Tensor, "B"]) -> tuple[Tensor, Tensor]:
        abar = self.abar[t][:, None, None, None]
        return abar.sqrt().float(), (1.0 - abar).sqrt().float()

    def predict(self, passes: list[Pass], grad: bool = False) -> list[Prediction]:
        return [self._posterior(one) for one in passes]

    def make_adapter(self, rank: int) -> nn.Module:
        no_adapter("a mixture of two modes")

    @staticmethod
    def share_of_b(points: Float[Tensor, "P 2"]) -> Float[Tensor, "P"]:
        """The posterior of mode b for points without noise."""
        exponent = -0.5 * ((points[:, None] - MEANS) / DEVIATIONS).square().sum(-1)
        return (exponent - DEVIATIONS.log().sum(1)).softmax(1)[:, 1]

    def _posterior(self, one: Pass) -> Prediction:
        """``E[eps | z]``: of one mode ``sigma (alpha^2 S + sigma^2)^-1 (z - alpha m)``, else their posterior mean."""
        alpha, sigma = (value[:, :, 0, 0] for value in self.alpha_sigma(one.t))  # B 1
        z, text = one.z[:, :, 0, 0], one.text.tokens[:, 0]  # B 2
        variance = (alpha[:, None] * DEVIATIONS) ** 2 + sigma[:, None] ** 2  # B 2 2: rows, modes, coordinates
        offset = z[:, None] - alpha[:, None] * MEANS
        known = torch.where(text.sum(1, keepdim=True) > 0, 1e4 * text, 0.0)
        share = (known - 0.5 * (offset**2 / variance + variance.log()).sum(-1)).softmax(1)
        noise = (share[..., None] * sigma[:, None] * offset / variance).sum(1)
        x0 = (z - sigma * noise) / alpha
        return Prediction(noise[..., None, None], x0[..., None, None])


def path(panel: Panel, starts: Float[Tensor, "P 2"], steps: int, seed: int = 0) -> Float[Tensor, "T P 2"]:
    """Points in all steps of gradient descent; the gradient is a mean over draws of time and noise."""
    cls: Any = find("guidance", panel.rule, "guidance_type")
    rule = cls(build(cls.Config, {"guidance_scale": SCALE, **panel.settings}, panel.title))
    prior, rows = TwoModes(), len(starts) * DRAWS
    texts = {"conditional": prior.embed(1, rows), "source": prior.embed(0, rows), "negative": prior.embed(None, rows)}
    source = starts.repeat_interleave(DRAWS, 0)[..., None, None]
    x, places = starts.clone(), [starts.clone()]
    for step in range(steps):
        spread = x.repeat_interleave(DRAWS, 0)[..., None, None]
        inputs = GuidanceInput(spread, texts, step, steps, rng("noise", seed, step), source=source, seed=seed)
        gradient = rule(prior, inputs).grad.view(len(starts), DRAWS, 2).mean(1)
        x = x - panel.rate * gradient
        places.append(x.clone())
    return torch.stack(places)


def figures(panel: Panel, places: Float[Tensor, "T P 2"]) -> dict[str, Any]:
    """Where paths end. ``identity``: slope of the last y over the first, 1 where the order in y is kept, 0 where all
    points become one. ``change``: the mean share of the way from mode a to mode b, across."""
    first, last = places[0], places[-1]
    centred = first[:, 1] - first[:, 1].mean()
    identity = float((centred * last[:, 1]).sum() / centred.square().sum())
    change = float(((last - first)[:, 0] / (MEANS[1] - MEANS[0])[0]).mean())
    inside = TwoModes.share_of_b(last)
    return {"panel": panel.title, "identity": identity, "change": change, "least_share_of_b": float(inside.min())}


def draw(axes: Axes, panel: Panel, places: Float[Tensor, "T P 2"]) -> None:
    """The two modes, where one gives way to the other, and the paths: hollow where they begin, full where they end."""
    found = figures(panel, places)
    axes.imshow(density(ACROSS, UP), extent=(*ACROSS, *UP), aspect="auto")
    axes.plot(*zip(*boundary(), strict=True), color="0.5", linewidth=0.7)
    for mean, name in zip(MEANS.tolist(), ("source", "target"), strict=True):
        axes.text(mean[0], -2.0, name, ha="center")
    for color, points in zip(COLORS, places.unbind(1), strict=True):
        axes.plot(*points.T, color=color)
        axes.plot(*points[0], "o", color=color, markerfacecolor="white")
        axes.plot(*points[-1], "o", color=color)
    note = f"identity {found['identity']:.2f}, change {found['change']:.2f}"
    axes.set(title=panel.title, xlabel=note, xlim=ACROSS, ylim=UP, xticks=[], yticks=[])


def boundary(count: int = 61) -> list[list[float]]:
    """Where both modes are as likely, for each y by bisection."""
    y = torch.linspace(*UP, count)
    low, high = torch.full_like(y, -1.0), torch.full_like(y, 1.0)
    for _ in range(30):
        middle = 0.5 * (low + high)
        is_b = TwoModes.share_of_b(torch.stack([middle, y], 1)) > 0.5
        low, high = torch.where(is_b, low, middle), torch.where(is_b, middle, high)
    return torch.stack([middle, y], 1).tolist()


def density(x: tuple[float, float], y: tuple[float, float], side: int = 128) -> np.ndarray:
    """The two modes in pale colours, the first row at the top."""
    across, up = torch.linspace(*x, side), torch.linspace(y[1], y[0], side)
    points = torch.stack(torch.meshgrid(across, up, indexing="xy"), -1)  # rows columns 2
    height = (-0.5 * ((points[:, :, None] - MEANS) / DEVIATIONS).square().sum(-1)).exp()
    tints = torch.tensor([[95.0, 75.0, 30.0], [25.0, 80.0, 95.0]])  # what each takes away from white
    return (255.0 - height @ tints).clamp(0.0, 255.0).byte().numpy()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--results", type=Path, default=Path(__file__).resolve().parent / "results")
    args = parser.parse_args(arguments)
    import_rooms()
    paths = [path(panel, STARTS, args.steps) for panel in PANELS]
    rows = -(-len(PANELS) // COLUMNS)
    sheet = Figure(figsize=(3.6 * COLUMNS, 3.2 * rows), layout="constrained")
    for axes, panel, places in zip(sheet.subplots(rows, COLUMNS, squeeze=False).flat, PANELS, paths, strict=False):
        draw(axes, panel, places)
    found = [figures(panel, places) for panel, places in zip(PANELS, paths, strict=True)]
    args.results.mkdir(parents=True, exist_ok=True)
    write_png(args.results / "edit_toy.png", figure_picture(sheet))
    write_json(args.results / "edit_toy.json", found)
    for line in found:
        print(line)


if __name__ == "__main__":
    main()
