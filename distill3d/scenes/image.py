"""A picture as the scene: its pixels or latents are the parameters, and random windows are its views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from distill3d.config.ranges import check_least
from distill3d.config.registry import register
from distill3d.scenes.base import Scene, Step, Views
from distill3d.scenes.rows import take_sizes


@register("scene", "image")
class ImageScene(Scene):
    """Images as parameters: RGB values, which are not clamped, or a prior's latents.

    Their size is known only with the first picture or a checkpoint: before `begin` the scene is empty. A view is a
    random window of ``window`` pixels or latents on a side (None: the whole of a square picture), ``each`` of them of
    every picture.
    """

    @dataclass
    class Config:
        """``count`` pictures are made side by side, each from noise of its own. ``parameters``: what is optimised."""

        count: int = 1
        parameters: Literal["pixels", "latents"] = "pixels"

        def __post_init__(self) -> None:
            check_least(self, count=1)

    def __init__(self, cfg: Config | None = None) -> None:
        super().__init__(cfg or ImageScene.Config())
        self.values = nn.Parameter(torch.empty(0))
        self.window: int | None = None
        self.each = 1
        self._held: tuple[Tensor, Tensor] | None = None  # where nothing may change, and what stands there

    @property
    def is_empty(self) -> bool:
        return self.values.numel() == 0

    def begin(self, values: Float[Tensor, "N C h w"], window: int | None = None, each: int = 1) -> None:
        """Start from these pictures."""
        self.values = nn.Parameter(values.detach().clone())
        self.window, self.each = window, each

    def hold(self, may_change: Bool[Tensor, "1 h w"]) -> None:
        """Let nothing change elsewhere from now on."""
        self._held = (~may_change, self.values.detach().clone())

    @torch.no_grad()
    def after_backward(self, optimizer: torch.optim.Optimizer, step: Step) -> None:
        """Back to what stood there wherever the pictures are held."""
        if self._held is not None:
            where, values = (part.to(self.values.device) for part in self._held)
            self.values.copy_(torch.where(where, values, self.values))

    def views(self, batch: Any, step: Step) -> Views:
        height, width = self.values.shape[-2:]
        window = min(self.window or max(height, width), height, width)
        corners = draw_corners((height, width), window, len(self.values) * self.each, step.rng("camera"))
        return Views(cut_windows(self.values, corners, window), encoded=self.cfg.parameters == "latents")

    def original(self) -> ImageScene:
        """What an edit of these equal pictures is compared with: one of them as it is, in the same windows."""
        copy = ImageScene(self.cfg)
        copy.begin(self.values[:1], self.window, self.each * len(self.values))
        return copy.requires_grad_(False)

    def state_for(self, state: Mapping[str, Tensor]) -> None:
        take_sizes(self, state)


def draw_corners(size: tuple[int, int], window: int, count: int, generator: torch.Generator) -> Int[Tensor, "count 2"]:
    """Top and left of random square windows within a picture of (height, width).

    Drawn from half a window beyond the borders and pushed back inside: borders are seen as often as the middle.
    """
    sides = []
    for whole in size:
        margin = window // 2 if whole > window else 0
        drawn = torch.randint(-margin, whole - window + margin + 1, (count,), generator=generator)
        sides.append(drawn.clamp(0, whole - window))
    return torch.stack(sides, dim=1)


def cut_windows(values: Float[Tensor, "N C H W"], corners: Int[Tensor, "B 2"], window: int) -> Float[Tensor, "B C s s"]:
    """B square windows, the same number of each picture, in the order of the pictures."""
    each = len(corners) // len(values)
    rows = [
        values[i // each, :, top : top + window, left : left + window] for i, (top, left) in enumerate(corners.tolist())
    ]
    return torch.stack(rows)


def centre_square(picture: Float[Tensor, "3 H W"]) -> Float[Tensor, "3 S S"]:
    """The largest square in the middle."""
    height, width = picture.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[:, top : top + side, left : left + side]
