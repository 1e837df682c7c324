"""What all edits of a trained scene share: the scene as it was, its views, and pictures that an editor redraws."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.config.check import ConfigError
from distill3d.config.schedule import Scheduled
from distill3d.data.posed.images import PosedImageBatch, PosedImages
from distill3d.data.posed.module import EditViewsDataModule
from distill3d.data.random_cameras import RandomCameraBatch
from distill3d.evaluation.metrics import psnr_db, ssim
from distill3d.guidance.base import request_text
from distill3d.optim import OptimizerSettings
from distill3d.runtime.files import finite_or_none
from distill3d.runtime.pictures import contact_sheet, panel
from distill3d.runtime.protocols import check_kind
from distill3d.runtime.rng import rng
from distill3d.scenes.base import Step, Views
from distill3d.systems.editing.consistency import view_inconsistency
from distill3d.systems.editing.editor import Editor, EditorSettings, EditRequest, make_editor
from distill3d.systems.editing.held_field import BoxCorners, check_box, check_box_within
from distill3d.systems.editing.refinement import ChangingViews
from distill3d.systems.editing.source_scene import PARTS, hold, read_other_scene, read_scene
from distill3d.systems.prior_samples import x_limit
from distill3d.systems.text_to_3d import LossSettings, TextTo3D
from distill3d.types import Cameras, TextRequest


@dataclass
class EditLosses(LossSettings):
    """``lambda_source`` weighs ``0.5 ||x - x_source||^2`` in the prior's space: its gradient is on the scale of g.

    ``lambda_photometric`` weighs the mean squared difference to edited pictures.
    """

    lambda_source: Scheduled = 0.0
    lambda_photometric: Scheduled = 1.0


def _gentle() -> OptimizerSettings:
    # with eps 1e-15 what rounding leaves of a gradient that should be 0 moves a parameter by the learning rate
    return OptimizerSettings(args={"lr": 0.005, "betas": [0.9, 0.99], "eps": 1e-8})


@dataclass
class NeRFEditSettings(TextTo3D.Config):
    """Settings of every edit of a NeRF.

    source_checkpoint: the scene to edit, a last.ckpt of nerf-reconstruction, text to 3D or another edit. The types and
        settings of its geometry, material, background and renderer are those of its trial where they are null here.
    keep_geometry: only colour changes. edit_box: the lower and the upper corner, in world units, of what may change.
    """

    source_checkpoint: str = ""
    keep_geometry: bool = False
    edit_box: BoxCorners | None = None
    geometry_type: str | None = None  # type: ignore[assignment]
    material_type: str | None = None  # type: ignore[assignment]
    background_type: str | None = None  # type: ignore[assignment]
    renderer_type: str | None = None  # type: ignore[assignment]
    optimizer: OptimizerSettings = field(default_factory=_gentle)
    loss: EditLosses = field(default_factory=EditLosses)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.edit_box is not None:
            check_box(self.edit_box)


class NeRFEditSystem(TextTo3D):
    """Starts from a trained scene, and keeps a copy of it as it was.

    The copy is in no checkpoint: an edit that is resumed, or tested, reads it again from ``source_checkpoint``.
    """

    Config = NeRFEditSettings
    has_original = True
    cfg: NeRFEditSettings

    def configure(self) -> None:
        if self.cfg.scene_type == "nerf":
            self._configure_nerf()
        else:
            self._configure_other()
        self.changing = ChangingViews()
        try:
            self.text_requests()
        except ValueError as error:
            raise ConfigError(str(error), "system.prompt_processor.source_prompt") from error

    def _configure_nerf(self) -> None:
        own = {name: getattr(self.cfg, name) for kind in PARTS for name in (kind, f"{kind}_type")}
        read = read_scene(self.cfg.source_checkpoint, own)
        self.cfg = replace(self.cfg, **read.settings)  # what the checkpoint of this edit is identified by
        super().configure()
        self.scene.renderer = read.renderer
        self.scene.follows_schedules = False
        check_box_within(self.cfg.edit_box, self.scene.radius)
        self.keep_original()
        hold(self.renderer, self.cfg.keep_geometry, self.cfg.edit_box)

    def _configure_other(self) -> None:
        for name in ("keep_geometry", "edit_box"):
            if getattr(self.cfg, name):
                raise ConfigError(
                    f"system.{name} holds a part of a NeRF, and system.scene_type={self.cfg.scene_type} is none; leave "
                    "it out, or set rates of 0 in system.optimizer.params",
                    f"system.{name}",
                )
        read = read_other_scene(self.cfg.source_checkpoint, str(self.cfg.scene_type), vars(self.cfg))
        self.cfg = replace(self.cfg, **read.settings)
        super().configure()
        self.scene.state_for(read.state)
        self.scene.load_state_dict(read.state)
        self.keep_original()

    def check_data(self, data: Any, training: bool) -> None:
        edit_views(data)
        super().check_data(data, training)

    def setup(self, stage: str) -> None:
        self.views_of_scene()  # what is wrong with the data is said before the prior is loaded
        self.original.to(self.trainer.strategy.root_device)
        super().setup(stage)

    def views_of_scene(self) -> PosedImages:
        """The training views. Raises ConfigError if the data are of another kind."""
        return self.data().train_views

    def data(self) -> EditViewsDataModule:
        return edit_views(cast(Any, self.trainer).datamodule)

    @property
    def source_is_rendered(self) -> bool:
        """Whether edits are compared with renders of the scene as it was, not with the data set's images."""
        return self.data().cfg.source == "renders"

    # -- one step ------------------------------------------------------------------------------------------------

    def views_of_original(self, batch: PosedImageBatch, step: Step) -> Views | None:
        """The batch's views of the original: as renders, with the rays and the backgrounds that the scene's own have,
        or as the data set's images over these backgrounds."""
        if self.source_is_rendered:
            return self.original.views(batch, replace(step, losses=frozenset()))
        behind = self.scene.backdrop(batch.cameras, step)
        return Views(self._whole(over_backdrop(batch, behind), batch))

    # -- edited pictures -----------------------------------------------------------------------------------------

    def editor_texts(self, settings: EditorSettings) -> dict[str, TextRequest]:
        """The texts that an editor reads. Raises ValueError where there is no source prompt and it needs one."""
        roles = ["conditional", "negative", *(["source"] if settings.name == "ddpm-inversion" else [])]
        return {role: request_text(role, self.prompt_processor.prompt) for role in roles}

    def editor(self, settings: EditorSettings) -> Editor:
        """The editor, loaded once for a training."""
        if "editor" not in self._frozen:
            made = make_editor(settings, self.prior, self.prompt_processor.prompt.text, x_limit(self.prior))
            cast(dict[str, Any], self._frozen)["editor"] = made
        return cast(Editor, self._frozen["editor"])

    def redraw(self, settings: EditorSettings) -> None:
        """Replace the picture of one view, drawn at random, by an edit of its render."""
        views = self.views_of_scene()
        index = torch.randint(len(views), (1,), generator=rng("data", self.seed, self.global_step))
        cameras = views.cameras[index].to(self.device)
        render = self.scene.preview(cameras, need_normal=False).rgb
        request = EditRequest(
            render,
            self.source_pictures(index),
            self.prompt_processor.texts(cameras, 1),
            rng("noise", self.seed, self.global_step),
        )
        with self.record.watch("prior"), self.full_precision():
            self.changing.replace(index.to(self.device), self.editor(settings)(request))

    def source_pictures(self, index: Tensor) -> Float[Tensor, "B 3 H W"]:
        """Views of the source without jitter or augmentation, as an editor sees them."""
        batch = self.views_of_scene().batch(index).to(self.device)
        if self.source_is_rendered:
            return self.original.preview(batch.cameras, need_normal=False).rgb
        return self._whole(over_backdrop(batch, self.original.backdrop(batch.cameras)), batch)

    def _whole(self, images: Float[Tensor, "B 3 H W"], batch: PosedImageBatch) -> Float[Tensor, "B 3 H W"]:
        """The images, with what the original shows where a mask covers them: what hides there is not of the scene."""
        if batch.counted is None:
            return images
        return batch.filled_in(images, self.original.preview(batch.cameras, need_normal=False).rgb)

    # -- pictures and figures ------------------------------------------------------------------------------------

    def validation_step(self, batch: PosedImageBatch | RandomCameraBatch, batch_idx: int) -> None:
        with self.full_precision():
            output = self.scene.preview(batch.cameras)
        first = int(batch.index[0]) if isinstance(batch, PosedImageBatch) else batch.index
        for i in range(len(batch.cameras)):
            self.save_png(panel(output, i), f"it{self.steps_done}-{first + i}.png")

    def on_test_epoch_end(self) -> None:
        """The turntable and the sheets, and the figures into metrics.json."""
        self.record.figures["edit"] = self.figures()
        sheet = self.pictures_sheet(self.cfg.contact_views)
        if sheet is not None:
            self.save_png(sheet, f"it{self.steps_done}-pictures.png")
        super().on_test_epoch_end()

    def contact_sheet(self) -> Tensor:
        """Source over edited, the same cameras around the object."""
        cameras = self._around()
        return contact_sheet([s.preview(cameras, need_normal=False).rgb for s in (self.original, self.scene)])

    def figures(self) -> dict[str, float | None]:
        """What the edit kept, over views around the object, and how well its views agree with each other."""
        cameras = self._around()
        source, edited = (s.preview(cameras, need_normal=False) for s in (self.original, self.scene))
        return {
            "ssim_to_source": finite_or_none(float(ssim(edited.rgb, source.rgb).mean())),
            "psnr_to_source_db": finite_or_none(float(psnr_db(edited.rgb, source.rgb).mean())),
            "inconsistency_of_renders": self.inconsistency(edited.rgb, cameras),
        } | self.figures_of_pictures()

    def figures_of_pictures(self) -> dict[str, float | None]:
        """Of edited pictures, where there are some: how badly one scene explains them.

        ``inconsistency_of_pictures`` warps each into its neighbour by the depth of the edited scene; that of the
        source's pictures, by the depth of the source, is its floor. ``residual`` is the root of the mean squared
        difference between the pictures and the renders of the scene that was fitted to them.
        """
        index = self.changing.edited().cpu()
        if len(index) == 0:
            return {"pictures_edited": 0}
        cameras = self.views_of_scene().cameras[index].to(self.device)
        pictures = self.changing.images(index.to(self.device))
        renders = self.scene.preview(cameras, need_normal=False).rgb
        source = self.original.preview(cameras, need_normal=False)
        floor = view_inconsistency(self.source_pictures(index), cameras, source.depth, source.opacity)
        return {
            "pictures_edited": len(index),
            "inconsistency_of_pictures": self.inconsistency(pictures, cameras),
            "inconsistency_of_source": floor,
            "residual": finite_or_none(float((renders - pictures).square().mean().sqrt())),
        }

    def inconsistency(self, images: Float[Tensor, "V 3 H W"], cameras: Cameras) -> float | None:
        """`view_inconsistency` by the depth of the edited scene."""
        shape = self.scene.preview(cameras, need_normal=False)
        return view_inconsistency(images, cameras, shape.depth, shape.opacity)

    def pictures_sheet(self, columns: int) -> Tensor | None:
        """Pictures of the source over edited ones, of views spread over those that were edited; None without any."""
        edited = self.changing.edited().cpu()
        if len(edited) == 0:
            return None
        index = edited[torch.linspace(0, len(edited) - 1, min(columns, len(edited))).round().long()]
        return contact_sheet([self.source_pictures(index), self.changing.images(index.to(self.device))])

    def _around(self) -> Cameras:
        return self.data().evaluation_batch(self.cfg.contact_views).cameras.to(self.device)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The changing pictures of a checkpoint have the number and size that they have."""
        saved = checkpoint["state_dict"].get("changing.pictures")
        if saved is not None and self.changing.pictures.shape != saved.shape:
            self.changing.begin(saved.float() / 255.0)
        super().on_load_checkpoint(checkpoint)


def edit_views(data: Any) -> EditViewsDataModule:
    """The data module. Raises ConfigError if it is of another kind."""
    needed = (
        "edit-views-datamodule, with data.root, a folder of images with cameras; python launch.py --render-views "
        "makes one of a mesh or a trial"
    )
    return check_kind(data, EditViewsDataModule, needed)


def over_backdrop(batch: PosedImageBatch, behind: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Images with an alpha over another background, ``C + (1 - alpha) (b' - b)``; others as they are."""
    if batch.alpha is None or batch.background is None:
        return batch.images
    return batch.images + (1.0 - batch.alpha) * (behind - batch.background[:, :, None, None])
