"""The state of an optimiser in a checkpoint: whether the optimiser of this configuration can go on with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from distill3d.config.schedule import is_finite_number
from distill3d.optim.groups import OptimizerSettings, members
from distill3d.optim.rehearsal import StateLayout, state_layout
from distill3d.optim.schedulers import SchedulerSettings
from distill3d.runtime.checkpoint import CheckpointError, check_finite


def check_states(root: nn.Module, settings: OptimizerSettings, saved: Sequence[Any], awaited: str, where: str) -> None:
    """Raise CheckpointError, beginning with ``where``, unless the optimiser of ``root`` can go on from ``saved``.

    saved: what the optimiser's ``state_dict`` returned, in a list. Groups whose name begins with ``awaited`` are not
    compared, as their parameters are made later.
    """
    own = members(root, settings.params)
    if len(saved) != 1:
        raise CheckpointError(f"{where} has the states of {len(saved)} optimisers, and 1 is trained with; {_REMEDY}")
    theirs = {group.get("name"): group for group in saved[0]["param_groups"]}
    if None in theirs:
        return  # of a version that gave no names
    sizes, here = (
        {name: count for name, count in counts.items() if not name.startswith(awaited)}
        for counts in (
            {str(name): len(group["params"]) for name, group in theirs.items()},
            {name: len(parameters) for name, parameters in own.items()},
        )
    )
    if sizes != here:
        raise CheckpointError(
            f"{where} has other groups of parameters: {_list(sizes)} there and {_list(here)} here; {_REMEDY}"
        )
    for group in theirs.values():
        if not all(is_finite_number(group[key]) for key in ("lr", "weight_decay") if key in group):
            raise CheckpointError(f"{where}: the optimiser's {group['name']} has a rate that is no finite number")
    layout = state_layout(settings)
    for name in here:
        for index, parameter in zip(theirs[name]["params"], own[name], strict=True):
            _check_state(saved[0]["state"].get(index, {}), parameter, layout, f"{where}: the optimiser's {name}")


_REMEDY = "use the configs/parsed.yaml of its own trial, or begin with its scene by system.weights"


def _check_state(state: Mapping[str, Any], parameter: Tensor, layout: StateLayout, where: str) -> None:
    if state and not any(names <= state.keys() for names in layout.names):
        lacking = min((names - state.keys() for names in layout.names), key=len, default=set())
        wrong = f"no {', '.join(sorted(lacking))}" if lacking else ", ".join(sorted(state))
        raise CheckpointError(f"{where} has {wrong}: it is of another optimiser; {_REMEDY}")
    for key in layout.shaped & state.keys():
        value = state[key]
        if isinstance(value, Tensor) and value.shape != parameter.shape:
            raise CheckpointError(f"{where} has {key} of {tuple(value.shape)} for {tuple(parameter.shape)}; {_REMEDY}")
    check_finite(state, where)


def unheeded(
    settings: OptimizerSettings, scheduler: SchedulerSettings | None, checkpoint: Mapping[str, Any]
) -> list[str]:
    """What of these settings a training that goes on does not heed, as sentences: a checkpoint brings its own."""
    told = []
    for group in checkpoint["optimizer_states"][0]["param_groups"]:
        saved, name = {**group, "lr": group.get("initial_lr", group.get("lr"))}, str(group.get("name"))
        given = {**settings.args, **(settings.params.get(name) or {})}
        told += [
            f"{name} keeps the checkpoint's {key} of {_plain(saved[key])}, not {_plain(value)}"
            for key, value in given.items()
            if key in saved and _plain(saved[key]) != _plain(value)
        ]
    has = bool(checkpoint["lr_schedulers"])
    if has != (scheduler is not None):
        told.append("the rates stay as they are" if has else "the schedule begins at the step of the checkpoint")
    return told


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _list(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(sizes.items())) or "none"
