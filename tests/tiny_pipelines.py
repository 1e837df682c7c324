"""Tiny random pipelines of every kind, made of diffusers' and transformers' own classes and saved as folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from distill3d.priors.settings import PriorConfig

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
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, Any] = {"_class_name": class_name, "_diffusers_version": "0.35.0", **extra}
    for name, component in components.items():
        if component is None:
            index[name] = [None, None]
            continue
        component.save_pretrained(folder / name)
        index[name] = [type(component).__module__.split(".")[0], type(component).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


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


def _qwen3() -> Any:
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


def embedded(folder: Path, seed: int = 0) -> Path:
    """The embedded prior's kind, with diffusers' own U-Net: v-prediction in pixels, pooled text and cross-attention."""
    torch.manual_seed(seed)
    unet = _unet(16, 3, encoder_hid_dim=WIDTH, addition_embed_type="text", addition_embed_type_num_heads=2)
    components = {
        "unet": unet,
        "scheduler": _cosine_scheduler(),
        "text_encoder": clip_text_model(),
        "tokenizer": clip_tokenizer(),
    }
    return save_pipeline(folder, "EmbeddedPixelPipeline", components)


def embedded_own(folder: Path, seed: int = 0) -> Path:
    """The embedded prior with the project's own network, at two sizes."""
    from distill3d.embedded.network import PixelUNet2DConditionModel

    torch.manual_seed(seed)
    unet = PixelUNet2DConditionModel(
        sample_sizes=(16, 32),
        outer_channels=16,
        block_out_channels=(16, 32),
        middle_layers=1,
        cross_attention_dim=WIDTH,
        pooled_dim=WIDTH,
        attention_head_dim=16,
        time_channels=32,
    )
    with torch.no_grad():  # a fresh network answers 0: make it answer something
        for parameter in unet.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    components = {
        "unet": unet,
        "scheduler": _cosine_scheduler(),
        "text_encoder": clip_text_model(),
        "tokenizer": clip_tokenizer(),
    }
    return save_pipeline(folder, "EmbeddedPixelPipeline", components)


def _cosine_scheduler() -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler(prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2")


def _unet(sample_size: int, channels: int, context: int = WIDTH, **extra: Any) -> Any:
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


def _vae(latent_channels: int = 4, **extra: Any) -> Any:
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


def _clip_with_projection(**sizes: int) -> Any:
    from transformers import CLIPTextModelWithProjection

    return CLIPTextModelWithProjection(clip_config(**sizes)).eval()


def _t5(width: int = WIDTH) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=300, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return T5EncoderModel(config).eval()


def t5_tokenizer() -> Any:
    """Characters as unigram pieces: enough for a T5 tokenizer that takes any ASCII text."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return T5Tokenizer(vocab=pieces + [(chr(i), -3.0) for i in range(33, 127)], extra_ids=0)


def stable_diffusion(folder: Path, prediction_type: str = "epsilon", seed: int = 0, **network: Any) -> Path:
    """SD 1.x (eps) and 2.x (v-prediction): latents of 4 channels at half the pixels. ``network``: the U-Net's own."""
    from diffusers import DDIMScheduler

    torch.manual_seed(seed)
    components = {
        "unet": _unet(16, 4, **network),
        "vae": _vae(scaling_factor=0.18215),
        "scheduler": DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction_type,
        ),
        "text_encoder": clip_text_model(),
        "tokenizer": clip_tokenizer(),
        "safety_checker": None,
        "feature_extractor": None,
    }
    return save_pipeline(folder, "StableDiffusionPipeline", components)


def stable_diffusion_2(folder: Path) -> Path:
    return stable_diffusion(folder, "v_prediction")


def mvdream(folder: Path, seed: int = 0) -> Path:
    """Stable Diffusion's parts, with the camera's matrix as a class label and a camera embedding that matters."""
    from diffusers import DDIMScheduler

    torch.manual_seed(seed)
    unet = _unet(
        16,
        4,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=16,
        block_out_channels=(32, 64),
        norm_num_groups=32,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False
    )
    components = {
        "unet": unet,
        "vae": _vae(scaling_factor=0.18215),
        "scheduler": scheduler,
        "text_encoder": clip_text_model(),
        "tokenizer": clip_tokenizer(),
        "feature_extractor": None,
        "image_encoder": None,
    }
    return save_pipeline(folder, "MVDreamPipeline", components)


def sdxl(folder: Path, seed: int = 0) -> Path:
    """Two text towers of different widths, pooled text of the second, six numbers for the sizes."""
    from diffusers import EulerDiscreteScheduler

    torch.manual_seed(seed)
    unet = _unet(
        16,
        4,
        context=2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 16,
    )
    components = {
        "unet": unet,
        "vae": _vae(scaling_factor=0.13025, force_upcast=True),
        "scheduler": EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading"
        ),
        "text_encoder": clip_text_model(),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": _clip_with_projection(),
        "tokenizer_2": clip_tokenizer(),
    }
    return save_pipeline(folder, "StableDiffusionXLPipeline", components, force_zeros_for_empty_prompt=True)


def sdxl_refiner(folder: Path, seed: int = 0) -> Path:
    """One text tower, and five numbers: sizes, crop and a score of aesthetics."""
    from diffusers import EulerDiscreteScheduler

    torch.manual_seed(seed)
    unet = _unet(
        16,
        4,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=5 * 4 + 16,
    )
    components = {
        "unet": unet,
        "vae": _vae(scaling_factor=0.13025, force_upcast=True),
        "scheduler": EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        "text_encoder": None,
        "tokenizer": None,
        "text_encoder_2": _clip_with_projection(),
        "tokenizer_2": clip_tokenizer(),
    }
    return save_pipeline(folder, "StableDiffusionXLImg2ImgPipeline", components, requires_aesthetics_score=True)


def deepfloyd_if(folder: Path, seed: int = 0) -> Path:
    """Pixels, T5, and 6 output channels of which 3 are a variance."""
    from diffusers import DDPMScheduler

    torch.manual_seed(seed)
    unet = _unet(
        16,
        3,
        out_channels=6,
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="text_proj",
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        resnet_time_scale_shift="scale_shift",
    )
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True)
    components = {
        "unet": unet,
        "scheduler": scheduler,
        "text_encoder": _t5(),
        "tokenizer": t5_tokenizer(),
        "safety_checker": None,
        "feature_extractor": None,
        "watermarker": None,
    }
    return save_pipeline(folder, "IFPipeline", components)


def sd3(folder: Path, seed: int = 0, with_t5: bool = True) -> Path:
    """Two CLIP towers beside each other, T5 behind them, a transformer over latents of 16 channels."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

    torch.manual_seed(seed)
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        out_channels=4,
        pos_embed_max_size=16,
    )
    components = {
        "transformer": transformer,
        "vae": _vae(scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "text_encoder": _clip_with_projection(),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": _clip_with_projection(),
        "tokenizer_2": clip_tokenizer(),
        "text_encoder_3": _t5(2 * WIDTH) if with_t5 else None,
        "tokenizer_3": t5_tokenizer() if with_t5 else None,
    }
    return save_pipeline(folder, "StableDiffusion3Pipeline", components)


def flux(folder: Path, seed: int = 0, guidance_embeds: bool = True) -> Path:
    """Packed latents, pooled CLIP, T5, and the distilled guidance as an input."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

    torch.manual_seed(seed)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 4, 8),
    )
    components = {
        "transformer": transformer,
        "vae": _vae(scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "text_encoder": clip_text_model(),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": _t5(),
        "tokenizer_2": t5_tokenizer(),
    }
    return save_pipeline(folder, "FluxPipeline", components)


def zero123(folder: Path, layer: str = "cc_projection", seed: int = 0) -> Path:
    """A U-Net over latents beside a picture's, CLIP's image encoder, and the layer that joins embedding and pose."""
    from diffusers import DDIMScheduler
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, projection_dim=WIDTH, num_hidden_layers=1, num_attention_heads=2,
        image_size=28, patch_size=14,
    )  # fmt: skip
    components = {
        "unet": _unet(16, 8, out_channels=4),
        "vae": _vae(scaling_factor=0.18215),
        "scheduler": DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        "image_encoder": CLIPVisionModelWithProjection(vision).eval(),
        "safety_checker": None,
        "feature_extractor": None,
    }
    owner, name = {
        "cc_projection": ("Zero1to3StableDiffusionPipeline", "projection"),
        "clip_camera_projection": ("Zero123Pipeline", "proj"),
    }[layer]
    save_pipeline(folder, owner, components, **{layer: ["pipeline_zero1to3", "CCProjection"]})
    (folder / layer).mkdir()
    linear = torch.nn.Linear(WIDTH + 4, WIDTH)
    tensors = {f"{name}.{key}": value.detach() for key, value in linear.named_parameters()}
    save_file(tensors, folder / layer / "diffusion_pytorch_model.safetensors")
    return folder


def pixart_sigma(folder: Path, seed: int = 0) -> Path:
    """Latents of 4 channels, T5 with its mask, and 8 output channels of which 4 are a variance."""
    from diffusers import DPMSolverMultistepScheduler, PixArtTransformer2DModel

    torch.manual_seed(seed)
    transformer = PixArtTransformer2DModel(
        sample_size=16,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=WIDTH,
        in_channels=4,
        cross_attention_dim=16,
        out_channels=8,
        use_additional_conditions=False,
    )
    components = {
        "transformer": transformer,
        "vae": _vae(scaling_factor=0.13025, force_upcast=True),
        "scheduler": DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02),
        "text_encoder": _t5(),
        "tokenizer": t5_tokenizer(),
    }
    return save_pipeline(folder, "PixArtSigmaPipeline", components)


def z_image(folder: Path, seed: int = 0) -> Path:
    """Lists of images and texts, a time that grows with x, and Qwen3's last hidden state but one."""
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel

    torch.manual_seed(seed)
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[4, 4, 8],
        axes_lens=[256, 64, 64],
    )
    with torch.no_grad():  # what is zero or left empty in a fresh network
        for parameter in transformer.parameters():
            parameter.normal_(0.0, 0.1)
    components = {
        "transformer": transformer,
        "vae": _vae(scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "text_encoder": _qwen3(),
        "tokenizer": qwen_tokenizer(),
    }
    return save_pipeline(folder, "ZImagePipeline", components)


TINY: dict[str, Callable[[Path], Path]] = {
    "embedded": embedded,
    "embedded-own": embedded_own,
    "stable-diffusion": stable_diffusion,
    "stable-diffusion-2": stable_diffusion_2,
    "sdxl": sdxl,
    "deepfloyd-if": deepfloyd_if,
    "sd3": sd3,
    "flux": flux,
    "pixart-sigma": pixart_sigma,
    "z-image": z_image,
}


# of these kinds, and one that wants four rows and their cameras
VARIANTS: dict[str, Callable[[Path], Path]] = {"sdxl-refiner": sdxl_refiner, "mvdream": mvdream}


def tiny_settings(kind: str) -> dict[str, Any]:
    """What ``system.prior`` needs to be small: two configs name no image size, some prompts are long."""
    settings: dict[str, Any] = {"image_size": 32} if kind in ("flux", "z-image") else {}
    lengths = {"deepfloyd-if": 12, "sd3": 12, "flux": 12, "pixart-sigma": 12, "z-image": 128}
    return settings | ({"text_tokens": lengths[kind]} if kind in lengths else {})


class TinyFolders:
    """Folders of tiny pipelines below one root, each made when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, kind: str) -> Path:
        folder = self.root / kind
        return folder if folder.is_dir() else (TINY | VARIANTS)[kind](folder)

    def config(self, kind: str, **settings: Any) -> PriorConfig:
        """``system.prior`` for a kind."""
        return PriorConfig(str(self(kind)), **(tiny_settings(kind) | settings))
