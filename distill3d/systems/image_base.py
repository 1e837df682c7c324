"""What image synthesis and image editing share: pictures as parameters, seen through windows of the prior's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from distill3d.config.check import ConfigError
from distill3d.data.image import ImageDataModule
from distill3d.data.random_cameras import draw_rank
from distill3d.runtime.pictures import contact_sheet, to_uint8
from distill3d.runtime.rng import rng
from distill3d.scenes.image import ImageScene, cut_windows, draw_corners, encode_tiles
from distill3d.systems.picture_base import PictureSettings, PictureSystem, Views

COLUMNS = 4  # of a sheet of pictures


@dataclass
class ImageSettings(PictureSettings):
    """``count`` pictures are made side by side, each from noise of its own. ``parameters``: what is optimised."""

    count: int = 1
    parameters: Literal["pixels", "latents"] = "pixels"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 1:
            raise ValueError(f"count={self.count} must be at least 1")


class ImageSystem(PictureSystem):
    """Optimises pictures. A subclass says what they start from, and whether that stays their original."""

    def configure(self) -> None:
        self.scene = ImageScene()
        self.source: Tensor | None = None

    def first_picture(self, data: ImageDataModule) -> Float[Tensor, "3 H W"]:
        """What the pictures start from, in [0, 1]."""
        raise NotImplementedError

    def original(self, start: Float[Tensor, "1 C h w"]) -> Float[Tensor, "1 C h w"] | None:
        """What an edit stays close to, given what it starts from."""
        return None

    def begin(self) -> None:
        picture = self.first_picture(image_data(self.trainer)).to(self.prior.device)
        with torch.no_grad():
            start = (encode_tiles(self.prior, picture) if self.in_latents else picture)[None]
        self.scene.begin(start.expand(self.cfg.count, -1, -1, -1))
        self.source = self.original(start)

    @property
    def in_latents(self) -> bool:
        return self.cfg.parameters == "latents"

    # -- views ---------------------------------------------------------------------------------------------------

    def views(self, batch: Any) -> Views:
        """Windows of each picture, and the same ones of the original."""
        height, width = self.scene.values.shape[-2:]
        window = min(self.window_side(), height, width)
        each = image_data(self.trainer).cfg.batch_size
        generator = rng("camera", self.seed, self.global_step, draw_rank(self.trainer))
        corners = draw_corners((height, width), window, self.cfg.count * each, generator)
        x = self.encode(cut_windows(self.scene.values, corners, window))
        if self.source is None:
            return Views(x, None)
        with torch.no_grad():
            return Views(x, self.encode(cut_windows(self.source, corners, window)))

    def window_side(self) -> int:
        """The largest side that the prior sees at once, in pixels or latents."""
        size = self.prior.image_sizes[-1]
        if not self.in_latents:
            return size
        return self.prior.encode(torch.zeros(1, 3, size, size, device=self.prior.device)).shape[-1]

    def encode(self, values: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Parameters to the prior's space."""
        return values if self.in_latents else self.prior.encode(values)

    # -- pictures ------------------------------------------------------------------------------------------------

    def pictures(self) -> Float[Tensor, "N 3 H W"]:
        """The present pictures in [0, 1]."""
        return self._decode(self.scene.values.detach())

    def frame(self) -> UInt8[Tensor, "3 H W"]:
        images = self.pictures()
        if self.source is not None:
            images = torch.cat([self._decode(self.source), images])
        columns = min(len(images), COLUMNS)
        blank = images.new_ones(-len(images) % columns, *images.shape[1:])
        return contact_sheet(list(torch.cat([images, blank]).split(columns)))

    def results(self) -> dict[str, UInt8[Tensor, "3 H W"]]:
        return {str(i): image for i, image in enumerate(to_uint8(self.pictures()))}

    def _decode(self, values: Tensor) -> Float[Tensor, "N 3 H W"]:
        return self.prior_to_decode().decode(values) if self.in_latents else values.clamp(0.0, 1.0)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The pictures of a checkpoint have the size that they have, before anything else says one."""
        saved = checkpoint["state_dict"].get("scene.values")
        if self.scene.is_empty and saved is not None:
            self.scene.begin(saved)
        super().on_load_checkpoint(checkpoint)


def image_data(trainer: Any) -> ImageDataModule:
    """The trainer's data. Raises ConfigError if it is of another kind."""
    data = cast(Any, trainer).datamodule
    if not isinstance(data, ImageDataModule):
        raise ConfigError("data_type must be image-datamodule here: data.image, data.width, data.height", "data_type")
    return data
