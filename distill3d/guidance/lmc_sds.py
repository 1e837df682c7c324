"""LMC-SDS, score distillation with a learned manifold corrective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.config.registry import register
from distill3d.config.schedule import Scheduled, check_schedule
from distill3d.guidance.base import (
    Diagnostics,
    DistillationConfig,
    Draw,
    ScoreDistillation,
    guided_pair,
    mean_cosine,
    mean_norm,
    request_text,
)
from distill3d.guidance.corrective import Corrective, load_corrective
from distill3d.priors.base import DiffusionPrior
from distill3d.types import GuidanceInput, Prompt, PromptEmbedding, TextRequest


def corrected_projection(
    projection: Float[Tensor, "B C h w"],
    x: Float[Tensor, "B C h w"],
    b: Float[Tensor, "B C h w"],
    alpha_over_sigma: Float[Tensor, "B 1 1 1"],
    k: float,
) -> Float[Tensor, "B C h w"]:
    """``(alpha/sigma) (b_k - x_hat)`` with ``b_k = (1 - k) b + k x``, from ``L_proj = (alpha/sigma) (x - x_hat)``.

    Written as L_proj plus a correction, so that k = 1 is SDS bit for bit and nothing cancels where b is near x.
    """
    return projection + alpha_over_sigma * (1.0 - k) * (b - x)


@register("guidance", "lmc-sds")
class LMCSDS(ScoreDistillation):
    """LMC-SDS: c(t) [w (eps_y - eps_0) + (alpha/sigma) (b_psi(x, t) - x_hat)] (arXiv 2401.05293, a reconstruction).

    b_psi is a shallow model of what one denoising step does to any image, a blur that grows with t; measuring x_hat
    against it instead of x factors the blur out of SDS. The paper's text leaves details open; they are options here:

    corrective: ``auto`` (the prior's shipped b_psi, else a spectral fit), ``spectral``, ``none`` (b = x, which is SDS),
        a file written by the corrective-system, or a folder with one for each image size.
    corrective_jacobian: ``J^T (b - x_hat)``, the gradient of ``0.5 ||b_psi(x, t) - stop(x_hat)||^2``; calmer.
    x_hat: of the ``conditional`` prediction, or the ``unconditional`` one.
    corrective_weight: ``eps`` gives L_lmc the weight c(t) alpha/sigma, ``x`` the weight 1.
    fixed_condition_noise: L_cond keeps one eps for the run (results differ by seed), at one more pass a step.
    k: ``b_k = (1 - k) b + k x``; [1, 0, N] starts as SDS and ends as LMC-SDS.
    """

    @dataclass
    class Config(DistillationConfig):
        corrective: str = "auto"
        corrective_jacobian: bool = False
        x_hat: Literal["conditional", "unconditional"] = "conditional"
        corrective_weight: Literal["eps", "x"] = "eps"
        fixed_condition_noise: bool = False
        k: Scheduled = 0.0
        corrective_cache_dir: str | None = None

        published: ClassVar = {"guidance_scale": 20.0}

        def __post_init__(self) -> None:
            super().__post_init__()
            check_schedule(self.k, "k")

    cfg: Config

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self._correctives: dict[int, Corrective] = {}

    def check(self) -> None:
        """Raises ValueError where the corrective that is named is no file."""
        name = self.cfg.corrective
        if name not in ("auto", "spectral", "none") and not Path(name).exists():
            raise ValueError(f"system.guidance.corrective={name!r} is not there; give a file, auto, spectral or none")

    def texts(self, prompt: Prompt) -> dict[str, TextRequest]:
        """Also the empty text: for the unconditional x_hat, and what a spectral fit samples the prior with."""
        return {**super().texts(prompt), "unconditional": request_text("unconditional", prompt)}

    def prepare(self, prior: DiffusionPrior, prompt_embeddings: Mapping[str, PromptEmbedding]) -> None:
        """Load or fit b_psi before the first step, where the prior has one image size."""
        if len(prior.spec.image_sizes) == 1:
            self._corrective(prior, prior.spec.image_sizes[0], prompt_embeddings["unconditional"])

    def gradient(self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw) -> tuple[Tensor, Diagnostics]:
        z = draw.z
        if self.cfg.fixed_condition_noise:
            z = draw.alpha * draw.x + draw.sigma * self.draw_noise(inputs, fixed=True)
        w = self.at("guidance_scale", inputs)
        queries = guided_pair(z, draw.t, w)
        # one of the queries above again, unless an option sets it apart: the prior evaluates equal passes once
        answer = self.predict(prior, inputs, {**queries, "x_hat": draw.query(self.cfg.x_hat)})
        condition = answer["conditional"].noise - answer["negative"].noise
        projection = answer["x_hat"].noise - draw.eps
        lmc, b = self._corrective_term(prior, inputs, draw, projection, answer["x_hat"].x0)
        if self.cfg.corrective_weight == "eps":
            grad = draw.weight * (w * condition + lmc)
        else:
            grad = draw.weight * (w * condition) + lmc
        diagnostics: Diagnostics = {
            "norm_cond": mean_norm(condition),
            "norm_proj": mean_norm(projection),
            "norm_lmc": mean_norm(lmc),
            "cosine_cond_lmc": mean_cosine(condition, lmc),
        }
        return grad, {**diagnostics, **({"x_hat": answer["x_hat"].x0, "b_psi": b} if self.look else {})}

    def _corrective_term(
        self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw, projection: Tensor, x_hat: Tensor
    ) -> tuple[Tensor, Tensor]:
        """L_lmc in eps-space or in x-space, and b_psi(x, t)."""
        k, jacobian = self.at("k", inputs), self.cfg.corrective_jacobian
        if k == 1.0 and not self.look:
            b = x = draw.x
        else:
            corrective = self._corrective(prior, prior.spec.native_size(draw.x), inputs.texts["unconditional"])
            with torch.set_grad_enabled(jacobian):
                x = draw.x.detach().requires_grad_(jacobian)
                b = corrective(x, draw.t, draw.alpha, draw.sigma)
        if self.cfg.corrective_weight == "eps":
            term = corrected_projection(projection, draw.x, b.detach(), draw.alpha / draw.sigma, k)
        else:
            term = (1.0 - k) * b.detach() + k * draw.x - x_hat
        if jacobian and b is not x:
            term = (1.0 - k) * torch.autograd.grad(b, x, term)[0] + k * term
        return term, b.detach()

    def _corrective(self, prior: DiffusionPrior, image_size: int, empty_text: PromptEmbedding) -> Corrective:
        if image_size not in self._correctives:
            setting, cache_dir = self.cfg.corrective, self.cfg.corrective_cache_dir
            made = load_corrective(setting, prior, empty_text[:1], image_size, cache_dir)
            self._correctives[image_size] = made
        return self._correctives[image_size]
