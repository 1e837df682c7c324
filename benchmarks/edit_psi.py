"""What psi buys: identity against change, one curve for each choice of psi and chi, over guidance scales."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from edit_cells import EditCell
from edit_claims import keyed
from edit_plot import Color, Diagram

from distill3d.evaluate.confidence import interval
from distill3d.pictures import write_png

Line = tuple[EditCell, dict[str, Any]]
COLORS: tuple[Color, ...] = ((27, 94, 180), (196, 78, 20), (20, 130, 90), (140, 60, 160))
# identity against how far the judge sees the views changed along the texts, and against the score that was gained
CHANGES = {"direction": "direction of the change", "score_gain": "score gained"}
IDENTITY = "ssim"
SIZE = (460, 380)


def curves(lines: Sequence[Line], change: str) -> dict[str, list[tuple[float, float, str]]]:
    """For each kind of coefficients the points (change, identity, guidance scale), means over edits."""
    found: dict[str, list[tuple[float, float, str]]] = {}
    for name in dict.fromkeys(cell.method.name for cell, _ in lines):
        own = [line for line in lines if line[0].method.name == name]
        means = [interval(keyed(own, figure)) for figure in (change, IDENTITY)]
        if all(means):
            kind, _, scale = name.partition(", w = ")
            x, y = (mean.mean for mean in means if mean is not None)
            found.setdefault(kind, []).append((x, y, scale))
    return found


def draw_curve(lines: Sequence[Line], path: Path) -> bool:
    """Up and to the right is better. Whether there is a judge, without whom there is no change to speak of."""
    panels = [curve_panel(found, label) for name, label in CHANGES.items() if (found := curves(lines, name))]
    if panels:
        write_png(path, torch.cat(panels, dim=2))
    return bool(panels)


def curve_panel(found: dict[str, list[tuple[float, float, str]]], label: str) -> torch.Tensor:
    points = [point for curve in found.values() for point in curve]
    x, y = (padded([point[i] for point in points]) for i in (0, 1))  # type: ignore[misc]
    diagram = Diagram(SIZE, x, y, "identity against change, by psi and w", (label, "SSIM"))
    diagram.ticks(*([round(low + share * (high - low), 2) for share in (0.1, 0.5, 0.9)] for low, high in (x, y)))
    for i, ((kind, curve), color) in enumerate(zip(found.items(), COLORS, strict=False)):
        diagram.line([point[:2] for point in curve], color)
        for across, up, scale in curve:
            diagram.dot((across, up), color, 3.0)
            diagram.text((across, up), scale, color, shift=(0.0, -11.0))
        diagram.text((x[0], y[0]), kind, color, shift=(60.0, -14.0 * (i + 1)))
    return diagram.picture()


def padded(values: Sequence[float]) -> tuple[float, float]:
    """Their span with room on both sides."""
    low, high = min(values), max(values)
    room = max(0.15 * (high - low), 0.01)
    return low - room, high + room
