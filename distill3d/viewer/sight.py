"""What a viewer shows: a browser's camera as ours, and a render as a picture of one kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8

from distill3d.config.check import ConfigError
from distill3d.runtime.pictures import normal_picture, to_uint8
from distill3d.types import Cameras, Light, RenderOutput, ShadingMode

Look = Literal["colour", "lit", "textureless", "normals", "opacity"]
LOOKS: tuple[Look, ...] = get_args(Look)
_SHADING: dict[Look, ShadingMode] = {"lit": "lambertian", "textureless": "textureless"}
Preview = Callable[..., RenderOutput]  # (cameras, light, shading, need_normal=...)


@dataclass(frozen=True)
class View:
    """A browser's camera: x right, y down, z forward; the world has z up. ``aspect`` is width over height."""

    wxyz: tuple[float, float, float, float]
    position: tuple[float, float, float]
    fovy_rad: float
    aspect: float
    look: Look = "colour"

    def cameras(self, longer_side: int) -> Cameras:
        """The same as a batch of one, of this many pixels along its longer side."""
        width = longer_side if self.aspect >= 1.0 else max(1, round(longer_side * self.aspect))
        height = longer_side if self.aspect < 1.0 else max(1, round(longer_side / self.aspect))
        c2w = torch.eye(4)
        c2w[:3, :3] = rotation(self.wxyz) * torch.tensor([1.0, -1.0, -1.0])  # OpenGL: y up, z backward
        c2w[:3, 3] = position = torch.tensor(self.position, dtype=torch.float32)
        distance = position.norm().clamp(min=1e-6)
        elevation = torch.rad2deg(torch.asin((position[2] / distance).clamp(-1.0, 1.0)))
        azimuth = torch.rad2deg(torch.atan2(position[1], position[0]))
        row = lambda value: torch.as_tensor(value, dtype=torch.float32).reshape(1)  # noqa: E731
        return Cameras(c2w[None], row(self.fovy_rad), row(elevation), row(azimuth), row(distance), height, width)


def rotation(wxyz: tuple[float, float, float, float]) -> Float[torch.Tensor, "3 3"]:
    """The matrix of a quaternion, which need not have length 1."""
    w, x, y, z = (value / math.sqrt(sum(v * v for v in wxyz)) for value in wxyz)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.tensor(rows, dtype=torch.float32)


@torch.no_grad()
def picture(preview: Preview, view: View, longer_side: int, device: Any = "cpu") -> UInt8[np.ndarray, "H W 3"]:
    """What a scene looks like from a view, lit from the camera."""
    cameras = view.cameras(longer_side).to(device)
    shading = _SHADING.get(view.look, "albedo")
    output = preview(cameras, Light(cameras.position), shading, need_normal=view.look == "normals")
    if view.look == "normals":
        output = replace(output, rgb=normal_picture(output))
    elif view.look == "opacity":
        output = replace(output, rgb=output.opacity.expand_as(output.rgb))
    return to_uint8(output.rgb)[0].permute(1, 2, 0).cpu().numpy()


def preview_of(system: Any) -> Preview:
    """The function of a system's scene that renders from any camera. Raises ConfigError where it has no cameras."""
    scene = getattr(system, "scene", None)
    if scene is None or not scene.has_cameras:
        raise ConfigError(
            f"a {type(system).__name__} has no cameras to look through: the viewer shows scenes in 3D; "
            "its pictures are in save/progress while it trains",
            "viewer.enable",
        )
    return scene.preview
