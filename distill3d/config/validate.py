"""The check of a whole experiment: each type's own Config, Lightning's Trainer and ModelCheckpoint, the optimiser."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from distill3d.config.check import ConfigError, build, check_keys, coerce, join
from distill3d.config.registry import find
from distill3d.config.schema import check_slots

if TYPE_CHECKING:
    from distill3d.config.experiment import Experiment

_LOGGERS = ("csv", "tensorboard", "wandb")
# of the Trainer's numbers, the least of those that Lightning takes whatever they are
_LEAST = {
    "max_steps": 1,
    "min_steps": 0,
    "min_epochs": 0,
    "num_nodes": 1,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 0,  # never
    "num_sanity_val_steps": -1,  # all
}
# what the program decides itself: the setting, and what to use instead
_RESERVED = {
    "trainer.callbacks": "the system brings its own",
    "trainer.logger": "use system.loggers",
    "trainer.default_root_dir": "use exp_root_dir",
    "trainer.max_epochs": "use trainer.max_steps",
    "trainer.barebones": "a run keeps checkpoints and logs",
    "checkpoint.dirpath": "checkpoints go to ckpts/ of the trial folder; use exp_root_dir",
}


def check_experiment(experiment: Experiment) -> None:
    """Build every part's settings, so that no mistake is found only when its part is made. Raises ConfigError."""
    from pytorch_lightning import Trainer
    from pytorch_lightning.callbacks import ModelCheckpoint

    check_arguments(Trainer, experiment.trainer, "trainer", "Lightning's Trainer")
    check_arguments(ModelCheckpoint, experiment.checkpoint, "checkpoint", "Lightning's ModelCheckpoint")
    _check_steps(experiment.trainer)
    build(find("data", experiment.data_type, "data_type").Config, experiment.data, "data")  # type: ignore[attr-defined]
    system_type = find("system", experiment.system_type, "system_type")
    system = build(system_type.Config, experiment.system, "system")  # type: ignore[attr-defined]
    check_slots(system)
    _check_loggers(getattr(system, "loggers", None) or {})
    _check_prompt(experiment, system)
    _check_optimizer(system)
    _check_scheduler(system)


def check_arguments(function: Callable, given: Mapping[str, Any], where: str, owner: str) -> None:
    """Check names and types of keyword arguments against a signature."""
    function = function.__init__ if inspect.isclass(function) else function
    valid = [name for name in inspect.signature(function).parameters if name != "self"]
    check_keys(given, [name for name in valid if join(where, name) not in _RESERVED] + _reserved(where), where, owner)
    hints = typing.get_type_hints(function)
    for name, value in given.items():
        setting = join(where, name)
        if setting in _RESERVED and value is not None:
            raise ConfigError(f"{setting} cannot be set: {_RESERVED[setting]}", setting)
        coerce(value, hints.get(name, Any), setting)


def _reserved(where: str) -> list[str]:
    return [name.rpartition(".")[2] for name in _RESERVED if name.startswith(where + ".")]


def _check_steps(trainer: Mapping[str, Any]) -> None:
    for name, least in _LEAST.items():
        value = trainer.get(name)
        if value is not None and value < least:
            raise ConfigError(f"trainer.{name}={value} must be at least {least}", f"trainer.{name}")


def _check_loggers(loggers: Mapping[str, Any]) -> None:
    check_keys(loggers, _LOGGERS, "system.loggers")
    for name, settings in loggers.items():
        where = f"system.loggers.{name}"
        enable = coerce(settings or {}, dict[str, Any], where).get("enable")
        coerce(enable, bool | None, f"{where}.enable")


def _check_prompt(experiment: Experiment, system: Any) -> None:
    setting = "system.prompt_processor.prompt"
    if getattr(system, "prompt_processor_type", None) is not None and not experiment.prompt.strip():
        raise ConfigError(
            f'{setting} is empty: give the prompt, {setting}="a hamburger"; --list names other objects', setting
        )


def _check_scheduler(system: Any) -> None:
    """Names of learning-rate schedules and of their arguments."""
    from distill3d.optim.schedulers import SchedulerSettings, check_scheduler

    settings = getattr(system, "scheduler", None)
    if isinstance(settings, SchedulerSettings):
        check_scheduler(settings)


def _check_optimizer(system: Any) -> None:
    """Names and arguments of the optimiser, and its rates; which modules it names is known when the system is made."""
    settings: Any = getattr(system, "optimizer", None)
    if not hasattr(settings, "args"):
        return
    from distill3d.optim.groups import check_optimizer

    check_optimizer(settings)
