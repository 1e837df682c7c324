"""The small MLP behind a grid encoding, evaluated together with the gradient of its first output."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

HiddenActivation = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]

# each with its derivative, written in differentiable operations
HIDDEN_ACTIVATIONS: dict[str, HiddenActivation] = {
    "relu": (F.relu, lambda z: (z > 0).to(z)),
    "softplus": (F.softplus, torch.sigmoid),
    "silu": (F.silu, lambda z: torch.sigmoid(z) * (1.0 + z * (1.0 - torch.sigmoid(z)))),
}


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
        hidden = activation[0](weight @ hidden)
    return weights[-1] @ hidden


def mlp_with_gradient(
    inputs: Float[Tensor, "channels points"], weights: Sequence[Tensor], activation: HiddenActivation
) -> tuple[Float[Tensor, "outputs points"], Float[Tensor, "channels points"]]:
    """The outputs, and d(output 0)/d(input) by the chain rule ``W_1^T s'(z_1) ... s'(z_n-1) W_n[0]``.

    Written out, both are differentiable once more by plain backpropagation: a loss on normals needs no double backward.
    """
    hidden, slopes = inputs, []
    for weight in weights[:-1]:
        z = weight @ hidden
        hidden = activation[0](z)
        slopes.append(activation[1](z))
    gradient = weights[-1][0][:, None].expand(-1, inputs.shape[1])
    for weight, slope in zip(reversed(weights[:-1]), reversed(slopes), strict=True):
        gradient = weight.t() @ (slope * gradient)
    return weights[-1] @ hidden, gradient
