"""The VAE of a latent diffusion model: images to latents of about unit variance, and back."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.priors.compiled import compiled
from distill3d.priors.hub import PriorError
from distill3d.priors.model_folder import ModelFolder
from distill3d.priors.settings import PriorConfig
from distill3d.runtime.foreign import finite


class ImageCodec:
    """``x = (mean - shift) * scaling`` of the posterior of an image in [-1, 1]; deterministic, differentiable."""

    def __init__(self, folder: ModelFolder, cfg: PriorConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.dtype = _safe_dtype(dtype, bool(folder.config("vae").get("force_upcast")), device)
        self.vae = folder.load_module("vae", self.dtype, device)
        where = str(folder.path / "vae" / "config.json")
        self.scaling = finite(self.vae.config.scaling_factor, f"{where}: scaling_factor")
        if self.scaling <= 0:
            raise PriorError(f"{where}: scaling_factor={self.scaling} must be positive; fetch the model again")
        self.shift = finite(self.vae.config.get("shift_factor") or 0.0, f"{where}: shift_factor")
        if cfg.channels_last:
            self.vae.to(memory_format=torch.channels_last)
        if cfg.vae_checkpointing:
            self.vae.enable_gradient_checkpointing()
        if cfg.vae_slicing:
            self.vae.enable_slicing()
        if cfg.vae_tiling:
            self.vae.enable_tiling()
        self._fast_mean = compiled(posterior_mean, "the VAE's encoder", cfg)

    def pixels(self, latent_side: int) -> int:
        """Pixels along a side of so many latents."""
        return latent_side * 2 ** (len(self.vae.config.block_out_channels) - 1)

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Images in [0, 1] to fp32 latents: the posterior's mean, since a sample would add noise to the gradient."""
        with torch.autocast(rgb.device.type, enabled=False):
            mean = self._fast_mean(self.vae, (2.0 * rgb.float() - 1.0).to(self.dtype))
            return (mean.float() - self.shift) * self.scaling

    def unscaled(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """The posterior's mean itself: how networks that also read a picture are shown it."""
        return x / self.scaling + self.shift

    @torch.no_grad()
    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Latents to fp32 images in [0, 1], clamped."""
        with torch.autocast(x.device.type, enabled=False):
            image = self.vae.decode((x.float() / self.scaling + self.shift).to(self.dtype)).sample
        return (0.5 * image.float() + 0.5).clamp(0.0, 1.0)


def posterior_mean(vae: Any, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
    """Of an image in [-1, 1], as the VAE scales it."""
    return vae.encode(image, return_dict=False)[0].mean


def _safe_dtype(dtype: torch.dtype, overflows_in_fp16: bool, device: torch.device) -> torch.dtype:
    """SDXL's VAE overflows in fp16 and says so in its config (force_upcast): bf16 where it is native, else fp32."""
    if dtype is not torch.float16 or not overflows_in_fp16:
        return dtype
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float32
