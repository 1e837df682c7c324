"""A set of pictures that changes while a scene is fitted to it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distill3d.config.ranges import check_least
from distill3d.runtime.pictures import to_uint8
from distill3d.systems.editing.editor import EditorSettings


@dataclass
class RefinementSettings:
    """The stage after distillation (arXiv 2311.13831, section 4.2); without a ``start_step`` there is none.

    From ``start_step`` on nothing is distilled: every ``interval`` steps one view is redrawn from its render, and the
    scene is fitted to the redrawn views. Published: a view every 10 steps, SDEdit, over 15 000 steps.
    """

    start_step: int | None = None
    interval: int = 10
    editor: EditorSettings = field(default_factory=EditorSettings)

    def __post_init__(self) -> None:
        check_least(self, start_step=0, interval=1)

    def is_active(self, step: int) -> bool:
        return self.start_step is not None and step >= self.start_step

    def is_due(self, step: int) -> bool:
        """Whether a view is redrawn in this step."""
        return self.is_active(step) and (step - (self.start_step or 0)) % self.interval == 0


class ChangingViews(nn.Module):
    """One picture for each view, as bytes, and how often each was replaced: in every checkpoint, so that a resumed run
    has the same set."""

    pictures: Tensor
    replaced: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pictures", torch.zeros(0, 3, 0, 0, dtype=torch.uint8))
        self.register_buffer("replaced", torch.zeros(0, dtype=torch.long))

    @property
    def is_empty(self) -> bool:
        return self.pictures.numel() == 0

    def begin(self, images: Float[Tensor, "N 3 H W"]) -> None:
        """Start from pictures in [0, 1]; none of them counts as replaced."""
        self.pictures = to_uint8(images.detach())
        self.replaced = torch.zeros(len(images), dtype=torch.long, device=images.device)

    def images(self, index: Int[Tensor, "B"]) -> Float[Tensor, "B 3 H W"]:
        """The present pictures of these views, in [0, 1]."""
        return self.pictures[index].float() / 255.0

    def replace(self, index: Int[Tensor, "B"], images: Float[Tensor, "B 3 H W"]) -> None:
        """Put other pictures in the place of these."""
        self.pictures[index] = to_uint8(images.detach())
        self.replaced[index] += 1

    def edited(self) -> Int[Tensor, "M"]:
        """The views that were replaced at least once, ascending."""
        return self.replaced.nonzero()[:, 0]
