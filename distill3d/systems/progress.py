"""The progress bar of training: speed, time left, gradient norm, mean opacity."""

from __future__ import annotations

import sys
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm


class TrainingProgress(ProgressBar):
    """One line for the whole training; without a terminal it is updated every 10 s."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self.bar: tqdm | None = None

    def disable(self) -> None:
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.enabled:
            return
        steps = trainer.max_steps if trainer.max_steps > 0 else None
        pace = 0.2 if sys.stderr.isatty() else 10.0
        self.bar = tqdm(
            total=steps, initial=trainer.global_step, unit="step", desc="training", mininterval=pace, dynamic_ncols=True
        )

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.bar is not None:
            logged = {name: f"{value:.3g}" for name, value in trainer.progress_bar_metrics.items()}
            self.bar.set_postfix(figures(pl_module.record) if hasattr(pl_module, "record") else logged, refresh=False)
            self.bar.update(trainer.global_step - self.bar.n)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def figures(record: Any) -> dict[str, str]:
    """What stands behind the bar."""
    shown = {"gradient": f"{record.gradient_norm:.2e}"}
    opacity = record.metrics.opacity_mean
    return shown if opacity is None else shown | {"opacity": f"{opacity:.3f}"}
