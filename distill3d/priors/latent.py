"""Latent diffusion: Stable Diffusion 1.x, 2.x and XL, PixArt-Sigma."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.priors.frozen import FrozenPrior
from distill3d.priors.hub import SETTING, PriorError
from distill3d.priors.suitability import REFINER_SIZES, refuses_channels
from distill3d.priors.vae import ImageCodec
from distill3d.types import Cameras, PromptEmbedding


class LatentPrior(FrozenPrior):
    """x is the mean of the VAE's posterior, scaled to about unit variance (arXiv 2112.10752)."""

    space = "latents"
    latent_multiple = 8  # three halvings in the U-Net
    pictures_read = 1  # by the network, side by side

    def load_rest(self) -> None:
        config = self.folder.config(self.folder.kind.network)
        reason = (
            None if self.folder.kind.flow else refuses_channels(config, self.pictures_read * self._latent_channels())
        )
        if reason is not None:
            raise PriorError(f"{SETTING}={self.folder.name!r} cannot be used: {reason}")
        self.codec = ImageCodec(self.folder, self.cfg, self.device, self.dtype)
        self.size_multiple = self.codec.pixels(self.latent_multiple)

    def _latent_channels(self) -> int:
        return int(self.folder.config("vae").get("latent_channels", 4))

    def native_sizes(self) -> tuple[int, ...]:
        return (self.codec.pixels(self.network.config.sample_size),)

    def latent_layout(self) -> tuple[int, int]:
        return int(self.codec.vae.config.latent_channels), self.codec.pixels(1)

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Images in [0, 1] to scaled latents of the nearest native size; the gradient goes through the VAE."""
        return self.codec.encode(self._to_native(rgb))

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Latents to images in [0, 1], clamped."""
        return self.codec.decode(x)

    def network_output(
        self, network: Any, z: Tensor, t: Tensor, text: PromptEmbedding, cameras: Cameras | None
    ) -> Tensor:
        own = self.own_guidance(z)
        return network(z, t, encoder_hidden_states=text.tokens, timestep_cond=own).sample

    def own_guidance(self, z: Tensor) -> Float[Tensor, "B width"] | None:
        """What a latent consistency model takes beside the time, None for other networks (arXiv 2310.04378)."""
        width = self.network.config.get("time_cond_proj_dim")
        if width is None:
            return None
        scale = torch.full((len(z),), self.cfg.distilled_guidance - 1.0, device=z.device)
        return guidance_embedding(scale, width).to(z.dtype)


class PixArtPrior(LatentPrior):
    """PixArt-Sigma (arXiv 2403.04692): a transformer of .6 billion parameters in SDXL's latents, with T5 alone."""

    latent_multiple = 2  # a patch

    def network_output(
        self, network: Any, z: Tensor, t: Tensor, text: PromptEmbedding, cameras: Cameras | None
    ) -> Tensor:
        """Of 8 channels the noise; the others are a variance that no guidance needs."""
        output = network(
            z,
            encoder_hidden_states=text.tokens,
            encoder_attention_mask=text.mask,
            timestep=t,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample
        return output[:, : z.shape[1]]


def guidance_embedding(scale: Float[Tensor, "B"], width: int) -> Float[Tensor, "B width"]:
    """Sines, then cosines, of 1000 w at ``width // 2`` frequencies from 1 down to 1e-4; w is diffusers' scale - 1."""
    frequency = torch.logspace(0.0, -4.0, width // 2, device=scale.device)
    angle = 1000.0 * scale.float()[:, None] * frequency
    return torch.nn.functional.pad(torch.cat([angle.sin(), angle.cos()], dim=1), (0, width % 2))


class SdxlPrior(LatentPrior):
    """SDXL also takes pooled text, and the sizes from which and to which its training image was cropped.

    Here the image is as large as the render that it is made of, and uncropped (arXiv 2307.01952, section 2.2). The
    refiner has a score of aesthetics in place of the second size. It was trained on the lowest fifth of the noise
    levels, so with it ``system.guidance.max_step_percent`` wants to be .2.
    """

    def network_output(
        self, network: Any, z: Tensor, t: Tensor, text: PromptEmbedding, cameras: Cameras | None
    ) -> Tensor:
        height, width = (self.codec.pixels(side) for side in z.shape[-2:])
        told = [height, width, 0, 0, *((self.cfg.aesthetic_score,) if self._is_refiner(text) else (height, width))]
        conditions = {"text_embeds": text.pooled, "time_ids": z.new_tensor([told]).expand(len(z), -1)}
        own = self.own_guidance(z)
        return network(z, t, encoder_hidden_states=text.tokens, timestep_cond=own, added_cond_kwargs=conditions).sample

    def _is_refiner(self, text: PromptEmbedding) -> bool:
        """By how many numbers the network embeds beside the pooled text."""
        config = self.network.config
        pooled = 0 if text.pooled is None else text.pooled.shape[-1]
        return (
            config.projection_class_embeddings_input_dim - pooled
        ) // config.addition_time_embed_dim == REFINER_SIZES
