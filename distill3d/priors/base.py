"""The protocol of a frozen diffusion model: guidances see x, t, noise and x0, and nothing else."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill3d.types import Pass, Prediction, PromptEmbedding


class PromptEncoder(Protocol):
    """Text encoder(s) as an object of its own: built on a cache miss, then freed."""

    def __call__(self, texts: list[str]) -> PromptEmbedding: ...


@runtime_checkable
class DiffusionPrior(Protocol):
    """A frozen diffusion model in its own image space, x in about [-1, 1] (pixels) or unit variance (latents)."""

    identity: str  # hash of the weights: keys the embedding cache and binds a corrective to its prior
    num_train_timesteps: int
    image_sizes: tuple[int, ...]  # native sizes of the rendered image in pixels, ascending
    device: torch.device

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Images in [0, 1] to x: differentiable, deterministic; resizes to the nearest native size."""
        ...

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """x to images in [0, 1], clamped; called only when someone looks."""
        ...

    def alpha_sigma(self, t: Int[Tensor, "B"]) -> tuple[Float[Tensor, "B 1 1 1"], Float[Tensor, "B 1 1 1"]]:
        """alpha_t and sigma_t of ``z_t = alpha_t x + sigma_t eps``, fp32, ready to broadcast."""
        ...

    def predict(self, passes: list[Pass], grad: bool = False) -> list[Prediction]:
        """All passes in ONE batched call of the network; equal passes are evaluated once. fp32 out."""
        ...

    def unknown_words(self, prompt: str) -> list[str]:
        """Words of the prompt that the model was never taught, where its folder says; else an empty list."""
        ...


def add_noise(prior: DiffusionPrior, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """``z_t = alpha_t x + sigma_t eps``."""
    alpha, sigma = prior.alpha_sigma(t)
    return alpha * x + sigma * eps
