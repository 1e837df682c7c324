"""A finished trial as pictures: its checkpoint, rendered without the diffusion prior."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.camera import ViewWord, view_words
from distill3d.config.experiment import ConfigError, Experiment, load
from distill3d.data.random_cameras import evaluation_cameras
from distill3d.runtime.foreign import reading
from distill3d.runtime.protocols import SeenAround
from distill3d.types import Cameras, Light, ShadingMode

PRETRAINED = "pretrained-diffusion-model"  # the one prior_type whose models have names


@dataclass(frozen=True)
class LoadedTrial:
    """A trial that was loaded: its system with the weights of a checkpoint, its data module, its settings."""

    experiment: Experiment
    system: Any
    data: Any
    checkpoint: Path

    @property
    def trial(self) -> Path:
        return self.checkpoint.parents[1]

    @property
    def prompt(self) -> str:
        return self.experiment.prompt

    @property
    def prior(self) -> str:
        """The name of the diffusion model."""
        system = self.experiment.system
        prior_type = str(system.get("prior_type") or PRETRAINED)
        if prior_type != PRETRAINED:
            return prior_type
        return str((system.get("prior") or {}).get("pretrained_model_name_or_path") or "embedded")

    @property
    def can_turn(self) -> bool:
        """Whether there is something to be seen from all sides."""
        return self.system.scene.has_cameras and isinstance(self.data, SeenAround)


@dataclass(frozen=True)
class SceneViews:
    """Renders around the object, and what each of them shows in truth."""

    color: Float[Tensor, "V 3 H W"]
    textureless: Float[Tensor, "V 3 h w"]
    opacity: Float[Tensor, "V 1 H W"]
    azimuth_deg: Float[Tensor, "V"]
    words: list[ViewWord]


def load_trial(trial: Path, device: torch.device | str = "cpu", checkpoint: Path | None = None) -> LoadedTrial:
    """The scene of a trial folder, by default as its last checkpoint has it.

    Raises ConfigError or CheckpointError if the folder is an incomplete trial.
    """
    from distill3d.runtime.checkpoint import read_checkpoint

    parsed, checkpoint = trial / "configs" / "parsed.yaml", checkpoint or trial / "ckpts" / "last.ckpt"
    for path in (parsed, checkpoint):
        if not path.is_file():
            raise ConfigError(f"{trial} is incomplete: {path} is missing; train it to its end")
    experiment = load(parsed).experiment
    system, data = experiment.make("system"), experiment.make("data")
    state = read_checkpoint(checkpoint, "the checkpoint")
    with reading(checkpoint, "a checkpoint of its trial", "take another one, or train it again"):
        system.on_load_checkpoint(state)
        system.load_state_dict(state["state_dict"])
    return LoadedTrial(experiment, system.to(device).eval(), data, checkpoint)


def render_views(
    trial: LoadedTrial, count: int, size: int, batch_size: int = 4, shape_size: int | None = None
) -> SceneViews:
    """``count`` views equally spaced in azimuth, from the front on, at the elevation of the trial's own turntable.

    Textureless views are lit from the camera; ``shape_size`` is theirs where it is not ``size``: normals are most of
    the work.
    """
    cameras = cameras_around(trial, count, size)
    shading: ShadingMode = getattr(trial.system.cfg, "eval_shading", "albedo")
    color, opacity = _rendered(trial, cameras, shading, batch_size)
    textureless, _ = _rendered(trial, cameras_around(trial, count, shape_size or size), "textureless", batch_size)
    words = view_words(cameras.elevation_deg, cameras.azimuth_deg, *_thresholds(trial))
    return SceneViews(color, textureless, opacity, cameras.azimuth_deg.cpu(), words)


def cameras_around(trial: LoadedTrial, count: int, size: int) -> Cameras:
    """``count`` cameras equally spaced in azimuth, from the front on, at the elevation of the trial's own turntable."""
    data = trial.data
    cameras = evaluation_cameras(replace(data.cfg, eval_width=size, eval_height=size), data.views, count)
    return cameras.to(trial.system.device)


def _rendered(trial: LoadedTrial, cameras: Cameras, shading: ShadingMode, batch_size: int) -> tuple[Tensor, Tensor]:
    """Colours in [0, 1] and opacities, lit from the cameras."""
    batches = [cameras[slice(i, i + batch_size)] for i in range(0, len(cameras), batch_size)]
    render = trial.system.scene.preview
    outputs = [render(batch, Light(batch.position), shading, need_normal=False) for batch in batches]
    rgb = torch.cat([output.rgb for output in outputs]).float().clamp(0.0, 1.0)
    return rgb.cpu(), torch.cat([output.opacity for output in outputs]).float().cpu()


def _thresholds(trial: LoadedTrial) -> list[float]:
    """From where on a view is called overhead, front and back: as in the prompts that the scene was trained with."""
    cfg = getattr(trial.system.prompt_processor, "cfg", None)
    usual = {"overhead_threshold": 60.0, "front_threshold": 45.0, "back_threshold": 45.0}
    return [float(getattr(cfg, name, value)) for name, value in usual.items()]
