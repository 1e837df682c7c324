"""Regularisers of a volume-rendered scene.

All are means over the views of a batch, so that their scale does not depend on its size.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill3d.types import RenderOutput

OrientReduction = Literal["sum", "ray_mean"]
REGULARISERS = ("orient", "sparsity", "opaque", "z_variance", "normal_smooth", "3d_normal_smooth")
NEED_NORMALS = frozenset({"orient", "normal_smooth", "3d_normal_smooth"})


def regulariser(name: str, output: RenderOutput, orient_reduction: OrientReduction) -> Float[Tensor, ""]:
    """One of `REGULARISERS` for one render, unweighted."""
    terms = {
        "orient": lambda: orientation_loss(output, orient_reduction),
        "sparsity": lambda: sparsity_loss(output.opacity),
        "opaque": lambda: opaque_loss(output.opacity),
        "z_variance": lambda: z_variance_loss(output),
        "normal_smooth": lambda: normal_smooth_loss(output),
        "3d_normal_smooth": lambda: nearby_normal_loss(output),
    }
    return terms[name]()


def orientation_loss(output: RenderOutput, reduction: OrientReduction = "sum") -> Float[Tensor, ""]:
    """Normals of visible samples must not face away from the camera (arXiv 2209.14988, after 2112.03907).

    ``sum_i stop(w_i) max(0, n_i . v)^2`` with v the ray's direction away from the camera; summed over the rays of a
    view. ``ray_mean`` divides by the rays that hit something. Raises ValueError where the render has no normals.
    """
    weights, normals, directions = output.weights, output.sample_normals, output.sample_directions
    if weights is None or normals is None or directions is None:
        raise ValueError(
            "loss.lambda_orient is not 0, but the renderer gave no normals; "
            "set system.loss.lambda_orient=0 or a geometry whose normal_type is analytic or finite_difference"
        )
    facing_away = (normals * directions).sum(-1).clamp_min(0.0)
    total = (weights.detach() * facing_away**2).sum()
    if reduction == "sum":
        return total / output.opacity.shape[0]
    return total / (output.opacity > 0).sum().clamp_min(1)


def sparsity_loss(opacity: Float[Tensor, "B 1 H W"]) -> Float[Tensor, ""]:
    """``sqrt(opacity^2 + .01)``, the mean over pixels (arXiv 2209.14988): empty space stays empty."""
    return (opacity**2 + 0.01).sqrt().mean()


def opaque_loss(opacity: Float[Tensor, "B 1 H W"]) -> Float[Tensor, ""]:
    """Binary entropy of the opacity in nats, the mean over pixels: every ray either hits or misses.

    The clamp keeps the logarithm, and with it the gradient, finite at 0 and 1.
    """
    clamped = opacity.clamp(1e-3, 1.0 - 1e-3)
    return -(clamped * clamped.log() + (1.0 - clamped) * (1.0 - clamped).log()).mean()


def z_variance_loss(output: RenderOutput, min_opacity: float = 0.5) -> Float[Tensor, ""]:
    """Variance of the depth along rays that hit the object (HiFA, arXiv 2305.18766): surfaces become thin.

    ``sum_i w_i (t_i - mu)^2 / sum_i w_i`` with ``mu = sum_i w_i t_i / sum_i w_i``, the mean over rays whose opacity
    exceeds ``min_opacity``; 0 where there is none.
    """
    samples, weights = output.samples, output.weights
    if samples is None or weights is None:
        raise ValueError("loss.lambda_z_variance is not 0, but the renderer gave no samples; set it to 0")
    middle = 0.5 * (samples.t_start + samples.t_end)

    def per_ray(values: Tensor) -> Tensor:
        return weights.new_zeros(samples.ray_count).index_add(0, samples.ray_index, values)

    mass = per_ray(weights)
    safe_mass = mass.clamp_min(1e-6)
    mean = per_ray(weights * middle) / safe_mass
    variance = per_ray(weights * (middle - mean[samples.ray_index]) ** 2) / safe_mass
    hit = (mass > min_opacity).to(variance)
    return (variance * hit).sum() / hit.sum().clamp_min(1.0)


def normal_smooth_loss(output: RenderOutput) -> Float[Tensor, ""]:
    """Squared differences of neighbouring pixels of the normal picture ``opacity (n + 1) / 2``: rows, plus columns.

    As threestudio's Zero123 has it. Raises ValueError where the render has no normals.
    """
    if output.normal is None:
        raise ValueError("loss.lambda_normal_smooth is not 0, but the renderer gave no normals; set it to 0")
    picture = 0.5 * (F.normalize(output.normal, dim=1) + 1.0) * output.opacity
    down, right = picture[..., 1:, :] - picture[..., :-1, :], picture[..., 1:] - picture[..., :-1]
    return down.square().mean() + right.square().mean()


def nearby_normal_loss(output: RenderOutput) -> Float[Tensor, ""]:
    """Absolute differences of each sample's normal and that of a point near it, the mean over samples.

    As threestudio's Zero123 has it. Raises ValueError where the render has none of the two.
    """
    if output.sample_normals is None or output.nearby_normals is None:
        raise ValueError("loss.lambda_3d_normal_smooth is not 0, but the renderer gave no normals; set it to 0")
    return (output.sample_normals - output.nearby_normals).abs().sum() / max(output.sample_normals.numel(), 1)
