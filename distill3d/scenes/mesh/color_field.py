"""Colours of points: what a mesh is painted with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.scenes.nerf.field import build_encoding
from distill3d.scenes.nerf.mlp import HIDDEN_ACTIVATIONS, MLPConfig, init_weights, mlp
from distill3d.types import FieldSample


class ColorField(nn.Module):
    """Albedo in the cube ``[-radius, radius]^3`` from a grid encoding and a small MLP. It has no density."""

    def __init__(
        self,
        radius: float,
        encoding: Mapping[str, Any],
        network: MLPConfig,
        color_activation: Callable[[Tensor], Tensor],
        where: str,
    ) -> None:
        super().__init__()
        self.radius = radius
        self.encoding = build_encoding(encoding, f"{where}.pos_encoding_config")
        self.hidden_activation = HIDDEN_ACTIVATIONS[network.activation.lower()]
        self.color_activation = color_activation
        weights = init_weights(self.encoding.n_output_dims, network.n_neurons, network.n_hidden_layers, 3)
        self.weights = nn.ParameterList(weights)

    def update_step(self, step: int) -> None:
        """Open the levels of the encoding that are due."""
        self.encoding.update_step(step)

    def albedo(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 3"]:
        """Display-referred colours at points in world units."""
        with torch.autocast(points.device.type, enabled=False):
            features = self.encoding(points / (2.0 * self.radius) + 0.5)
            first, *rest = self.weights
            raw = mlp(features, [first[:, : len(features)], *rest], self.hidden_activation)
            return self.color_activation(raw).t()

    def density(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points"]:
        return torch.zeros_like(points[:, 0])

    def sample(self, points: Float[Tensor, "points 3"], need_normal: bool) -> FieldSample:
        return FieldSample(self.density(points), self.albedo(points), None)
