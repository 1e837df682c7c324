"""How well pictures of one scene agree with each other: what one of them shows, warped into its neighbour."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from distill3d.camera import camera_rays
from distill3d.types import Cameras

SAME_SURFACE = 0.05  # relative difference of distances below which two views see one point


def view_inconsistency(
    images: Float[Tensor, "V 3 H W"],
    cameras: Cameras,
    depth: Float[Tensor, "V 1 H W"],
    opacity: Float[Tensor, "V 1 H W"],
) -> float | None:
    """Mean absolute difference of colour between views of the same surface points, in [0, 1].

    Each opaque pixel is taken to its point in the world by ``depth`` (distance along the ray) and looked up in the
    view whose camera is nearest; it counts where that view sees the same distance. A scene rendered without shading
    that depends on the view has almost none, apart from what interpolation and errors of depth cost; pictures that
    were drawn one by one have more. None where no two views share a point.
    """
    if len(images) < 2:
        return None
    neighbour = _nearest(cameras.position)
    points = world_points(cameras, depth)
    at, distance, inside = project(points, cameras[neighbour])
    look_up = lambda maps: F.grid_sample(maps[neighbour], at, align_corners=False)  # noqa: E731
    seen = look_up(depth)[:, 0]
    solid = (opacity[:, 0] > 0.5) & (look_up(opacity)[:, 0] > 0.5)
    same = inside & solid & ((seen - distance).abs() < SAME_SURFACE * distance)
    if not same.any():
        return None
    difference = (look_up(images) - images).abs().mean(1)
    return float(difference[same].mean())


def world_points(cameras: Cameras, depth: Float[Tensor, "V 1 H W"]) -> Float[Tensor, "V H W 3"]:
    """The points that pixels show, in the world."""
    rays = camera_rays(cameras)
    return rays.origins + depth[:, 0, :, :, None] * rays.directions


def project(
    points: Float[Tensor, "V H W 3"], cameras: Cameras
) -> tuple[Float[Tensor, "V H W 2"], Float[Tensor, "V H W"], Bool[Tensor, "V H W"]]:
    """Where world points lie in images: x right and y down, both in [-1, 1], as grid_sample reads them.

    Also their distance from the camera, and whether they are in front of it and within the image.
    """
    offset = points - cameras.position[:, None, None]
    local = torch.einsum("vji,vhwj->vhwi", cameras.c2w[:, :3, :3], offset)
    ahead = -local[..., 2]
    half = torch.tan(0.5 * cameras.fovy_rad)[:, None, None]
    aspect = cameras.width / cameras.height
    scale = half * ahead.clamp_min(1e-6)
    at = torch.stack([local[..., 0] / (scale * aspect), -local[..., 1] / scale], dim=-1)
    return at, offset.norm(dim=-1), (ahead > 0) & (at.abs() <= 1).all(-1)


def _nearest(position: Float[Tensor, "V 3"]) -> Tensor:
    """For each camera the other one that is nearest."""
    distance = torch.cdist(position, position)
    return distance.fill_diagonal_(torch.inf).argmin(dim=1)
