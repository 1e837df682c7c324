"""A worked extension: a new prior in one file, without a network, that is told where the camera stands.

Its images are those of one ball, red in front and blue behind, with a little noise: ``x ~ N(m(camera), d^2)``. What
is known of x given ``z = alpha x + sigma eps`` is then a formula, and so is the prior.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distill3d.camera import CameraRanges, camera_rays
from distill3d.config.registry import register
from distill3d.priors.base import PriorSpec, PromptEncoder, no_adapter
from distill3d.priors.empirical import noise_schedule
from distill3d.priors.model import PriorModel
from distill3d.priors.passes import check_rows
from distill3d.priors.prediction import from_clean
from distill3d.priors.resize import to_native
from distill3d.types import Cameras, Pass, Prediction, PromptEmbedding

Color = tuple[float, float, float]


@register("prior", "painted-ball")
class PaintedBall(PriorModel):
    """A closed-form prior of images of one painted ball, given the camera; it ignores the text."""

    @dataclass
    class Config:
        radius: float = 0.35  # world units
        front: Color = (0.85, 0.15, 0.1)
        back: Color = (0.1, 0.25, 0.8)
        background: Color = (0.5, 0.5, 0.5)
        deviation: float = 0.1  # of the images around the ball's own

        def __post_init__(self) -> None:
            if self.radius <= 0 or self.deviation <= 0:
                raise ValueError(f"radius={self.radius} and deviation={self.deviation} must be positive")

    def load(self, device: torch.device | str) -> PaintedBallPrior:
        return PaintedBallPrior(self.cfg, torch.device(device))

    def text_encoder(self, device: torch.device | str) -> PromptEncoder:
        return lambda texts: PromptEmbedding(torch.zeros(len(texts), 1, 1))


class PaintedBallPrior:
    """``E[x | z] = (alpha d^2 z + sigma^2 m(camera)) / (alpha^2 d^2 + sigma^2)``."""

    def __init__(self, cfg: PaintedBall.Config, device: torch.device) -> None:
        self.cfg, self.device = cfg, device
        self.identity = f"painted-ball {cfg}"
        self.num_train_timesteps = 1000
        self.alphas, self.sigmas = (table.float().to(device) for table in noise_schedule("cosine", 1000))
        cameras = CameraRanges((-10.0, 60.0), (-180.0, 180.0), (1.5, 1.5), (40.0, 40.0), 0.0, 0.0, 0.0)
        self.spec = PriorSpec((32, 64), conditions=frozenset({"camera"}), default_cameras=cameras)

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 h w"]:
        return 2.0 * to_native(rgb, self.spec.image_sizes, 32) - 1.0

    def decode(self, x: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 h w"]:
        return (0.5 * x + 0.5).clamp(0.0, 1.0)

    def alpha_sigma(self, t: Int[Tensor, "B"]) -> tuple[Float[Tensor, "B 1 1 1"], Float[Tensor, "B 1 1 1"]]:
        return self.alphas[t][:, None, None, None], self.sigmas[t][:, None, None, None]

    def make_adapter(self, rank: int) -> nn.Module:
        no_adapter("a painted-ball")

    def predict(self, passes: list[Pass], grad: bool = False) -> list[Prediction]:
        check_rows(passes)
        with torch.set_grad_enabled(grad):
            return [self._posterior(one) for one in passes]

    def _posterior(self, one: Pass) -> Prediction:
        if one.cameras is None:
            raise ValueError("prior_type=painted-ball paints what a camera sees, and there is none here")
        (alpha, sigma), variance = self.alpha_sigma(one.t), self.cfg.deviation**2
        mean = 2.0 * self.picture(one.cameras.to(self.device), one.z.shape[-1]) - 1.0
        x0 = (alpha * variance * one.z + sigma**2 * mean) / (alpha**2 * variance + sigma**2)
        return from_clean(one.z, x0, alpha, sigma)

    def picture(self, cameras: Cameras, size: int) -> Float[Tensor, "B 3 h w"]:
        """The ball itself in [0, 1]: a ray ``o + s d`` meets it where ``s^2 + 2 s o.d + o.o - r^2 = 0``."""
        rays = camera_rays(replace(cameras, height=size, width=size))
        half = (rays.origins * rays.directions).sum(-1)
        discriminant = half**2 - (rays.origins**2).sum(-1) + self.cfg.radius**2
        point = rays.origins + (-half - discriminant.clamp_min(0.0).sqrt())[..., None] * rays.directions
        front, back, behind = (point.new_tensor(c) for c in (self.cfg.front, self.cfg.back, self.cfg.background))
        color = torch.where(point[..., :1] > 0.0, front, back)
        return torch.where(discriminant[..., None] > 0.0, color, behind).movedim(-1, 1)
