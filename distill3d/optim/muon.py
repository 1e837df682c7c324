"""Muon, momentum with orthogonalised matrices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.optim.per_parameter import PerParameterOptimizer

_QUINTIC = (3.4445, -4.7750, 2.0315)  # steepest at 0: small singular values grow fastest
_UPDATE_RMS = 0.2  # of one matrix entry's step over the learning rate: about Adam's


def orthogonalized(matrix: Float[Tensor, "M N"], steps: int = 5) -> Float[Tensor, "M N"]:
    """Nearly ``U V^T`` of ``matrix = U S V^T``, by Newton-Schulz in bfloat16: singular values end near 1."""
    a, b, c = _QUINTIC
    x = matrix.bfloat16()
    if x.shape[0] > x.shape[1]:
        return orthogonalized(matrix.T, steps).T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.to(matrix.dtype)


class Muon(PerParameterOptimizer):
    """Muon (K. Jordan et al., 2024) with the scale of arXiv 2502.16982, so that Adam's learning rates serve.

    Of a group with ``orthogonal=True`` each parameter is a matrix (a convolution's kernels are flattened to
    ``out x rest``): ``m = b m + (1 - b) g``, ``theta <- (1 - lr decay) theta - .2 lr sqrt(max(M, N)) O(nesterov(m))``.
    Parameters of other groups (biases, norms, the first and last layers) follow Adam with ``betas``.

    torch.optim.Muon takes matrices alone: no convolution kernels, and no Adam for the rest in the same optimiser.
    Raises ValueError for a vector in an orthogonal group.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"orthogonal": False})
        for group in self.param_groups:
            if group["orthogonal"] and any(parameter.ndim < 2 for parameter in group["params"]):
                raise ValueError("an orthogonal group of Muon takes matrices and kernels, not vectors")

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        direction = (self._orthogonal if group["orthogonal"] else self._adam)(parameter, gradient, group)
        parameter.mul_(1.0 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=group["lr"])

    def _orthogonal(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state, beta = self.state[parameter], group["momentum"]
        if not state:
            state["mean"] = torch.zeros_like(parameter)
        mean = state["mean"].lerp_(gradient, 1.0 - beta)
        direction = gradient.lerp(mean, beta).flatten(1)
        return (_UPDATE_RMS * max(direction.shape) ** 0.5 * orthogonalized(direction)).view(parameter.shape)

    def _adam(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state, (b1, b2) = self.state[parameter], group["betas"]
        if not state:
            state.update(step=0, mean=torch.zeros_like(parameter), square_mean=torch.zeros_like(parameter))
        state["step"] += 1
        mean = state["mean"].lerp_(gradient, 1.0 - b1) / (1.0 - b1 ** state["step"])
        square_mean = state["square_mean"].lerp_(gradient.square(), 1.0 - b2) / (1.0 - b2 ** state["step"])
        return mean / (square_mean.sqrt() + group["eps"])
