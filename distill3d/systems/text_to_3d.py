"""Text to 3D: a scene that is seen from all sides, under a frozen diffusion model (DreamFusion, arXiv 2209.14988)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from distill3d import __version__
from distill3d.config.ranges import check_least
from distill3d.config.registry import register
from distill3d.config.schedule import Scheduled
from distill3d.data.random_cameras import RandomCameraBatch
from distill3d.runtime.pictures import contact_sheet, large_panel, normal_picture, panel
from distill3d.runtime.protocols import SeenAround, check_kind
from distill3d.runtime.video import write_video
from distill3d.scenes.base import NoSurfaceError, Views
from distill3d.scenes.nerf.losses import OrientReduction
from distill3d.scenes.nerf.scene import NeRFParts
from distill3d.systems.base import LossWeights
from distill3d.systems.distillation import DistillationSettings, DistillationSystem
from distill3d.systems.health import SceneHealth, rim_opacity
from distill3d.systems.starting_weights import start_from
from distill3d.types import Cameras, RenderOutput, ShadingMode


@dataclass
class LossSettings(LossWeights):
    """The weight of each term: a number or a schedule.

    ``lambda_sds`` multiplies the distillation loss of any guidance. ``lambda_orient`` is on the paper's scale (a sum
    over the samples of a view, 1e-4 to 1e-2) with ``orient_reduction: sum``, and on threestudio's (divided by the
    number of rays that hit something, 10 to 1000) with ``ray_mean``.
    """

    lambda_sds: Scheduled = 1.0
    lambda_orient: Scheduled = 0.0
    lambda_sparsity: Scheduled = 0.0
    lambda_opaque: Scheduled = 0.0
    lambda_z_variance: Scheduled = 0.0
    lambda_normal_smooth: Scheduled = 0.0
    lambda_3d_normal_smooth: Scheduled = 0.0
    orient_reduction: OrientReduction = "sum"


@register("system", "dreamfusion-system")
class TextTo3D(DistillationSystem):
    """Text to 3D: a NeRF, Gaussian splats or a painted mesh, by any guidance under any prior."""

    has_original = False

    @dataclass
    class Config(NeRFParts, DistillationSettings):
        scene_type: str | None = "nerf"
        weights: str | None = None  # another trial's checkpoint: this training begins with its scene, at step 0
        weights_ignore_modules: list[str] = field(default_factory=list)  # that stay new: background, geometry.encoding
        exporter_type: str = "mesh-exporter"
        exporter: dict[str, Any] = field(default_factory=dict)
        loss: LossSettings = field(default_factory=LossSettings)
        eval_shading: ShadingMode = "albedo"  # of validation pictures and the turntable
        turntable_fps: int = 30
        turntable_size: int = 512  # of its pictures; smaller renders are enlarged, larger ones stay
        contact_views: int = 8  # columns of the contact sheet

        def __post_init__(self) -> None:
            super().__post_init__()
            check_least(self, turntable_fps=1, turntable_size=1, contact_views=1)

    def configure(self) -> None:
        super().configure()
        self.health = SceneHealth(remedies=self.scene.remedies)
        self._frames: list[Tensor] = []

    def check(self) -> None:
        super().check()
        self._take_weights()  # to find what is wrong with them: `prepare` and `begin` may write over them

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            self._take_weights()

    def _take_weights(self) -> None:
        if self.cfg.weights and not self.loaded_step:  # what resumes has its own
            start_from(self.scene, self.cfg.scene_type, self.cfg.weights, self.cfg.weights_ignore_modules)

    def check_data(self, data: Any, training: bool) -> None:
        check_kind(data, SeenAround, "cameras around an object, such as random-camera-datamodule")
        super().check_data(data, training)

    def scene_settings(self) -> dict[str, Any]:
        settings = super().scene_settings()
        if self.cfg.scene_type == "nerf":
            settings["orient_reduction"] = self.cfg.loss.orient_reduction
        return settings

    @property
    def renderer(self) -> Any:
        """Of a NeRF."""
        return self.scene.renderer

    def trained_parts(self) -> dict[str, Any]:
        """The scene's first: the order in which checkpoints keep the optimiser's memory."""
        return self.scene.parameter_groups() | super().trained_parts()

    def observe(self, views: Views) -> None:
        super().observe(views)
        if views.opacity is None:
            return
        mean = views.opacity.detach().mean()
        self.log_numbers({"opacity_mean": mean})
        self._opacities.append(mean)

    def on_opacities(self, opacities: list[float]) -> None:
        for opacity in opacities:
            text = self.health.observe(opacity, self.global_step)
            if text:
                self.warn_user(text)
        self.record.metrics.opacity_mean = self.health.opacity_mean

    # -- pictures ------------------------------------------------------------------------------------------------

    def validation_step(self, batch: RandomCameraBatch, batch_idx: int) -> None:
        with self.full_precision():
            output = self.scene.preview(batch.cameras, batch.light, self.cfg.eval_shading)
        self._look_at_rim(output, batch.cameras)
        for i in range(len(batch.cameras)):
            self.save_png(panel(output, i), f"it{self.steps_done}-{batch.index + i}.png")

    def on_test_epoch_start(self) -> None:
        self._frames = []

    def test_step(self, batch: RandomCameraBatch, batch_idx: int) -> None:
        with self.full_precision():
            output = self.scene.preview(batch.cameras, batch.light, self.cfg.eval_shading)
        self._frames += [panel(output, i).cpu() for i in range(len(batch.cameras))]

    def on_test_epoch_end(self) -> None:
        """Write the turntable and the contact sheet."""
        frames, self._frames = self._frames, []
        folder = self.save_dir
        if folder is not None:
            path = folder / f"it{self.steps_done}-test.mp4"
            write_video(path, (large_panel(frame, self.cfg.turntable_size) for frame in frames), self.cfg.turntable_fps)
            self.record.add_files(path)
        self.save_png(self.contact_sheet(), f"it{self.steps_done}-views.png")
        self.write_metrics()

    def contact_sheet(self) -> Tensor:
        """Views around the object: colour over textureless over normal."""
        views = cast(Any, self.trainer).datamodule.evaluation_batch(self.cfg.contact_views).to(self.device)
        color = self.scene.preview(views.cameras, views.light, self.cfg.eval_shading)
        self._look_at_rim(color, views.cameras)
        shape = self.scene.preview(views.cameras, views.light, "textureless", need_normal=False)
        return contact_sheet([color.rgb, shape.rgb, normal_picture(color)])

    def _look_at_rim(self, output: RenderOutput, cameras: Cameras) -> None:
        """Warn of a scene that fills its bounds, which corners left empty hide from the mean opacity."""
        if self.scene.radius is None:
            return
        text = self.health.observe_rim(rim_opacity(output.opacity, cameras, self.scene.radius), self.steps_done)
        self.record.metrics.rim_opacity = self.health.rim_opacity
        if text:
            self.warn_user(text)

    # -- export --------------------------------------------------------------------------------------------------

    def export(self, strict: bool = True) -> list[Path]:
        """Export the scene into the trial, as a mesh and in formats of its own, and return the files.

        Raises EmptySurfaceError, and NoSurfaceError where nothing else was written; with ``strict=False`` (after
        training) that is a warning, and stands in metrics.json.
        """
        from distill3d.export.surface.isosurface import EmptySurfaceError

        folder = self.save_dir
        if folder is None:
            raise RuntimeError("attach the system to a trial before exporting")
        metadata = {"prompt": self.record.metrics.prompt, "seed": str(self.seed), "version": __version__}
        target = folder / f"it{self.steps_done}-export"
        files = self.scene.export(target)
        self.record.add_files(*files)
        try:
            # an exporter of custom/ that knows no scene with files of its own need not take the argument
            own = {"keep": {path.name for path in files}} if files else {}
            result = self.make("exporter").export(self.scene.surface(), target, metadata, **own)
            files += result.files
            self.record.add_export(result.files, result.figures)
        except NoSurfaceError:
            if strict and not files:
                raise
        except EmptySurfaceError as error:
            if strict:
                raise
            self.warn_user(f"nothing was exported: {error}")
        self.write_metrics()
        return files
