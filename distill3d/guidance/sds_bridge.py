"""SDS-Bridge: SDS first, then a bridge from what SDS images look like to what they should look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from distill3d.config.registry import register
from distill3d.guidance.base import Diagnostics, DistillationConfig, Draw, ScoreDistillation, mean_norm
from distill3d.guidance.sds import sds_terms, term_diagnostics
from distill3d.priors.base import DiffusionPrior
from distill3d.types import GuidanceInput, Prompt, TextRequest


@register("guidance", "sds-bridge")
class SDSBridge(ScoreDistillation):
    """SDS-Bridge: SDS, then c(t) (1 + w) (eps(y + good words) - eps(y + bad words)) (arXiv 2406.09417).

    The bad words describe the artefacts of the first stage. stage_two_start_step null starts the second at half of the
    run; the paper's experiments switch at 50 to 80 %.
    """

    @dataclass
    class Config(DistillationConfig):
        stage_two_start_step: int | None = None
        tgt_modifier: str = ", detailed high resolution, high quality, sharp"
        src_modifier: str = (
            ", oversaturated, smooth, pixelated, cartoon, foggy, hazy, blurry, bad structure, noisy, malformed"
        )

        published: ClassVar = {"guidance_scale": 39.0}

    cfg: Config

    def texts(self, prompt: Prompt) -> dict[str, TextRequest]:
        modifiers = {"good": self.cfg.tgt_modifier, "bad": self.cfg.src_modifier}
        bridge = {role: TextRequest(prompt.text + words, per_view=True) for role, words in modifiers.items()}
        return {**super().texts(prompt), **bridge}

    def gradient(self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw) -> tuple[Tensor, Diagnostics]:
        start, w = self.cfg.stage_two_start_step, self.at("guidance_scale", inputs)
        second = inputs.step >= (inputs.max_steps / 2 if start is None else start)
        queries = {role: draw.query(role) for role in ("good", "bad")} if second else draw.pair(w)
        target, reference = self.predict(prior, inputs, queries).values()
        if second:
            bridge = target.noise - reference.noise
            return draw.weight * (1.0 + w) * bridge, {"norm_bridge": mean_norm(bridge)}
        terms = sds_terms(target.noise, reference.noise, draw.eps)
        return draw.weight * (w * terms.condition + terms.projection), term_diagnostics(terms)
