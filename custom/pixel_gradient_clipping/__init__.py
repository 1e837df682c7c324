"""A worked extension: a new guidance in one file.

Everything in custom/ is imported at launch, so the name below is at once a value of ``system.guidance_type``, its
settings are checked like all others, and ``--list`` shows it. Rename the folder to ``..._disabled`` to switch it off.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from distill3d.config.registry import register
from distill3d.config.schedule import Scheduled, scheduled
from distill3d.guidance.base import Diagnostics, Draw
from distill3d.guidance.sds import SDS
from distill3d.priors.base import DiffusionPrior
from distill3d.types import GuidanceInput


@register("guidance", "sds-pixel-clip")
class PixelClippedSDS(SDS):
    """SDS with the norm of each pixel's gradient clipped, its direction kept (arXiv 2310.12474)."""

    @dataclass
    class Config(SDS.Config):
        pixel_clip: Scheduled = 1.0  # the largest length over the channels of one pixel

    cfg: Config

    def gradient(self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw) -> tuple[Tensor, Diagnostics]:
        grad, diagnostics = super().gradient(prior, inputs, draw)
        length = grad.norm(dim=1, keepdim=True)
        limit = scheduled(self.cfg.pixel_clip, inputs.step)
        share = (length > limit).float().mean()
        return grad * (limit / length.clamp(min=1e-12)).clamp(max=1.0), {**diagnostics, "clipped_pixels": share}
