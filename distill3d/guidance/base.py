"""What every guidance shares: the protocol, the distillation loss, and the classifier-free combination."""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.prior.base import DiffusionPrior
from distill3d.types import GuidanceInput, GuidanceOutput, Prompt, TextRequest


class Guidance(Protocol):
    """A rule for the gradient. It asks the prior for the passes that it needs; nothing else is computed."""

    def texts(self, prompt: Prompt) -> dict[str, TextRequest]:
        """Roles to texts: ``conditional`` (per view), ``unconditional`` (""), ``negative`` (the user's), and its own."""
        ...

    def __call__(self, prior: DiffusionPrior, inputs: GuidanceInput) -> GuidanceOutput: ...


def distillation_loss(x: Float[Tensor, "B C h w"], grad: Float[Tensor, "B C h w"]) -> Tensor:
    """A scalar whose gradient with respect to x is exactly ``grad / B``: ``(stop(g) * x).sum() / B`` in fp32.

    The form ``0.5 ||x - stop(x - g)||^2`` rounds g away in half precision; its value is logged instead, by the system.
    """
    with torch.autocast(x.device.type, enabled=False):
        return (grad.detach().float() * x.float()).sum() / x.shape[0]


def classifier_free(conditional: Tensor, unconditional: Tensor, guidance_scale: float) -> Tensor:
    """``eps^w = (1 + w) eps_y - w eps_0``, the papers' convention (diffusers' s is w + 1)."""
    return conditional + guidance_scale * (conditional - unconditional)
