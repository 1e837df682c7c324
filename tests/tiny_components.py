"""Components of tiny random pipelines, of diffusers' and transformers' own classes."""

from __future__ import annotations

from typing import Any

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


def cosine_scheduler() -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler(prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2")


def make_unet(sample_size: int, channels: int, context: int = WIDTH, **extra: Any) -> Any:
    from diffusers import UNet2DConditionModel

    settings: dict[str, Any] = {
        "sample_size": sample_size,
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
        "attention_head_dim": 2,
        "cross_attention_dim": context,
    }
    return UNet2DConditionModel(**(settings | extra))


def make_vae(latent_channels: int = 4, **extra: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=16,
        **extra,
    )


def clip_with_projection(**sizes: int) -> Any:
    from transformers import CLIPTextModelWithProjection

    return CLIPTextModelWithProjection(clip_config(**sizes)).eval()


def t5_model(width: int = WIDTH) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=300, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return T5EncoderModel(config).eval()


def t5_tokenizer() -> Any:
    """Characters as unigram pieces: enough for a T5 tokenizer that takes any ASCII text."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return T5Tokenizer(vocab=pieces + [(chr(i), -3.0) for i in range(33, 127)], extra_ids=0)


def qwen_tokenizer(length: int = 128) -> Any:
    """Bytes alone, and a chat template of the shape that Qwen3's has."""
    from transformers import Qwen2Tokenizer

    vocabulary = {name: i for i, name in enumerate(byte_level_vocabulary()) if not name.endswith("</w>")}
    vocabulary = {name: i for i, name in enumerate(vocabulary)} | {"<|im_start|>": 300, "<|im_end|>": 301}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], model_max_length=length)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        "{% if enable_thinking is false %}<think></think>{% endif %}"
    )
    return tokenizer


def qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(
        vocab_size=512,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
    )
    return Qwen3Model(config).eval()


def clip(suffix: str = "") -> dict[str, Any]:
    """CLIP's text model and its tokenizer, as a folder names them."""
    return {f"text_encoder{suffix}": clip_text_model(), f"tokenizer{suffix}": clip_tokenizer()}


def clip_projected(suffix: str = "") -> dict[str, Any]:
    """`clip` whose text model also gives an embedding of the whole text."""
    return {f"text_encoder{suffix}": clip_with_projection(), f"tokenizer{suffix}": clip_tokenizer()}


def t5(suffix: str = "", width: int = WIDTH) -> dict[str, Any]:
    """T5's encoder and its tokenizer, as a folder names them."""
    return {f"text_encoder{suffix}": t5_model(width), f"tokenizer{suffix}": t5_tokenizer()}


def stable_schedule(kind: Any, **extra: Any) -> Any:
    """A scheduler of some class with the betas of Stable Diffusion."""
    return kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **extra)


def flow_vae(scaling_factor: float, shift_factor: float) -> Any:
    """An autoencoder without the two convolutions around its latents, as those of flow models are."""
    sizes = {"scaling_factor": scaling_factor, "shift_factor": shift_factor}
    return make_vae(use_quant_conv=False, use_post_quant_conv=False, **sizes)
