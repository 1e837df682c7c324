"""How much a prior uses its conditions: its error on held-out views with the right caption, camera or view word, or
with a wrong one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill3d.embedded.captions import VIEW_PHRASES, with_article
from distill3d.embedded.mesh_views import ViewBatch, ViewCache
from distill3d.priors.base import DiffusionPrior, PromptEncoder, add_noise
from distill3d.runtime.rng import rng
from distill3d.types import Cameras, Pass, PromptEmbedding

GREY = 0.5
HIGH_NOISE = (700, 900, 960, 985)


@dataclass(frozen=True)
class ConditionEffect:
    """Mean squared error of x0 in [-1, 1] at one time t."""

    condition: str  # caption, camera or view word
    t: int
    image_size: int
    none: float
    right: float
    wrong: float


class Told(NamedTuple):
    """One way of telling: texts, and cameras or None."""

    text: PromptEmbedding
    cameras: Cameras | None = None


@torch.no_grad()
def errors_by_condition(
    prior: DiffusionPrior,
    condition: str,
    images: Float[Tensor, "B 3 H W"],
    none: Told,
    right: Told,
    wrong: Told,
    times: tuple[int, ...] = HIGH_NOISE,
) -> list[ConditionEffect]:
    """At every native size and time, with the same noise for the three."""
    effects = []
    for size in prior.spec.image_sizes:
        x = prior.encode(F.interpolate(images, (size, size), mode="area").to(prior.device))
        for time_step in times:
            t = torch.full((len(x),), time_step, device=x.device)
            z = add_noise(prior, x, torch.randn(x.shape, generator=rng("noise", time_step)).to(x), t)
            told = [Pass(z, t, each.text, cameras=each.cameras) for each in (none, right, wrong)]
            errors = [float((answer.x0 - x).square().mean()) for answer in prior.predict(told)]
            effects.append(ConditionEffect(condition, time_step, size, *errors))
    return effects


def caption_effects(
    prior: DiffusionPrior, encoder: PromptEncoder, batch: ViewBatch, times: tuple[int, ...] = (300, 500, 700, 900)
) -> list[ConditionEffect]:
    """No caption, the right one, another view's; with the camera where the prior takes one."""
    captions, cameras = batch.captions, batch.cameras
    none, right, wrong = (
        Told(encoder(texts), cameras) for texts in ([""] * len(captions), captions, captions[1:] + captions[:1])
    )
    return errors_by_condition(prior, "caption", 0.5 + 0.5 * batch.images, none, right, wrong, times)


def camera_effects(
    prior: DiffusionPrior, encoder: PromptEncoder, cache: ViewCache, nouns: list[str], per_noun: int = 2
) -> list[ConditionEffect]:
    """No camera, the right one, another view's of the same noun; unlit views before grey, where nothing else varies."""
    rows = [row for noun in nouns for row in cache.singles[noun][:per_noun]]
    others = [row for noun in nouns for row in cache.singles[noun][1 : per_noun + 1]]
    text = encoder([with_article(noun) for noun in nouns for _ in range(per_noun)])
    right, wrong = Told(text, cache.cameras(rows)), Told(text, cache.cameras(others))
    return errors_by_condition(prior, "camera", before_grey(cache, rows), Told(text), right, wrong)


def view_word_effects(
    prior: DiffusionPrior, encoder: PromptEncoder, cache: ViewCache, nouns: list[str], per_noun: int = 4
) -> list[ConditionEffect]:
    """No view word, the right one, that of another side, without a camera; for nouns that have a front."""
    rows = [row for noun in nouns for row in cache.singles[noun][:per_noun]]
    plain = [with_article(noun) for noun in nouns for _ in range(per_noun)]
    other = {"front": "back", "back": "front", "side": "front", "overhead": "side"}
    worded = lambda words: encoder([f"{p}, {VIEW_PHRASES[w]}" for p, w in zip(plain, words, strict=True)])  # noqa: E731
    words = [cache.words[row] for row in rows]
    right, wrong = Told(worded(words)), Told(worded([other[word] for word in words]))
    return errors_by_condition(prior, "view word", before_grey(cache, rows), Told(encoder(plain)), right, wrong)


def before_grey(cache: ViewCache, rows: list[int]) -> Float[Tensor, "B 3 H W"]:
    """Unlit views before middle grey, in [0, 1]."""
    albedo, mask = cache.unlit(rows)
    return albedo * mask + GREY * (1.0 - mask)
