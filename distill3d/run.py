"""From a request to a run: data, system and Trainer are made here, and nowhere else."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint

from distill3d.config.check import build
from distill3d.config.experiment import ConfigError, Experiment, Loaded, load
from distill3d.config.registry import find
from distill3d.runtime.checkpoint import check_resumable, checkpoint_file, read_checkpoint
from distill3d.runtime.device import choose_accelerator, choose_precision, keep_freed_memory, keep_threads, set_threads
from distill3d.runtime.files import write_json
from distill3d.runtime.foreign import read_record, reading
from distill3d.runtime.logs import log_to_file, warnings_shown
from distill3d.runtime.program import command
from distill3d.runtime.protocols import Checked, Exporting, Logged, PairedWithData, Reporting
from distill3d.runtime.summary import summary
from distill3d.runtime.trial import Trial, begin_trial, trial_of
from distill3d.systems.base import TrainedSystem
from distill3d.systems.callbacks import trainer_callbacks, trainer_loggers
from distill3d.systems.resuming import rehearse_resuming
from distill3d.verbs import Request
from distill3d.viewer.settings import ViewerSettings, require
from distill3d.viewer.sight import preview_of

log = logging.getLogger(__name__)


class NothingTrainedError(ValueError):
    """A training that ended without one step that could be taken."""


@dataclass(frozen=True)
class Run:
    """Everything that a verb works with."""

    experiment: Experiment
    trial: Trial
    system: Any
    data: Any
    trainer: pl.Trainer

    @property
    def checkpoint(self) -> str | None:
        return self.experiment.resume


@dataclass(frozen=True)
class Parts:
    """What was loaded, checked and made before anything is written."""

    loaded: Loaded
    system: Any
    data: Any
    trainer_settings: dict[str, Any]
    viewer: list[pl.Callback]


def prepare(request: Request, needs_checkpoint: bool = False) -> Run:
    """`check`, then begin the trial: a mistake leaves no folder behind. Raises ConfigError or CheckpointError."""
    parts = check(request, needs_checkpoint)
    experiment, system = parts.loaded.experiment, parts.system
    trial = begin_trial(parts.loaded, request.argv, snapshots=not needs_checkpoint)
    log_to_file(trial.root / "log.txt")
    log.info("%s %s", "resuming in" if trial.resumed else "trial", trial.root)
    system.attach(trial)
    trainer = pl.Trainer(
        **parts.trainer_settings,
        callbacks=[*_callbacks(experiment, trial), *parts.viewer],
        logger=trainer_loggers(trial, experiment),
        default_root_dir=str(trial.root),
    )
    return Run(experiment, trial, system, parts.data, trainer)


def check(request: Request, needs_checkpoint: bool = False) -> Parts:
    """Load and check everything and make the system; nothing is written. Raises ConfigError or CheckpointError."""
    assert request.config is not None  # the command line sees to it
    loaded = load(request.config, request.overrides)
    experiment = loaded.experiment
    system_class: Any = find("system", experiment.system_type, "system_type")
    if request.verb == "test" and issubclass(system_class, Reporting):
        needs_checkpoint = False  # it measures finished weights, not a checkpoint of this trial
    if needs_checkpoint and experiment.resume is None:
        raise ConfigError(f"--{request.verb} needs a checkpoint: resume={_suggestion(loaded.path)}", "resume")
    if experiment.resume is not None:
        experiment.resume = str(checkpoint_file(experiment.resume))
    set_threads()
    keep_freed_memory()
    pl.seed_everything(experiment.seed, verbose=False)
    system = experiment.make("system")
    data = experiment.make("data")
    _check_pair(system, data, request.verb)
    for part, is_used in ((data, request.verb != "export"), (system, request.verb == "train")):
        if is_used and isinstance(part, Checked):
            part.check()  # reads what the run will need
    if experiment.resume is not None:
        _load_state(system, experiment, request.verb == "train")
    viewer = _viewer(experiment, system) if request.verb == "train" else []
    settings = _trainer_settings(experiment)
    _check_lightning_parts(experiment)
    _check_monitor(experiment, system)
    return Parts(loaded, system, data, settings, viewer)


def train(run: Run) -> None:
    """Fit; then, whatever ended the training, test and export what there is.

    Raises NothingTrainedError, after all that, if every step was skipped.
    """
    run.trainer.fit(run.system, datamodule=run.data, ckpt_path=run.checkpoint, weights_only=True)
    if _draws_tests(run.system):
        log.info("drawing the final pictures")
        run.trainer.test(run.system, datamodule=run.data, verbose=False)
    if isinstance(run.system, Exporting) and run.trainer.is_global_zero:
        log.info("exporting")
        run.system.export(strict=False)
    if run.trainer.is_global_zero:
        _mark_finished(run)
    _say_what_was_made(run)
    if isinstance(run.system, TrainedSystem) and run.system.trained_nothing:
        raise NothingTrainedError(
            f"all {run.system.steps_done} steps were skipped, as no gradient was finite: what was made is the scene "
            "before training; lower system.optimizer.args.lr or system.guidance.guidance_scale, or set "
            "trainer.precision=32-true"
        )


def validate(run: Run) -> None:
    """The validation pictures of a checkpoint."""
    run.trainer.validate(run.system, datamodule=run.data, ckpt_path=run.checkpoint, verbose=False, weights_only=True)
    log.info("done: %s", run.trial.save)


def test(run: Run) -> None:
    """The turntable of a checkpoint; for a system that trains a model of the project, its report."""
    if isinstance(run.system, Reporting):
        run.system.report(run.data)
        log.info("done: %s", run.trial.save)
        return
    if not _draws_tests(run.system):
        raise ConfigError(f"--test: a {run.experiment.system_type} has no test pictures", "system_type")
    run.trainer.test(run.system, datamodule=run.data, ckpt_path=run.checkpoint, verbose=False, weights_only=True)
    log.info("done: %s", run.trial.save)


def export(run: Run) -> None:
    """The mesh of a checkpoint. Raises EmptySurfaceError."""
    can_export = isinstance(run.system, Exporting)
    if not can_export:
        raise ConfigError(f"--export: a {run.experiment.system_type} has nothing to export", "system_type")
    assert run.checkpoint is not None  # `prepare` sees to it
    checkpoint = read_checkpoint(run.checkpoint)
    run.system.on_load_checkpoint(checkpoint)
    run.system.load_state_dict(checkpoint["state_dict"])
    run.system.to(run.trainer.strategy.root_device).eval()
    run.system.export()
    _say_what_was_made(run)


def _say_what_was_made(run: Run) -> None:
    for line in summary(run.trial.root, command()):
        log.info("%s", line)


def _mark_finished(run: Run) -> None:
    """Say in metrics.json, last of all, that the run is over; one that was interrupted is not."""
    path, trainer = run.trial.root / "metrics.json", run.trainer
    metrics = read_record(path)
    if not metrics:
        return
    timed = run.experiment.trainer.get("max_time") is not None
    metrics["finished"] = timed or trainer.global_step >= trainer.max_steps or bool(metrics.get("diverged"))
    metrics["warnings"] = list(dict.fromkeys([*metrics.get("warnings", []), *warnings_shown()]))
    write_json(path, metrics)


def _trainer_settings(experiment: Experiment) -> dict[str, Any]:
    """Keywords of Lightning's Trainer, tried on one that touches no disk; raises ConfigError."""
    settings = {key: value for key, value in experiment.trainer.items() if value is not None}
    accelerator = choose_accelerator(settings.pop("accelerator", "auto"))
    usual = {
        "devices": 1,
        "max_steps": 1000,
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "use_distributed_sampler": False,  # batches are functions of the step and the rank
    }
    for name in ("accumulate_grad_batches", "limit_train_batches", "val_check_interval"):
        if settings.get(name, 1) == 0:
            nothing = "would be never" if name == "val_check_interval" else "would train nothing"
            raise ConfigError(f"trainer.{name}=0 {nothing}; give 1 or more", f"trainer.{name}")
    clip = settings.get("gradient_clip_val", 0)
    if not 0 <= clip < math.inf:
        raise ConfigError(f"trainer.gradient_clip_val={clip} must be positive, or null", "trainer.gradient_clip_val")
    if isinstance(settings.get("max_time"), (int, float)):
        wanted = "days:hours:minutes:seconds, such as 00:00:10:00"
        raise ConfigError(f"trainer.max_time={settings['max_time']} must be {wanted}", "trainer.max_time")
    if str(settings.get("precision")) in ("64", "64-true", "double"):
        raise ConfigError(
            f"trainer.precision={settings['precision']} is not supported: priors work in at most 32 bits; give 32-true",
            "trainer.precision",
        )
    precision = choose_precision(settings.pop("precision", None), accelerator)
    settings = {**usual, **settings, "accelerator": accelerator, "precision": precision}
    try:
        pl.Trainer(**{**settings, "logger": False, "enable_checkpointing": False})
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"trainer: {str(error).splitlines()[0]}", "trainer") from error
    return settings


def _check_lightning_parts(experiment: Experiment) -> None:
    """Make checkpoints and loggers once for a trial that is not there, which touches no disk; raises ConfigError."""
    nowhere = SimpleNamespace(root=Path("outputs"))
    try:
        for callback in trainer_callbacks(nowhere, experiment):
            if isinstance(callback, ModelCheckpoint):
                callback.format_checkpoint_name({"step": torch.tensor(0), "epoch": torch.tensor(0)})
    except ConfigError:
        raise
    except (MisconfigurationException, ValueError, TypeError, LookupError) as error:
        raise ConfigError(f"checkpoint: {str(error).splitlines()[0]}", "checkpoint") from error
    trainer_loggers(nowhere, experiment)


def _load_state(system: Any, experiment: Experiment, training: bool) -> None:
    """Have the system take what is its own of a checkpoint, and say what is wrong with it."""
    path = str(experiment.resume)
    checkpoint = read_checkpoint(path)
    if training:
        check_resumable(checkpoint, path)
    with reading(path, "a checkpoint of this experiment", "take another one of its trial", "resume"):
        keep_threads(checkpoint["distill3d"].get("threads"))
        system.on_load_checkpoint(checkpoint)
        if training:
            rehearse_resuming(system, experiment, checkpoint, path)


def _check_pair(system: Any, data: Any, verb: str) -> None:
    """Raise ConfigError for data that the system cannot work with; an export reads none."""
    if verb != "export" and isinstance(system, PairedWithData):
        system.check_data(data, verb == "train")


def _check_monitor(experiment: Experiment, system: Any) -> None:
    """Raise ConfigError for a quantity that the system does not log: Lightning would look for it when it saves."""
    name = experiment.checkpoint.get("monitor")
    if name is None or not isinstance(system, Logged):
        return
    names = (*system.logged, "step", "epoch")
    if not any(name == known or (known.endswith("/") and str(name).startswith(known)) for known in names):
        shown = ", ".join(f"{known}..." if known.endswith("/") else known for known in names)
        raise ConfigError(
            f"checkpoint.monitor={name!r} is nothing that is logged; give one of {shown}, such as the columns of "
            "csv_logs/metrics.csv, or null",
            "checkpoint.monitor",
        )


def _viewer(experiment: Experiment, system: Any) -> list[pl.Callback]:
    """The page on which the scene is seen to grow, where ``viewer.enable`` asks for it; raises ConfigError."""
    settings = build(ViewerSettings, experiment.viewer, "viewer")
    if not settings.enable:
        return []
    require("viser", "viewer.enable=true")
    preview_of(system)
    from distill3d.viewer.live import LiveViewer

    return [LiveViewer(settings)]


def _callbacks(experiment: Experiment, trial: Trial) -> list[pl.Callback]:
    callbacks = trainer_callbacks(trial, experiment)
    if experiment.trainer.get("enable_checkpointing") is False:
        return [callback for callback in callbacks if not isinstance(callback, ModelCheckpoint)]
    return callbacks


def _draws_tests(system: pl.LightningModule) -> bool:
    return type(system).test_step is not pl.LightningModule.test_step


def _suggestion(config: Path) -> str:
    trial = trial_of(config)
    last = trial / "ckpts" / "last.ckpt" if trial else None
    return str(last) if last and last.is_file() else "outputs/.../ckpts/last.ckpt"
