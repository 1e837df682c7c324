"""Identity against change: a curve for each method, or each choice of psi and chi, over its grid of settings."""

from __future__ import annotations

from collections.abc import Sequence

from edit_choice import Line, keyed, of
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from distill3d.evaluation.confidence import interval
from distill3d.runtime.pictures import figure_picture

COLORS = ("#1b5eb4", "#c44e14", "#14825a", "#8c3ca0", "#787814")
# identity against the score that was gained, and against how far the judge sees the views changed along the texts
CHANGES = {"score_gain": "score gained", "direction": "direction of the change"}
IDENTITY = "ssim"

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
    panels = [(found, label) for name, label in CHANGES.items() if (found := curves(lines, name))]
    if not panels:
        return None
    figure = Figure(figsize=(4.6 * len(panels), 3.8), layout="constrained")
    for axes, (found, label) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        panel(axes, found, title, label)
    return figure_picture(figure)


def panel(axes: Axes, found: Curves, title: str, label: str) -> None:
    for (name, curve), color in zip(found.items(), COLORS, strict=False):
        x, y, settings = zip(*curve, strict=True)
        axes.plot(x, y, "o-", color=color, label=name)
        for place in zip(settings, x, y, strict=True):
            axes.annotate(place[0], place[1:], (0, 6), textcoords="offset points", ha="center", color=color)
    axes.set(title=title, xlabel=label, ylabel="SSIM")
    axes.margins(0.15)
    axes.legend(fontsize="small")
