"""Gaussians to pictures: one function, by the CPU kernel, by gsplat on CUDA where it is installed, or in torch."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.scenes.splats.compositing import composite
from distill3d.scenes.splats.gaussians import Gaussians
from distill3d.scenes.splats.projection import LOW_PASS, NEAR, project
from distill3d.types import Cameras

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drawn:
    """What B cameras see of N Gaussians; ``centers`` carries the graph that density control looks at."""

    values: Float[Tensor, "B C H W"]  # weighted sums, nothing behind them
    passed: Float[Tensor, "B 1 H W"]  # transmittance behind all
    centers: Float[Tensor, "B N 2"]  # pixels


def draw(gaussians: Gaussians, values: Float[Tensor, "B N C"], cameras: Cameras, antialiased: bool = True) -> Drawn:
    """Composite the ``values`` that each camera sees of each Gaussian."""
    if has_gsplat(gaussians.means.device):
        from gsplat import rasterization  # pyright: ignore[reportMissingImports]

        return draw_by_gsplat(rasterization, gaussians, values, cameras, antialiased)
    screen = project(gaussians.means, gaussians.scales, gaussians.quaternions, cameras, antialiased)
    opacities = gaussians.opacities.sigmoid() * screen.share
    image, passed = composite(
        screen.centers, screen.conics, opacities, values, screen.depths, screen.visible, cameras.height, cameras.width
    )
    return Drawn(image, passed, screen.centers)


def has_gsplat(device: torch.device) -> bool:
    """Whether gsplat draws tensors of this device; DISTILL3D_KERNELS=torch asks for the plain way."""
    return os.environ.get("DISTILL3D_KERNELS", "") != "torch" and device.type == "cuda" and gsplat_can_draw()


@functools.cache
def gsplat_can_draw() -> bool:
    """Whether gsplat's CUDA kernels are there; without a wheel that has them they are compiled on first use."""
    if importlib.util.find_spec("gsplat") is None:
        logger.info("splats: drawn in torch; pip install gsplat, and an nvcc for it, draws them many times faster")
        return False
    try:
        from gsplat.cuda._backend import _C  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError, RuntimeError) as error:  # an nvcc without its toolkit, ninja or a C++ compiler
        logger.info("splats: drawn in torch, as gsplat's CUDA kernels cannot be compiled: %s", error)
        return False
    if _C is None:
        logger.info("splats: drawn in torch, as gsplat found no nvcc to compile its CUDA kernels with")
    return _C is not None


def draw_by_gsplat(
    rasterization: Callable[..., Any],
    gaussians: Gaussians,
    values: Float[Tensor, "B N C"],
    cameras: Cameras,
    antialiased: bool,
) -> Drawn:
    """By gsplat's ``rasterization`` (arXiv 2409.06765), whose cameras look along +z with y down."""
    c2w = cameras.c2w.to(gaussians.means)
    flip = torch.diag(c2w.new_tensor([1.0, -1.0, -1.0, 1.0]))
    focal = 0.5 * cameras.height / torch.tan(0.5 * cameras.fovy_rad.to(c2w))
    lens = torch.zeros(len(cameras), 3, 3).to(c2w)
    lens[:, 0, 0] = lens[:, 1, 1] = focal
    lens[:, 0, 2], lens[:, 1, 2], lens[:, 2, 2] = 0.5 * cameras.width, 0.5 * cameras.height, 1.0
    image, opacity, seen = rasterization(
        means=gaussians.means,
        quats=gaussians.quaternions,
        scales=gaussians.scales.exp(),
        opacities=gaussians.opacities.sigmoid(),
        colors=values,
        viewmats=torch.linalg.inv(c2w @ flip),
        Ks=lens,
        width=cameras.width,
        height=cameras.height,
        near_plane=NEAR,
        eps2d=LOW_PASS,
        packed=False,
        rasterize_mode="antialiased" if antialiased else "classic",
    )
    return Drawn(image.permute(0, 3, 1, 2), 1.0 - opacity.permute(0, 3, 1, 2), seen["means2d"])
