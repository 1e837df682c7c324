"""Low-rank adapters (LoRA, arXiv 2106.09685) on a frozen network's attention projections."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn


class LowRank(nn.Module):
    """``up(down(x))``, which starts at zero: the adapted network starts as the frozen one."""

    def __init__(self, in_features: int, out_features: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, out_features, bias=False)
        nn.init.normal_(self.down.weight, std=1.0 / rank)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """In the input's precision; the parameters themselves stay in fp32, where small updates are not lost."""
        return F.linear(F.linear(x, self.down.weight.to(x.dtype)), self.up.weight.to(x.dtype))


class LoraAdapter(nn.Module):
    """One `LowRank` for each attention projection of a network, which it names but does not hold.

    So its state dict is small, and the network that it belongs to stays out of optimisers and checkpoints. ``y = W x``
    becomes ``y = W x + scale * up(down(x))``, and only inside `applied_to`. (peft puts its layers into the network.)
    """

    def __init__(self, network: nn.Module, rank: int, scale: float = 1.0) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank={rank} of a LoRA adapter must be at least 1")
        targets = attention_projections(network)
        if not targets:
            raise ValueError(f"{type(network).__name__} has no attention projections that a LoRA adapter could adapt")
        self.rank = rank
        self.scale = scale
        # a module's name may hold no dots inside a ModuleDict
        layers = {name.replace(".", "/"): LowRank(m.in_features, m.out_features, rank) for name, m in targets.items()}
        self.layers = nn.ModuleDict(layers)

    @contextmanager
    def applied_to(self, network: nn.Module) -> Iterator[None]:
        """Within the context the network's attention projections carry this adapter; after it, nothing is left."""
        handles = []
        try:
            for key, layer in self.layers.items():
                target = network.get_submodule(key.replace("/", "."))
                handles.append(target.register_forward_hook(self._hook(layer)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, layer: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def add_low_rank(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + self.scale * layer(inputs[0])

        return add_low_rank


def attention_projections(network: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers that are named as diffusers names the projections of an attention."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and _PROJECTION.search(name)
    }


_PROJECTION = re.compile(r"(^|\.)(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)$")
