"""Writing the embedded prior as a diffusers folder, with what only it knows: its words and its cameras."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from distill3d.camera import CameraRanges
from distill3d.embedded.captions import vocabulary

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
) -> None:
    """Half-precision weights of at most 16 MB a file, written beside and renamed; other files there are kept."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, model in (("unet", unet), ("text_encoder", text_encoder)):
        _half_copy(model).save_pretrained(partial / name, max_shard_size="15900KB", safe_serialization=True)
    tokenizer.save_pretrained(partial / "tokenizer")
    scheduler.save_pretrained(partial / "scheduler")
    _write_json(partial / "model_index.json", MODEL_INDEX)
    _write_json(partial / "words.json", {"words": vocabulary(nouns), "nouns": nouns})
    _write_json(partial / "cameras.json", camera_record(cameras))
    folder.mkdir(parents=True, exist_ok=True)
    for item in partial.iterdir():
        target = folder / item.name
        if target.is_dir():
            shutil.rmtree(target)
        item.replace(target)
    partial.rmdir()


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


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
