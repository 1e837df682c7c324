"""The implicit volume: density and albedo of points, and the normal of the density."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.config.check import build
from distill3d.config.registry import find, register
from distill3d.config.schedule import Scheduled, scheduled
from distill3d.scenes.nerf.activations import activation
from distill3d.scenes.nerf.contraction import contract
from distill3d.scenes.nerf.encoding import Encoding
from distill3d.scenes.nerf.mlp import HIDDEN_ACTIVATIONS, MLPConfig, init_weights, mlp, mlp_with_gradient
from distill3d.types import FieldSample

BLOBS = ("blob_dreamfusion", "blob_magic3d")  # density biases: an optimisation starts with something to shape
OTYPES = {"HashGrid": "hash-grid", "ProgressiveBandHashGrid": "hash-grid", "DenseGrid": "dense-grid"}
SMALLEST_RADIUS = 1e-3
FLAT = 1e-4  # a gradient of less than this, per world unit, has no direction: the normal shrinks to zero with it


@register("geometry", "implicit-volume")
class ImplicitVolume(nn.Module):
    """Density and albedo from a grid encoding and a small MLP, with analytic normals."""

    @dataclass
    class Config:
        radius: float = 1.0  # world units; the volume is the cube of twice this side
        normal_type: Literal["analytic", "finite_difference", "finite_difference_laplacian"] = "analytic"
        finite_difference_normal_eps: float = 0.01  # world units
        density_activation: str = "softplus"
        density_bias: float | str = "blob_magic3d"
        density_blob_scale: Scheduled = 10.0
        density_blob_std: float = 0.5  # world units
        color_activation: str = "sigmoid"
        n_feature_dims: int = 3
        pos_encoding_config: dict[str, Any] = field(default_factory=lambda: {"otype": "HashGrid"})
        mlp_network_config: MLPConfig = field(default_factory=MLPConfig)
        isosurface_threshold: float | str | None = None  # kept for the exporter
        isosurface_resolution: int | None = None

        def __post_init__(self) -> None:
            for name in ("radius", "finite_difference_normal_eps", "density_blob_std"):
                if getattr(self, name) <= 0:
                    raise ValueError(f"{name}={getattr(self, name)} must be positive")
            if self.radius < SMALLEST_RADIUS:
                raise ValueError(f"radius={self.radius} must be at least {SMALLEST_RADIUS}: fp32 has no room for less")
            if isinstance(self.density_bias, str) and self.density_bias not in BLOBS:
                raise ValueError(
                    f"density_bias={self.density_bias!r} is unknown; choose a number or one of {', '.join(BLOBS)}"
                )
            if self.n_feature_dims != 3:
                raise ValueError(f"n_feature_dims={self.n_feature_dims} must be 3: the albedo")
            activation(self.density_activation, "density_activation")
            activation(self.color_activation, "color_activation")

    blob_scale: Tensor

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.radius = float(cfg.radius)
        self.encoding = build_encoding(cfg.pos_encoding_config, "system.geometry.pos_encoding_config")
        network = cfg.mlp_network_config
        self.hidden_activation = HIDDEN_ACTIVATIONS[network.activation.lower()]
        self.density_activation = activation(cfg.density_activation, "density_activation")
        self.color_activation = activation(cfg.color_activation, "color_activation")
        weights = init_weights(self.encoding.n_output_dims, network.n_neurons, network.n_hidden_layers, 4)
        self.weights = nn.ParameterList(weights)
        # persistent: a checkpoint renders at the stage of its training
        self.register_buffer("blob_scale", torch.tensor(scheduled(cfg.density_blob_scale, 0)))
        self._blob_scale = float(self.blob_scale)  # the buffer on the host: reading it would wait for a GPU

    def update_step(self, step: int) -> None:
        """Open encoding levels and follow the schedule of the blob."""
        self.encoding.update_step(step)
        value = torch.tensor(scheduled(self.cfg.density_blob_scale, step))
        self._blob_scale = float(value)
        self.blob_scale.fill_(self._blob_scale)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._blob_scale = float(self.blob_scale)

    def density(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points"]:
        """Density in inverse world units at world points."""
        with torch.autocast(points.device.type, enabled=False):
            return self.density_activation(self._outputs(points)[0])

    def sample(self, points: Float[Tensor, "points 3"], need_normal: bool) -> FieldSample:
        """Density, albedo and, on demand, the outward normal ``-grad(density)/|grad(density)|``.

        The gradient is that of the density's pre-activation: monotone activations share its direction, and it does not
        underflow where the density does. Normals are differentiable by the parameters.
        """
        with torch.autocast(points.device.type, enabled=False):
            if not need_normal:
                outputs, normal = self._outputs(points), None
            elif self.cfg.normal_type == "analytic":
                outputs, gradient = self._outputs_with_gradient(points)
                normal = outward_normal(gradient)
            else:
                outputs = self._outputs(points)
                normal = outward_normal(self._difference_gradient(points, outputs[0]))
            return FieldSample(self.density_activation(outputs[0]), self.color_activation(outputs[1:]).t(), normal)

    def _outputs(self, points: Tensor) -> Float[Tensor, "4 points"]:
        features = self.encoding(self._unit(points))
        raw = mlp(features, self._open_weights(len(features)), self.hidden_activation)
        return self._with_bias(raw, self._bias(points)[0])

    def _outputs_with_gradient(self, points: Tensor) -> tuple[Tensor, Float[Tensor, "3 points"]]:
        """The outputs, and the gradient ``J^T d(density)/d(feature)`` of the first by the world point."""
        features, jacobian = self.encoding.with_jacobian(self._unit(points))
        raw, slope = mlp_with_gradient(features, self._open_weights(len(features)), self.hidden_activation)
        bias, bias_gradient = self._bias(points)
        gradient = contract(slope, jacobian) / (2.0 * self.radius)
        return self._with_bias(raw, bias), gradient + bias_gradient.t()

    def _difference_gradient(self, points: Tensor, value: Tensor) -> Float[Tensor, "3 points"]:
        """Forward differences, or central ones (three or six more encodings)."""
        eps = self.cfg.finite_difference_normal_eps
        axes = torch.eye(3, dtype=points.dtype, device=points.device) * eps
        ahead = torch.stack([self._outputs(points + axis)[0] for axis in axes])
        if self.cfg.normal_type == "finite_difference":
            return (ahead - value) / eps
        return (ahead - torch.stack([self._outputs(points - axis)[0] for axis in axes])) / (2.0 * eps)

    def _unit(self, points: Tensor) -> Tensor:
        return points / (2.0 * self.radius) + 0.5

    def _open_weights(self, channels: int) -> list[Tensor]:
        """The layers, the first cut to the channels that the encoding has opened."""
        first, *rest = self.weights
        return [first[:, :channels], *rest]

    def _bias(self, points: Tensor) -> tuple[Tensor, Tensor]:
        bias = self.cfg.density_bias
        if isinstance(bias, str):
            return blob(bias, points, self._blob_scale, self.cfg.density_blob_std)
        return torch.full_like(points[:, 0], bias), torch.zeros_like(points)

    @staticmethod
    def _with_bias(raw: Tensor, bias: Tensor) -> Tensor:
        return torch.cat([raw[:1] + bias, raw[1:]])


def blob(
    kind: str, points: Float[Tensor, "points 3"], scale: float, std: float
) -> tuple[Float[Tensor, "points"], Float[Tensor, "points 3"]]:
    """The value added to the density's pre-activation, and its gradient.

    ``blob_dreamfusion`` (arXiv 2209.14988, appendix A.2): ``scale exp(-|x|^2 / (2 std^2))``.
    ``blob_magic3d`` (arXiv 2211.10440): ``scale (1 - |x| / std)``.
    Raises ValueError for another kind.
    """
    squared = points.square().sum(-1)
    if kind == "blob_dreamfusion":
        value = scale * torch.exp(-0.5 * squared / std**2)
        return value, -points * (value / std**2)[:, None]
    if kind == "blob_magic3d":
        distance = squared.sqrt()
        gradient = points * (-scale / std / distance.clamp_min(1e-9))[:, None]  # the tip of the cone is flat
        return scale * (1.0 - distance / std), gradient
    raise ValueError(f"density_bias={kind!r} is unknown; choose a number or one of {', '.join(BLOBS)}")


def outward_normal(gradient: Float[Tensor, "3 points"]) -> Float[Tensor, "points 3"]:
    """``-g / |g|``, smooth where the gradient vanishes."""
    length = (gradient.square().sum(0) + FLAT**2).sqrt()
    return -(gradient / length).t()


def build_encoding(settings: Mapping[str, Any], where: str) -> Encoding:
    """The encoding that ``otype`` names (threestudio's names or registered ones); the other keys are its settings."""
    rest = dict(settings)
    otype = str(rest.pop("otype", "HashGrid"))
    cls = find("encoding", OTYPES.get(otype, otype), f"{where}.otype")
    if otype == "ProgressiveBandHashGrid" and "start_level" not in rest:
        raise ValueError(f"{where}.otype={otype!r} opens levels one after another: give {where}.start_level")
    return cls(build(cls.Config, rest, where))
