"""Shampoo, preconditioned by the Kronecker factors of the gradient's covariance, in blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.optim.per_parameter import PerParameterOptimizer

Grafting = Literal["none", "adam"]


class Shampoo(PerParameterOptimizer):
    """Shampoo (arXiv 1802.09568); large matrices in blocks, as distributed Shampoo does (arXiv 2002.09018).

    A tensor is read as a matrix (first dimension by the rest) and cut into blocks of at most ``block_size``. Each
    block G keeps its statistics and takes the step of the paper:

        L <- b2 L + c G G^T,   R <- b2 R + c G^T G,   L_0 = R_0 = eps I,   c = 1 where b2 = 1 and 1 - b2 otherwise
        theta <- theta - lr L^(-1/4) G R^(-1/4)          (a vector has L alone, with the power -1/2)

    Roots are renewed every ``precondition_frequency`` steps. ``momentum`` averages the preconditioned gradient;
    ``grafting: adam`` gives it the norm of Adam's step for the same tensor, so that Adam's learning rates carry over.
    pytorch-optimizer's Shampoo has no blocks, so that a hash table of 2^15 rows would need a matrix of 2^30 entries.
    Raises ValueError for settings out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-1,
        momentum: float = 0.0,
        beta2: float = 1.0,
        eps: float = 1e-4,
        weight_decay: float = 0.0,
        block_size: int = 128,
        precondition_frequency: int = 1,
        grafting: Grafting = "none",
    ) -> None:
        if lr < 0 or eps <= 0 or weight_decay < 0:
            raise ValueError(
                f"lr={lr} and weight_decay={weight_decay} must not be negative, eps={eps} must be positive"
            )
        if not 0.0 <= momentum < 1.0 or not 0.0 < beta2 <= 1.0:
            raise ValueError(f"momentum={momentum} must lie in [0, 1), beta2={beta2} in (0, 1]")
        if block_size < 1 or precondition_frequency < 1:
            raise ValueError(
                f"block_size={block_size} and precondition_frequency={precondition_frequency} must be >= 1"
            )
        if grafting not in ("none", "adam"):
            raise ValueError(f"grafting={grafting!r} is unknown; choose none or adam")
        settings = {k: v for k, v in locals().items() if k not in ("self", "params", "__class__")}
        super().__init__(params, settings)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if group["weight_decay"]:
            gradient = gradient + group["weight_decay"] * parameter
        blocks = to_blocks(gradient, group["block_size"])
        if not state:
            self._start(state, parameter, blocks, group)
        state["step"] += 1
        accumulate(state, blocks, group["beta2"])
        if (state["step"] - 1) % group["precondition_frequency"] == 0:
            power = -0.5 if blocks.shape[2] == 1 else -0.25
            state["left_root"] = matrix_power(state["left"], power)
            state["right_root"] = (
                torch.ones_like(state["right"]) if power == -0.5 else matrix_power(state["right"], power)
            )
        direction = from_blocks(state["left_root"] @ blocks @ state["right_root"], gradient)
        if group["grafting"] == "adam":
            direction = direction * (self._adam_norm(state, gradient) / direction.norm().clamp_min(1e-30))
        if group["momentum"]:
            direction = state["momentum"].mul_(group["momentum"]).add_(direction)
        parameter.add_(direction, alpha=-group["lr"])

    @staticmethod
    def _start(state: dict[str, Any], parameter: Tensor, blocks: Tensor, group: dict[str, Any]) -> None:
        count, rows, columns = blocks.shape
        eye = lambda n: group["eps"] * torch.eye(n, dtype=blocks.dtype, device=blocks.device).repeat(count, 1, 1)  # noqa: E731
        state.update(step=0, left=eye(rows), right=eye(columns))
        if group["momentum"]:
            state["momentum"] = torch.zeros_like(parameter)
        if group["grafting"] == "adam":
            state.update(mean=torch.zeros_like(parameter), square_mean=torch.zeros_like(parameter))

    @staticmethod
    def _adam_norm(state: dict[str, Any], gradient: Tensor) -> Tensor:
        """Norm of Adam's step of unit learning rate (betas .9 and .99)."""
        state["mean"].lerp_(gradient, 0.1)
        state["square_mean"].lerp_(gradient.square(), 0.01)
        c1, c2 = 1.0 - 0.9 ** state["step"], 1.0 - 0.99 ** state["step"]
        return ((state["mean"] / c1) / ((state["square_mean"] / c2).sqrt() + 1e-15)).norm()


def to_blocks(tensor: Tensor, block_size: int) -> Float[Tensor, "blocks rows columns"]:
    """Cut a tensor, read as a matrix, into blocks of at most ``block_size``; zeros fill the last ones."""
    matrix = _as_matrix(tensor)
    (height, width), (rows, columns) = matrix.shape, _block_shape(tensor, block_size)
    down, across = math.ceil(height / rows), math.ceil(width / columns)
    padded = torch.nn.functional.pad(matrix, (0, across * columns - width, 0, down * rows - height))
    return padded.reshape(down, rows, across, columns).transpose(1, 2).reshape(-1, rows, columns)


def from_blocks(blocks: Float[Tensor, "blocks rows columns"], like: Tensor) -> Tensor:
    """The inverse of `to_blocks`, in the shape of ``like``."""
    (height, width), (_, rows, columns) = _as_matrix(like).shape, blocks.shape
    down, across = math.ceil(height / rows), math.ceil(width / columns)
    matrix = blocks.reshape(down, across, rows, columns).transpose(1, 2).reshape(down * rows, across * columns)
    return matrix[:height, :width].reshape(like.shape)


def accumulate(state: dict[str, Any], blocks: Float[Tensor, "blocks rows columns"], beta2: float) -> None:
    """Add the blocks' outer products to their statistics, in place."""
    weight = 1.0 if beta2 == 1.0 else 1.0 - beta2
    state["left"].mul_(beta2).add_(blocks @ blocks.mT, alpha=weight)
    state["right"].mul_(beta2).add_(blocks.mT @ blocks, alpha=weight)


def matrix_power(matrices: Float[Tensor, "n d d"], power: float) -> Float[Tensor, "n d d"]:
    """Powers of symmetric positive definite matrices, in double precision: rounding must not make a root negative."""
    values, vectors = torch.linalg.eigh(matrices.double())
    values = values.clamp_min(torch.finfo(matrices.dtype).tiny)
    return ((vectors * values.pow(power).unsqueeze(-2)) @ vectors.mT).to(matrices.dtype)


def _as_matrix(tensor: Tensor) -> Tensor:
    return tensor.reshape(tensor.shape[0] if tensor.ndim else 1, -1)


def _block_shape(tensor: Tensor, block_size: int) -> tuple[int, int]:
    height, width = _as_matrix(tensor).shape
    return min(height, block_size), min(width, block_size)
