"""Training batches without end: training stops at a number of steps, never at the end of an epoch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset


def endless_loader(draw: Callable[[int], Any] = torch.tensor, first: Callable[[], int] = lambda: 0) -> DataLoader:
    """``draw(step)`` for each step from ``first()`` on, in this process.

    A batch that depends on the trainer's own step, which a loader that fetches ahead does not know, is drawn in the
    data module's ``on_before_batch_transfer``.
    """
    return DataLoader(_Endless(draw, first), batch_size=None)


class _Endless(IterableDataset):
    def __init__(self, draw: Callable[[int], Any], first: Callable[[], int]) -> None:
        self.draw, self.first = draw, first

    def __iter__(self) -> Iterator[Any]:
        return map(self.draw, itertools.count(self.first()))
