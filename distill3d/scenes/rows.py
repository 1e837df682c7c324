"""Growing, splitting and pruning: parameters whose rows come and go, and the optimiser's memory of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor, nn


def change_rows(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    keep: Int[Tensor, "kept"],
    added: Mapping[str, Tensor] | None = None,
) -> None:
    """Replace the rows of parameters that belong together by those in ``keep``, in that order, and new ones.

    Averages of past gradients (Adam's moments and the like) follow the rows that stay, and are zero for new ones; the
    count of steps stays. The parameters remain the same objects, so modules, groups and rates need no care. Their
    gradients are cleared. Raises ValueError, before anything is changed, where ``added`` lacks a parameter or has rows
    of another number, or where the optimiser's memory has no rows (Shampoo).
    """
    added = {} if added is None else added
    _check(optimizer, parameters, added)
    for name, parameter in parameters.items():
        new = added.get(name, parameter.new_zeros(0, *parameter.shape[1:])).to(parameter)
        for key, value in _memory(optimizer, parameter).items():
            optimizer.state[parameter][key] = torch.cat([value[keep], value.new_zeros(new.shape)])
        parameter.grad = None
        parameter.data = torch.cat([parameter.data[keep], new.detach()])


def forget(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> None:
    """Clear an optimiser's averages of a parameter's past gradients; the count of steps stays."""
    for value in _memory(optimizer, parameter).values():
        value.zero_()


def take_sizes(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give own parameters and buffers of a module the sizes that they have in ``state``; their values are zero then."""
    for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        if name in state and tensor.shape != state[name].shape:
            tensor.data = tensor.new_zeros(state[name].shape)


def _memory(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """The parts of an optimiser's state that have the parameter's shape."""
    state = optimizer.state.get(parameter, {})
    return {key: value for key, value in state.items() if isinstance(value, Tensor) and value.ndim > 0}


def _check(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], added: Mapping[str, Tensor]
) -> None:
    sizes = {name: len(added[name]) for name in parameters if name in added}
    if added and (set(sizes) != set(parameters) or len(set(sizes.values())) != 1):
        raise ValueError(f"rows are added to {sizes}, and all of {', '.join(parameters)} need the same number")
    for name, parameter in parameters.items():
        for key, value in _memory(optimizer, parameter).items():
            if value.shape != parameter.shape:
                raise ValueError(
                    f"{type(optimizer).__name__} keeps {key} of the shape {tuple(value.shape)} for {name} of "
                    f"{tuple(parameter.shape)}, which cannot follow its rows; set system.optimizer.name=Adam"
                )
