"""The scene of text to 3D: a shaded radiance field before a background."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from distill3d.config.registry import Kind, make, register
from distill3d.scenes.base import Scene, Solid, Step, Views
from distill3d.scenes.nerf.background import backdrop
from distill3d.scenes.nerf.losses import NEED_NORMALS, REGULARISERS, OrientReduction, regulariser
from distill3d.types import Cameras, Light, RenderOutput, ShadingMode

PARTS: tuple[Kind, ...] = ("geometry", "material", "background", "renderer")
_RANKS_PER_VIEW = 1 << 20  # more than there are devices and accumulated batches: streams of views never meet


@dataclass
class NeRFParts:
    """Types and settings of the four parts of a radiance field, in a scene's settings and in those of a system."""

    geometry_type: str = "implicit-volume"
    geometry: dict[str, Any] = field(default_factory=dict)
    material_type: str = "diffuse-with-point-light-material"
    material: dict[str, Any] = field(default_factory=dict)
    background_type: str = "neural-environment-map-background"
    background: dict[str, Any] = field(default_factory=dict)
    renderer_type: str = "nerf-volume-renderer"
    renderer: dict[str, Any] = field(default_factory=dict)
    shading_per_view: bool = False  # each view of a batch draws its own shading mode, not the batch one


@register("scene", "nerf")
class NeRFScene(Scene):
    """A radiance field: geometry, material, background and volume renderer (DreamFusion, arXiv 2209.14988).

    Batches have ``cameras`` and ``light``. Without a light there are albedos alone; with one each batch (or each view,
    with ``shading_per_view``) draws its shading mode.
    """

    @dataclass
    class Config(NeRFParts):
        orient_reduction: OrientReduction = "sum"

    has_cameras = True

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.renderer = build_renderer(vars(cfg))
        self.follows_schedules = True  # an edit stays at the stage of its checkpoint: step 0 would close levels again

    def views(self, batch: Any, step: Step) -> Views:
        """The batch in one render, or view by view where each has a shading mode of its own."""
        outputs = [self._render(batch, rows, step, i) for i, rows in enumerate(self._parts(batch))]
        shading: list[ShadingMode] = [output.shading for output in outputs for _ in output.rgb]
        return Views(
            images=torch.cat([output.rgb for output in outputs]),
            cameras=batch.cameras,
            shading=None if batch.light is None else tuple(shading),
            terms={name: partial(self._term, name, outputs) for name in REGULARISERS},
            opacity=torch.cat([output.opacity for output in outputs]),
        )

    def fitted(self, cameras: Cameras, step: Step, need_normal: bool = False) -> RenderOutput:
        return self.renderer(cameras, None, "albedo", step.number, step.seed, step.rank, need_normal=need_normal)

    def backdrop(self, cameras: Cameras, step: Step | None = None) -> Tensor:
        return backdrop(self.renderer.background, cameras, None if step is None else step.rng("background"))

    def _term(self, name: str, outputs: list[RenderOutput]) -> Tensor:
        """A regulariser, averaged over renders of the same number of views."""
        return torch.stack([regulariser(name, output, self.cfg.orient_reduction) for output in outputs]).mean()

    def _parts(self, batch: Any) -> list[slice]:
        count = len(batch.cameras)
        each = self.cfg.shading_per_view and batch.light is not None
        return [slice(i, i + 1) for i in range(count)] if each else [slice(0, count)]

    def _render(self, batch: Any, rows: slice, step: Step, part: int) -> RenderOutput:
        offset, light, mode = part * _RANKS_PER_VIEW, None, "albedo"
        if batch.light is not None:
            light = batch.light[rows]
            mode = self.renderer.material.pick_mode(step.number, step.rng("shading", offset))
        seen = (step.number, step.seed, step.rank + offset)
        need_normal = not NEED_NORMALS.isdisjoint(step.losses)
        nearby = {"nearby_normals": True} if "3d_normal_smooth" in step.losses else {}
        return self.renderer(batch.cameras[rows], light, mode, *seen, need_normal=need_normal, **nearby)

    def before_step(self, step: Step) -> None:
        """Levels of the encoding, the blob's schedule, and every few steps the occupancy grid."""
        if self.follows_schedules:
            self.renderer.update_step(step.number, step.seed)
        else:
            self.renderer.update_occupancy(step.number, step.seed)

    @property
    def radius(self) -> float:
        return self.renderer.radius

    def parameter_groups(self) -> dict[str, nn.Module]:
        renderer = self.renderer
        return {"geometry": renderer.geometry, "material": renderer.material, "background": renderer.background}

    def preview(
        self,
        cameras: Cameras,
        light: Light | None = None,
        shading: ShadingMode = "albedo",
        background: Tensor | None = None,
        need_normal: bool = True,
    ) -> RenderOutput:
        return self.renderer.render(cameras, light, shading, background, need_normal)

    def surface(self) -> Solid:
        renderer, kept = self.renderer, self.cfg.geometry
        threshold, resolution = kept.get("isosurface_threshold"), kept.get("isosurface_resolution")
        bound = renderer.bound
        return Solid(renderer.geometry, renderer.radius, renderer.render, bound, threshold, resolution, renderer)

    def original(self) -> NeRFScene:
        copy = super().original()
        copy.follows_schedules = False
        return copy


def build_renderer(settings: Mapping[str, Any]) -> Any:
    """The renderer of these types and settings (geometry_type, geometry, ...), with new weights."""

    def part(kind: Kind, *parts: Any) -> Any:
        return make(kind, settings[f"{kind}_type"], settings[kind], f"system.{kind}", *parts)

    # the renderer owns the three: a module in two places would stand twice in every checkpoint
    return part("renderer", *(part(kind) for kind in PARTS[:3]))
