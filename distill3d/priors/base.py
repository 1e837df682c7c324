"""The protocol of a frozen diffusion model: guidances see x, t, noise and x0, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NoReturn, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distill3d.camera import CameraRanges
from distill3d.types import Pass, Prediction, PromptEmbedding

Condition = Literal["text", "camera", "image"]


@dataclass(frozen=True)
class PriorSpec:
    """What a prior works on and what it can be told, declared instead of found out by trial.

    image_sizes: native sizes of the rendered image in pixels, ascending. factor: pixels along a side of one latent.
    flow: ``z = (1 - s) x + s eps`` instead of a variance-preserving diffusion. vocabulary: the words that it was
    taught, in lower case, None where nobody knows. default_cameras: of the views that it was trained on. n_view: rows
    in a row that it sees together, as views of one object at one time t.
    """

    image_sizes: tuple[int, ...]
    space: Literal["pixels", "latents"] = "pixels"
    channels: int = 3
    factor: int = 1
    flow: bool = False
    conditions: frozenset[Condition] = frozenset({"text"})
    vocabulary: frozenset[str] | None = None
    default_cameras: CameraRanges | None = None
    n_view: int = 1

    def x_shape(self, image_size: int) -> tuple[int, int, int]:
        """Channels, height and width of x for a square image, which is seen at the nearest native size."""
        size = min(self.image_sizes, key=lambda native: (abs(native - image_size), native))
        return self.channels, size // self.factor, size // self.factor

    def native_size(self, x: Float[Tensor, "B C h w"]) -> int:
        """The native image size in pixels that x is the encoding of."""
        pixels = max(x.shape[-2:]) * self.factor
        return min(self.image_sizes, key=lambda size: abs(size - pixels))


class PromptEncoder(Protocol):
    """Text encoder(s) as an object of its own: built on a cache miss, then freed."""

    def __call__(self, texts: list[str]) -> PromptEmbedding: ...


@runtime_checkable
class DiffusionPrior(Protocol):
    """A frozen diffusion model in its own image space, x in about [-1, 1] (pixels) or unit variance (latents)."""

    identity: str  # hash of the weights: keys the embedding cache and binds a corrective to its prior
    num_train_timesteps: int
    spec: PriorSpec
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
        """All passes in ONE batched call of the network; equal passes are evaluated once. fp32 out.

        Cameras of a pass are ignored where ``spec.conditions`` has no camera.
        """
        ...

    def make_adapter(self, rank: int) -> nn.Module:
        """A new adapter for `Pass.adapter`: a LoRA, or what a prior without a network has in its place.

        It starts as the prior itself. Raises ValueError where the prior takes none, see `no_adapter`.
        """
        ...


def no_adapter(prior: str) -> NoReturn:
    """For `DiffusionPrior.make_adapter` of a prior without a network. Raises ValueError."""
    raise ValueError(
        f"guidance_type=vsd needs a prior that takes an adapter, and {prior} does not; choose another rule"
    )


def add_noise(prior: DiffusionPrior, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """``z_t = alpha_t x + sigma_t eps``."""
    alpha, sigma = prior.alpha_sigma(t)
    return alpha * x + sigma * eps
