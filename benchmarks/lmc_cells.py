"""What `lmc_vs_sds.py` runs: cells, each one training with one rule, scale, prompt and seed, and its figures."""

from __future__ import annotations

import hashlib
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill3d.evaluate import figures
from distill3d.evaluate.judges import ImageTextJudge
from distill3d.evaluate.prior_report import SampleSettings, make_sampler
from distill3d.evaluate.retrieval import distractors_of, r_precision
from distill3d.evaluate.samples import read_strip, write_strip
from distill3d.evaluate.scene import Scene, render_views
from distill3d.evaluate.scene_report import Figures, against_samples, picture_figures, scene_figures
from distill3d.pictures import to_uint8, write_png
from distill3d.prior.loader import load_prior, load_prompt_encoder, model_identity
from distill3d.run import Run, prepare
from distill3d.verbs import Request

RULES = ("sds", "lmc-sds", "lmc-cond")
SCALES = (1.0, 3.0, 10.0, 20.0, 50.0, 100.0)
# the last two are combinations that the prior was never shown
PROMPTS = ("a hamburger", "a pineapple", "a christmas tree", "a fox", "a blue frog", "a frog on top of a hamburger")
MORE_PROMPTS = ("a red mushroom", "a fire truck", "a snowman", "a cactus in a pot", "a guitar", "a wooden horse")
VIEWS = 8  # around a scene
VIEW_SAMPLES = 4  # of the prior, for each prompt
QUIET = (
    "trainer.enable_progress_bar=false",
    "trainer.enable_checkpointing=false",
    "system.loggers.csv.enable=false",
    "system.loggers.tensorboard.enable=false",
    "use_timestamp=false",
)


@dataclass(frozen=True)
class Cell:
    """One training. ``size`` is that of the pictures which are compared; ``extra`` are further settings."""

    suite: str
    config: str
    rule: str
    scale: float
    prompt: str
    seed: int
    size: int
    variant: str = ""
    extra: tuple[str, ...] = field(default=())

    @property
    def overrides(self) -> tuple[str, ...]:
        return (
            f"system.guidance_type={self.rule}",
            f"system.guidance.guidance_scale={self.scale:g}",
            f"system.prompt_processor.prompt={self.prompt}",
            f"seed={self.seed}",
            *self.extra,
        )

    def key(self, prior: str) -> str:
        """A name that no other cell, and no other prior, shares."""
        text = "/".join((self.suite, self.config, prior, *self.overrides))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


# -- suites ------------------------------------------------------------------------------------------------------


def grid_3d() -> Iterator[Cell]:
    """Three prompts with one seed in all cells, then six prompts, then a second seed."""
    stages = ((PROMPTS[:3], 0), (PROMPTS[3:], 0), (PROMPTS, 1))
    for prompts, seed in stages:
        for prompt, scale, rule in itertools.product(prompts, SCALES, RULES):
            yield Cell("3d", "dreamfusion-quick.yaml", rule, scale, prompt, seed, 32)


def grid_2d() -> Iterator[Cell]:
    """Four pictures a run, twelve prompts."""
    settings = ("data.width=32", "data.height=32", "system.count=4", "trainer.max_steps=200")
    for prompt, scale, rule in itertools.product((*PROMPTS, *MORE_PROMPTS), SCALES, RULES):
        yield Cell("2d", "image-synthesis.yaml", rule, scale, prompt, 0, 32, extra=settings)


def comparison_64() -> Iterator[Cell]:
    """The README's picture: the demo's own profile, at low scale and at the scale that DreamFusion used."""
    for prompt, (rule, scale) in itertools.product(
        PROMPTS[:2], (("sds", 20.0), ("lmc-sds", 20.0), ("lmc-cond", 20.0), ("sds", 100.0))
    ):
        yield Cell("64", "dreamfusion.yaml", rule, scale, prompt, 0, 64)


def noises() -> Iterator[Cell]:
    """Fixed against fresh eps. In 2D four pictures a run, in 3D four seeds."""
    flat = ("data.width=32", "data.height=32", "system.count=4", "trainer.max_steps=200")
    for prompt, kind in itertools.product(PROMPTS, ("fresh", "fixed")):
        fixed = f"system.guidance.fixed_condition_noise={str(kind == 'fixed').lower()}"
        yield Cell("noise-2d", "image-synthesis.yaml", "lmc-sds", 5.0, prompt, 0, 32, kind, (*flat, fixed))
    for prompt, seed, kind in itertools.product(PROMPTS[:3], range(4), ("fresh", "fixed")):
        fixed = f"system.guidance.fixed_condition_noise={str(kind == 'fixed').lower()}"
        yield Cell("noise-3d", "dreamfusion-quick.yaml", "lmc-sds", 5.0, prompt, seed, 32, kind, (fixed,))


def translations() -> Iterator[Cell]:
    """Cats to other animals, by a network for each rule."""
    rules = (("sds", 20.0), ("lmc-sds", 20.0), ("dds", 6.5), ("pds", 6.5))
    for prompt, (rule, scale) in itertools.product(("a fox", "a dog", "a pig"), rules):
        yield Cell("translation", "translation.yaml", rule, scale, prompt, 0, 32)


SUITES = {"3d": grid_3d, "2d": grid_2d, "64": comparison_64, "noise": noises, "translation": translations}


# -- one cell ----------------------------------------------------------------------------------------------------


class Bench:
    """Runs cells below a folder: trials, pictures of the cells, samples of the prior."""

    def __init__(self, folder: Path, judge: ImageTextJudge | None, settings: Sequence[str] = ()) -> None:
        self.folder, self.judge, self.settings = folder, judge, tuple(settings)
        self._samplers: dict[int, Any] = {}
        self.captions = [*PROMPTS, *MORE_PROMPTS]

    def overrides(self, cell: Cell) -> tuple[str, ...]:
        return (*cell.overrides, *QUIET, f"exp_root_dir={self.folder / 'trials'}", *self.settings)

    def run(self, cell: Cell, key: str) -> dict[str, Any]:
        """Train as ``launch.py --train`` does, without what would come after; the line for the ledger."""
        begun = time.perf_counter()
        run = prepare(Request("train", cell.config, (*self.overrides(cell), f"tag={key}")))
        run.trainer.fit(run.system, datamodule=run.data)
        seconds = time.perf_counter() - begun
        run.system.eval()
        found = self.scene(run, cell, key) if hasattr(run.system, "renderer") else self.pictures(run, cell, key)
        finite = all(value is None or math.isfinite(value) for value in found.values())
        diverged = run.system.gradients.diverged or not finite
        return {"seconds": seconds, "diverged": diverged, "figures": found if finite else {}}

    def scene(self, run: Run, cell: Cell, key: str) -> Figures:
        views = render_views(Scene(run.experiment, run.system, run.data, Path()), VIEWS, cell.size)
        self.keep(views.color, key)
        return self.completed(scene_figures(views, cell.prompt, self.judge, self.captions), views.color, run, cell)

    def pictures(self, run: Run, cell: Cell, key: str) -> Figures:
        if hasattr(run.system, "network"):
            images = run.system.translate(run.system.probes).cpu()
        else:
            images = run.system.pictures().cpu()
        self.keep(images, key)
        own = picture_figures(images)
        if self.judge is not None:
            embedded, text = self.judge.embed_images(images), self.judge.embed_texts([cell.prompt])[0]
            others = self.judge.embed_texts(distractors_of(cell.prompt, [*self.judge.captions, *self.captions]))
            own |= {
                "r_precision": r_precision(embedded, text, others),
                "score": float((embedded @ text).mean()),
                "diversity": figures.diversity(embedded),
            }
        return self.completed(own, images, run, cell)

    def completed(self, own: Figures, images: Tensor, run: Run, cell: Cell) -> Figures:
        """With the ratios to the prior's samples, and the share of colours at the ends of their range."""
        clipped = float(((images <= 0.0) | (images >= 1.0)).float().mean())
        return {**own, **against_samples(own, self.samples(run, cell)), "clipped": clipped}

    def samples(self, run: Run, cell: Cell) -> Tensor:
        """Plain samples of the prior for a cell's prompt, in its size; drawn once."""
        cfg = run.system.make("prior").cfg
        name = hashlib.blake2b(f"{model_identity(cfg)}/{cell.prompt}/{cell.size}".encode(), digest_size=6).hexdigest()
        path = self.folder / "samples" / f"{name}.png"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            if cell.size not in self._samplers:
                settings = SampleSettings(image_size=cell.size, batch_size=VIEW_SAMPLES)
                self._samplers[cell.size] = make_sampler(load_prior(cfg), load_prompt_encoder(cfg), settings)
            write_strip(path, self._samplers[cell.size]([cell.prompt] * VIEW_SAMPLES).clamp(0.0, 1.0))
        return read_strip(path)

    def keep(self, images: Tensor, key: str) -> None:
        """The pictures of a cell as a strip."""
        path = self.picture(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, torch.cat(list(to_uint8(images)), dim=-1))

    def picture(self, key: str) -> Path:
        return self.folder / "pictures" / f"{key}.png"
