"""The settings of ``system.prior``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from distill3d.runtime.cutout import Removal

Bits = Literal[4, 8]
PRECISIONS = {
    "float32": torch.float32,
    "32": torch.float32,
    "float16": torch.float16,
    "16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
}


@dataclass
class ReferencePicture:
    """The picture that Zero123 shows other sides of, and where its camera stood (angles in degrees, world units).

    background_removal and fill: see `distill3d.runtime.cutout`. pose: what the fourth number of a pose is for the
    model, ``distance`` (Zero123, Zero123-XL) or ``polar`` (Stable Zero123).
    """

    image: str | None = None
    background_removal: Removal = "auto"
    fill: float | None = None
    elevation_deg: float = 5.0
    azimuth_deg: float = 0.0
    distance: float = 3.8
    pose: Literal["distance", "polar"] = "distance"


@dataclass
class PriorConfig:
    """Which diffusion model, and how it runs. Only the name is needed; the kind is read from its model_index.json, or
    from the names of the tensors in a checkpoint file."""

    pretrained_model_name_or_path: str = "embedded"  # "embedded", a diffusers folder, a checkpoint file, or a Hub id
    revision: str | None = None  # branch, tag or commit of a Hub model
    variant: str | None = None  # "fp16": the half-precision files of a Hub model, where it has them
    single_file_config: str | None = None  # a folder or Hub id with a checkpoint file's configs; None: its family's
    precision: str = "auto"  # auto, float32, float16, bfloat16
    camera_conditioning: Literal["auto", "none"] = "auto"  # none: a prior that takes cameras is told view words alone
    image_size: int | None = None  # short side at which the model sees the render, in pixels; None: its native sizes
    lora_weights: str | None = None  # a LoRA file in safetensors, or its folder, fused into network and text encoders
    lora_scale: float = 1.0
    distilled_guidance: float = 3.5  # an input of FLUX.1-dev and of LCMs, by distillation; not the guidance scale
    reference: ReferencePicture | None = None  # the picture that Zero123 sees
    aesthetic_score: float = 6.0  # an input of SDXL's refiner
    text_tokens: int | None = None  # of a T5 or Qwen prompt; None: IF 77, SD3 256, PixArt 300, FLUX, Z-Image 512
    text_encoder_device: Literal["auto", "cpu"] = "auto"  # cpu: in main memory, where a GPU has no room for T5
    text_encoder_bits: Bits | None = None  # linear layers of text encoders by bitsandbytes, an extra; null: precision
    network_bits: Bits | None = None  # those of the network, on a GPU
    channels_last: bool = True
    compile: bool = False  # torch.compile of the network and of the VAE's encoder; where it fails they run without
    compile_backend: str = "inductor"  # torch.compile's: inductor needs a C++ compiler (CPU) or Triton (GPU)
    cpu_offload: bool = False  # the network's layers wait in main memory and visit the GPU one after the other
    vae_checkpointing: bool = False  # recompute the VAE encoder in backward: a tenth of its memory, 1.4 x its time
    vae_slicing: bool = False  # images of a batch one after the other
    vae_tiling: bool = False  # images above the VAE's own size in overlapping tiles, an approximation

    def __post_init__(self) -> None:
        if not str(self.pretrained_model_name_or_path or "").strip():
            raise ValueError(
                "system.prior.pretrained_model_name_or_path is empty: give embedded, a diffusers folder or a Hub id"
            )
        if self.precision != "auto" and self.precision not in PRECISIONS:
            raise ValueError(f"system.prior.precision={self.precision!r}: choose auto, {', '.join(PRECISIONS)}")
        for setting in ("image_size", "text_tokens"):
            value = getattr(self, setting)
            if value is not None and value < 1:
                raise ValueError(f"system.prior.{setting}={value} must be positive, or null for the model's own")


def choose_dtype(precision: str, device: torch.device, half: torch.dtype = torch.float16) -> torch.dtype:
    """The precision of frozen weights: fp32 on a CPU; ``half`` on a GPU, or fp16 where the GPU has no bf16."""
    if precision != "auto":
        return PRECISIONS[precision]
    if device.type == "cuda":
        no_bf16 = half is torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.float16 if no_bf16 else half
    return torch.float16 if device.type == "mps" else torch.float32
