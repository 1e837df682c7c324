"""What a guidance sees in a step, as a picture: the views, what the prior makes of them, and what b_psi does."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from distill3d.priors.base import DiffusionPrior
from distill3d.runtime.pictures import contact_sheet
from distill3d.types import GuidanceInput, GuidanceOutput

ORDER = ("x_hat", "b_psi")  # the rows below the views; others follow by name


def ask_looking(guidance: Any, prior: DiffusionPrior, inputs: GuidanceInput) -> GuidanceOutput:
    """The guidance's answer with the pictures that it has, and the same gradient as without."""
    guidance.look = True
    try:
        return guidance(prior, inputs)
    finally:
        guidance.look = False


@torch.no_grad()
def guidance_sheet(
    prior: DiffusionPrior, x: Float[Tensor, "B C h w"], guided: GuidanceOutput
) -> UInt8[Tensor, "3 H W"] | None:
    """A row of the views, and one for each picture among the diagnostics; None for a rule that has none."""
    answers = guided.diagnostics.items()
    pictures = {name: value for name, value in answers if isinstance(value, Tensor) and value.ndim == 4}
    if not pictures:
        return None
    names = sorted(pictures, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    return contact_sheet([prior.decode(value) for value in (x.detach(), *(pictures[name] for name in names))])
