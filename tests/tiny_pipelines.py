"""Tiny random pipelines of every kind, made of diffusers' and transformers' own classes and saved as folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WIDTH = 32  # of the text encoders


def byte_level_vocabulary() -> dict[str, int]:
    """CLIP's byte alphabet, alone and at the end of a word, and its two special tokens: any text can be written."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}


def clip_tokenizer(length: int = 16) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocab=byte_level_vocabulary(), merges=[], model_max_length=length)


def clip_config(width: int = WIDTH, length: int = 16, projection: int = 16) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=514,
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=projection,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=length,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )


def clip_text_model(**sizes: int) -> Any:
    from transformers import CLIPTextModel

    return CLIPTextModel(clip_config(**sizes)).eval()


def save_pipeline(folder: Path, class_name: str, components: dict[str, Any], **extra: Any) -> Path:
    """A diffusers folder: each component in its own subfolder, and the model_index.json that names their classes."""
    index: dict[str, Any] = {"_class_name": class_name, "_diffusers_version": "0.35.0", **extra}
    for name, component in components.items():
        if component is None:
            index[name] = [None, None]
            continue
        component.save_pretrained(folder / name)
        index[name] = [type(component).__module__.split(".")[0], type(component).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def embedded(folder: Path, seed: int = 0) -> Path:
    """The embedded prior's kind, with diffusers' own U-Net: v-prediction in pixels, pooled text and cross-attention."""
    from diffusers import DDPMScheduler, UNet2DConditionModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=8,
        cross_attention_dim=WIDTH,
        encoder_hid_dim=WIDTH,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
    )
    scheduler = DDPMScheduler(prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2")
    components = {
        "unet": unet,
        "scheduler": scheduler,
        "text_encoder": clip_text_model(),
        "tokenizer": clip_tokenizer(),
    }
    return save_pipeline(folder, "EmbeddedPixelPipeline", components)


TINY: dict[str, Callable[[Path], Path]] = {"embedded": embedded}
