"""Identity against change: a curve for each method, or each choice of psi and chi, over its grid of settings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from edit_choice import Line, keyed, of
from edit_plot import Color, Diagram
from jaxtyping import UInt8
from torch import Tensor

from distill3d.evaluation.confidence import interval

COLORS: tuple[Color, ...] = ((27, 94, 180), (196, 78, 20), (20, 130, 90), (140, 60, 160), (120, 120, 20))
# identity against the score that was gained, and against how far the judge sees the views changed along the texts
CHANGES = {"score_gain": "score gained", "direction": "direction of the change"}
IDENTITY = "ssim"
SIZE = (460, 380)

Curves = dict[str, list[tuple[float, float, str]]]


def curves(lines: Sequence[Line], change: str) -> Curves:
    """For each method that has a grid the points (change, identity, setting), means over edits."""
    found: Curves = {}
    for name in dict.fromkeys(cell.method.name for cell, _ in lines):
        settings = list(dict.fromkeys(cell.method.at for cell, _ in of(lines, name)))
        for at in settings if len(settings) > 1 else ():
            means = [interval(keyed(of(lines, name, at), figure)) for figure in (change, IDENTITY)]
            if all(means):
                x, y = (mean.mean for mean in means if mean is not None)
                found.setdefault(name, []).append((x, y, at.split()[-1]))
    return found


def draw_curves(lines: Sequence[Line], title: str) -> UInt8[Tensor, "3 H W"] | None:
    """Up and to the right is better. None without a judge: there is no change to speak of then."""
    panels = [panel(found, title, label) for name, label in CHANGES.items() if (found := curves(lines, name))]
    return torch.cat(panels, dim=2) if panels else None


def panel(found: Curves, title: str, label: str) -> UInt8[Tensor, "3 H W"]:
    points = [point for curve in found.values() for point in curve]
    x, y = (padded([point[i] for point in points]) for i in (0, 1))  # type: ignore[misc]
    diagram = Diagram(SIZE, x, y, title, (label, "SSIM"))
    diagram.ticks(*([round(low + share * (high - low), 2) for share in (0.1, 0.5, 0.9)] for low, high in (x, y)))
    for i, ((name, curve), color) in enumerate(zip(found.items(), COLORS, strict=False)):
        diagram.line([point[:2] for point in curve], color)
        for across, up, at in curve:
            diagram.dot((across, up), color, 3.0)
            diagram.text((across, up), at, color, shift=(0.0, -11.0))
        diagram.text((x[0], y[0]), name, color, shift=(60.0, -14.0 * (i + 1)))
    return diagram.picture()


def padded(values: Sequence[float]) -> tuple[float, float]:
    """Their span with room on both sides."""
    low, high = min(values), max(values)
    room = max(0.15 * (high - low), 0.01)
    return low - room, high + room
