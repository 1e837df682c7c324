"""Random cameras beside one picture, which is seen from a camera that is known: what image to 3D trains on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.camera import make_cameras
from distill3d.config.registry import register
from distill3d.data.random_cameras import (
    IntOrList,
    RandomCameraBatch,
    RandomCameraConfig,
    RandomCameraDataModule,
    at_milestone,
    evaluation_cameras,
)
from distill3d.runtime.cutout import Removal, cut_out, framed
from distill3d.runtime.foreign import user_path
from distill3d.types import Cameras


@dataclass(frozen=True)
class ReferenceView:
    """The picture of the object, cut out, and the camera that took it; one row."""

    cameras: Cameras
    rgb: Float[Tensor, "1 3 H W"]  # premultiplied, in [0, 1]
    alpha: Float[Tensor, "1 1 H W"]

    def over(self, background: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "1 3 H W"]:
        """The picture before a background."""
        return self.rgb + (1.0 - self.alpha) * background

    def to(self, device: torch.device | str) -> ReferenceView:
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True)
class ReferenceImageBatch(RandomCameraBatch):
    """Random views, and the picture."""

    reference: ReferenceView = field(kw_only=True)

    def to(self, device: torch.device | str, **_: object) -> ReferenceImageBatch:
        moved = {name: getattr(self, name).to(device) for name in ("cameras", "light", "reference")}
        return replace(self, **moved)


@dataclass
class ReferenceImageConfig(RandomCameraConfig):
    """Settings of reference-image-datamodule: those of random cameras, and of the picture.

    image: one object; its background is removed as ``background_removal`` says, see `cut_out`. The object is centred
    and its longer side made ``fill`` of the picture's; null leaves it where it is. Where its camera stands: elevation
    and azimuth in degrees (0: the front), distance in world units, opening angle in degrees; null is what pictures of
    the evaluation have. ``reference_size``: pixels along a side, which may change at ``resolution_milestones``.
    """

    image: str = ""
    background_removal: Removal = "auto"
    fill: float | None = None
    reference_size: IntOrList = 64
    reference_elevation_deg: float | None = None
    reference_azimuth_deg: float = 0.0
    reference_distance: float | None = None
    reference_fovy_deg: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.image:
            raise ValueError("image is not set; give a picture of one object: data.image=photo.png")
        if self.fill is not None and not 0.0 < self.fill <= 1.0:
            raise ValueError(f"fill={self.fill} must lie in 0 .. 1, or be null")
        sizes = self.reference_size if isinstance(self.reference_size, list) else [self.reference_size]
        if min(sizes) < 1 or (len(sizes) > 1 and len(sizes) != len(self.resolution_milestones) + 1):
            raise ValueError(
                f"reference_size={self.reference_size} must be a positive number, or one for each of the "
                f"{len(self.resolution_milestones) + 1} stages of resolution_milestones"
            )


@register("data", "reference-image-datamodule")
class ReferenceImageDataModule(RandomCameraDataModule):
    """Random cameras, and in each batch the input image with its camera."""

    Config = ReferenceImageConfig
    cfg: ReferenceImageConfig

    @cached_property
    def picture(self) -> Float[Tensor, "4 S S"]:
        """The file, cut out. Raises ValueError."""
        return cut_out(user_path(self.cfg.image), self.cfg.background_removal)

    def check(self) -> None:
        """Read the file, so that a mistake is told before the run begins. Raises ValueError."""
        self.picture  # noqa: B018

    def reference(self, step: int) -> ReferenceView:
        """The picture in the size that it has at a step."""
        size = at_milestone(self.cfg.reference_size, self.cfg.resolution_milestones, step)
        rgb, alpha = framed(self.picture, size, self.cfg.fill)
        return ReferenceView(self.reference_camera(size), rgb[None], alpha[None])

    def reference_camera(self, size: int) -> Cameras:
        """Of the picture: one row, looking at the origin."""
        cfg, usual = self.cfg, evaluation_cameras(self.cfg, self.views, 1)
        elevation = cfg.eval_elevation_deg if cfg.reference_elevation_deg is None else cfg.reference_elevation_deg
        distance = float(usual.distance) if cfg.reference_distance is None else cfg.reference_distance
        fovy = float(torch.rad2deg(usual.fovy_rad)) if cfg.reference_fovy_deg is None else cfg.reference_fovy_deg
        row = lambda value: torch.tensor([float(value)])  # noqa: E731
        return make_cameras(row(elevation), row(cfg.reference_azimuth_deg), row(distance), row(fovy), size, size)

    def on_before_batch_transfer(self, batch: RandomCameraBatch | None, dataloader_idx: int) -> RandomCameraBatch:
        drawn = super().on_before_batch_transfer(batch, dataloader_idx)
        if batch is not None or self.trainer is None:
            return drawn
        return ReferenceImageBatch(**vars(drawn), reference=self.reference(self.trainer.global_step))
