"""How b_psi is trained and judged: denoised images of a frozen prior against clean ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill3d.priors.base import DiffusionPrior, add_noise
from distill3d.types import Cameras, Pass, PromptEmbedding

MAX_WEIGHT = 20.0
MEMORY_BYTES = 256 << 20  # of replayed images: 83 batches of 32 images of 64 pixels

Predictor = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Denoised(NamedTuple):
    """Clean images, and what one denoising step makes of them at t."""

    x: Float[Tensor, "B C h w"]
    t: Int[Tensor, "B"]
    x_hat: Float[Tensor, "B C h w"]


@torch.no_grad()
def denoise(
    prior: DiffusionPrior,
    x: Float[Tensor, "B C h w"],
    text: PromptEmbedding,
    t: Int[Tensor, "B"],
    eps: Float[Tensor, "B C h w"],
    cameras: Cameras | None = None,
) -> Denoised:
    """One pass of the prior, told text and cameras as in distillation: by far the dearest part of a training step."""
    return Denoised(x, t, prior.predict([Pass(add_noise(prior, x, eps, t), t, text, cameras=cameras)])[0].x0)


def perturbed(
    x: Float[Tensor, "B C h w"], deviation: float, generator: torch.Generator, share: float = 0.75
) -> Float[Tensor, "B C h w"]:
    """A share of the images with white noise, whose deviation is drawn from 0 to the given one.

    What b_psi never saw it extrapolates. At frequencies that the images lack its gain must not be below the prior's:
    the force b - x_hat would push away from the images there.
    """
    rows = (len(x), 1, 1, 1)
    amount = deviation * torch.rand(rows, generator=generator) * (torch.rand(rows, generator=generator) < share)
    return x + amount.to(x.device) * torch.randn(x.shape, generator=generator).to(x.device)


def corrective_losses(corrective: Predictor, prior: DiffusionPrior, images: Denoised) -> Float[Tensor, "B"]:
    """``min((alpha/sigma)^2, 20) || b(x, t) - x_hat_t ||^2`` for each row, averaged over its pixels.

    That is the squared error in eps-space, in which LMC-SDS uses b (arXiv 2401.05293; the weight is derived).
    """
    alpha, sigma = prior.alpha_sigma(images.t)
    weight = ((alpha / sigma) ** 2).clamp_max(MAX_WEIGHT)
    error = corrective(images.x, images.t, alpha, sigma) - images.x_hat
    return (weight * error**2).flatten(1).mean(1)


class Memory:
    """Denoised images of the last batches, to be learned from again.

    It keeps the newest ones up to ``batches`` and ``most_bytes``, and always the last one.
    """

    def __init__(self, batches: int, most_bytes: int = MEMORY_BYTES) -> None:
        self._batches: deque[Denoised] = deque(maxlen=batches)
        self.most_bytes = most_bytes

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for batch in self._batches for part in batch)

    def keep(self, images: Denoised) -> None:
        self._batches.append(images)
        while len(self._batches) > 1 and self.nbytes > self.most_bytes:
            self._batches.popleft()

    def state(self) -> list[dict[str, Tensor]]:
        """The batches, oldest first, in main memory: plain containers, which a checkpoint can hold."""
        return [{name: part.cpu() for name, part in batch._asdict().items()} for batch in self._batches]

    def restore(self, state: list[dict[str, Tensor]], device: torch.device | str) -> None:
        """The inverse of `state`."""
        self._batches.clear()
        self._batches.extend(Denoised(**{name: part.to(device) for name, part in batch.items()}) for batch in state)

    def draw(self, count: int, generator: torch.Generator) -> list[Denoised]:
        """About as many rows, as whole halves of batches that were drawn with replacement; none at first."""
        if not self._batches:
            return []
        return [self._half(generator) for _ in range(round(2 * count / len(self._batches[-1].t)))]

    def _half(self, generator: torch.Generator) -> Denoised:
        chosen = self._batches[int(torch.randint(len(self._batches), (1,), generator=generator))]
        rows = torch.randperm(len(chosen.t), generator=generator)[: max(len(chosen.t) // 2, 1)].to(chosen.t.device)
        return Denoised(*(part[rows] for part in chosen))


def joined(parts: Sequence[Denoised]) -> Denoised:
    return Denoised(*(torch.cat(column) for column in zip(*parts, strict=True)))


@torch.no_grad()
def validation_floor(
    prior: DiffusionPrior,
    x: Float[Tensor, "B C h w"],
    text: PromptEmbedding,
    generator: torch.Generator,
    bins: int = 10,
    cameras: Cameras | None = None,
) -> list[float]:
    """What no b(x, t) can go below, in each t-bin: the loss of E[x_hat | x], here from two draws of the noise.

    b_psi should not reach it: it would then know the images, and leave L_cond alone of LMC-SDS.
    """
    floors = []
    for t in bin_timesteps(len(x), bins, prior.num_train_timesteps).to(x.device):
        noises = (torch.randn(x.shape, generator=generator, device=generator.device).to(x.device) for _ in range(2))
        first, second = (denoise(prior, x, text, t, eps, cameras) for eps in noises)
        losses = corrective_losses(lambda *_, other=second: other.x_hat, prior, first)
        floors.append(0.5 * float(losses.mean()))
    return floors


def identity(x: Tensor, t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The corrective with which LMC-SDS is SDS."""
    return x


def bin_timesteps(count: int, bins: int, num_train_timesteps: int) -> Int[Tensor, "bins count"]:
    """Times spread evenly over equal bins of the diffusion time."""
    share = (torch.arange(bins * count) + 0.5) / (bins * count)
    return (share * num_train_timesteps).long().view(bins, count)


@torch.no_grad()
def losses_by_time(
    correctives: dict[str, Predictor],
    prior: DiffusionPrior,
    x: Float[Tensor, "B C h w"],
    text: PromptEmbedding,
    generator: torch.Generator,
    bins: int = 10,
    cameras: Cameras | None = None,
) -> dict[str, list[float]]:
    """The loss of each corrective in each t-bin, all on the same images and noise; compare with `identity`."""
    losses: dict[str, list[float]] = {name: [] for name in correctives}
    for t in bin_timesteps(len(x), bins, prior.num_train_timesteps).to(x.device):
        eps = torch.randn(x.shape, generator=generator, device=generator.device).to(x.device)
        images = denoise(prior, x, text, t, eps, cameras)
        for name, corrective in correctives.items():
            losses[name].append(float(corrective_losses(corrective, prior, images).mean()))
    return losses
