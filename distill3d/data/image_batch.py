"""Batches of captioned images for training small models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset


@dataclass(frozen=True)
class ImageBatch:
    """Images in [-1, 1], or, where ``encoded``, in the prior's own space."""

    images: Float[Tensor, "B C H W"]
    captions: list[str]
    encoded: bool = False


class ImageBatches(pl.LightningDataModule):
    """Batches that are a function of the seed and the trainer's step, so a resumed run goes on as it would have."""

    def __init__(self, cfg: Any, seed: int = 0) -> None:
        super().__init__()
        self.cfg, self.seed = cfg, seed

    def batch(self, step: int) -> ImageBatch:
        """The images of one step."""
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader:
        return DataLoader(_Steps(self), batch_size=None)

    def transfer_batch_to_device(self, batch: ImageBatch, device: torch.device, dataloader_idx: int) -> ImageBatch:
        return replace(batch, images=batch.images.to(device))


class _Steps(IterableDataset):
    """From the trainer's step on, without end."""

    def __init__(self, module: ImageBatches) -> None:
        self.module = module

    def __iter__(self) -> Iterator[ImageBatch]:
        step = self.module.trainer.global_step if self.module.trainer is not None else 0
        while True:
            yield self.module.batch(step)
            step += 1
