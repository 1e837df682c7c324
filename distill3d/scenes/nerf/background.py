"""Backgrounds: a colour for each ray."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.camera import camera_rays
from distill3d.config.ranges import check_shares
from distill3d.config.registry import register
from distill3d.scenes.nerf.activations import activation
from distill3d.scenes.nerf.mlp import HIDDEN_ACTIVATIONS, MLPConfig, init_weights, mlp
from distill3d.types import Cameras

Color = tuple[float, float, float]


@dataclass
class DirectionEncodingConfig:
    otype: Literal["SphericalHarmonics"] = "SphericalHarmonics"
    degree: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.degree <= 3:
            raise ValueError(f"degree={self.degree} must lie in 1 .. 3")


@dataclass
class BackgroundMLPConfig(MLPConfig):
    n_neurons: int = 16
    n_hidden_layers: int = 2


def spherical_harmonics(directions: Float[Tensor, "rays 3"], degree: int) -> Float[Tensor, "bands rays"]:
    """The real spherical harmonics of orders below ``degree`` (1 to 3), ``degree^2`` of them, orthonormal."""
    x, y, z = directions.unbind(-1)
    bands = [torch.full_like(x, 0.28209479)]
    if degree > 1:
        bands += [0.48860251 * v for v in (y, z, x)]
    if degree > 2:
        bands += [1.09254843 * x * y, 1.09254843 * y * z, 0.31539157 * (3.0 * z * z - 1.0)]
        bands += [1.09254843 * x * z, 0.54627422 * (x * x - y * y)]
    return torch.stack(bands)


class _Background(nn.Module):
    """Replaces its colours by one random colour in a share of the training views."""

    def __init__(self, random_aug: bool, random_aug_prob: float, share_aug_bg: bool) -> None:
        super().__init__()
        self.share_aug_bg = share_aug_bg
        self.random_aug_prob = random_aug_prob if random_aug else 0.0

    def forward(
        self, directions: Float[Tensor, "rays 3"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "rays 3"]:
        """Colours of rays that share a draw, of a view or a batch; without a generator there is no augmentation."""
        if generator is None:
            return self.eval_colors(directions)
        draw = torch.rand(4, generator=generator, device=generator.device)
        if float(draw[0]) < self.random_aug_prob:
            return draw[1:].to(directions).expand_as(directions)
        return self.colors(directions)

    def colors(self, directions: Tensor) -> Tensor:
        raise NotImplementedError

    def eval_colors(self, directions: Tensor) -> Tensor:
        return self.colors(directions)


def ray_colors(
    background: _Background, directions: Float[Tensor, "rays 3"], views: int, generator: torch.Generator | None
) -> Float[Tensor, "rays 3"]:
    """Colours of the rays of views of one size; each view is augmented by itself unless ``share_aug_bg`` is set."""
    parts = directions.chunk(1 if background.share_aug_bg else views)
    return torch.cat([background(part, generator) for part in parts])


def backdrop(
    background: _Background, cameras: Cameras, generator: torch.Generator | None = None
) -> Float[Tensor, "B 3 H W"]:
    """What lies behind each view, as a renderer draws it with the same generator."""
    directions = camera_rays(cameras).directions  # B H W 3
    colors = ray_colors(background, directions.reshape(-1, 3), len(cameras), generator)
    return colors.view(directions.shape).permute(0, 3, 1, 2)


@register("background", "neural-environment-map-background")
class NeuralEnvironmentMapBackground(_Background):
    """A small MLP on the ray's direction."""

    @dataclass
    class Config:
        color_activation: str = "sigmoid"
        dir_encoding_config: DirectionEncodingConfig = field(default_factory=DirectionEncodingConfig)
        mlp_network_config: BackgroundMLPConfig = field(default_factory=BackgroundMLPConfig)
        random_aug: bool = False
        random_aug_prob: float = 0.5
        share_aug_bg: bool = False  # one draw for all views of a batch, as multi-view priors want it
        eval_color: Color | None = None  # replaces the map in evaluation

        def __post_init__(self) -> None:
            activation(self.color_activation, "color_activation")
            check_shares(self, "random_aug_prob")

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg.random_aug, cfg.random_aug_prob, cfg.share_aug_bg)
        self.cfg = cfg
        network, self.degree = cfg.mlp_network_config, cfg.dir_encoding_config.degree
        self.hidden_activation = HIDDEN_ACTIVATIONS[network.activation.lower()]
        self.color_activation = activation(cfg.color_activation, "color_activation")
        weights = init_weights(self.degree**2, network.n_neurons, network.n_hidden_layers, 3)
        self.weights = nn.ParameterList(weights)

    def colors(self, directions: Tensor) -> Tensor:
        with torch.autocast(directions.device.type, enabled=False):
            bands = spherical_harmonics(directions, self.degree)
            return self.color_activation(mlp(bands, list(self.weights), self.hidden_activation)).t()

    def eval_colors(self, directions: Tensor) -> Tensor:
        if self.cfg.eval_color is None:
            return self.colors(directions)
        return directions.new_tensor(self.cfg.eval_color).expand_as(directions)


@register("background", "solid-color-background")
class SolidColorBackground(_Background):
    """One colour, fixed or learned."""

    @dataclass
    class Config:
        color: Color = (1.0, 1.0, 1.0)
        learned: bool = False
        random_aug: bool = False
        random_aug_prob: float = 0.5
        share_aug_bg: bool = False  # one draw for all views of a batch, as multi-view priors want it

        def __post_init__(self) -> None:
            check_shares(self, "random_aug_prob")
            if not all(0.0 <= part <= 1.0 for part in self.color):
                raise ValueError(f"color={list(self.color)} must be three numbers between 0 and 1")

    color: Tensor

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg.random_aug, cfg.random_aug_prob, cfg.share_aug_bg)
        self.cfg = cfg
        color = torch.tensor(cfg.color, dtype=torch.float32)
        if cfg.learned:
            self.color = nn.Parameter(color)
        else:
            self.register_buffer("color", color)

    def colors(self, directions: Tensor) -> Tensor:
        return self.color.to(directions.dtype).expand_as(directions)
