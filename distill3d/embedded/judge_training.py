"""Training the judge: a symmetric contrast between renders and captions, and a classifier of view words."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill3d.camera import VIEW_WORDS
from distill3d.config.registry import register
from distill3d.config.schedule import Scheduled
from distill3d.embedded.captions import SceneCaption, vocabulary
from distill3d.embedded.judge import Judge, JudgeConfig, load_judge, save_judge
from distill3d.embedded.judge_report import report_judge
from distill3d.embedded.mesh_view_module import MeshViewDataModule
from distill3d.embedded.mesh_views import ShadingMix, ViewBatch, all_nouns
from distill3d.embedded.nothing import pictures_of_nothing
from distill3d.runtime.files import write_json
from distill3d.runtime.protocols import check_kind
from distill3d.runtime.rng import rng
from distill3d.systems.model_training import ModelTraining, check_learning_rate, muon_groups

log = logging.getLogger(__name__)
VIEWS_PER_NOUN = 8  # of the report, on average


def soft_targets(
    scenes: list[SceneCaption], captions: list[SceneCaption], nouns: list[str], parent_share: float = 0.35
) -> Float[Tensor, "B C"]:
    """What each image's caption distribution should be over the batch's captions and the bare nouns.

    Captions of the same scene share the mass. A noun whose override or partner the image shows as well is no
    stranger to it: those nouns get ``parent_share``, so that both nouns of a pair rank high.
    """
    target = torch.zeros(len(scenes), len(captions) + len(nouns))
    column = {noun: len(captions) + i for i, noun in enumerate(nouns)}
    for row, scene in enumerate(scenes):
        same = [i for i, other in enumerate(captions) if other == scene]
        plain = scene.second is None and not (scene.first.color or scene.first.material)
        own = [column[thing.noun] for thing in scene.things]
        target[row, same] = 1.0 if plain else (1.0 - parent_share) / len(same)
        target[row, own] = 1.0 if plain else parent_share / len(own)
    return target / target.sum(dim=1, keepdim=True)


@register("system", "judge-system")
class JudgeSystem(ModelTraining):
    """Trains the retrieval model that ranks captions for renders and samples."""

    logged = ("gradient_norm", "loss", "noun_loss", "view_loss")

    @dataclass
    class Config:
        optimizer: Literal["AdamW", "Muon"] = "Muon"
        learning_rate: Scheduled = 1e-3
        noun_weight: float = 1.0  # of telling nouns apart alone, which is learned faster than whole captions
        initial_folder: str | None = None  # start from the weights of a judge's folder
        weight_decay: float = 0.02
        view_weight: float = 0.3
        reject_share: float = 0.25  # pictures of nothing beside the views of a batch; 0: the judge never rejects
        ema_decay: float = 0.998
        save_every: int = 500
        loggers: dict[str, Any] = field(default_factory=dict)

        def __post_init__(self) -> None:
            check_learning_rate(self.learning_rate)
            if not 0.0 <= self.reject_share <= 1.0:
                raise ValueError(f"reject_share={self.reject_share} is a share of the batch; give 0 to 1")

    def check_data(self, data: Any, training: bool) -> None:
        check_kind(data, MeshViewDataModule, "mesh-view-datamodule, with data.assets, a folder of meshes")

    def build(self, data: Any) -> None:
        """Make the judge for the nouns of a mesh-view datamodule."""
        nouns = list(data.nouns)
        front = sorted({asset.noun for asset in data.assets if asset.has_front} & set(nouns))
        words, rejects = tuple(vocabulary(all_nouns(data.assets))), self.cfg.reject_share > 0.0
        self.judge = Judge(JudgeConfig(words, tuple(nouns), tuple(front), rejects=rejects))
        if self.cfg.initial_folder:
            earlier = load_judge(Path(self.cfg.initial_folder)).state_dict()
            own = {"nothing": self.judge.nothing.detach()} if self.judge.nothing is not None else {}
            self.judge.load_state_dict({**own, **earlier})
        self.average = Judge(self.judge.config).requires_grad_(False)
        self.average.load_state_dict(self.judge.state_dict())
        self.nouns, self.fronted = list(data.nouns), set(front)

    def training_step(self, batch: ViewBatch, _: int) -> Tensor:
        views = 0.5 + 0.5 * batch.images
        count = len(views)
        nothing = round(self.cfg.reject_share * count)
        if nothing:
            generator = rng("noise", self.seed, self.global_step)
            spoiled = pictures_of_nothing(views[:nothing].cpu(), batch.clean[:nothing].cpu(), generator)
            views = torch.cat([views, spoiled.to(views)])
        features = self.judge.image_features(views)
        images = self.judge.embed_features(features)
        texts = self.judge.embed_texts(batch.captions + self.judge.captions)
        logits = (images @ texts.T).float() * self.judge.scale()
        target = torch.zeros_like(logits)
        target[:count, : count + len(self.nouns)] = soft_targets(batch.scenes, batch.scenes, self.nouns).to(logits)
        target[count:, -1] = 1.0  # none of these
        contrast = F.cross_entropy(logits, target) + 0.5 * self._text_to_image(logits, target, count)
        nouns = target[:, count:]
        noun = F.cross_entropy(logits[:, count:], nouns / nouns.sum(dim=1, keepdim=True))
        view = self._view_loss(features[:count], batch)
        self.log_dict({"loss": contrast, "noun_loss": noun, "view_loss": view}, prog_bar=True)
        return contrast + self.cfg.noun_weight * noun + self.cfg.view_weight * view

    def parameter_groups(self) -> list[dict[str, Any]]:
        return muon_groups(self.judge, ("words.", "position", "image_tower.0."))

    @staticmethod
    def _text_to_image(logits: Tensor, target: Tensor, count: int) -> Tensor:
        """The other direction, over the ``count`` captions of the batch itself."""
        columns = target[:, :count]
        return F.cross_entropy(logits[:, :count].T, (columns / columns.sum(0, keepdim=True)).T)

    def _view_loss(self, features: Tensor, batch: ViewBatch) -> Tensor:
        """Cross-entropy on single objects with a front, and on every view from overhead."""
        rows = [
            i
            for i, (scene, view) in enumerate(zip(batch.scenes, batch.views, strict=True))
            if scene.second is None and (view == "overhead" or scene.first.noun in self.fronted)
        ]
        words = torch.tensor([VIEW_WORDS.index(batch.views[i]) for i in rows], device=features.device)  # type: ignore[arg-type]
        return F.cross_entropy(self.judge.view_head(features[rows]).float(), words) if rows else features.sum() * 0.0

    def trained(self) -> list[tuple[torch.nn.Module, torch.nn.Module]]:
        return [(self.average, self.judge)]

    def save(self) -> None:
        save_judge(self.average, self.out_dir / "judge")
        log.info("step %d: the judge is %s", self.global_step, self.out_dir / "judge")

    def report(self, data: Any) -> None:
        """Measure the shipped judge, or ``initial_folder``, on views by other cameras: judge.json in save/."""
        judge = load_judge(Path(self.cfg.initial_folder)) if self.cfg.initial_folder else load_judge()
        views = data.held_out_views(
            list(judge.config.nouns), VIEWS_PER_NOUN * len(judge.config.nouns), ShadingMix(0.4, 0.6, 0.0)
        )
        nouns = [scene.first.noun for scene in views.scenes]
        images = 0.5 + 0.5 * views.images
        nothing = pictures_of_nothing(images, views.clean, rng("noise", 2, 0)) if judge.config.rejects else None
        report = report_judge(judge, images, nouns, views.views, nothing)
        write_json(self.out_dir / "judge.json", asdict(report))
        log.info("top-1 %.1f %%, top-5 %.1f %% over %d nouns", 100 * report.top1, 100 * report.top5, report.nouns)
