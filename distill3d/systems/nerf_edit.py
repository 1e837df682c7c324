"""Editing a NeRF by score distillation: PDS (arXiv 2311.13831) and its rivals, with a refinement stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distill3d.config.registry import register
from distill3d.data.posed.images import PosedImageBatch
from distill3d.guidance.base import distillation_loss
from distill3d.systems.editing.refinement import RefinementSettings
from distill3d.systems.nerf_edit_base import NeRFEditSettings, NeRFEditSystem
from distill3d.types import TextRequest


@register("system", "nerf-edit-system")
class NeRFEdit(NeRFEditSystem):
    """A trained NeRF, changed to show the prompt: by pds, dds, sds, lmc-sds or any other guidance.

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

    def renderers_in_use(self) -> list[Any]:
        in_use = super().renderers_in_use()
        compares = self.source_is_rendered and not self.cfg.refinement.is_active(self.global_step)
        return [*in_use, self.original] if compares else in_use

    def training_step(self, batch: PosedImageBatch, batch_idx: int) -> Tensor:
        if not self.cfg.refinement.is_active(self.global_step):
            return self.distil_step(batch)
        if self.changing.is_empty:
            self.begin_refinement()
        if self.cfg.refinement.is_due(self.global_step):
            self.redraw(self.cfg.refinement.editor)
        return self.fit_step(batch)

    def distil_step(self, batch: PosedImageBatch) -> Tensor:
        weights = self.cfg.loss.weights(self.global_step, self.current_epoch)
        with self.record.watch("render"), self.full_precision():
            output = self.render_training(self.renderer, batch.cameras, "orient" in weights)
            source_images = self.source_images(batch)
        self._observe(output.opacity)
        with self.record.watch("prior"), self.full_precision():
            x = self.prior.encode(output.rgb)
            with torch.no_grad():
                source = self.prior.encode(source_images)
            guided = self.distil(x, batch.cameras, source=source)
        names = [name for name in weights if name not in ("sds", "source", "photometric")]
        terms = {"sds": distillation_loss(x, guided.grad), **self.regularise([output], names)}
        if "source" in weights:
            terms["source"] = 0.5 * (x - source).square().sum() / len(x)
        return self.weighted(terms, weights, guided)

    def begin_refinement(self) -> None:
        """The set starts as renders of the edited scene, so that views which were not yet redrawn hold the edit.

        The optimiser starts anew: gradients of distillation are larger by orders of magnitude than those of a mean
        over pixels, and Adam's memory of them would let nothing move for thousands of steps.
        """
        for optimizer in self.trainer.optimizers:
            optimizer.state.clear()
        cameras = self.views_of_scene().cameras.to(self.device)
        with self.full_precision():
            self.changing.begin(self.renderer.render(cameras, need_normal=False).rgb)
