"""Adan, adaptive Nesterov momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from distill3d.optim.per_parameter import PerParameterOptimizer


class Adan(PerParameterOptimizer):
    """Adan (arXiv 2208.06677, algorithm 1), with bias correction and decoupled weight decay.

    With ``d = g_k - g_{k-1}`` (0 at the first step), in torch's convention for betas (the paper's are 1 - beta):

        m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) d,   n = b3 n + (1 - b3) (g + b2 d)^2
        theta <- (theta - lr (m^ + b2 v^) / (sqrt(n^) + eps)) / (1 + lr weight_decay)

    pytorch-optimizer's makes the same steps at the same speed, but its state would not load today's checkpoints.
    Raises ValueError for a learning rate, betas or eps out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if lr < 0 or eps < 0 or weight_decay < 0:
            raise ValueError(f"lr={lr}, eps={eps} and weight_decay={weight_decay} must not be negative")
        if len(betas) != 3 or not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"betas={tuple(betas)} must be three numbers in [0, 1)")
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            for name in ("mean", "difference_mean", "square_mean"):
                state[name] = torch.zeros_like(parameter)
            state["previous_gradient"] = gradient.clone()
        state["step"] += 1
        b1, b2, b3 = group["betas"]
        mean, difference_mean, square_mean = state["mean"], state["difference_mean"], state["square_mean"]
        difference = gradient - state["previous_gradient"]
        mean.lerp_(gradient, 1.0 - b1)
        difference_mean.lerp_(difference, 1.0 - b2)
        square_mean.lerp_((gradient + b2 * difference).square_(), 1.0 - b3)
        c1, c2, c3 = (1.0 - beta ** state["step"] for beta in (b1, b2, b3))
        direction = mean / c1 + difference_mean * (b2 / c2)
        parameter.addcdiv_(direction, (square_mean / c3).sqrt_().add_(group["eps"]), value=-group["lr"])
        parameter.div_(1.0 + group["lr"] * group["weight_decay"])
        state["previous_gradient"].copy_(gradient)
