"""SDS, score distillation sampling (DreamFusion)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.config.registry import register
from distill3d.guidance.base import (
    Diagnostics,
    DistillationConfig,
    Draw,
    ScoreDistillation,
    guided_pair,
    mean_cosine,
    mean_norm,
)
from distill3d.priors.base import DiffusionPrior
from distill3d.types import GuidanceInput


class SDSTerms(NamedTuple):
    """``(eps^w - eps) = w condition + projection``."""

    condition: Float[Tensor, "B C h w"]  # L_cond = eps_y - eps_0: agreement with the prompt
    projection: Float[Tensor, "B C h w"]  # L_proj = eps_y - eps: one denoising step


def sds_terms(conditional: Tensor, unconditional: Tensor, eps: Tensor) -> SDSTerms:
    return SDSTerms(conditional - unconditional, conditional - eps)


@register("guidance", "sds")
class SDS(ScoreDistillation):
    """SDS: c(t) (eps^w(z_t; y) - eps), DreamFusion's score distillation sampling (arXiv 2209.14988).

    jacobian: the full gradient of the diffusion loss, ``c(t) alpha J^T (eps^w - eps)`` with J the network's Jacobian
    with respect to z, which the paper drops; slow and ill-conditioned, for comparison.
    """

    @dataclass
    class Config(DistillationConfig):
        jacobian: bool = False

        published: ClassVar = {"guidance_scale": 100.0}

    cfg: Config

    def gradient(self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw) -> tuple[Tensor, Diagnostics]:
        w = self.at("guidance_scale", inputs)
        if self.cfg.jacobian:
            return self._full_gradient(prior, inputs, draw, w)
        answer = self.predict(prior, inputs, draw.pair(w))
        terms = sds_terms(answer["conditional"].noise, answer["negative"].noise, draw.eps)
        pictures: Diagnostics = {"x_hat": answer["conditional"].x0} if self.look else {}
        return draw.weight * (w * terms.condition + terms.projection), {**term_diagnostics(terms), **pictures}

    def _full_gradient(
        self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw, w: float
    ) -> tuple[Tensor, Diagnostics]:
        with torch.enable_grad():
            x = draw.x.detach().requires_grad_()
            z = draw.alpha * x + draw.sigma * draw.eps
            answer = self.predict(prior, inputs, guided_pair(z, draw.t, w), grad=True)
            terms = sds_terms(answer["conditional"].noise, answer["negative"].noise, draw.eps)
            loss = 0.5 * (draw.weight * (w * terms.condition + terms.projection) ** 2).sum()
            grad = torch.autograd.grad(loss, x)[0]
        return grad, term_diagnostics(terms)


def term_diagnostics(terms: SDSTerms) -> Diagnostics:
    """Norms of both terms and the cosine between them."""
    return {
        "norm_cond": mean_norm(terms.condition),
        "norm_proj": mean_norm(terms.projection),
        "cosine_cond_proj": mean_cosine(terms.condition, terms.projection),
    }
