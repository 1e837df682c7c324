"""Signs that a run has gone wrong: gradients that are not finite, a scene that is empty or full."""

from __future__ import annotations

import math
from collections import deque

import torch
from jaxtyping import Float
from torch import Tensor

EMPTY_BELOW = 0.005  # mean opacity
FULL_ABOVE = 0.97


def gradient_norm(parameters: list[Tensor]) -> Float[Tensor, ""]:
    """Euclidean norm of all gradients together; 0 where there is none. Not finite exactly if one of them is not."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    return torch.nn.utils.get_total_norm(gradients)


class GradientHealth:
    """Counts steps whose gradients were not finite; the run has diverged after ``patience`` of them in a row."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.skipped = 0
        self.in_a_row = 0

    def observe(self, norm: float) -> bool:
        """Whether the step may be taken."""
        finite = math.isfinite(norm)
        self.in_a_row = 0 if finite else self.in_a_row + 1
        self.skipped += not finite
        return finite

    @property
    def diverged(self) -> bool:
        return self.in_a_row >= self.patience

    def explanation(self, step: int) -> str:
        return (
            f"the gradients of the last {self.in_a_row} steps up to step {step} were not finite: training stops. "
            "Lower system.optimizer.args.lr or system.guidance.guidance_scale, raise system.guidance.min_step_percent, "
            "or, in half precision, set trainer.precision=32-true"
        )


class SceneHealth:
    """The mean opacity of recent training views, and one explanation if it says that the scene is empty or full."""

    def __init__(self, window: int = 25, first_step: int = 50) -> None:
        self.recent: deque[float] = deque(maxlen=window)
        self.first_step = first_step
        self.explained = False

    @property
    def opacity_mean(self) -> float | None:
        return sum(self.recent) / len(self.recent) if self.recent else None

    def observe(self, opacity: float, step: int) -> str | None:
        """An explanation, the first time that a window of views after the first steps is empty or full."""
        if math.isfinite(opacity):
            self.recent.append(opacity)
        mean = self.opacity_mean
        if self.explained or mean is None or step < self.first_step or len(self.recent) < (self.recent.maxlen or 0):
            return None
        text = explain_opacity(mean, step)
        self.explained = text is not None
        return text


def explain_opacity(mean: float, step: int) -> str | None:
    """What to change where views are empty (below .5 %) or full (above 97 %); None in between."""
    if mean < EMPTY_BELOW:
        return (
            f"the scene is nearly empty at step {step} (mean opacity {mean:.2%}): lower system.loss.lambda_sparsity, "
            "raise system.geometry.density_blob_scale, or lower system.optimizer.args.lr"
        )
    if mean > FULL_ABOVE:
        return (
            f"the scene fills the view at step {step} (mean opacity {mean:.2%}): raise system.loss.lambda_sparsity, "
            "raise data.camera_distance_range, or lower system.geometry.density_blob_scale or system.geometry.radius"
        )
    return None
