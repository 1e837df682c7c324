"""Flow-matching transformers: Stable Diffusion 3 and 3.5, FLUX.1, Z-Image."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill3d.priors.latent import LatentPrior
from distill3d.priors.prediction import from_flow
from distill3d.types import Cameras, Prediction, PromptEmbedding


class FlowPrior(LatentPrior):
    """``z_s = (1 - s) x + s eps`` and the network answers ``v = eps - x`` (arXiv 2403.03206).

    A guidance's integer t means s = (t + 1) / T, without the time shift that samplers apply.
    """

    latent_multiple = 2  # a patch
    half = torch.bfloat16  # activations of these transformers leave fp16's range

    def alpha_sigma(self, t: Int[Tensor, "B"]) -> tuple[Float[Tensor, "B 1 1 1"], Float[Tensor, "B 1 1 1"]]:
        """``alpha = 1 - s``, ``sigma = s``, fp32."""
        s = self._time(t).view(-1, 1, 1, 1)
        return 1.0 - s, s

    def convert(self, z: Tensor, output: Tensor, t: Tensor) -> Prediction:
        return from_flow(z, output, *self.alpha_sigma(t))

    def network_output(
        self, network: Any, z: Tensor, t: Tensor, text: PromptEmbedding, cameras: Cameras | None
    ) -> Tensor:
        return network(
            hidden_states=z,
            timestep=self._time(t) * self.num_train_timesteps,
            encoder_hidden_states=text.tokens,
            pooled_projections=text.pooled,
        ).sample

    def _time(self, t: Tensor) -> Tensor:
        return (t.float() + 1.0) / self.num_train_timesteps

    def _read_schedule(self) -> None:
        self.num_train_timesteps = int(self.folder.config("scheduler").get("num_train_timesteps", 1000))


class FluxPrior(FlowPrior):
    """FLUX.1 sees 2x2 latents as one token, with its place as ids.

    FLUX.1-dev was distilled from a guided model, so it takes a guidance of its own as an input, which is
    ``system.prior.distilled_guidance``: already its conditional answer is a guided one. The guidance scale of a rule
    comes on top, and wants to be low. FLUX.1-schnell has no such input.
    """

    def native_sizes(self) -> tuple[int, ...]:
        return (self.codec.pixels(128),)  # its config names no size

    def network_output(
        self, network: Any, z: Tensor, t: Tensor, text: PromptEmbedding, cameras: Cameras | None
    ) -> Tensor:
        rows, columns = z.shape[-2] // 2, z.shape[-1] // 2
        guidance = None
        if self.network.config.guidance_embeds:
            guidance = torch.full((len(z),), self.cfg.distilled_guidance, device=z.device, dtype=torch.float32)
        output = network(
            hidden_states=pack(z),
            timestep=self._time(t),
            guidance=guidance,
            encoder_hidden_states=text.tokens,
            pooled_projections=text.pooled,
            txt_ids=z.new_zeros(text.tokens.shape[1], 3),
            img_ids=image_ids(rows, columns).to(z),
        ).sample
        return unpack(output, rows, columns)


class ZImagePrior(FlowPrior):
    """Z-Image (arXiv 2511.22699) takes lists of images and of texts of any length, and 1 - s; it answers ``x - eps``.

    Z-Image-Turbo was distilled to a few steps.
    """

    def native_sizes(self) -> tuple[int, ...]:
        return (self.codec.pixels(128),)  # its config names no size

    def network_output(
        self, network: Any, z: Tensor, t: Tensor, text: PromptEmbedding, cameras: Cameras | None
    ) -> Tensor:
        captions = list(text.tokens)
        if text.mask is not None:
            captions = [tokens[mask] for tokens, mask in zip(captions, text.mask, strict=True)]
        images = list(z.unsqueeze(2))  # as videos of one frame
        output = network(images, 1.0 - self._time(t), captions, return_dict=False)[0]
        return -torch.stack(output).squeeze(2)


def pack(z: Float[Tensor, "B C h w"]) -> Float[Tensor, "B tokens C4"]:
    """2x2 latents as one token, rows first; inverse: `unpack`."""
    return torch.nn.functional.pixel_unshuffle(z, 2).flatten(2).transpose(1, 2)


def unpack(tokens: Float[Tensor, "B tokens C4"], rows: int, columns: int) -> Float[Tensor, "B C h w"]:
    """The inverse of `pack`."""
    return torch.nn.functional.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (rows, columns)), 2)


def image_ids(rows: int, columns: int) -> Float[Tensor, "tokens 3"]:
    """For each token (0, row, column): what rotary embeddings read."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1).float()
