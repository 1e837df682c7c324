"""One cell of `lmc_vs_sds.py`: a training, its pictures and its figures."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from conditions import weights_of
from lmc_cells import MORE_PROMPTS, PROMPTS, Cell
from torch import Tensor

from distill3d.embedded.prior_report import SampleSettings, make_sampler
from distill3d.evaluation import metrics
from distill3d.evaluation.judges import ImageTextJudge, choose_judge, judge_identity
from distill3d.evaluation.loaded_trial import LoadedTrial, cameras_around, render_views
from distill3d.evaluation.samples import read_strip, write_strip
from distill3d.evaluation.scene_report import Figures, against_samples, agreement, picture_figures, scene_figures
from distill3d.priors.loader import load_prior, load_prompt_encoder, model_identity
from distill3d.run import Run, prepare
from distill3d.runtime.pictures import to_uint8, write_png
from distill3d.verbs import Request

VIEWS = 8  # around a scene
VIEW_SAMPLES = 4  # of the prior, for each prompt
CAPTIONS = [*PROMPTS, *MORE_PROMPTS]
QUIET = (
    "trainer.enable_progress_bar=false",
    "trainer.enable_checkpointing=false",
    "trainer.limit_val_batches=0",
    "system.loggers.csv.enable=false",
    "system.loggers.tensorboard.enable=false",
    "use_timestamp=false",
)


@dataclass(frozen=True)
class Bench:
    """Runs cells below a folder: trials, pictures of the cells, samples of the prior. Other processes take copies."""

    folder: Path
    judge_name: str = "embedded"
    settings: tuple[str, ...] = ()
    _samplers: dict[int, Any] = field(default_factory=dict)
    _weights: dict[bool, str] = field(default_factory=dict)

    def __reduce__(self) -> tuple[type[Bench], tuple[Any, ...]]:
        return type(self), (self.folder, self.judge_name, self.settings)  # what was loaded is not sent along

    @cached_property
    def judge(self) -> ImageTextJudge | None:
        return choose_judge(self.judge_name, "embedded")

    def conditions(self, cell: Cell) -> str:
        """All that a cell's figures depend on beside its own settings."""
        if cell.corrected not in self._weights:
            self._weights[cell.corrected] = weights_of(self.settings, cell.corrected)
        return "/".join((self._weights[cell.corrected], str(judge_identity(self.judge)), *self.settings))

    def overrides(self, cell: Cell) -> tuple[str, ...]:
        return (*cell.overrides, *QUIET, f"exp_root_dir={self.folder / 'trials'}", *self.settings)

    def run(self, cell: Cell, key: str) -> dict[str, Any]:
        """Train as ``launch.py --train`` does, without what would come after; the line for the ledger."""
        begun, begun_cpu = time.perf_counter(), time.process_time()
        run = prepare(Request("train", cell.config, (*self.overrides(cell), f"tag={key}")))
        run.trainer.fit(run.system, datamodule=run.data)
        seconds, seconds_cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
        run.system.eval()
        found = self.scene(run, cell, key) if run.system.scene.has_cameras else self.pictures(run, cell, key)
        finite = all(value is None or math.isfinite(value) for value in found.values())
        diverged = run.system.gradients.diverged or not finite
        cost = {
            "seconds": seconds,
            "cpu_seconds": seconds_cpu,
            "judging_seconds": time.perf_counter() - begun - seconds,
        }
        return {**cost, "diverged": diverged, "figures": found if finite else {}}

    def scene(self, run: Run, cell: Cell, key: str) -> Figures:
        views = render_views(LoadedTrial(run.experiment, run.system, run.data, Path()), VIEWS, cell.size)
        self.keep(views.color, key)
        return self.completed(scene_figures(views, cell.prompt, self.judge, CAPTIONS), views.color, run, cell)

    def pictures(self, run: Run, cell: Cell, key: str) -> Figures:
        if hasattr(run.system, "network"):
            images = run.system.translate(run.system.probes).cpu()
        else:
            images = run.system.pictures().cpu()
        self.keep(images, key)
        own = picture_figures(images)
        if self.judge is not None:
            embedded = self.judge.embed_images(images)
            own |= agreement(self.judge, embedded, cell.prompt, CAPTIONS)
            own["diversity"] = metrics.diversity(embedded) if len(images) > 1 else None
        return self.completed(own, images, run, cell)

    def completed(self, own: Figures, images: Tensor, run: Run, cell: Cell) -> Figures:
        """With the ratios to the prior's samples, and the share of colours at the ends of their range."""
        clipped = float(((images <= 0.0) | (images >= 1.0)).float().mean())
        return {**own, **against_samples(own, self.samples(run, cell)), "clipped": clipped}

    def samples(self, run: Run, cell: Cell) -> Tensor:
        """Plain samples of the prior for a cell's prompt and size, told cameras around a scene; drawn once."""
        cfg = run.system.make("prior").cfg
        trial = LoadedTrial(run.experiment, run.system, run.data, Path())
        cameras = cameras_around(trial, VIEW_SAMPLES, cell.size) if trial.can_turn else None
        content = f"{model_identity(cfg)}/{cell.prompt}/{cell.size}/{trial.can_turn}"
        name = hashlib.blake2b(content.encode(), digest_size=6).hexdigest()
        path = self.folder / "samples" / f"{name}.png"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            if cell.size not in self._samplers:
                settings = SampleSettings(image_size=cell.size, batch_size=VIEW_SAMPLES)
                self._samplers[cell.size] = make_sampler(load_prior(cfg), load_prompt_encoder(cfg), settings)
            write_strip(path, self._samplers[cell.size]([cell.prompt] * VIEW_SAMPLES, cameras).clamp(0.0, 1.0))
        return read_strip(path)

    def keep(self, images: Tensor, key: str) -> None:
        """The pictures of a cell as a strip."""
        path = self.picture(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, torch.cat(list(to_uint8(images)), dim=-1))

    def picture(self, key: str) -> Path:
        return self.folder / "pictures" / f"{key}.png"
