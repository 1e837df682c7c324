"""Diffusion models in pixel space: the embedded prior, and DeepFloyd IF stage I."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from distill3d.priors.frozen import FrozenPrior
from distill3d.types import Cameras, PromptEmbedding


class PixelPrior(FrozenPrior):
    """x is the image itself, in [-1, 1], so encoding is a resize and nothing is lost."""

    space = "pixels"

    def native_sizes(self) -> tuple[int, ...]:
        config = self.network.config
        return tuple(sorted(config.get("sample_sizes") or [config.sample_size]))

    def takes_cameras(self) -> bool:
        """The embedded network's config says so with ``light_hidden``, the width of its light field."""
        return bool(self.network.config.get("light_hidden"))

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 h w"]:
        """Images in [0, 1] to [-1, 1] at the nearest native size."""
        return 2.0 * self._to_native(rgb) - 1.0

    def decode(self, x: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 h w"]:
        """x to images in [0, 1], clamped."""
        return (0.5 * x + 0.5).clamp(0.0, 1.0)

    def network_output(
        self, network: Any, z: Tensor, t: Tensor, text: PromptEmbedding, cameras: Cameras | None
    ) -> Tensor:
        """DeepFloyd IF answers with 6 channels: the noise, and a variance that no guidance needs."""
        conditions: dict[str, Any] = {} if text.pooled is None else {"text_embeds": text.pooled}
        if cameras is not None:
            conditions |= {"c2w": cameras.c2w.to(z.device), "fovy_rad": cameras.fovy_rad.to(z.device)}
        output = network(z, t, encoder_hidden_states=text.tokens, added_cond_kwargs=conditions or None).sample
        return output[:, : z.shape[1]]
