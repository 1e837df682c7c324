"""Activations by the names that configs use."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

TRUNCATION = 15.0  # exp of more than this has no use as a density, and its gradient would drown every other


class _TruncatedExp(torch.autograd.Function):
    """exp whose gradient stops growing: d/dx = exp(min(x, 15)) (arXiv 2201.05989, the released code)."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x)
        return torch.exp(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        return grad * torch.exp(x.clamp(max=TRUNCATION))


def trunc_exp(x: Tensor) -> Tensor:
    """exp with a truncated gradient."""
    return _TruncatedExp.apply(x)  # pyright: ignore[reportReturnType]


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "softplus": F.softplus,
    "exp": torch.exp,
    "trunc_exp": trunc_exp,
    "sigmoid": torch.sigmoid,
    "scale_-11_01": lambda x: 0.5 * x + 0.5,
}


def activation(name: str | None, setting: str) -> Callable[[Tensor], Tensor]:
    """The activation of that name (case does not matter); ValueError, naming the setting, when there is none."""
    key = "none" if name is None else str(name).lower()
    if key not in ACTIVATIONS:
        raise ValueError(f"{setting}={name!r} is unknown; choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[key]
