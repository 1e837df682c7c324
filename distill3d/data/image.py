"""One picture to make or to start from: a file, or only a size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import DataLoader

from distill3d.config.ranges import LARGEST_SIDE, MOST_VIEWS, check_at_most, check_least
from distill3d.config.registry import register
from distill3d.data.endless import endless_loader
from distill3d.data.image_folder import read_image
from distill3d.runtime.foreign import ForeignFileError, open_image


@register("data", "image-datamodule")
class ImageDataModule(pl.LightningDataModule):
    """One image: a file to start from, or the size of a new one.

    image: the file; width and height, in pixels: what it is resized to; null keeps its own size, or its shape where
        one of the two is given. Without a file they are the size to make; null is the prior's.
    batch_size: views of each picture a step, each with a time and a noise of its own.
    """

    @dataclass
    class Config:
        image: str | None = None
        width: int | None = None
        height: int | None = None
        batch_size: int = 1

        def __post_init__(self) -> None:
            check_least(self, width=1, height=1, batch_size=1)
            check_at_most(self, {"width": LARGEST_SIDE, "height": LARGEST_SIDE, "batch_size": MOST_VIEWS})

    def __init__(self, cfg: Config, seed: int = 0) -> None:
        super().__init__()
        self.cfg, self.seed = cfg, seed

    def picture(self) -> Float[Tensor, "3 H W"] | None:
        """The file in [0, 1], in its own size; None without one. Raises ValueError if it cannot be read."""
        if self.cfg.image is None:
            return None
        if not Path(self.cfg.image).is_file():
            raise ValueError(f"data.image={self.cfg.image!r} is no file; give a picture")
        try:
            return 0.5 * read_image(Path(self.cfg.image)) + 0.5
        except ForeignFileError as error:
            raise ForeignFileError(f"data.image={self.cfg.image!r}: {error}") from error

    def may_change(self) -> Bool[Tensor, "1 H W"] | None:
        """Where an edit may change the file: where its alpha is at least a half; None for one that is opaque.

        Raises ValueError for one that is transparent everywhere.
        """
        if self.cfg.image is None:
            return None
        image = open_image(Path(self.cfg.image), "data.image")
        if image.mode != "RGBA":
            return None
        mask = torch.from_numpy(np.array(image.getchannel("A")))[None] >= 128
        if not mask.any():
            raise ForeignFileError(f"data.image={self.cfg.image!r} is transparent everywhere: nothing could change")
        return None if mask.all() else mask

    def check(self) -> None:
        """Read the file, so that a mistake is told before the run begins. Raises ValueError."""
        self.picture()
        self.may_change()

    def resized(self, picture: Float[Tensor, "3 H W"]) -> Float[Tensor, "3 h w"]:
        """A picture in the size that is asked for."""
        size = self.size(*picture.shape[-2:])
        if size == tuple(picture.shape[-2:]):
            return picture
        return F.interpolate(picture[None], size, mode="bilinear", antialias=True, align_corners=False)[0]

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width asked for, where nothing else is said those given here."""
        if self.cfg.height is not None and self.cfg.width is not None:
            return self.cfg.height, self.cfg.width
        if self.cfg.height is not None:
            return self.cfg.height, max(1, round(width * self.cfg.height / height))
        if self.cfg.width is not None:
            return max(1, round(height * self.cfg.width / width)), self.cfg.width
        return height, width

    def train_dataloader(self) -> DataLoader:
        """The steps' numbers: what is seen in a step, the system draws."""
        return endless_loader()
