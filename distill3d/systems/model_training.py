"""What the trainings of the project's own models share: averaged weights, a scheduled rate, clipping, saving."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import nn

from distill3d import __version__
from distill3d.config.schedule import Scheduled, check_schedule, largest, scheduled, smallest
from distill3d.optim import Muon
from distill3d.runtime.checkpoint import check_same_experiment
from distill3d.runtime.files import write_json
from distill3d.runtime.rng import rng
from distill3d.scenes.base import Scene

log = logging.getLogger(__name__)


def muon_groups(
    model: nn.Module, left_to_adam: tuple[str, ...] = (), left_out: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Kernels and matrices, then all else: vectors, and parameters whose names begin as given."""
    named = {name: p for name, p in model.named_parameters() if not (left_out and name.startswith(left_out))}
    others = {name for name, p in named.items() if p.ndim < 2 or name.startswith(left_to_adam)}
    return [
        {"params": [p for name, p in named.items() if name not in others], "rate_factor": 1.0, "orthogonal": True},
        {"params": [p for name, p in named.items() if name in others], "rate_factor": 1.0},
    ]


def check_learning_rate(spec: Scheduled) -> None:
    """Raise ValueError unless ``learning_rate`` is positive; a schedule may begin and end with 0."""
    check_schedule(spec, "learning_rate")
    if smallest(spec) < 0.0 or largest(spec) <= 0.0:
        raise ValueError(f"learning_rate={spec} must be positive; a schedule may begin or end at 0")


class ModelTraining(pl.LightningModule):
    """A LightningModule on mesh views.

    Its config has optimizer, learning_rate, weight_decay, ema_decay and save_every.
    """

    gradient_clip = 1.0
    logged: ClassVar[tuple[str, ...]] = ("gradient_norm", "loss")
    scene = Scene()  # it shows nothing

    def __init__(self, cfg: Any, seed: int = 0):
        super().__init__()
        self.cfg, self.seed = cfg, seed
        self.out_dir = Path(".")
        self.root: Path | None = None
        self.built = False
        self._begun = time.monotonic()
        self.seconds_before = 0.0

    # -- for a subclass ------------------------------------------------------------------------------------------

    def build(self, data: Any) -> None:
        """Make the networks for the nouns of a datamodule."""
        raise NotImplementedError

    def trained(self) -> list[tuple[nn.Module, nn.Module]]:
        """Pairs of (average, model)."""
        raise NotImplementedError

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups; ``rate_factor`` multiplies the learning rate, ``orthogonal`` is Muon's."""
        groups = []
        for _, model in self.trained():
            groups += muon_groups(model)
        return groups

    def save(self) -> None:
        """Write the averaged models."""
        raise NotImplementedError

    # -- the trial -----------------------------------------------------------------------------------------------

    def attach(self, trial: Any) -> None:
        """Where results are written: the trial's save/."""
        self.root, self.out_dir = Path(trial.root), Path(trial.save)

    def setup(self, stage: str) -> None:
        if stage == "fit" and not self.built:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(rng("data", self.seed).initial_seed() % 2**63)
                self.build(self.trainer.datamodule)  # type: ignore[attr-defined]
            self.built = True

    def warn_user(self, message: str) -> None:
        log.warning("%s", message)

    def write_metrics(self) -> None:
        """metrics.json of the trial: steps, seconds and hardware."""
        if self.root is None:
            return
        content = {
            "seed": self.seed,
            "steps": self.global_step,
            "seconds_total": self.seconds(),
            "device": str(self.device),
            "threads": torch.get_num_threads(),
        }
        write_json(self.root / "metrics.json", content)

    def seconds(self) -> float:
        """Training time so far, earlier pieces included."""
        return self.seconds_before + time.monotonic() - self._begun

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        identity = {"system": type(self).__name__}
        checkpoint["distill3d"] = {"version": __version__, "identity": identity, "seconds": self.seconds()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises CheckpointError for a checkpoint of another system."""
        state = self.state_dict() if self.built else checkpoint["state_dict"]  # the networks are made with the data
        check_same_experiment(checkpoint, {"system": type(self).__name__}, state)
        self.seconds_before = float(checkpoint["distill3d"]["seconds"])

    # -- the loop ------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        self._begun = time.monotonic()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.cfg.optimizer == "Muon":
            return Muon(self.parameter_groups(), lr=1.0, weight_decay=self.cfg.weight_decay)
        return torch.optim.AdamW(
            self.parameter_groups(), lr=1.0, betas=(0.9, 0.99), weight_decay=self.cfg.weight_decay, fused=True
        )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            group["lr"] = scheduled(self.cfg.learning_rate, self.global_step) * group["rate_factor"]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.gradient_clip)
        if not norm.isfinite():
            raise ValueError(
                f"the gradients of step {self.global_step} are not finite, and training would continue with NaN; lower "
                "system.learning_rate, and resume from the last checkpoint"
            )
        self.log("gradient_norm", norm, prog_bar=True)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step, and at once its part in the average: checkpoints are written before `on_train_batch_end`."""
        super().optimizer_step(*args, **kwargs)
        self._average(self.global_step + 1)  # this step is not counted yet

    def _average(self, steps: int) -> None:
        # a young average follows closely, or it would remember the initial weights
        decay = min(self.cfg.ema_decay, (1.0 + steps) / (10.0 + steps))
        with torch.no_grad():
            for average, model in self.trained():
                for mean, value in zip(average.parameters(), model.parameters(), strict=True):
                    mean.lerp_(value, 1.0 - decay)

    def on_train_batch_end(self, *_: Any) -> None:
        if self.global_step % self.cfg.save_every == 0:
            self.save()

    def on_train_end(self) -> None:
        self.save()
