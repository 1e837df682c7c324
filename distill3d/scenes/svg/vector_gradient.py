"""Gradients on a pixel grid: where along the stops a pixel lies, and its colour there, differentiable in the stops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Ramp:
    """A gradient in pixels: ``to_unit`` maps them to where it runs along x, or from ``focus`` to the unit circle."""

    kind: Literal["linear", "radial"]
    spread: Literal["pad", "reflect", "repeat"]
    to_unit: Float[Tensor, "2 3"]
    focus: tuple[float, float, float]
    offsets: Float[Tensor, "S"]
    stops: Float[Tensor, "S 4"]  # colour and opacity


def ramp_picture(ramp: Ramp, rows: slice, columns: slice) -> Float[Tensor, "4 h w"]:
    """Premultiplied colours of a rectangle of pixels; between two stops colour and opacity run straight."""
    with torch.no_grad():
        y, x = torch.meshgrid(
            torch.arange(rows.start, rows.stop, dtype=torch.float64, device=ramp.stops.device) + 0.5,
            torch.arange(columns.start, columns.stop, dtype=torch.float64, device=ramp.stops.device) + 0.5,
            indexing="ij",
        )
        unit = torch.stack([x, y], dim=-1) @ ramp.to_unit[:, :2].T + ramp.to_unit[:, 2]
        place = unit[..., 0] if ramp.kind == "linear" else _along_circles(unit, ramp.focus)
        weights = _weights(_spread(place, ramp.spread), ramp.offsets).to(ramp.stops)
    rgba = (weights @ ramp.stops).permute(2, 0, 1)
    return torch.cat([rgba[:3] * rgba[3:], rgba[3:]])


def _along_circles(p: Float[Tensor, "h w 2"], focus: tuple[float, float, float]) -> Float[Tensor, "h w"]:
    """The largest t of a circle through p: ``|p - (1 - t) f| = t + (1 - t) f_r`` with a radius that is not negative.

    With f inside the unit circle, and no larger, there is one for every p.
    """
    fx, fy, fr = focus
    fr = min(fr, 0.999 * (1.0 - (fx * fx + fy * fy) ** 0.5))
    x, y = p[..., 0] - fx, p[..., 1] - fy
    a = fx * fx + fy * fy - (1.0 - fr) ** 2  # negative
    b = x * fx + y * fy + fr * (1.0 - fr)  # ``a t^2 + 2 b t + c = 0``, the sign of b from p - f = (x, y)
    c = x * x + y * y - fr * fr
    root = (b * b - a * c).clamp_min(0.0).sqrt()
    return (-b - root) / a


def _spread(place: Tensor, spread: str) -> Tensor:
    if spread == "repeat":
        return place - place.floor()
    if spread == "reflect":
        return 1.0 - (place.remainder(2.0) - 1.0).abs()
    return place.clamp(0.0, 1.0)


def _weights(place: Float[Tensor, "h w"], offsets: Float[Tensor, "S"]) -> Float[Tensor, "h w S"]:
    """How much each stop counts at each pixel; the weights of a pixel add up to 1."""
    upper = torch.searchsorted(offsets, place.contiguous(), right=True)
    high, low = upper.clamp_max(len(offsets) - 1), (upper - 1).clamp_min(0)
    width = (offsets[high] - offsets[low]).clamp_min(1e-12)
    share = ((place - offsets[low]) / width).clamp(0.0, 1.0)
    share = torch.where(high == low, 0.0, share)
    weights = torch.zeros(*place.shape, len(offsets), dtype=place.dtype, device=place.device)
    weights.scatter_add_(-1, low[..., None], (1.0 - share)[..., None])
    return weights.scatter_add_(-1, high[..., None], share[..., None])
