"""Latent diffusion: Stable Diffusion 1.x, 2.x and XL."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from distill3d.priors.frozen import FrozenPrior
from distill3d.priors.vae import ImageCodec
from distill3d.types import Cameras, PromptEmbedding


class LatentPrior(FrozenPrior):
    """x is the mean of the VAE's posterior, scaled to about unit variance (arXiv 2112.10752)."""

    space = "latents"
    latent_multiple = 8  # three halvings in the U-Net

    def load_rest(self) -> None:
        self.codec = ImageCodec(self.folder, self.cfg, self.device, self.dtype)
        self.size_multiple = self.codec.pixels(self.latent_multiple)

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
        return network(z, t, encoder_hidden_states=text.tokens).sample


class SdxlPrior(LatentPrior):
    """SDXL also takes pooled text, and the sizes from which and to which its training image was cropped.

    Here the image is as large as the render that it is made of, and uncropped (arXiv 2307.01952, section 2.2).
    """

    def network_output(
        self, network: Any, z: Tensor, t: Tensor, text: PromptEmbedding, cameras: Cameras | None
    ) -> Tensor:
        height, width = (self.codec.pixels(side) for side in z.shape[-2:])
        sizes = z.new_tensor([[height, width, 0, 0, height, width]]).expand(len(z), -1)
        conditions = {"text_embeds": text.pooled, "time_ids": sizes}
        return network(z, t, encoder_hidden_states=text.tokens, added_cond_kwargs=conditions).sample
