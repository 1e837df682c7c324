"""What the systems of pictures share: losses in the prior's space, frames of the progress, results as files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from distill3d.config.ranges import check_least
from distill3d.config.schedule import Scheduled
from distill3d.priors.base import DiffusionPrior
from distill3d.runtime.foreign import reading
from distill3d.runtime.pictures import read_rgb, write_png
from distill3d.runtime.video import write_video
from distill3d.systems.base import LossWeights
from distill3d.systems.distillation import DistillationSettings, DistillationSystem
from distill3d.systems.prior_samples import draw_picture
from distill3d.types import TextRequest

SHORTEST_SIDE = 256  # of a video's frames: small pictures are enlarged by whole pixels
FREE_RUNNING_INTERVAL = 10  # steps between frames where training has no last step


@dataclass
class PictureLosses(LossWeights):
    """``lambda_source`` weighs ``0.5 ||x - x_source||^2`` in the prior's space: its gradient is on the scale of g."""

    lambda_sds: Scheduled = 1.0
    lambda_source: Scheduled = 0.0


@dataclass
class PictureSettings(DistillationSettings):
    """Settings of every system of pictures."""

    loss: PictureLosses = field(default_factory=PictureLosses)
    progress_frames: int = 60  # of the video, at most
    progress_fps: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, progress_frames=1, progress_fps=1)


class PictureSystem(DistillationSystem):
    """A system whose views are pictures: there are no cameras, and nothing is rendered in 3D."""

    # -- for a subclass ------------------------------------------------------------------------------------------

    def frame(self) -> UInt8[Tensor, "3 H W"]:
        """The present state as one picture."""
        raise NotImplementedError

    def results(self) -> dict[str, UInt8[Tensor, "3 H W"]]:
        """Final pictures by their names, without the step and the suffix."""
        return {}

    # -- texts ---------------------------------------------------------------------------------------------------

    def text_requests(self) -> dict[str, TextRequest]:
        """Also the empty text and the source prompt: pictures to start from are samples of them."""
        prompt = self.prompt_processor.prompt
        own = {"unconditional": ""} | ({} if prompt.source is None else {"source": prompt.source})
        return super().text_requests() | {role: TextRequest(text) for role, text in own.items()}

    def sample_picture(self, role: str) -> Float[Tensor, "3 H W"]:
        """A sample of the prior for the text of a role, in [0, 1]."""
        texts = self.prompt_processor.texts(None, 1)
        return draw_picture(self.prior, texts[role], texts["unconditional"], self.seed)

    # -- pictures ------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        self._save_frame()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(outputs, batch, batch_idx)
        steps = self.trainer.max_steps
        interval = max(1, steps // self.cfg.progress_frames) if steps > 0 else FREE_RUNNING_INTERVAL
        if self.global_step % interval == 0 or self.global_step == steps:
            self._save_frame()

    @torch.no_grad()
    def _save_frame(self) -> None:
        """One file for each frame, so that a resumed run has them all."""
        if self.save_dir is not None:
            folder = self.save_dir / "progress"
            folder.mkdir(exist_ok=True)
            write_png(folder / f"{self.global_step:07d}.png", enlarged(self.frame()))

    @torch.no_grad()
    def export(self, strict: bool = True) -> list[Path]:
        """Write the final pictures and the video of the progress; returns the files."""
        if self.save_dir is None:
            raise RuntimeError("attach the system to a trial before exporting")
        names = []
        for name, image in self.results().items():
            names.append(f"it{self.steps_done}-{name}.png")
            self.save_png(image, names[-1])
        frames = read_frames(self.save_dir / "progress")
        if frames is not None:
            names.append(f"it{self.steps_done}-progress.mp4")
            write_video(self.save_dir / names[-1], frames, self.cfg.progress_fps)
        files = [self.save_dir / name for name in names]
        self.record.add_files(*files)
        self.write_metrics()
        return files

    # -- the prior -----------------------------------------------------------------------------------------------

    def prior_to_decode(self) -> DiffusionPrior:
        """The prior, loaded again if training is over."""
        if "prior" not in self._frozen:
            self._frozen["prior"] = self.make("prior").load(self.device)
        return self._frozen["prior"]


def enlarged(image: UInt8[Tensor, "3 H W"], shortest: int = SHORTEST_SIDE) -> UInt8[Tensor, "3 h w"]:
    """Each pixel as a square of pixels, until the shorter side is that long; larger pictures stay."""
    factor = -(-shortest // min(image.shape[-2:]))
    return image.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def read_frames(folder: Path) -> UInt8[Tensor, "T 3 H W"] | None:
    """The frames in a folder, in the order of their names; None where there are none."""
    frames = [read_rgb(path) for path in sorted(folder.glob("*.png"))]
    with reading(folder, "pictures of one size", "remove those of another run"):
        return torch.stack(frames) if frames else None
