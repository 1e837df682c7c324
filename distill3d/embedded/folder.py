"""Writing the embedded prior as a diffusers folder, with its vocabulary, its cameras and its objects' extents."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from distill3d.camera import CameraRanges
from distill3d.embedded.captions import vocabulary
from distill3d.priors.parts import PARTS_FILE
from distill3d.runtime.files import replacing_folder, write_json

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
    from transformers import CLIPTextModel, CLIPTokenizer

    from distill3d.embedded.network import PixelUNet2DConditionModel

MODEL_INDEX = {
    "_class_name": "EmbeddedPixelPipeline",
    "unet": ["distill3d", "PixelUNet2DConditionModel"],
    "scheduler": ["diffusers", "DDPMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
}


def make_scheduler() -> DDPMScheduler:
    """The cosine schedule (arXiv 2102.09672), whose last step is almost pure noise, with v-prediction."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=True,
        clip_sample_range=1.0,
    )


def save_folder(
    folder: Path,
    unet: PixelUNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scheduler: DDPMScheduler,
    nouns: list[str],
    cameras: CameraRanges,
    extents: dict[str, Any],
) -> None:
    """Half-precision weights of at most 16 MB a file; each folder and file is replaced as a whole, others are kept."""
    for name, model in (("unet", unet), ("text_encoder", text_encoder)):
        with replacing_folder(folder / name) as temporary:
            _half_copy(model).save_pretrained(temporary, max_shard_size="15900KB", safe_serialization=True)
    for name, part in (("tokenizer", tokenizer), ("scheduler", scheduler)):
        with replacing_folder(folder / name) as temporary:
            part.save_pretrained(temporary)
    write_json(folder / "model_index.json", MODEL_INDEX)
    write_json(folder / "words.json", {"words": vocabulary(nouns), "nouns": nouns})
    write_json(folder / "cameras.json", camera_record(cameras))
    write_json(folder / PARTS_FILE, extents)


def camera_record(cameras: CameraRanges) -> dict[str, Any]:
    """The cameras and lights of the training views, under the keys of the random-camera datamodule."""
    return asdict(cameras) | {
        "light_sample_strategy": "dreamfusion",
        "light_position_perturb": 1.0,
        "light_distance_range": (0.8, 1.5),
    }


def _half_copy(model: Any) -> Any:
    copy = type(model)(model.config) if not hasattr(model, "from_config") else type(model).from_config(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.to(torch.float16)
