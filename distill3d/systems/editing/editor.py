"""The editors by name, with one signature: a render, its original and their texts become an edited picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.config.ranges import check_least
from distill3d.priors.base import DiffusionPrior
from distill3d.priors.settings import PriorConfig
from distill3d.systems.editing.ddpm_inversion import ddpm_inversion
from distill3d.systems.editing.instruct_pix2pix import InstructPix2Pix, embed_instruction, load_instruct_pix2pix
from distill3d.systems.editing.sdedit import sdedit
from distill3d.types import PromptEmbedding

EditorName = Literal["sdedit", "ddpm-inversion", "instruct-pix2pix"]
Editor = Callable[["EditRequest"], Tensor]

# guidance scale w, strengths and steps as published: arXiv 2311.13831 (refinement), 2304.06140, 2303.12789
PUBLISHED: Mapping[EditorName, tuple[float, tuple[float, float], int]] = {
    "sdedit": (14.0, (0.1, 0.2), 20),
    "ddpm-inversion": (14.0, (0.64, 0.64), 100),
    "instruct-pix2pix": (6.5, (0.02, 0.98), 20),
}


@dataclass
class EditorSettings:
    """Which editor, and how it draws. Null takes the editor's own published value.

    strength_range: the share of the diffusion time that a picture is noised by, drawn anew for each picture.
    steps: of the whole diffusion time for sdedit and ddpm-inversion, of one edit for instruct-pix2pix.
    Guidance scales are the papers' w, diffusers' minus one. The last three are for instruct-pix2pix alone: what it
    is told (null: the prompt), how closely it follows the picture, and a diffusers folder or Hub id.
    """

    name: EditorName = "sdedit"
    guidance_scale: float | None = None
    strength_range: tuple[float, float] | None = None
    steps: int | None = None
    source_guidance_scale: float = 2.5  # of ddpm-inversion's way up
    instruction: str | None = None
    image_guidance_scale: float = 0.5
    pretrained_model_name_or_path: str = "timbrooks/instruct-pix2pix"

    def __post_init__(self) -> None:
        scale, strengths, steps = PUBLISHED[self.name]
        self.guidance_scale = scale if self.guidance_scale is None else self.guidance_scale
        self.strength_range = strengths if self.strength_range is None else self.strength_range
        self.steps = steps if self.steps is None else self.steps
        low, high = self.strength_range
        if not 0.0 <= low <= high <= 1.0:
            raise ValueError(f"strength_range={list(self.strength_range)} must be two shares, 0 <= low <= high <= 1")
        check_least(self, steps=1)


@dataclass(frozen=True)
class EditRequest:
    """One batch for an editor. ``render`` is the scene as it is, ``original`` what it was before any edit."""

    render: Float[Tensor, "B 3 H W"]
    original: Float[Tensor, "B 3 H W"]
    texts: Mapping[str, PromptEmbedding]  # conditional, negative, and source for ddpm-inversion
    generator: torch.Generator


def make_editor(settings: EditorSettings, prior: DiffusionPrior, prompt: str, clip: float | None = None) -> Editor:
    """The editor that ``settings`` name. ``clip`` bounds x where the prior's space has bounds.

    Raises PriorError where instruct-pix2pix's model cannot be loaded.
    """
    if settings.name != "instruct-pix2pix":
        return partial({"sdedit": _sdedit, "ddpm-inversion": _ddpm_inversion}[settings.name], settings, prior, clip)
    cfg = PriorConfig(settings.pretrained_model_name_or_path)
    texts = embed_instruction(cfg, settings.instruction or prompt)
    return partial(_instruct, settings, load_instruct_pix2pix(cfg, prior.device), texts)


def draw_strength(settings: EditorSettings, generator: torch.Generator) -> float:
    """Uniform within the range."""
    low, high = settings.strength_range or (0.0, 1.0)
    return low + (high - low) * float(torch.rand((), generator=generator, device=generator.device))


def _sdedit(settings: EditorSettings, prior: DiffusionPrior, clip: float | None, request: EditRequest) -> Tensor:
    strength = draw_strength(settings, request.generator)
    target, reference = request.texts["conditional"], request.texts["negative"]
    scale, steps = settings.guidance_scale or 0.0, settings.steps or 1
    return sdedit(prior, request.render, target, request.generator, reference, strength, scale, steps, clip)


def _ddpm_inversion(
    settings: EditorSettings, prior: DiffusionPrior, clip: float | None, request: EditRequest
) -> Tensor:
    """It takes the original apart, not the render: what it draws does not depend on how far the scene has come."""
    texts, strength = request.texts, draw_strength(settings, request.generator)
    return ddpm_inversion(
        prior,
        request.original,
        texts["source"],
        texts["conditional"],
        request.generator,
        texts["negative"],
        strength,
        settings.source_guidance_scale,
        settings.guidance_scale or 0.0,
        settings.steps or 1,
        clip,
    )


def _instruct(
    settings: EditorSettings,
    model: InstructPix2Pix,
    texts: tuple[PromptEmbedding, PromptEmbedding],
    request: EditRequest,
) -> Tensor:
    rows = [0] * len(request.render)
    instruction, empty = (text.to(model.device)[rows] for text in texts)
    return model.edit(
        request.render,
        request.original,
        (instruction, empty),
        request.generator,
        draw_strength(settings, request.generator),
        settings.guidance_scale or 0.0,
        settings.image_guidance_scale,
        settings.steps or 1,
    )
