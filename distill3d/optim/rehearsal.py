"""An optimiser and its schedule, tried on four numbers before a run begins."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from distill3d.config.check import ConfigError
from distill3d.optim.groups import OptimizerSettings, make_optimizer
from distill3d.optim.schedulers import SchedulerSettings, make_scheduler

_STEPS = 2
# what torch's optimisers and schedules answer to settings that they accept and cannot use
_REFUSALS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def rehearse(optimizer: OptimizerSettings, scheduler: SchedulerSettings | None) -> None:
    """Take two steps with each group's settings. Raises ConfigError where torch would raise in training.

    The global random state stays as it is.
    """
    own = [dict(options or {}) for options in optimizer.params.values()]
    for options in [{}, *(options for options in own if options.get("lr", 1.0) != 0)]:
        settings = replace(optimizer, args={**optimizer.args, **options}, params={})
        with torch.random.fork_rng(devices=[]):
            _step(settings, scheduler)


@dataclass(frozen=True)
class StateLayout:
    """What an optimiser remembers of a parameter."""

    names: list[set[str]]  # of a matrix and of a vector: one of these
    shaped: set[str]  # those that always have the shape of the parameter


def state_layout(settings: OptimizerSettings) -> StateLayout:
    """Read off the state of two steps of a matrix and of a vector, where the optimiser takes both."""
    names, shaped, other = [], set[str](), set[str]()
    for shape in ((3, 2), (5,)):
        try:
            with torch.random.fork_rng(devices=[]):
                optimizer = _step(replace(settings, params={}), None, shape)
        except ConfigError:  # torch's Muon trains matrices alone
            continue
        for parameter, state in optimizer.state.items():
            names.append(set(state))
            tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
            alike = {name for name, value in tensors.items() if value.shape == parameter.shape}
            shaped, other = shaped | alike, other | (tensors.keys() - alike)
    return StateLayout(names, shaped - other)


def _step(
    settings: OptimizerSettings, scheduler: SchedulerSettings | None, shape: tuple[int, ...] = (2, 2)
) -> torch.optim.Optimizer:
    part = nn.ParameterDict({"weight": nn.Parameter(torch.ones(shape))})
    optimizer = make_optimizer(nn.ModuleDict({"rehearsal": part}), settings)
    schedule = None if scheduler is None else make_scheduler(optimizer, scheduler)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = part["weight"].square().sum()
        value.backward()
        return value

    at_fault = f"system.optimizer: {settings.name}"
    try:
        for _ in range(_STEPS):
            optimizer.step(loss)  # type: ignore[arg-type]
            if scheduler is not None and schedule is not None:
                at_fault = f"system.scheduler: {scheduler.name}"
                schedule.step()
                at_fault = f"system.optimizer: {settings.name}"
    except ConfigError:
        raise
    except _REFUSALS as error:
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{at_fault} cannot work with its settings: {told}", at_fault.split(":")[0]) from error
    return optimizer
