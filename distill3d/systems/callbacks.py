"""What a Trainer is given: checkpoints, a progress bar, loggers, and manners when it is interrupted."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from distill3d.config.check import ConfigError, check_keys
from distill3d.runtime.checkpoint import AtomicCheckpointIO
from distill3d.systems.progress import TrainingProgress

LONGEST_NAME = 200  # bytes of a checkpoint's: file systems take 255, and numbers are put into it
SAVING_SHARE = 0.01  # of the time, at most, goes into last.ckpt


def trainer_callbacks(trial: Any, cfg: Any) -> list[Callback]:
    """The callbacks of a trial; ``cfg`` has the mappings ``checkpoint`` (ModelCheckpoint keywords) and ``trainer``."""
    folder = Path(trial.root) / "ckpts"
    callbacks: list[Callback] = [TrialCheckpoint(folder, **_checkpoint_settings(cfg.checkpoint)), Interruptible(folder)]
    if cfg.trainer.get("enable_progress_bar", True) is not False:
        callbacks.append(TrainingProgress())
    return callbacks


def trainer_loggers(trial: Any, cfg: Any) -> list[Logger]:
    """CSV and TensorBoard unless ``system.loggers.<name>.enable`` is false; wandb where it is true."""
    settings = dict(cfg.system.get("loggers") or {})
    check_keys(settings, ("csv", "tensorboard", "wandb"), "system.loggers")
    root = str(trial.root)
    loggers: list[Logger] = []
    if _enabled(settings, "csv", True):
        loggers.append(CSVLogger(root, name="csv_logs"))
    if _enabled(settings, "tensorboard", True):
        loggers.append(TensorBoardLogger(root, name="tb_logs"))
    if _enabled(settings, "wandb", False):
        loggers.append(_wandb(root, settings["wandb"]))
    return loggers


class TrialCheckpoint(ModelCheckpoint):
    """ModelCheckpoint, and a last.ckpt that is never long out of date.

    last.ckpt is written after the first step, then whenever the last writing took less than 1 % of the time since, and
    at the end. When it is written has no influence on what is trained.
    """

    def __init__(self, folder: Path, save_last: bool | None = True, **settings: Any) -> None:
        super().__init__(dirpath=str(folder), save_last=False, enable_version_counter=False, **settings)
        self.last_path = folder / "last.ckpt"
        self.keep_last = save_last is not False
        self._next_save = 0.0
        self._saved_step = -1

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        # the last step is saved here and not at the end: there Lightning counts the epoch as over, and a run that
        # resumes from such a file is in another epoch than one that was never interrupted
        is_last = trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step
        is_due = is_last or time.monotonic() >= self._next_save
        # clocks of several devices differ, and all must save at the same step, since each waits there for the others
        if trainer.strategy.reduce_boolean_decision(is_due, all=False):
            self.save_last_checkpoint(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        if self._saved_step != trainer.global_step:
            self.save_last_checkpoint(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The state with file names for paths: a checkpoint does not depend on the folder of its trial."""
        state = super().state_dict()
        best = {Path(path).name: score for path, score in state["best_k_models"].items()}
        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        names = {key: Path(state[key]).name if state[key] else "" for key in paths}
        return state | names | {"best_k_models": best, "dirpath": ""}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse, for the folder of this trial."""
        here = lambda name: str(self.last_path.with_name(name)) if name else ""  # noqa: E731
        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        best = {here(name): score for name, score in state_dict["best_k_models"].items()}
        restored = {key: here(state_dict[key]) for key in paths}
        super().load_state_dict(state_dict | restored | {"best_k_models": best, "dirpath": self.dirpath})

    def save_last_checkpoint(self, trainer: pl.Trainer) -> None:
        """Write last.ckpt, and with it metrics.json."""
        begun = time.monotonic()
        if self.keep_last:
            trainer.save_checkpoint(self.last_path, weights_only=False)
        self._saved_step = trainer.global_step
        write_metrics(trainer)
        now = time.monotonic()
        self._next_save = now + (now - begun) / SAVING_SHARE


class Interruptible(Callback):
    """Ctrl-C once: training stops, saves, and what comes after it follows. Twice: leave. SIGTERM: save, then leave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.terminated = False
        self._earlier: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may handle signals

        def stop(signum: int, frame: FrameType | None) -> None:
            if trainer.should_stop:
                raise KeyboardInterrupt
            trainer.should_stop = True
            pl_module.warn_user("interrupted: training stops after this step and is saved; once more to leave now")  # type: ignore[operator]

        def terminate(signum: int, frame: FrameType | None) -> None:
            self.terminated = True

        self._earlier = {
            signal.SIGINT: signal.signal(signal.SIGINT, stop),
            signal.SIGTERM: signal.signal(signal.SIGTERM, terminate),
        }

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.terminated:
            trainer.save_checkpoint(self.folder / "last.ckpt", weights_only=False)
            write_metrics(trainer)
            raise SystemExit(128 + signal.SIGTERM)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier = {}


def write_metrics(trainer: pl.Trainer) -> None:
    """Bring the system's metrics.json up to date."""
    trainer.lightning_module.write_metrics()  # type: ignore[operator]


def _checkpoint_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    settings = {key: value for key, value in given.items() if key not in ("dirpath", "enable_version_counter")}
    filename = settings.get("filename")
    if isinstance(filename, str) and (
        Path(filename).is_absolute() or {"..", "/", "\\"} & {*filename, *Path(filename).parts}
    ):
        raise ConfigError(
            f"checkpoint.filename={filename!r} leads out of the trial's ckpts; give a name without folders",
            "checkpoint.filename",
        )
    if isinstance(filename, str) and len(filename.encode()) > LONGEST_NAME:
        raise ConfigError(
            f"checkpoint.filename={filename[:20]}... is longer than {LONGEST_NAME} bytes, too long for a file's name",
            "checkpoint.filename",
        )
    interval = settings.get("train_time_interval")
    if isinstance(interval, (int, float)):
        settings["train_time_interval"] = timedelta(seconds=interval)
    return settings


def _enabled(settings: Mapping[str, Any], name: str, default: bool) -> bool:
    return bool((settings.get(name) or {}).get("enable", default))


def _wandb(root: str, settings: Mapping[str, Any]) -> Logger:
    try:
        import wandb  # noqa: F401  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError(
            "system.loggers.wandb.enable=true needs the package wandb: pip install wandb, or set it to false"
        ) from error
    from pytorch_lightning.loggers import WandbLogger

    name = settings.get("name")
    name = None if name in ("", "None") else name  # YAML has no None, and threestudio's configs write it
    return WandbLogger(save_dir=root, project=settings.get("project") or "distill3d", name=name)
