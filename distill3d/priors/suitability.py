"""What a model's own configs say of how it can be distilled from, before anything of it is loaded.

A pipeline's class name does not tell a model that was trained on another noise process, or distilled to a few steps,
from the one that it was made of: its network and its scheduler do.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

log = logging.getLogger(__name__)

FEW_STEPS = (
    "turbo",
    "lightning",
    "schnell",
    "hyper-sd",
    "lcm",
)  # what names of such models say, where configs are silent
REFINER_SIZES = 5  # sizes and a score of aesthetics, instead of SDXL's six sizes


def unusable(index: Mapping[str, Any]) -> str | None:
    """Why a model of this model_index.json cannot be distilled from, or None.

    EDM schedulers (arXiv 2206.00364) noise an image by ``x + sigma eps`` with sigma up to 80, and scale what the
    network sees: times, weights and predictions of every rule here mean something else there.
    """
    entry = index.get("scheduler")
    name = str(entry[1]) if isinstance(entry, list) and len(entry) == 2 else ""
    if name.startswith("EDM"):
        return (
            f"its scheduler is {name}, a process without the times that rules are written in (arXiv 2206.00364); name "
            "the model that it was trained from, such as stabilityai/stable-diffusion-xl-base-1.0"
        )
    return None


def few_step_sign(name: str, network: Mapping[str, Any], scheduler: Mapping[str, Any]) -> str | None:
    """What shows that a model was distilled to a few steps, or None.

    ``time_cond_proj_dim``: a consistency model that takes its guidance as an input (arXiv 2310.04378).
    ``guidance_embeds: false``: FLUX.1-schnell. Trailing spacing with an Euler scheduler: SD-Turbo and SDXL-Turbo.
    """
    if network.get("time_cond_proj_dim") is not None:
        return "its network takes a guidance scale as an input (time_cond_proj_dim)"
    if network.get("guidance_embeds") is False:
        return "its network takes no guidance (guidance_embeds: false)"
    if "Euler" in str(scheduler.get("_class_name")) and scheduler.get("timestep_spacing") == "trailing":
        return "its scheduler is an Euler one with trailing steps, as Turbo's are"
    own = name.rstrip("/").rpartition("/")[2].lower()
    word = next((word for word in FEW_STEPS if word in own), None)
    return f"its name says {word}" if word else None


def warn_of_few_steps(name: str, network: Mapping[str, Any], scheduler: Mapping[str, Any]) -> None:
    """Say that a model was distilled to a few steps, if it was, and what follows for the guidance scale."""
    sign = few_step_sign(name, network, scheduler)
    if sign is not None:
        log.warning(
            "%s was distilled to a few steps (%s): its answers are guided ones already, and its training has dropped "
            "most noise levels. Take a low system.guidance.guidance_scale, of 0 to 5, not the 100 of SDS, or the model "
            "that it was distilled from",
            name,
            sign,
        )


def warn_of_refiner(name: str, index: Mapping[str, Any]) -> None:
    """Say that a model is SDXL's refiner, if it is, and what follows for the times (arXiv 2307.01952, section 2.5)."""
    if index.get("requires_aesthetics_score"):
        log.warning(
            "%s is SDXL's refiner, which was trained on the lowest fifth of the noise alone: set "
            "system.guidance.max_step_percent to 0.2 or less",
            name,
        )


def refuses_channels(network: Mapping[str, Any], latent_channels: int) -> str | None:
    """Why a U-Net of other channels than its VAE's latents cannot be used, or None."""
    channels = network.get("in_channels", latent_channels)
    if channels == latent_channels:
        return None
    return (
        f"its network reads {channels} channels and its latents have {latent_channels}: it also wants a mask or an "
        "image (inpainting, instruct-pix2pix), which no rule here has; name the model that it was trained from"
    )
