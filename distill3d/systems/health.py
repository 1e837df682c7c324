"""Signs that a run has gone wrong: gradients that are not finite, a scene that is empty or full."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.camera import camera_rays
from distill3d.runtime.files import finite_or_none
from distill3d.types import Cameras

EMPTY_BELOW = 0.005  # mean opacity
FULL_ABOVE = 0.97
RIM = (0.92, 0.98)  # of the scene's radius: how near to its middle the rays along its rim pass
RIM_FULL_ABOVE = 0.5  # mean opacity along the rim; that of an object which stays within its bounds is nearly 0

NERF_REMEDIES: Mapping[str, str] = {
    "empty": "lower system.loss.lambda_sparsity, raise system.geometry.density_blob_scale, or lower "
    "system.optimizer.args.lr",
    "full": "raise system.loss.lambda_sparsity, raise data.camera_distance_range, or lower "
    "system.geometry.density_blob_scale or system.geometry.radius",
    "bounds": "raise system.loss.lambda_sparsity, lower system.geometry.density_blob_scale or "
    "system.optimizer.args.lr, or try another seed",
}


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
    """The opacity of the scene's views, and one explanation each if they are empty or full, or if the bounds are."""

    def __init__(self, window: int = 25, first_step: int = 50, remedies: Mapping[str, str] | None = None) -> None:
        self.remedies = {**NERF_REMEDIES, **(remedies or {})}
        self.recent: deque[float] = deque(maxlen=window)
        self.first_step = first_step
        self.explained = False
        self.rim_opacity: float | None = None
        self.rim_explained = False

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
        text = explain_opacity(mean, step, self.remedies)
        self.explained = text is not None
        return text

    def observe_rim(self, opacity: float | None, step: int) -> str | None:
        """An explanation, the first time that finished views show a scene which fills its bounds."""
        self.rim_opacity = opacity
        if self.rim_explained or opacity is None or not opacity > RIM_FULL_ABOVE:
            return None
        self.rim_explained = True
        return (
            f"the scene fills its bounds at step {step} and is no object (mean opacity {opacity:.0%} along the rim of "
            f"the bounding sphere): {self.remedies['bounds']}"
        )


def rim_opacity(opacity: Float[Tensor, "B 1 H W"], cameras: Cameras, radius: float) -> float | None:
    """Mean opacity of the rays that pass just inside the sphere of ``radius`` around the origin.

    An object leaves the rim of its bounds empty, and a scene that fills them, box or sphere, covers it. None where no
    camera outside the sphere sees the rim, or where a value is not finite.
    """
    rays = camera_rays(cameras)
    nearest = torch.linalg.cross(rays.origins, rays.directions).norm(dim=-1) / radius
    outside = rays.origins.norm(dim=-1) > radius
    rim = opacity[:, 0][(nearest > RIM[0]) & (nearest < RIM[1]) & outside]
    return finite_or_none(float(rim.mean())) if len(rim) else None


def explain_opacity(mean: float, step: int, remedies: Mapping[str, str] | None = None) -> str | None:
    """What to change where views are empty (below .5 %) or full (above 97 %); None in between."""
    remedies = remedies or NERF_REMEDIES
    if mean < EMPTY_BELOW:
        return f"the scene is nearly empty at step {step} (mean opacity {mean:.2%}): {remedies['empty']}"
    if mean > FULL_ABOVE:
        return f"the scene fills the view at step {step} (mean opacity {mean:.2%}): {remedies['full']}"
    return None
