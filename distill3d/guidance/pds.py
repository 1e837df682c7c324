"""PDS, posterior distillation sampling: edits that keep the original's identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill3d.config.registry import register
from distill3d.config.schedule import Scheduled, check_schedule
from distill3d.guidance.base import Diagnostics, DistillationConfig, Draw, mean_norm
from distill3d.guidance.dds import DeltaDistillation, source_image
from distill3d.priors.base import DiffusionPrior
from distill3d.priors.kinds import PriorKind
from distill3d.types import GuidanceInput

INFERENCE_STEPS = 500  # of the release: its previous step lies T / 500 training steps back
_NO_FLOW = (
    "system.guidance.coefficients=released needs a variance-preserving prior; for a flow (SD3, FLUX) set it to explicit"
)


class Coefficients(NamedTuple):
    """``g = psi (x_tgt - x_src) + chi (eps_tgt - eps_src)``."""

    psi: Float[Tensor, "B 1 1 1"]
    chi: Float[Tensor, "B 1 1 1"]


def released_coefficients(prior: DiffusionPrior, t: Int[Tensor, "B"]) -> Coefficients:
    """psi(t) and chi(t) of the released code, from ``z~ = (x_{t-1} - mu(x_t, eps_hat)) / sigma~_t`` (arXiv 2311.13831).

    With p the previous step: ``gamma = sqrt(abar_p) beta_t / (1 - abar_t)``, ``delta = sqrt(a_t) (1 - abar_p) / (1 -
    abar_t)``, ``sigma~^2 = (1 - abar_p) beta_t / (1 - abar_t)``, ``psi = (sqrt(abar_p) - gamma - delta sqrt(abar_t)) /
    sigma~``, ``chi = gamma sqrt((1 - abar_t) / abar_t) / sigma~``.

    psi is not zero only because the release mixes two schedules: p lies 2 training steps back, while beta_t and a_t are
    those of one step. With ``a_t = abar_t / abar_p`` psi vanishes, and PDS is DDS with another weight.
    Raises ValueError for a prior that does not preserve variance, which has no such coefficients.
    """
    if prior.spec.flow:
        raise ValueError(_NO_FLOW)
    back = max(prior.num_train_timesteps // INFERENCE_STEPS, 1)
    t = t.clamp_min(back)  # before it there is no previous step
    abar, abar_before, abar_p = (prior.alpha_sigma(t - steps)[0].double() ** 2 for steps in (0, 1, back))
    a = abar / abar_before
    beta, kept = 1 - a, 1 - abar
    gamma = abar_p.sqrt() * beta / kept
    delta = a.sqrt() * (1 - abar_p) / kept
    deviation = ((1 - abar_p) * beta / kept).sqrt()
    psi = (abar_p.sqrt() - gamma - delta * abar.sqrt()) / deviation
    return Coefficients(psi.float(), (gamma * (kept / abar).sqrt() / deviation).float())


@register("guidance", "pds")
class PDS(DeltaDistillation):
    """PDS: psi (x_tgt - x_src) + chi (eps^w_tgt - eps^w_src), matching stochastic latents (arXiv 2311.13831).

    psi pulls back to the original, chi towards the target prompt. coefficients: ``released`` reproduces the authors'
    code; ``explicit`` takes the settings psi and chi, the only form for flow priors.
    """

    @dataclass
    class Config(DistillationConfig):
        coefficients: Literal["released", "explicit"] = "released"
        psi: Scheduled = 0.1
        chi: Scheduled = 0.1

        published: ClassVar = {"guidance_scale": 99.0, "weighting_strategy": "uniform"}

        def __post_init__(self) -> None:
            super().__post_init__()
            for name in ("psi", "chi"):
                check_schedule(getattr(self, name), name)

    cfg: Config

    def check_kind(self, kind: PriorKind) -> None:
        """Raises ValueError for the released coefficients with a flow, before it is loaded."""
        if kind.flow and self.cfg.coefficients == "released":
            raise ValueError(_NO_FLOW)

    def gradient(self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw) -> tuple[Tensor, Diagnostics]:
        source = source_image(inputs, "pds")
        psi, chi = self.coefficients(prior, inputs, draw.t)
        identity = psi * (draw.x - source)
        change = chi * self.noise_difference(prior, inputs, draw, source)
        diagnostics: Diagnostics = {"norm_identity": mean_norm(identity), "norm_change": mean_norm(change)}
        return draw.weight * (identity + change), diagnostics

    def coefficients(self, prior: DiffusionPrior, inputs: GuidanceInput, t: Int[Tensor, "B"]) -> Coefficients:
        if self.cfg.coefficients == "released":
            return released_coefficients(prior, t)
        ones = torch.ones(len(t), 1, 1, 1, device=t.device)
        return Coefficients(self.at("psi", inputs) * ones, self.at("chi", inputs) * ones)
