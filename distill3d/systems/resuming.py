"""What Lightning does with a checkpoint when a training goes on, tried before anything is written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.migration.utils import migrate_checkpoint

from distill3d.systems.base import TrainedSystem
from distill3d.systems.callbacks import trainer_callbacks


def rehearse_resuming(system: Any, experiment: Any, checkpoint: dict[str, Any], path: str) -> None:
    """Have throwaway loops and callbacks take their states, and look at the optimiser's.

    Raises CheckpointError, or whatever Lightning raises for what it does not understand.
    """
    migrate_checkpoint(checkpoint)
    pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu").fit_loop.load_state_dict(
        checkpoint["loops"]["fit_loop"]
    )
    for callback in trainer_callbacks(SimpleNamespace(root=Path("outputs")), experiment):
        state = checkpoint["callbacks"].get(callback.state_key)
        if state:
            callback.load_state_dict(state)
    if isinstance(system, TrainedSystem):
        system.check_going_on(checkpoint, f"resume={path}")
