"""Posed images of a scene that is edited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from distill3d.config.registry import register
from distill3d.data.posed.module import PosedImageDataModule


@register("data", "edit-views-datamodule")
class EditViewsDataModule(PosedImageDataModule):
    """Posed images of the scene that is edited."""

    @dataclass
    class Config(PosedImageDataModule.Config):
        """Those of posed-images-datamodule.

        source: what an edit is compared with: the data set's own ``images``, or ``renders`` of the scene as it was
            before the edit, from the same cameras.
        """

        source: Literal["images", "renders"] = "images"

    cfg: Config
