"""Batches of captioned images for training small models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader

from distill3d.data.endless import endless_loader
from distill3d.types import Cameras


@dataclass(frozen=True)
class ImageBatch:
    """Images in [-1, 1], or, where ``encoded``, in the prior's own space."""

    images: Float[Tensor, "B C H W"]
    captions: list[str]
    encoded: bool = False
    cameras: Cameras | None = None


class ImageBatches(pl.LightningDataModule):
    """Batches that depend on the seed and the trainer's step alone, so that a resumed run sees the same ones."""

    def __init__(self, cfg: Any, seed: int = 0) -> None:
        super().__init__()
        self.cfg, self.seed = cfg, seed

    def batch(self, step: int) -> ImageBatch:
        """The images of one step."""
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader:
        return endless_loader(self.batch, lambda: self.trainer.global_step if self.trainer is not None else 0)

    def transfer_batch_to_device(self, batch: ImageBatch, device: torch.device, dataloader_idx: int) -> ImageBatch:
        return replace(batch, images=batch.images.to(device))
