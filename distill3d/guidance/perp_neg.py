"""Perp-Neg (arXiv 2304.04968): pushes a view away from the other views' prompts, against the Janus problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.camera import VIEW_WORDS
from distill3d.types import Cameras, Prediction, Prompt, PromptEmbedding, TextRequest

Decay = tuple[float, float, float]  # a, b, c of a exp(-b r) + c


class ViewDecays(NamedTuple):
    """How strongly a view is pushed from its neighbours; the names say which: side from back, front from side, ..."""

    side_back: Decay = (1.0, 0.5, -0.606)
    front_side_back: Decay = (1.0, 0.5, 0.967)
    front_side: Decay = (4.0, 0.5, -2.426)
    side_front: Decay = (4.0, 0.5, -2.426)


@dataclass(frozen=True)
class ViewTexts:
    """For each row its own positive text, its own two negatives and their weights (never positive)."""

    positive: PromptEmbedding
    negatives: tuple[PromptEmbedding, PromptEmbedding]
    weights: Float[Tensor, "B 2"]


def view_requests(prompt: Prompt) -> dict[str, TextRequest]:
    """The prompts of the four views as roles of their own. Raises ValueError where the prompt has none."""
    missing = [view for view in VIEW_WORDS if view not in prompt.views]
    if missing:
        raise ValueError(
            f"use_perp_neg=true needs the prompts of all views, and {', '.join(missing)} is missing; "
            "set view_dependent_prompting=true or use_perp_neg=false"
        )
    return {view: TextRequest(prompt.views[view]) for view in VIEW_WORDS}


def view_texts(
    texts: Mapping[str, PromptEmbedding], cameras: Cameras, decays: ViewDecays, overhead_threshold_deg: float
) -> ViewTexts:
    """Texts interpolated between front, side and back by the azimuth of each row; overhead has no negatives."""
    device = texts["front"].tokens.device
    azimuth = cameras.azimuth_deg.abs().to(device)
    overhead = (cameras.elevation_deg > overhead_threshold_deg).to(device)
    fore = azimuth < 90.0  # between front and side, rather than between side and back
    near = torch.where(fore, 1.0 - azimuth / 90.0, 2.0 - azimuth / 90.0)  # 1 at the nearer view of the two to the front
    first = torch.where(fore, _decay(decays.front_side, near), _decay(decays.side_back, near))
    second = torch.where(fore, _decay(decays.side_front, 1.0 - near), _decay(decays.front_side_back, near))
    weights = -torch.stack([first, second], dim=1).masked_fill(overhead[:, None], 0.0)

    none = torch.zeros_like(near)
    front, back = torch.where(fore, near, none), torch.where(fore, none, 1.0 - near)
    shares = torch.stack([front, 1.0 - front - back, back, none], dim=1)  # in the order of VIEW_WORDS
    shares = torch.where(overhead[:, None], shares.new_tensor([0.0, 0.0, 0.0, 1.0]), shares)
    at_front = torch.stack([fore.to(near), (~fore).to(near), none, none], dim=1)
    at_side = at_front[:, [1, 0, 2, 3]]
    return ViewTexts(_mix(texts, shares), (_mix(texts, at_front), _mix(texts, at_side)), weights)


def perpendicular(vector: Tensor, direction: Tensor) -> tuple[Tensor, Float[Tensor, "B 1 1 1"]]:
    """The part of each row of ``vector`` at right angles to ``direction``, and the coefficient of what was removed."""
    product = (vector * direction).flatten(1).sum(1)
    square = (direction * direction).flatten(1).sum(1)
    coefficient = torch.where(square > 0, product / square.clamp_min(1e-30), 0.0)[:, None, None, None]
    return vector - coefficient * direction, coefficient


def perp_neg(
    positive: Prediction, reference: Prediction, negatives: list[Prediction], weights: Float[Tensor, "B N"]
) -> Prediction:
    """``eps_0 + e+ + sum_i w_i perp(e_i, e+)`` with ``e = eps - eps_0``, to be used in the place of eps_y.

    With it classifier-free guidance is the paper's ``eps_0 + (w + 1) (e+ + sum_i w_i perp(e_i, e+))``. x0 takes the
    same combination: for one z it is affine in the noise. Each row has its own negatives, in any order of the batch.
    """
    noise, x0 = positive.noise, positive.x0
    for negative, weight in zip(negatives, weights.unbind(1), strict=True):
        along_noise, along_x0 = positive.noise - reference.noise, positive.x0 - reference.x0
        part, coefficient = perpendicular(negative.noise - reference.noise, along_noise)
        weight = weight[:, None, None, None]
        noise = noise + weight * part
        x0 = x0 + weight * (negative.x0 - reference.x0 - coefficient * along_x0)
    return Prediction(noise, x0)


def _decay(decay: Decay, r: Tensor) -> Tensor:
    a, b, c = decay
    return a * torch.exp(-b * r) + c


def _mix(texts: Mapping[str, PromptEmbedding], shares: Float[Tensor, "B 4"]) -> PromptEmbedding:
    """Rows of the four views' embeddings in the given shares; a token counts where a view with a share has it."""
    views = [texts[view] for view in VIEW_WORDS]

    def blended(tensors: list[Tensor]) -> Tensor:
        return sum((_column(shares, i, t) * t for i, t in enumerate(tensors)), torch.zeros_like(tensors[0]))

    masks = [(_column(shares, i, v.mask) > 0) & v.mask for i, v in enumerate(views) if v.mask is not None]
    pooled = [v.pooled for v in views if v.pooled is not None]
    mask = torch.stack(masks).any(0) if masks else None
    return PromptEmbedding(blended([v.tokens for v in views]), mask, blended(pooled) if pooled else None)


def _column(shares: Tensor, index: int, like: Tensor) -> Tensor:
    return shares[:, index].reshape(-1, *[1] * (like.ndim - 1))
