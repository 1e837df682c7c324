"""Edits of a trained NeRF: by score distillation (PDS, arXiv 2311.13831, and its rivals) with a refinement stage, and
through its pictures by iterative dataset update (Instruct-NeRF2NeRF, arXiv 2303.12789)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.config.ranges import check_least
from distill3d.config.registry import register
from distill3d.data.posed.images import PosedImageBatch
from distill3d.systems.editing.editor import EditorSettings
from distill3d.systems.editing.refinement import RefinementSettings
from distill3d.systems.scene_edit import NeRFEditSettings, NeRFEditSystem
from distill3d.types import TextRequest


@register("system", "nerf-edit-system")
class NeRFEdit(NeRFEditSystem):
    """Edits a trained NeRF to match the prompt, by pds, dds, sds, lmc-sds or another guidance.

    Each step distils views of the data set; pds and dds compare each with the same view of the source. From
    ``refinement.start_step`` on the scene is fitted to views that are redrawn one by one.
    """

    @dataclass
    class Config(NeRFEditSettings):
        guidance_type: str = "pds"
        refinement: RefinementSettings = field(default_factory=RefinementSettings)

    cfg: Config

    def text_requests(self) -> dict[str, TextRequest]:
        """Those of the guidance, and those of the refinement's editor."""
        texts = super().text_requests()
        stage = self.cfg.refinement
        return texts if stage.start_step is None else {**self.editor_texts(stage.editor), **texts}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """The original, where it is rendered in the step, is sampled as the scene is: equal scenes then give equal
        bits, and an edit that asks for no change makes none."""
        super().on_train_batch_start(batch, batch_idx)
        if self.source_is_rendered and not self.cfg.refinement.is_active(self.global_step):
            with self.record.watch("render"), self.full_precision():
                self.original.before_step(self.step_now())

    def pictures_to_fit(self, batch: PosedImageBatch) -> Float[Tensor, "B 3 H W"] | None:
        if not self.cfg.refinement.is_active(self.global_step):
            return None
        if self.changing.is_empty:
            self.begin_refinement()
        if self.cfg.refinement.is_due(self.global_step):
            self.redraw(self.cfg.refinement.editor)
        return self.changing.images(batch.index)

    def begin_refinement(self) -> None:
        """The set starts as renders of the edited scene, so that views which were not yet redrawn hold the edit.

        The optimiser starts anew: gradients of distillation are larger by orders of magnitude than those of a mean
        over pixels, and Adam's memory of them would let nothing move for thousands of steps.
        """
        for optimizer in self.trainer.optimizers:
            optimizer.state.clear()
        cameras = self.views_of_scene().cameras.to(self.device)
        with self.full_precision():
            self.changing.begin(self.scene.preview(cameras, need_normal=False).rgb)


@register("system", "nerf-edit-idu-system")
class NeRFEditByDatasetUpdate(NeRFEditSystem):
    """Edits a trained NeRF by iterative dataset update: its training images are replaced by edited ones, one by one.

    The set starts as the source's pictures; every ``interval`` steps one of them becomes an edit of the present render
    (sdedit, instruct-pix2pix) or of the source's picture (ddpm-inversion).
    """

    @dataclass
    class Config(NeRFEditSettings):
        interval: int = 10
        editor: EditorSettings = field(default_factory=lambda: EditorSettings(strength_range=(0.3, 0.7)))

        def __post_init__(self) -> None:
            super().__post_init__()
            check_least(self, interval=1)

    cfg: Config

    def text_requests(self) -> dict[str, TextRequest]:
        """Those of the editor: there is no guidance to ask."""
        return self.editor_texts(self.cfg.editor)

    def on_train_start(self) -> None:
        if self.changing.is_empty:
            with self.full_precision():
                self.changing.begin(self.source_pictures(torch.arange(len(self.views_of_scene()))))

    def pictures_to_fit(self, batch: PosedImageBatch) -> Float[Tensor, "B 3 H W"]:
        if self.global_step % self.cfg.interval == 0:
            self.redraw(self.cfg.editor)
        return self.changing.images(batch.index)
