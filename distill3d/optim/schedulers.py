"""Learning-rate schedules by name, with a linear warm-up in front where one is asked for."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import LRScheduler

from distill3d.config.check import ConfigError, build, check_keys, nearest
from distill3d.optim.groups import classes_of

_COMPOSED = ("SequentialLR", "ChainedScheduler")


@dataclass
class SchedulerSettings:
    """A class of torch.optim.lr_scheduler. ``SequentialLR`` and ``ChainedScheduler`` list theirs in ``schedulers``.

    ``warmup_steps`` puts a linear rise from ``warmup_factor`` in front of any of them.
    """

    name: str = "ConstantLR"
    args: dict[str, Any] = field(default_factory=lambda: {})
    interval: Literal["step", "epoch"] = "step"
    schedulers: list[Any] = field(default_factory=list)
    milestones: list[int] = field(default_factory=list)
    warmup_steps: int = 0
    warmup_factor: float = 1e-3


def make_scheduler(
    optimizer: torch.optim.Optimizer, settings: SchedulerSettings, where: str = "system.scheduler"
) -> LRScheduler:
    """The schedule of this name; raises ConfigError for an unknown name or argument."""
    if settings.warmup_steps:
        warmup = torch.optim.lr_scheduler.LinearLR(optimizer, settings.warmup_factor, 1.0, settings.warmup_steps)
        after = _named(optimizer, settings, where)
        return torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, after], [settings.warmup_steps])
    return _named(optimizer, settings, where)


def check_scheduler(settings: SchedulerSettings, where: str = "system.scheduler") -> None:
    """Names of schedules and of their arguments, without an optimiser. Raises ConfigError."""
    cls = _scheduler_class(settings.name, f"{where}.name")
    for index, part in enumerate(settings.schedulers):
        name = f"{where}.schedulers[{index}]"
        check_scheduler(build(SchedulerSettings, part, name), name)
    if settings.name not in _COMPOSED:
        valid = [name for name in inspect.signature(cls.__init__).parameters if name not in ("self", "optimizer")]
        check_keys(settings.args, valid, f"{where}.args", settings.name)


def _named(optimizer: torch.optim.Optimizer, settings: SchedulerSettings, where: str) -> LRScheduler:
    check_scheduler(settings, where)
    if settings.name in _COMPOSED:
        return _composed(optimizer, settings, where)
    cls = _scheduler_class(settings.name, f"{where}.name")
    args = {"factor": 1.0, **settings.args} if settings.name == "ConstantLR" else settings.args
    try:
        return cls(optimizer, **args)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {settings.name} rejects its settings: {error}", where) from error


def _composed(optimizer: torch.optim.Optimizer, settings: SchedulerSettings, where: str) -> LRScheduler:
    if not settings.schedulers:
        raise ConfigError(
            f"{where}.schedulers is empty; {settings.name} needs a list of schedules", f"{where}.schedulers"
        )
    parts = []
    for index, part in enumerate(settings.schedulers):
        name = f"{where}.schedulers[{index}]"
        parts.append(make_scheduler(optimizer, build(SchedulerSettings, part, name), name))
    if settings.name == "ChainedScheduler":
        return torch.optim.lr_scheduler.ChainedScheduler(parts, optimizer)  # type: ignore[return-value]
    if len(settings.milestones) != len(parts) - 1:
        raise ConfigError(
            f"{where}.milestones={settings.milestones} must have one entry fewer than the {len(parts)} schedulers",
            f"{where}.milestones",
        )
    return torch.optim.lr_scheduler.SequentialLR(optimizer, parts, settings.milestones)


def _scheduler_class(name: str, setting: str) -> type[LRScheduler]:
    # these need arguments that no YAML can hold, or a metric that no step returns
    unfit = ("LambdaLR", "MultiplicativeLR", "ReduceLROnPlateau", "SWALR")
    known = {key: cls for key, cls in classes_of(torch.optim.lr_scheduler, LRScheduler).items() if key not in unfit}
    if name not in known:
        raise ConfigError(f"{setting}={name!r} is not a learning-rate schedule; {nearest(name, known)}", setting)
    return known[name]
