"""The small MLP behind a grid encoding, evaluated together with the gradient of its first output."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill3d.config.ranges import check_least


@dataclass(frozen=True)
class HiddenActivation:
    """A function s, and its derivative from ``(z, s(z))``; both differentiable."""

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]


def _silu_slope(z: Tensor, value: Tensor) -> Tensor:
    gate = torch.sigmoid(z)
    return gate + value * (1.0 - gate)


HIDDEN_ACTIVATIONS = {
    "relu": HiddenActivation(F.relu, lambda z, value: value.detach().sign()),
    "softplus": HiddenActivation(F.softplus, lambda z, value: torch.sigmoid(z)),
    "silu": HiddenActivation(F.silu, _silu_slope),
}


@dataclass
class MLPConfig:
    otype: Literal["VanillaMLP", "FullyFusedMLP", "CutlassMLP"] = "VanillaMLP"  # one network under all three names
    activation: str = "ReLU"
    output_activation: Literal["none"] = "none"
    n_neurons: int = 32
    n_hidden_layers: int = 1

    def __post_init__(self) -> None:
        if self.activation.lower() not in HIDDEN_ACTIVATIONS:
            raise ValueError(
                f"activation={self.activation!r} is unknown; choose one of {', '.join(HIDDEN_ACTIVATIONS)}"
            )
        check_least(self, n_neurons=1, n_hidden_layers=0)


def init_weights(n_inputs: int, n_neurons: int, n_hidden_layers: int, n_outputs: int) -> list[Tensor]:
    """One ``outputs inputs`` matrix for each layer, uniform in +-1/sqrt(inputs); no biases."""
    sizes = [n_inputs, *[n_neurons] * n_hidden_layers, n_outputs]
    return [(2.0 * torch.rand(after, before) - 1.0) / math.sqrt(before) for before, after in itertools.pairwise(sizes)]


def mlp(
    inputs: Float[Tensor, "channels points"], weights: Sequence[Tensor], activation: HiddenActivation
) -> Float[Tensor, "outputs points"]:
    """``W_n s(... s(W_1 x))``, feature-major."""
    hidden = inputs
    for weight in weights[:-1]:
        hidden = activation.value(weight @ hidden)
    return weights[-1] @ hidden


def mlp_with_gradient(
    inputs: Float[Tensor, "channels points"], weights: Sequence[Tensor], activation: HiddenActivation
) -> tuple[Float[Tensor, "outputs points"], Float[Tensor, "channels points"]]:
    """The outputs, and d(output 0)/d(input) by the chain rule ``W_1^T s'(z_1) ... W_n-1^T s'(z_n-1) W_n[0]``.

    Written out, both are differentiable once more by plain backpropagation: a loss on normals needs no double backward.
    """
    hidden, slopes = inputs, []
    for weight in weights[:-1]:
        z = weight @ hidden
        hidden = activation.value(z)
        slopes.append(activation.slope(z, hidden))
    outputs, first = weights[-1] @ hidden, weights[-1][0]
    if not slopes:
        return outputs, first[:, None].expand(-1, inputs.shape[1])
    # diag(s') w is the same at every point but for s': the constant part joins the matrix, which is small
    gradient = (weights[-2].t() * first) @ slopes[-1]
    for weight, slope in zip(reversed(weights[:-2]), reversed(slopes[:-1]), strict=True):
        gradient = weight.t() @ (slope * gradient)
    return outputs, gradient
