"""Text to 3D: a shaded volume under a frozen diffusion model (DreamFusion, arXiv 2209.14988)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill3d import __version__
from distill3d.config.registry import register
from distill3d.data.random_cameras import RandomCameraBatch, draw_rank
from distill3d.guidance.base import distillation_loss
from distill3d.runtime.pictures import contact_sheet, normal_picture, panel, to_uint8
from distill3d.runtime.rng import rng
from distill3d.systems.base import ScoreDistillationSystem, SystemSettings
from distill3d.systems.health import SceneHealth, rim_opacity
from distill3d.systems.losses import LossSettings, regularisers
from distill3d.systems.video import write_video
from distill3d.types import Cameras, RenderOutput, ShadingMode


@register("system", "dreamfusion-system")
class TextTo3D(ScoreDistillationSystem):
    """A NeRF from a prompt, by any guidance under any prior."""

    has_original = False

    @dataclass
    class Config(SystemSettings):
        geometry_type: str = "implicit-volume"
        geometry: dict[str, Any] = field(default_factory=dict)
        material_type: str = "diffuse-with-point-light-material"
        material: dict[str, Any] = field(default_factory=dict)
        background_type: str = "neural-environment-map-background"
        background: dict[str, Any] = field(default_factory=dict)
        renderer_type: str = "nerf-volume-renderer"
        renderer: dict[str, Any] = field(default_factory=dict)
        exporter_type: str = "mesh-exporter"
        exporter: dict[str, Any] = field(default_factory=dict)
        loss: LossSettings = field(default_factory=LossSettings)
        shading_per_view: bool = False  # each view of a batch draws its own shading mode, not the batch one
        eval_shading: ShadingMode = "albedo"  # of validation pictures and the turntable
        turntable_fps: int = 30
        contact_views: int = 8  # columns of the contact sheet

        def __post_init__(self) -> None:
            super().__post_init__()
            for name in ("turntable_fps", "contact_views"):
                if getattr(self, name) < 1:
                    raise ValueError(f"{name}={getattr(self, name)} must be at least 1")

    def configure(self) -> None:
        geometry, material, background = (self.make(kind) for kind in ("geometry", "material", "background"))
        # the renderer owns the three: a module in two places would stand twice in every checkpoint
        self.renderer = self.make("renderer", geometry, material, background)
        self.health = SceneHealth()
        self._frames: list[Tensor] = []

    def trained_parts(self) -> dict[str, nn.Module]:
        scene = {name: getattr(self.renderer, name) for name in ("geometry", "material", "background")}
        return scene | dict(self.named_children())

    # -- one step ------------------------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: RandomCameraBatch, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        with self.record.watch("render"), self.full_precision():
            self.renderer.update_step(self.global_step, self.seed)

    def training_step(self, batch: RandomCameraBatch, batch_idx: int) -> Tensor:
        weights = self.cfg.loss.weights(self.global_step, self.current_epoch)
        with self.record.watch("render"), self.full_precision():
            outputs = self.render_views(batch, need_normal="orient" in weights)
        with self.record.watch("prior"), self.full_precision():
            x = self.prior.encode(torch.cat([output.rgb for output in outputs]))
            guided = self.distil(x, batch.cameras, [output.shading for output in outputs for _ in output.rgb])
        terms = self.regularise(outputs, [name for name in weights if name != "sds"])
        return self.weighted({"sds": distillation_loss(x, guided.grad), **terms}, weights, guided)

    def render_views(self, batch: RandomCameraBatch, need_normal: bool) -> list[RenderOutput]:
        """The batch in one render, or view by view where each has a shading mode of its own."""
        step, first_rank = self.global_step, draw_rank(self.trainer)
        count = len(batch.cameras)
        rows = [slice(i, i + 1) for i in range(count)] if self.cfg.shading_per_view else [slice(0, count)]
        outputs = []
        for i, row in enumerate(rows):
            rank = first_rank + i * _RANKS_PER_VIEW
            mode = self.renderer.material.pick_mode(step, rng("shading", self.seed, step, rank))
            self.views_per_shading[mode] += len(batch.cameras[row])
            cameras, light = batch.cameras[row], batch.light[row]
            outputs.append(self.renderer(cameras, light, mode, step, self.seed, rank, need_normal=need_normal))
        self._observe(torch.cat([output.opacity for output in outputs]))
        return outputs

    def regularise(self, outputs: list[RenderOutput], names: list[str]) -> dict[str, Tensor]:
        """The named regularisers, averaged over renders of the same number of views."""
        per_render = [regularisers(output, names, self.cfg.loss.orient_reduction) for output in outputs]
        return {name: torch.stack([terms[name] for terms in per_render]).mean() for name in names}

    def _observe(self, opacity: Tensor) -> None:
        mean = opacity.detach().mean()
        self.log_numbers({"opacity_mean": mean})
        text = self.health.observe(float(mean), self.global_step)
        self.record.metrics.opacity_mean = self.health.opacity_mean
        if text:
            self.warn_user(text)

    # -- pictures ------------------------------------------------------------------------------------------------

    def validation_step(self, batch: RandomCameraBatch, batch_idx: int) -> None:
        with self.full_precision():
            output = self.renderer.render(batch.cameras, batch.light, self.cfg.eval_shading)
        self._look_at_rim(output, batch.cameras)
        for i in range(len(batch.cameras)):
            self.save_png(panel(output, i), f"it{self.steps_done}-{batch.index + i}.png")

    def on_test_epoch_start(self) -> None:
        self._frames = []

    def test_step(self, batch: RandomCameraBatch, batch_idx: int) -> None:
        with self.full_precision():
            output = self.renderer.render(batch.cameras, batch.light, self.cfg.eval_shading, need_normal=False)
        self._frames.append(to_uint8(output.rgb).cpu())

    def on_test_epoch_end(self) -> None:
        """Write the turntable and the contact sheet."""
        frames, self._frames = torch.cat(self._frames), []
        folder = self.save_dir
        if folder is not None:
            path = folder / f"it{self.steps_done}-test.mp4"
            write_video(path, frames, self.cfg.turntable_fps)
            self.record.add_files(path)
        self.save_png(self.contact_sheet(), f"it{self.steps_done}-views.png")
        self.write_metrics()

    def contact_sheet(self) -> Tensor:
        """Views around the object: colour over textureless over normal."""
        views = self.trainer.datamodule.evaluation_batch(self.cfg.contact_views).to(self.device)  # type: ignore[attr-defined]
        color = self.renderer.render(views.cameras, views.light, self.cfg.eval_shading)
        self._look_at_rim(color, views.cameras)
        shape = self.renderer.render(views.cameras, views.light, "textureless", need_normal=False)
        return contact_sheet([color.rgb, shape.rgb, normal_picture(color)])

    def _look_at_rim(self, output: RenderOutput, cameras: Cameras) -> None:
        """Warn of a scene that fills its bounds, which corners left empty hide from the mean opacity."""
        text = self.health.observe_rim(rim_opacity(output.opacity, cameras, self.renderer.radius), self.steps_done)
        self.record.metrics.rim_opacity = self.health.rim_opacity
        if text:
            self.warn_user(text)

    # -- export --------------------------------------------------------------------------------------------------

    def export(self, strict: bool = True) -> list[Path]:
        """Export the scene into the trial and return the files.

        Raises EmptySurfaceError; with ``strict=False`` (after training) that is a warning, and stands in metrics.json.
        """
        from distill3d.export.surface.isosurface import EmptySurfaceError

        folder = self.save_dir
        if folder is None:
            raise RuntimeError("attach the system to a trial before exporting")
        metadata = {"prompt": self.record.metrics.prompt, "seed": str(self.seed), "version": __version__}
        files: list[Path] = []
        try:
            result = self.make("exporter").export(self.renderer, folder / f"it{self.steps_done}-export", metadata)
            files = list(result.files)
            self.record.add_export(files, result.figures)
        except EmptySurfaceError as error:
            if strict:
                raise
            self.warn_user(f"nothing was exported: {error}")
        self.write_metrics()
        return files


_RANKS_PER_VIEW = 1 << 20  # more than there are devices and accumulated batches: streams of views never meet
