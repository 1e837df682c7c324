"""Linear layers of 8 or 4 bits, by bitsandbytes: for a GPU without room for a network in half precision.

8 bits: LLM.int8 (arXiv 2208.07339), outliers above 6 in half precision. 4 bits: NF4 (arXiv 2305.14314), computed in the
precision of the rest. Convolutions, norms and embeddings stay as they are, so a transformer gains more than a U-Net.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import torch

from distill3d.priors.hub import SETTING, PriorError, checkpoint_file
from distill3d.priors.kinds import PriorKind
from distill3d.priors.lora import changes_text, lora_file
from distill3d.priors.settings import Bits, PriorConfig

_INSTALL = "pip install -r requirements-quant.txt (or: pip install 'distill3d[quant]')"


def check_bits(cfg: PriorConfig, kind: PriorKind, index: Mapping[str, Any]) -> None:
    """Raise PriorError, before anything is loaded, where ``network_bits`` or ``text_encoder_bits`` cannot be had."""
    for setting, bits in (("network_bits", cfg.network_bits), ("text_encoder_bits", cfg.text_encoder_bits)):
        reason = None if bits is None else _why_not(setting, cfg, kind, index)
        if reason is not None:
            raise PriorError(f"system.prior.{setting}={bits}: {reason}")


def check_network_device(cfg: PriorConfig, device: torch.device | str) -> None:
    """Raise PriorError for a quantised network on a CPU, which diffusers does not load."""
    if cfg.network_bits is not None and torch.device(device).type == "cpu":
        raise PriorError(f"system.prior.network_bits={cfg.network_bits} needs a GPU; set it to null on a CPU")


def quantised(cls: type, bits: Bits, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """What ``from_pretrained`` of a class of diffusers or transformers takes to load it in ``bits`` onto a device."""
    if cls.__module__.startswith("transformers"):
        from transformers import BitsAndBytesConfig
    else:
        from diffusers.quantizers.quantization_config import BitsAndBytesConfig
    config = BitsAndBytesConfig(
        load_in_8bit=bits == 8,
        load_in_4bit=bits == 4,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def has_authors_network(index: Mapping[str, Any]) -> bool:
    """Whether the U-Net of an MVDream folder has the layout of its authors, which diffusers converts."""
    entry = index.get("unet")
    return isinstance(entry, list) and entry[-1:] == ["MultiViewUNetModel"]


def _why_not(setting: str, cfg: PriorConfig, kind: PriorKind, index: Mapping[str, Any]) -> str | None:
    is_text = setting == "text_encoder_bits"
    if kind.name == "embedded":
        return "the embedded model is small and is not quantised; set it to null"
    if checkpoint_file(cfg.pretrained_model_name_or_path) is not None:
        return f"a checkpoint of one file is not quantised; set {SETTING} to a diffusers folder, or this to null"
    if is_text and kind.image_encoder is not None:
        return f"{kind.title} has no text encoder; set it to null"
    if cfg.lora_weights and (not is_text or changes_text(lora_file(cfg.lora_weights))):
        return "a LoRA cannot be fused into quantised weights; set one of it and system.prior.lora_weights to null"
    if not is_text and has_authors_network(index):
        return (
            "the authors' MultiViewUNetModel is not quantised; name a folder with diffusers' U-Net, or set it to null"
        )
    if not is_text and cfg.cpu_offload:
        return "it excludes system.prior.cpu_offload=true, which moves weights in each step; choose one of the two"
    if importlib.util.find_spec("bitsandbytes") is None:
        return f"it needs the package bitsandbytes, which is not installed: {_INSTALL}"
    return None
