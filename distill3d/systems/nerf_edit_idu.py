"""Editing a NeRF through its pictures: iterative dataset update (Instruct-NeRF2NeRF, arXiv 2303.12789)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from distill3d.config.registry import register
from distill3d.data.posed.images import PosedImageBatch
from distill3d.systems.editing.editor import EditorSettings
from distill3d.systems.nerf_edit_base import NeRFEditSettings, NeRFEditSystem
from distill3d.types import TextRequest


@register("system", "nerf-edit-idu-system")
class NeRFEditByDatasetUpdate(NeRFEditSystem):
    """A trained NeRF, fitted to pictures of it that an editor replaces one by one: no score distillation.

    The set starts as the source's pictures; every ``interval`` steps one of them becomes an edit of the present render
    (sdedit, instruct-pix2pix) or of the source's picture (ddpm-inversion).
    """

    @dataclass
    class Config(NeRFEditSettings):
        interval: int = 10
        editor: EditorSettings = field(default_factory=lambda: EditorSettings(strength_range=(0.3, 0.7)))

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.interval < 1:
                raise ValueError(f"interval={self.interval} must be at least 1")

    cfg: Config

    def text_requests(self) -> dict[str, TextRequest]:
        """Those of the editor: there is no guidance to ask."""
        return self.editor_texts(self.cfg.editor)

    def on_train_start(self) -> None:
        if self.changing.is_empty:
            with self.full_precision():
                self.changing.begin(self.source_pictures(torch.arange(len(self.views_of_scene()))))

    def training_step(self, batch: PosedImageBatch, batch_idx: int) -> Tensor:
        if self.global_step % self.cfg.interval == 0:
            self.redraw(self.cfg.editor)
        return self.fit_step(batch)
