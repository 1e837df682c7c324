"""Optimisers by name, and the division of a system's parameters into groups with learning rates of their own."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import nn

from distill3d.config.check import ConfigError, check_keys, coerce, nearest
from distill3d.optim.adan import Adan
from distill3d.optim.shampoo import Shampoo

log = logging.getLogger(__name__)
T = TypeVar("T")

_OURS: dict[str, type[torch.optim.Optimizer]] = {"Adan": Adan, "Shampoo": Shampoo}


@dataclass
class OptimizerSettings:
    """An optimiser: a class of torch.optim, Adan or Shampoo; ``params`` maps modules to settings that differ.

    Modules that have parameters and are not in ``params`` train with ``args``; those with ``lr: 0`` are held still.
    """

    name: str = "Adam"
    args: dict[str, Any] = field(default_factory=lambda: {"lr": 0.01, "betas": [0.9, 0.99], "eps": 1e-15})
    params: dict[str, Any] = field(default_factory=dict)


def optimizer_class(name: str, setting: str = "system.optimizer.name") -> type[torch.optim.Optimizer]:
    """The class of this name; raises ConfigError with the nearest name."""
    known = _OURS | classes_of(torch.optim, torch.optim.Optimizer)
    if name not in known:
        raise ConfigError(f"{setting}={name!r} is not an optimizer; {nearest(name, known)}", setting)
    return known[name]


def classes_of(module: ModuleType, base: type[T]) -> dict[str, type[T]]:
    """What a module has below a class, by its names there."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and value is not base
    }


def parameter_groups(
    root: nn.Module, settings: dict[str, Any], where: str = "system.optimizer.params"
) -> list[dict[str, Any]]:
    """One group for each name in ``settings`` (geometry, geometry.encoding, scene.means), one for each other child.

    A name is that of a module or of a parameter; a parameter belongs to the longest name that holds it. Raises
    ConfigError for a name that is neither.
    """
    check_modules(root, settings, where)
    groups = members(root, settings)
    for name in sorted(settings.keys() - groups.keys()):
        log.info("ignored %s.%s: it has no parameters to train", where, name)
    for name in sorted(groups.keys() - settings.keys()):
        log.info("%s is not in %s: it trains with the settings of system.optimizer.args", name, where)
    return [{"params": members, "name": name, **_plain(settings.get(name))} for name, members in groups.items()]


def members(root: nn.Module, settings: Iterable[str]) -> dict[str, list[nn.Parameter]]:
    """The parameters that are trained, by the name of their group, in the order of `parameter_groups`."""
    groups: dict[str, list[nn.Parameter]] = {}
    for path, parameter in root.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(_owner(path, settings), []).append(parameter)
    return groups


def check_modules(
    root: nn.Module, names: Iterable[str], where: str = "system.optimizer.params", complete: bool = True
) -> None:
    """Raise ConfigError, with the nearest child, for a name that is no module below ``root``.

    Before the system is ``complete``, a child without parameters may yet get parts; those are not looked for.
    """
    known = {*dict(root.named_modules()), *dict(root.named_parameters())}
    children = dict(root.named_children())
    for name in names:
        child = children.get(name.split(".")[0])
        awaited = not complete and child is not None and next(child.parameters(), None) is None
        if not name or (name not in known and not awaited):
            raise ConfigError(
                f"{where}.{name} is not a module of the system; {nearest(name, children)}", f"{where}.{name}"
            )


def make_optimizer(
    root: nn.Module, settings: OptimizerSettings, where: str = "system.optimizer"
) -> torch.optim.Optimizer:
    """The optimiser of all parameters below ``root``; raises ConfigError for an unknown name, module or argument."""
    cls = check_optimizer(settings, where)
    groups = parameter_groups(root, settings.params, f"{where}.params")
    if not groups:
        raise ConfigError(
            f"{where}: the system has no parameters to train; choose a geometry or a guidance with some", where
        )
    try:
        return cls(groups, **_plain(settings.args))
    except (TypeError, ValueError, LookupError) as error:
        raise ConfigError(f"{where}: {settings.name} rejects its settings: {error}", where) from error


def check_optimizer(settings: OptimizerSettings, where: str = "system.optimizer") -> type[torch.optim.Optimizer]:
    """The class, its arguments and rates checked; which modules are named is known when the system is made.

    Raises ConfigError.
    """
    cls = optimizer_class(settings.name, f"{where}.name")
    valid = [name for name in inspect.signature(cls.__init__).parameters if name not in ("self", "params")]
    check_keys(settings.args, valid, f"{where}.args", settings.name)
    check_rate(settings.args, f"{where}.args")
    for module, options in settings.params.items():
        named = f"{where}.params.{module}"
        check_keys(coerce(options or {}, dict[str, Any], named), valid, named, settings.name)
        check_rate(options, named, may_hold=True)
    return cls


def check_rate(options: Any, where: str, may_hold: bool = False) -> None:
    """Raise ConfigError for a rate that is no positive number; 0 passes where it ``may_hold`` a module still."""
    rate = (options or {}).get("lr", 1.0)
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise ConfigError(
            f"{where}.lr={rate!r} must be a number; for a rate that changes set system.scheduler, as in "
            "{name: LinearLR, interval: step, args: {end_factor: 0.1, total_iters: 500}}",
            f"{where}.lr",
        )
    if not (rate > 0.0 or (may_hold and rate == 0.0)):
        expected = "positive, or 0 to freeze the module" if may_hold else "positive"
        raise ConfigError(f"{where}.lr={rate} must be {expected}; try 0.01", f"{where}.lr")


def _owner(path: str, settings: Iterable[str]) -> str:
    holders = [name for name in settings if path == name or path.startswith(f"{name}.")]
    return max(holders, key=len) if holders else path.split(".")[0]


def _plain(options: Any) -> dict[str, Any]:
    """Lists become tuples, which is how torch's optimisers take betas."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in (options or {}).items()}
