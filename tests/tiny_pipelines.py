"""Tiny random pipelines of every kind, made of diffusers' and transformers' own classes and saved as folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_components import (
    WIDTH,
    clip,
    clip_projected,
    cosine_scheduler,
    flow_vae,
    make_unet,
    make_vae,
    qwen3,
    qwen_tokenizer,
    stable_schedule,
    t5,
)

from distill3d.priors.settings import PriorConfig


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


def embedded(folder: Path, seed: int = 0) -> Path:
    """The embedded prior's kind, with diffusers' own U-Net: v-prediction in pixels, pooled text and cross-attention."""
    torch.manual_seed(seed)
    unet = make_unet(16, 3, encoder_hid_dim=WIDTH, addition_embed_type="text", addition_embed_type_num_heads=2)
    components = {
        "unet": unet,
        "scheduler": cosine_scheduler(),
        **clip(),
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
        "scheduler": cosine_scheduler(),
        **clip(),
    }
    return save_pipeline(folder, "EmbeddedPixelPipeline", components)


def stable_diffusion(folder: Path, prediction_type: str = "epsilon", seed: int = 0, **network: Any) -> Path:
    """SD 1.x (eps) and 2.x (v-prediction): latents of 4 channels at half the pixels. ``network``: the U-Net's own."""
    from diffusers import DDIMScheduler

    torch.manual_seed(seed)
    components = {
        "unet": make_unet(16, 4, **network),
        "vae": make_vae(scaling_factor=0.18215),
        "scheduler": stable_schedule(
            DDIMScheduler,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction_type,
        ),
        **clip(),
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
    unet = make_unet(
        16,
        4,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=16,
        block_out_channels=(32, 64),
        norm_num_groups=32,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
    )
    scheduler = stable_schedule(DDIMScheduler, clip_sample=False, set_alpha_to_one=False)
    components = {
        "unet": unet,
        "vae": make_vae(scaling_factor=0.18215),
        "scheduler": scheduler,
        **clip(),
        "feature_extractor": None,
        "image_encoder": None,
    }
    return save_pipeline(folder, "MVDreamPipeline", components)


def sdxl(folder: Path, seed: int = 0) -> Path:
    """Two text towers of different widths, pooled text of the second, six numbers for the sizes."""
    from diffusers import EulerDiscreteScheduler

    torch.manual_seed(seed)
    unet = make_unet(
        16,
        4,
        context=2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 16,
    )
    components = {
        "unet": unet,
        "vae": make_vae(scaling_factor=0.13025, force_upcast=True),
        "scheduler": stable_schedule(EulerDiscreteScheduler, timestep_spacing="leading"),
        **clip(),
        **clip_projected("_2"),
    }
    return save_pipeline(folder, "StableDiffusionXLPipeline", components, force_zeros_for_empty_prompt=True)


def sdxl_refiner(folder: Path, seed: int = 0) -> Path:
    """One text tower, and five numbers: sizes, crop and a score of aesthetics."""
    from diffusers import EulerDiscreteScheduler

    torch.manual_seed(seed)
    unet = make_unet(
        16,
        4,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=5 * 4 + 16,
    )
    components = {
        "unet": unet,
        "vae": make_vae(scaling_factor=0.13025, force_upcast=True),
        "scheduler": stable_schedule(EulerDiscreteScheduler),
        "text_encoder": None,
        "tokenizer": None,
        **clip_projected("_2"),
    }
    return save_pipeline(folder, "StableDiffusionXLImg2ImgPipeline", components, requires_aesthetics_score=True)


def deepfloyd_if(folder: Path, seed: int = 0) -> Path:
    """Pixels, T5, and 6 output channels of which 3 are a variance."""
    from diffusers import DDPMScheduler

    torch.manual_seed(seed)
    unet = make_unet(
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
        **t5(),
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
        "vae": flow_vae(1.5305, 0.0609),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        **clip_projected(),
        **clip_projected("_2"),
        **(t5("_3", 2 * WIDTH) if with_t5 else {"text_encoder_3": None, "tokenizer_3": None}),
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
        "vae": flow_vae(0.3611, 0.1159),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        **clip(),
        **t5("_2"),
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
        "unet": make_unet(16, 8, out_channels=4),
        "vae": make_vae(scaling_factor=0.18215),
        "scheduler": stable_schedule(DDIMScheduler),
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
        "vae": make_vae(scaling_factor=0.13025, force_upcast=True),
        "scheduler": DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02),
        **t5(),
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
        "vae": flow_vae(0.3611, 0.1159),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "text_encoder": qwen3(),
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
