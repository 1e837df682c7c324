"""Density control: where Gaussians are cloned, split, pruned and made faint (arXiv 2308.04079, section 5.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from distill3d.config.ranges import check_least
from distill3d.scenes.splats.gaussians import Gaussians, logit, rotations

Strategy = Literal["adaptive", "mcmc", "none"]


@dataclass
class DensitySettings:
    """When and how the number of Gaussians changes.

    strategy: ``adaptive`` clones and splits those whose projected centre has the largest gradient; ``mcmc`` moves faint
        ones to opaque ones, adds some up to ``max_count``, and adds noise to all (arXiv 2404.09591); ``none``.
    every, start, until: steps between changes, the first and the last step that has one.
    grow_gradient: mean gradient of the projected centre, in halves of the picture, below which none is cloned or split.
    grow_share: the largest share of Gaussians that is cloned or split at once, those with the largest gradients.
    split_size: standard deviation in world units, from which on a Gaussian is split; smaller ones are cloned.
    min_opacity: fainter ones are pruned (``adaptive``) or moved (``mcmc``).
    reset_every: steps between resets of all opacities to at most ``reset_opacity``; 0: none.
    noise: of ``mcmc``: scale of the noise on the means, in units of their learning rate.
    """

    strategy: Strategy = "adaptive"
    every: int = 50
    start: int = 50
    until: int = 500
    max_count: int = 6000
    grow_gradient: float = 0.0
    grow_share: float = 0.1
    split_size: float = 0.02
    min_opacity: float = 0.02
    reset_every: int = 0
    reset_opacity: float = 0.05
    noise: float = 100.0

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every={self.every} must be at least 1 step; strategy=none changes nothing")
        if not 1 <= self.max_count <= 1_000_000:
            raise ValueError(f"max_count={self.max_count} must lie in 1 .. 1 000 000")
        for name in ("grow_share", "min_opacity", "reset_opacity"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"{name}={getattr(self, name)} must lie between 0 and 1")
        check_least(self, start=0, until=0, reset_every=0, noise=0, grow_gradient=0)
        if not self.split_size > 0.0:
            raise ValueError(f"split_size={self.split_size} must be positive, in world units")

    def is_due(self, done: int) -> bool:
        """Whether the number changes after ``done`` steps."""
        return self.strategy != "none" and self.start <= done <= self.until and done % self.every == 0

    def resets(self, done: int) -> bool:
        """Whether opacities are reset after ``done`` steps; not at the end, when nothing could bring them back."""
        resets = self.strategy == "adaptive" and self.reset_every > 0
        return resets and done % self.reset_every == 0 and done <= self.until


@dataclass(frozen=True)
class Change:
    """The rows that stay, and the Gaussians that come after them."""

    keep: Int[Tensor, "K"]
    added: Gaussians


def adapted(
    gaussians: Gaussians, pull: Float[Tensor, "N"], settings: DensitySettings, generator: torch.Generator
) -> Change:
    """Prune the faint, and clone or split those with the largest mean ``pull`` on their centres.

    A small Gaussian becomes two of its kind; both show together the opacity that it had (arXiv 2404.06109, section 4),
    so it is replaced, too. A large one becomes two of 1/1.6 the size, drawn from itself. Where all are faint, nothing
    is pruned.
    """
    alive = gaussians.opacities.sigmoid() >= settings.min_opacity
    alive = alive if bool(alive.any()) else torch.ones_like(alive)
    grown = _most_pulled(pull, alive, settings)
    keep = alive.clone()
    keep[grown] = False
    parents = rows(gaussians, grown)
    large = parents.scales.exp().amax(dim=1) > settings.split_size
    return Change(keep.nonzero()[:, 0], joined(_cloned(rows(parents, ~large)), _split(rows(parents, large), generator)))


def _most_pulled(pull: Float[Tensor, "N"], alive: Bool[Tensor, "N"], settings: DensitySettings) -> Int[Tensor, "G"]:
    able = alive & (pull > settings.grow_gradient)
    room = max(settings.max_count - int(alive.sum()), 0)
    count = min(math.ceil(settings.grow_share * len(pull)), int(able.sum()), room)
    return torch.where(able, pull, -1.0).topk(count).indices


def _cloned(parents: Gaussians) -> Gaussians:
    halved = 1.0 - (1.0 - parents.opacities.sigmoid()).clamp_min(0.0).sqrt()
    return Gaussians(**{**joined(parents, parents).tensors(), "opacities": logit(halved).repeat(2)})


def _split(parents: Gaussians, generator: torch.Generator) -> Gaussians:
    both = joined(parents, parents)
    means = both.means + drawn_from(both, generator)
    return Gaussians(**{**both.tensors(), "means": means, "scales": both.scales - math.log(1.6)})


def drawn_from(gaussians: Gaussians, generator: torch.Generator) -> Float[Tensor, "N 3"]:
    """One offset from the mean of each, distributed as it is."""
    unit = torch.randn(len(gaussians), 3, generator=generator).to(gaussians.means)
    turned = rotations(gaussians.quaternions) @ (gaussians.scales.exp() * unit)[..., None]
    return turned[..., 0]


def rows(gaussians: Gaussians, index: Tensor) -> Gaussians:
    """Some of them."""
    return Gaussians(**{name: value[index] for name, value in gaussians.tensors().items()})


def joined(first: Gaussians, second: Gaussians) -> Gaussians:
    """All of both."""
    other = second.tensors()
    return Gaussians(**{name: torch.cat([value, other[name]]) for name, value in first.tensors().items()})
