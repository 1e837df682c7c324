"""Inputs of a guidance on a closed-form prior, as a system would make them."""

from __future__ import annotations

from dataclasses import replace

import torch
from closed_form import ClosedFormPrior
from torch import Tensor

from distill3d.camera import make_cameras
from distill3d.config.registry import find
from distill3d.guidance.base import Draw, ScoreDistillation, make_draw
from distill3d.guidance.corrective.spectral import radial_sums
from distill3d.runtime.rng import rng
from distill3d.types import Cameras, GuidanceInput, Prompt, TextRequest

PROMPT = Prompt(
    "a red cube",
    negative="ugly",
    source="a blue cube",
    views={view: f"a red cube, {view} view" for view in ("front", "side", "back", "overhead")},
)


def make(name: str, **settings) -> ScoreDistillation:
    """A guidance by its registered name."""
    cls = find("guidance", name)
    return cls(cls.Config(**settings))  # type: ignore[attr-defined]


def inputs_for(
    rule: ScoreDistillation, prior: ClosedFormPrior, batch: int = 2, seed: int = 0, **fields
) -> GuidanceInput:
    """Random images in the prior's space with every text that the rule asks for."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, *prior.shape, generator=generator) * 0.5
    source = torch.randn(batch, *prior.shape, generator=generator) * 0.5
    texts = {role: prior.embed([text] * batch) for role, text in rule_texts(rule).items()}
    given = GuidanceInput(x, texts, 30, 100, rng("noise", seed), cameras_for(batch), source, seed)
    return replace(given, **fields)


def rule_texts(rule: ScoreDistillation, prompt: Prompt = PROMPT) -> dict[str, str]:
    requests: dict[str, TextRequest] = rule.texts(prompt)
    return {role: request.text for role, request in requests.items()}


def cameras_for(batch: int) -> Cameras:
    azimuth_deg = torch.linspace(0.0, 300.0, batch)
    full = torch.ones(batch)
    return make_cameras(full * 20.0, azimuth_deg, full * 1.5, full * 50.0, 8, 8)


def draw_at(prior: ClosedFormPrior, x: Tensor, t: list[int], seed: int = 5, weighting: str = "sds") -> Draw:
    """The draw of given times and of noise that depends on the seed alone."""
    eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return make_draw(prior, x, torch.tensor(t), eps, weighting)  # type: ignore[arg-type]


def power_change(x: Tensor, grad: Tensor) -> Tensor:
    """Relative change of amplitude for a small step against the gradient, by radial frequency in cycles per image."""
    size = x.shape[-1]
    spectrum, change = torch.fft.rfft2(x - x.mean((2, 3), keepdim=True)), torch.fft.rfft2(-grad)
    planes = ((spectrum.conj() * change).real.sum((0, 1)), (spectrum.abs() ** 2).sum((0, 1)))
    cross, power = (radial_sums(plane, size, size, size // 2 + 1) for plane in planes)
    return cross / power.clamp_min(1e-9)
