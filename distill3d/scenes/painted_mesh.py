"""A mesh that keeps its shape and is painted: its colours are learned, its vertices are not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from distill3d.config.registry import make, register
from distill3d.runtime.foreign import user_path
from distill3d.scenes.base import Scene, Solid, Step, Views
from distill3d.scenes.mesh.color_field import ColorField
from distill3d.scenes.mesh.fixed import SHAPES, FixedMesh
from distill3d.scenes.mesh.raster import rasterize
from distill3d.scenes.nerf.activations import activation
from distill3d.scenes.nerf.background import backdrop
from distill3d.scenes.nerf.mlp import MLPConfig
from distill3d.types import Cameras, Light, RenderOutput, ShadingMode

RADIUS = 0.5  # of the ball that the mesh fills, world units
POINTS_PER_CHUNK = 1 << 17  # coloured at once where nothing is learned


@dataclass(frozen=True)
class SeenPoints:
    """The subpixels that show the mesh; a pixel is the mean of its subpixels, so silhouettes are smooth."""

    shown: Bool[Tensor, "B h w"]
    points: Float[Tensor, "P 3"]
    normals: Float[Tensor, "P 3"]
    view: Tensor  # of each point

    def image(self, values: Float[Tensor, "P C"], supersample: int) -> Float[Tensor, "B C H W"]:
        """The values at their subpixels, 0 elsewhere, averaged over pixels."""
        canvas = values.new_zeros(*self.shown.shape, values.shape[1]).index_put((self.shown,), values)
        return F.avg_pool2d(canvas.permute(0, 3, 1, 2), supersample)


@register("scene", "mesh")
class PaintedMesh(Scene):
    """A given mesh, a box or a sphere, whose albedo is a field in space, evaluated on the surface.

    Batches have ``cameras`` and ``light``. Without a light there are albedos alone.
    """

    @dataclass
    class Config:
        mesh: str = "sphere"  # a file (GLB, glTF, OBJ, PLY, OFF, STL), or box, or sphere
        up: Literal["auto", "y", "z"] = "auto"  # the file's axis; auto: y for GLB, glTF and OBJ, z for others
        turn_deg: float = 0.0  # about the up axis, to bring the front of the file to the front of the scene
        pos_encoding_config: dict[str, Any] = field(default_factory=lambda: {"otype": "HashGrid"})
        mlp_network_config: MLPConfig = field(default_factory=MLPConfig)
        color_activation: str = "sigmoid"
        material_type: str = "diffuse-with-point-light-material"
        material: dict[str, Any] = field(default_factory=dict)
        background_type: str = "solid-color-background"
        background: dict[str, Any] = field(default_factory=dict)
        supersample: int = 2  # subpixels along a pixel's side

        def __post_init__(self) -> None:
            activation(self.color_activation, "color_activation")
            if not 1 <= self.supersample <= 8:
                raise ValueError(f"supersample={self.supersample} must lie in 1 .. 8")

    has_cameras = True

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.mesh = load_shape(cfg)
        self.material: Any = make("material", cfg.material_type, cfg.material, "system.scene.material")
        self.background: Any = make("background", cfg.background_type, cfg.background, "system.scene.background")
        name = self.material.cfg.albedo_activation or cfg.color_activation
        colors = activation(name, "system.scene.color_activation")
        self.texture = ColorField(RADIUS, cfg.pos_encoding_config, cfg.mlp_network_config, colors, "system.scene")

    def parameter_groups(self) -> dict[str, nn.Module]:
        return {"texture": self.texture, "material": self.material, "background": self.background}

    def before_step(self, step: Step) -> None:
        self.texture.update_step(step.number)

    def views(self, batch: Any, step: Step) -> Views:
        cameras, light, mode, ratio = batch.cameras, batch.light, "albedo", None
        if light is not None:
            mode = self.material.pick_mode(step.number, step.rng("shading"))
        if self.material.cfg.soft_shading:
            ratio = float(torch.rand((), generator=step.rng("ray")))
        seen = self._seen(cameras)
        albedo = self.texture.albedo(seen.points)
        color = self._lit(seen, albedo, cameras, light, mode, ratio)
        color = color + 0.0 * albedo  # a bare shape teaches nothing, but the step still needs a graph
        rgb, opacity = (seen.image(x, self.cfg.supersample) for x in (color, torch.ones_like(color[:, :1])))
        image = rgb + (1.0 - opacity) * backdrop(self.background, cameras, step.rng("background"))
        return Views(image, cameras, None if light is None else (mode,) * len(cameras))

    @torch.no_grad()
    def preview(
        self,
        cameras: Cameras,
        light: Light | None = None,
        shading: ShadingMode = "albedo",
        background: Tensor | None = None,
        need_normal: bool = True,
    ) -> RenderOutput:
        """Without a light, shaded modes are lit from the camera."""
        seen = self._seen(cameras)
        albedo = torch.cat([self.texture.albedo(part) for part in seen.points.split(POINTS_PER_CHUNK)])
        color = self._lit(seen, albedo, cameras, light, shading)
        distance = (seen.points - cameras.position.to(seen.points)[seen.view]).norm(dim=-1, keepdim=True)
        each = torch.cat([color, seen.normals, distance, torch.ones_like(distance)], dim=1)
        rgb, normal, depth, opacity = seen.image(each, self.cfg.supersample).split([3, 3, 1, 1], dim=1)
        behind = backdrop(self.background, cameras) if background is None else background.to(rgb).view(-1, 3, 1, 1)
        return RenderOutput(
            rgb + (1.0 - opacity) * behind,
            opacity,
            depth / opacity.clamp_min(1e-6),
            normal if need_normal else None,
            shading,
        )

    def surface(self) -> Solid:
        return Solid(self.texture, RADIUS, self.preview, "sphere", mesh=self.mesh)

    def _seen(self, cameras: Cameras) -> SeenPoints:
        times, device = self.cfg.supersample, self.texture.weights[0].device
        fine = replace(cameras, height=cameras.height * times, width=cameras.width * times)
        buffer = rasterize(self.mesh.shown, fine, supersample=1)
        shown = buffer.mask[:, 0] > 0.5
        points, normals = (x.permute(0, 2, 3, 1)[shown].to(device) for x in (buffer.position, buffer.normal))
        return SeenPoints(shown.to(device), points, normals, shown.nonzero()[:, 0].to(device))

    def _lit(
        self,
        seen: SeenPoints,
        albedo: Tensor,
        cameras: Cameras,
        light: Light | None,
        mode: ShadingMode,
        ratio: float | None = None,
    ) -> Float[Tensor, "P 3"]:
        position = cameras.position if light is None else light.position
        return self.material.shade(albedo, seen.normals, seen.points, position.to(albedo)[seen.view], mode, ratio)


def load_shape(cfg: PaintedMesh.Config) -> FixedMesh:
    """The shape that ``mesh`` names. Raises ForeignFileError for a file that is missing or cannot be read."""
    from distill3d.data.mesh_file import load_fixed_mesh

    if cfg.mesh in SHAPES:
        return SHAPES[cfg.mesh]()
    return load_fixed_mesh(user_path(cfg.mesh), cfg.up, cfg.turn_deg, "system.scene.mesh")
