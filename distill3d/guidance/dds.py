"""DDS, delta denoising score: editing with what the source's own prediction takes away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from distill3d.config.registry import register
from distill3d.guidance.base import (
    Diagnostics,
    DistillationConfig,
    Draw,
    Query,
    ScoreDistillation,
    classifier_free,
    mean_norm,
)
from distill3d.priors.base import DiffusionPrior, add_noise
from distill3d.types import GuidanceInput


def source_image(inputs: GuidanceInput, name: str) -> Float[Tensor, "B C h w"]:
    """The encoded original. Raises ValueError where the system has none."""
    if inputs.source is None:
        raise ValueError(f"guidance_type={name} edits an original image, and this system has none; use sds or lmc-sds")
    return inputs.source.detach().float()


class DeltaDistillation(ScoreDistillation):
    """Base of the rules that compare an image with its original at one t and one eps."""

    roles = ("conditional", "negative", "source")
    edits = True

    def noise_difference(
        self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw, source: Float[Tensor, "B C h w"]
    ) -> Float[Tensor, "B C h w"]:
        """``eps^w(z_t^tgt; y_tgt) - eps^w(z_t^src; y_src)``; exactly 0 where image and prompt are the original's."""
        z_source, w = add_noise(prior, source, draw.eps, draw.t), self.at("guidance_scale", inputs)
        queries = {
            "target": draw.query("conditional"),
            "target reference": draw.query("negative" if w != 0.0 else "conditional"),
            "source": Query("source", z_source, draw.t),
            "source reference": Query("negative" if w != 0.0 else "source", z_source, draw.t),
        }
        noise = {name: answer.noise for name, answer in self.predict(prior, inputs, queries).items()}
        target = classifier_free(noise["target"], noise["target reference"], w)
        return target - classifier_free(noise["source"], noise["source reference"], w)


@register("guidance", "dds")
class DDS(DeltaDistillation):
    """DDS: c(t) (eps^w(z_t^tgt; y_tgt) - eps^w(z_t^src; y_src)), eps and t shared (arXiv 2304.07090)."""

    @dataclass
    class Config(DistillationConfig):
        published: ClassVar = {
            "guidance_scale": 6.5,
            "weighting_strategy": "uniform",
            "min_step_percent": 0.05,
            "max_step_percent": 0.948,
        }

    cfg: Config

    def gradient(self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw) -> tuple[Tensor, Diagnostics]:
        difference = self.noise_difference(prior, inputs, draw, source_image(inputs, "dds"))
        return draw.weight * difference, {"norm_noise_difference": mean_norm(difference)}
