"""The diffusion time t of a step, and the weight c(t) of what the prior says there."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill3d.config.schedule import Scheduled, knots, scheduled

TimestepSampling = Literal["uniform", "hifa-sqrt", "dreamtime", "linear", "fixed"]
WeightingStrategy = Literal["sds", "uniform", "fantasia3d", "ism"]


def check_step_percents(low: Scheduled | None, high: Scheduled | None) -> None:
    """Raise ValueError unless 0 <= low <= high <= 1 in every step of both schedules; None is nothing to check."""
    known = [spec for spec in (low, high) if spec is not None]
    bends = [bend for spec in known for bend in knots(spec)]
    if len({isinstance(knots(spec)[-1], float) for spec in known if knots(spec)}) > 1:
        return  # steps and epochs can only be compared during training
    for bend in bends or [0]:
        for when in (int(bend), int(bend) + 1):  # a jump has two values
            values = [scheduled(spec, when, when) for spec in known]
            if values != sorted(values) or not all(0.0 <= value <= 1.0 for value in values):
                raise ValueError(_bounds_message(low, high))


def timestep_bounds(min_step_percent: float, max_step_percent: float, num_train_timesteps: int) -> tuple[int, int]:
    """The smallest and the largest t, both included. Raises ValueError unless 0 <= min <= max <= 1."""
    if not 0.0 <= min_step_percent <= max_step_percent <= 1.0:
        raise ValueError(_bounds_message(min_step_percent, max_step_percent))
    last = num_train_timesteps - 1
    return tuple(min(round(share * num_train_timesteps), last) for share in (min_step_percent, max_step_percent))  # type: ignore[return-value]


def _bounds_message(low: object, high: object) -> str:
    return (
        f"min_step_percent={low} and max_step_percent={high} are fractions of the diffusion time; set 0 <= "
        "min_step_percent <= max_step_percent <= 1"
    )


def draw_timesteps(
    sampling: TimestepSampling,
    batch: int,
    bounds: tuple[int, int],
    progress: float,
    num_train_timesteps: int,
    generator: torch.Generator,
) -> Int[Tensor, "B"]:
    """One t for each row, on the generator's device; ``progress`` in [0, 1] is the share of the run that is over.

    uniform     t ~ U{t_min .. t_max}, the only one that draws
    hifa-sqrt   t = t_max - (t_max - t_min) sqrt(progress)            (HiFA, arXiv 2305.18766)
    dreamtime   the t that leaves ``1 - progress`` of W below it       (DreamTime, arXiv 2306.12422)
    linear      t = t_max - (t_max - t_min) progress
    fixed       t = t_max
    """
    low, high = bounds
    if sampling == "uniform":
        return torch.randint(low, high + 1, (batch,), generator=generator, device=generator.device)
    if sampling == "dreamtime":
        t = dreamtime_timestep(progress, bounds, num_train_timesteps)
    elif sampling in ("hifa-sqrt", "linear"):
        t = round(high - (high - low) * (progress**0.5 if sampling == "hifa-sqrt" else progress))
    elif sampling == "fixed":
        t = high
    else:
        known = ", ".join(get_args(TimestepSampling))
        raise ValueError(f"timestep_sampling={sampling!r} is unknown; choose one of {known}")
    return torch.full((batch,), t, device=generator.device)


def dreamtime_weights(num_train_timesteps: int) -> Float[Tensor, "T"]:
    """W(t) of DreamTime, not normalised: 1 from t = 500 to 800, Gaussian flanks of deviation 100 and 300 outside."""
    t = torch.arange(num_train_timesteps, dtype=torch.float64) * (1000 / num_train_timesteps)
    above = torch.exp(-((t - 800).clamp_min(0) ** 2) / (2 * 300**2))
    below = torch.exp(-((500 - t).clamp_min(0) ** 2) / (2 * 100**2))
    return above * below


def dreamtime_timestep(progress: float, bounds: tuple[int, int], num_train_timesteps: int) -> int:
    """``argmin_t | sum_{u >= t} W(u) - progress |`` with W normalised over the bounds: t never grows with progress."""
    low, high = bounds
    weights = dreamtime_weights(num_train_timesteps)[low : high + 1]
    above = weights.flip(0).cumsum(0).flip(0) / weights.sum()
    return low + int((above - progress).abs().argmin())


def time_weight(
    strategy: WeightingStrategy, alpha: Float[Tensor, "B 1 1 1"], sigma: Float[Tensor, "B 1 1 1"]
) -> Float[Tensor, "B 1 1 1"]:
    """c(t), written so that it means the same for flows, where alpha^2 + sigma^2 < 1.

    sds: ``sigma^2`` (arXiv 2209.14988); uniform: 1; fantasia3d: ``alpha sigma^2`` (arXiv 2303.13873);
    ism: ``.1 sigma / alpha`` (arXiv 2311.11284), alpha held above .05.
    """
    variance = alpha**2 + sigma**2
    if strategy == "sds":
        return sigma**2 / variance
    if strategy == "uniform":
        return variance.new_ones(()).expand_as(variance)
    if strategy == "fantasia3d":
        return alpha * sigma**2 / variance**1.5
    if strategy == "ism":
        return 0.1 * sigma / alpha.clamp_min(0.05)
    known = ", ".join(get_args(WeightingStrategy))
    raise ValueError(f"weighting_strategy={strategy!r} is unknown; choose one of {known}")
