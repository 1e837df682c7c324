"""One cell of `edit.py`: the edit, its pictures, and its figures."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from changed_part import changed_part, put_back
from conditions import prior_of, weights_of
from edit_cells import EditCell
from edit_sources import QUIET, Sources
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.evaluation.judges import ImageTextJudge, choose_judge, judge_identity
from distill3d.evaluation.metrics import ssim_map, view_consistency
from distill3d.evaluation.samples import read_strip, write_strip
from distill3d.evaluation.scene_report import Figures, edit_figures
from distill3d.priors.base import DiffusionPrior
from distill3d.priors.loader import load_prior, load_prompt_encoder
from distill3d.priors.settings import PriorConfig
from distill3d.run import Run, prepare
from distill3d.runtime.rng import rng
from distill3d.systems.editing.sdedit import sdedit
from distill3d.systems.prior_samples import x_limit
from distill3d.verbs import Request

VIEWS = 8  # around a scene
DRAWN_SIZE = 64  # of a drawing when it is measured, in pixels
SDEDIT = {"guidance_scale": 3.0, "steps": 40}
# of the system's own figures: how badly views agree when one is warped into the next
AGREEMENT = ("inconsistency_of_renders", "inconsistency_of_pictures", "inconsistency_of_source")

Pair = tuple[Float[Tensor, "V 3 H W"], Float[Tensor, "V 3 H W"]]


@dataclass(frozen=True)
class EditBench:
    """Runs cells below a folder. ``settings`` hold for all of them. A process of its own can be given one: what was
    loaded is not sent along."""

    folder: Path
    assets: Path | None
    size: int
    judge_name: str = "auto"
    settings: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[type[EditBench], tuple[Any, ...]]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    @cached_property
    def judge(self) -> ImageTextJudge | None:
        return choose_judge(self.judge_name, "embedded")

    @cached_property
    def sources(self) -> Sources:
        return Sources(self.folder / "sources", self.assets, self.size, self.settings)

    @property
    def prior(self) -> PriorConfig:
        return prior_of(self.settings)

    @cached_property
    def _weights(self) -> dict[bool, str]:
        return {corrected: weights_of(self.settings, corrected) for corrected in (False, True)}

    def conditions(self, cell: EditCell) -> str:
        """All that an edit depends on beside its own settings; its judge can be had later."""
        return "/".join((self._weights[cell.corrected], "meshes" if self.assets else "text", *self.settings))

    @cached_property
    def model(self) -> tuple[DiffusionPrior, Any]:
        """The prior and its encoder of texts."""
        return load_prior(self.prior), load_prompt_encoder(self.prior)

    def prepare_source(self, cell: EditCell) -> None:
        """What all methods of an edit share; apart from cells, since two of them at once would both make it."""
        if cell.scene == "nerf":
            self.sources.scene(cell.edit.source)
        elif cell.scene == "image":
            self.sources.picture(cell.edit.source)

    def run(self, cell: EditCell, key: str) -> dict[str, Any]:
        """The edit and its figures: a line for the ledger."""
        begun = time.perf_counter()
        if cell.method.config is None:
            source, edited, found = *self.redrawn(cell), {}
            seconds = time.perf_counter() - begun
        else:
            run = self.trained(cell, key)
            seconds = time.perf_counter() - begun
            source, edited, found = shown(run, cell)
        for images, name in ((source, "source"), (edited, "edited")):
            path = self.picture(key, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_strip(path, images.clamp(0.0, 1.0).cpu())
        figures = {**found, **self.measured(cell, key)}
        return {"seconds": seconds, "hardware": hardware(), "figures": figures, **self.judged_by()}

    def trained(self, cell: EditCell, key: str) -> Run:
        """Trained as `launch.py --train` does, without what would come after."""
        assert cell.method.config is not None
        place = (f"exp_root_dir={self.folder / 'trials'}", f"tag={key}", "trainer.enable_checkpointing=false")
        overrides = (*self.material(cell), *cell.overrides, *QUIET, *place, *self.settings)
        run = prepare(Request("train", cell.method.config, overrides))
        run.trainer.fit(run.system, datamodule=run.data)
        if run.system.gradients.diverged:
            raise RuntimeError("diverged")
        run.system.eval()
        return run

    def material(self, cell: EditCell) -> tuple[str, ...]:
        """Settings that name what is edited."""
        if cell.scene == "nerf":
            source = self.sources.scene(cell.edit.source)
            return f"data.root={source.views}", f"system.source_checkpoint={source.checkpoint}"
        size = (f"data.width={cell.size}", f"data.height={cell.size}")
        return size if cell.scene == "svg" else (f"data.image={self.sources.picture(cell.edit.source)}", *size)

    def redrawn(self, cell: EditCell) -> Pair:
        """A picture, and one SDEdit of it."""
        prior, encode = self.model
        picture, clip = read_strip(self.sources.picture(cell.edit.source)), x_limit(prior)
        strength = float(cell.method.at.removeprefix("strength "))
        texts = encode([cell.edit.target]), rng("noise", cell.seed, 0), encode([""])
        return picture, sdedit(prior, picture, *texts, strength, **SDEDIT, clip=clip)

    # -- figures -------------------------------------------------------------------------------------------------

    def measured(self, cell: EditCell, key: str) -> Figures:
        """Figures of the pictures that were kept: those of the judge can be had later, without the edit."""
        source, edited = (read_strip(self.picture(key, name)) for name in ("source", "edited"))
        part = self.part(cell, source)
        found = edit_figures(self.judge, edited, source) | {"ssim_outside": ssim_outside(edited, source, part)}
        if self.judge is not None:
            kept = edit_figures(self.judge, put_back(edited, source, part), source)
            found |= {"source_distance_outside": kept["source_distance"]}
        return found if self.judge is None else found | judged(self.judge, cell, source, edited)

    def part(self, cell: EditCell, source: Float[Tensor, "V 3 H W"]) -> Tensor:
        """What of a source its edit is about."""
        prior, encode = self.model
        texts = encode([cell.edit.source]), encode([cell.edit.target])
        return changed_part(prior, source, *texts, rng("noise", cell.seed, -1))

    def judged_by(self) -> dict[str, str]:
        judge = self.judge
        return {} if judge is None else {"judge": judge.name, "judge_identity": str(judge_identity(judge))}

    def judge_again(self, cell: EditCell, line: dict[str, Any]) -> dict[str, Any] | None:
        """The line of a cell that was run without this judge, with its figures; None where nothing is new."""
        own = line.get("judge_identity")
        if self.judge is None or own == judge_identity(self.judge) or not self.has_pictures(line["key"]):
            return None
        return {**line, "figures": {**line["figures"], **self.measured(cell, line["key"])}, **self.judged_by()}

    def has_pictures(self, key: str) -> bool:
        return all(self.picture(key, name).is_file() for name in ("source", "edited"))

    def picture(self, key: str, name: str = "edited") -> Path:
        """The views of a cell side by side: ``source`` or ``edited``."""
        return self.folder / "pictures" / f"{key}-{name}.png"


@torch.no_grad()
def shown(run: Run, cell: EditCell) -> tuple[Tensor, Tensor, Figures]:
    """Source and result of a training, as pictures, and what the system measures itself."""
    system = run.system
    if cell.scene == "svg":
        return system.scene.render_source(*2 * (DRAWN_SIZE,))[None], system.scene.render(*2 * (DRAWN_SIZE,))[None], {}
    if cell.scene == "image":
        return system.original.values, system.pictures(), {}
    cameras = run.data.evaluation_batch(VIEWS).cameras
    source, edited = (s.preview(cameras, need_normal=False).rgb for s in (system.original, system.scene))
    own = system.figures()
    return source, edited, {name: own[name] for name in AGREEMENT if own.get(name) is not None}


def ssim_outside(
    edited: Float[Tensor, "V 3 H W"], source: Float[Tensor, "V 3 H W"], part: Bool[Tensor, "V 1 H W"]
) -> float | None:
    """The mean of SSIM's map (Wang et al., 2004) over the pixels outside of a part; None where there are none."""
    return None if bool(part.all()) else float(ssim_map(edited, source)[~part.expand_as(edited)].mean())


def judged(judge: ImageTextJudge, cell: EditCell, source: Tensor, edited: Tensor) -> Figures:
    """Cosines of pictures and texts: with the target, gained over the source, and of the two changes.

    ``direction = cos(E(edited) - E(source), E(target prompt) - E(source prompt))``, views averaged (arXiv 2108.00946).
    """
    was, now = judge.embed_images(source), judge.embed_images(edited)
    target, start = judge.embed_texts([cell.edit.target, cell.edit.source])
    along = F.cosine_similarity(now - was, (target - start)[None]).mean()
    score, before = float((now @ target).mean()), float((was @ target).mean())
    found: Figures = {"score": score, "score_gain": score - before, "direction": float(along)}
    return found | ({"view_consistency": view_consistency(now)} if len(now) > 1 else {})


def hardware() -> str:
    """What one cell had, and its machine."""
    return (
        f"{torch.get_num_threads()} of {os.cpu_count()} threads a cell, {platform.machine()}, torch {torch.__version__}"
    )
