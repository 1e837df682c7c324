"""The functions that a YAML may call: ``${add:1,2}``, ``${rmspace:${system.prompt_processor.prompt},_}``, ..."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from omegaconf import OmegaConf

from distill3d.config.check import ConfigError
from distill3d.config.schedule import check_schedule, largest


def calc_exp_lr_decay_rate(factor: float, steps: int) -> float:
    """The rate whose ``steps``-th power is ``factor``."""
    return factor ** (1.0 / steps)


def rmspace(text: Any, substitute: str) -> str:
    """Every white space replaced."""
    return re.sub(r"\s", lambda _: substitute, str(text))


def _largest(spec: Any) -> float:
    spec = list(spec) if isinstance(spec, Sequence) and not isinstance(spec, str) else spec
    check_schedule(spec)
    return largest(spec)


RESOLVERS: dict[str, Callable[..., Any]] = {
    "calc_exp_lr_decay_rate": calc_exp_lr_decay_rate,
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "idiv": lambda a, b: a // b,
    "basename": lambda path: os.path.basename(path),
    "rmspace": rmspace,
    "tuple2": lambda value: [float(value), float(value)],
    "gt0": lambda value: value > 0,
    "not": lambda value: not value,
    "cmaxgt0": lambda spec: _largest(spec) > 0,
    "cmaxgt0orcmaxgt0": lambda first, second: _largest(first) > 0 or _largest(second) > 0,
}


def resolve(content: dict[str, Any]) -> dict[str, Any]:
    """Plain content with every interpolation and resolver evaluated; missing values (``???``) stay.

    Raises ConfigError where one cannot be evaluated.
    """
    from omegaconf.errors import OmegaConfBaseException

    for name, function in RESOLVERS.items():
        OmegaConf.register_resolver(name, function, replace=True)
    try:
        return OmegaConf.to_container(OmegaConf.create(content), resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        setting = str(error.full_key or "")
        reason = (error.msg or str(error)).strip().splitlines()[0]
        raise ConfigError(f"{setting} cannot be evaluated: {reason}", setting) from error
