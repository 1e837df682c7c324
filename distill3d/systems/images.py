"""Pictures by score distillation: made from a prompt, or changed to show another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from distill3d.config.check import ConfigError
from distill3d.config.ranges import check_least
from distill3d.config.registry import register
from distill3d.data.image import ImageDataModule
from distill3d.priors.base import DiffusionPrior
from distill3d.runtime.pictures import tiled, to_uint8
from distill3d.runtime.protocols import check_kind
from distill3d.systems.pictures import PictureSettings, PictureSystem

COLUMNS = 4  # of a sheet of pictures


@dataclass
class ImageSettings(PictureSettings):
    """``count`` pictures are made side by side, each from noise of its own. ``parameters``: what is optimised."""

    scene_type: str | None = "image"
    count: int = 1
    parameters: Literal["pixels", "latents"] = "pixels"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, count=1)


class ImageSystem(PictureSystem):
    """Optimises images. A subclass defines their initial values, and whether these are the source of an edit."""

    keeps_original = False

    def check_data(self, data: Any, training: bool) -> None:
        """Of any size: the prior is shown windows of its own."""
        image_data(data)

    def first_picture(self, data: ImageDataModule) -> Float[Tensor, "3 H W"]:
        """What the pictures start from, in [0, 1]."""
        raise NotImplementedError

    def begin(self) -> None:
        data = image_data(cast(Any, self.trainer).datamodule)
        picture = self.first_picture(data).to(self.prior.device)
        with torch.no_grad():
            start = (encode_tiles(self.prior, picture) if self.in_latents else picture)[None]
        self.scene.begin(start.expand(self.cfg.count, -1, -1, -1), self.window_side(), data.cfg.batch_size)
        if self.keeps_original:
            self.keep_original()
            self.hold_transparent(data)

    def hold_transparent(self, data: ImageDataModule) -> None:
        """Let an edit change a picture with an alpha only where that shows it."""
        mask = data.may_change()
        if mask is None:
            return
        values = self.scene.values
        pixels = data.resized(mask.float()).to(values.device)
        # a latent may change where one of its pixels may
        self.scene.hold(F.adaptive_max_pool2d(pixels, tuple(values.shape[-2:])) >= 0.5)

    @property
    def in_latents(self) -> bool:
        return self.cfg.parameters == "latents"

    def window_side(self) -> int:
        """The largest side that the prior sees at once, in pixels or latents."""
        size = self.prior.spec.image_sizes[-1]
        return self.prior.spec.x_shape(size)[-1] if self.in_latents else size

    # -- pictures ------------------------------------------------------------------------------------------------

    def pictures(self) -> Float[Tensor, "N 3 H W"]:
        """The present pictures in [0, 1]."""
        return self._decode(self.scene.values.detach())

    def frame(self) -> UInt8[Tensor, "3 H W"]:
        images = self.pictures()
        if self.original is not None:
            images = torch.cat([self._decode(self.original.values), images])
        return tiled(images, COLUMNS)

    def results(self) -> dict[str, UInt8[Tensor, "3 H W"]]:
        return {str(i): image for i, image in enumerate(to_uint8(self.pictures()))}

    def _decode(self, values: Tensor) -> Float[Tensor, "N 3 H W"]:
        return self.prior_to_decode().decode(values) if self.in_latents else values.clamp(0.0, 1.0)


@register("system", "image-synthesis-system")
class ImageSynthesis(ImageSystem):
    """Text to image: images of any size, optimised from 50 % grey (as in LMC-SDS, arXiv 2401.05293)."""

    Config = ImageSettings
    has_original = False

    def first_picture(self, data: ImageDataModule) -> Float[Tensor, "3 H W"]:
        """Grey, in the size that is asked for, else in the prior's."""
        side = self.prior.spec.image_sizes[-1]
        return torch.full((3, *data.size(side, side)), 0.5)


@register("system", "image-edit-system")
class ImageEdit(ImageSystem):
    """Image editing: an image is optimised to match the prompt, by sds, lmc-sds, dds or pds.

    It starts from ``data.image``, or from a sample of ``source_prompt``. ``loss.lambda_source`` holds it there. Where a
    picture has an alpha, that is the mask: what is transparent stays as it is, white.
    """

    Config = ImageSettings
    keeps_original = True

    def first_picture(self, data: ImageDataModule) -> Float[Tensor, "3 H W"]:
        picture = data.picture()
        if picture is None:
            if self.prompt_processor.prompt.source is None:
                raise ConfigError(
                    "data.image is not set: give the picture to edit, or system.prompt_processor.source_prompt, of "
                    "which a sample is edited then",
                    "data.image",
                )
            picture = self.sample_picture("source")
        picture = data.resized(picture)
        self.save_png(to_uint8(picture[None])[0], "source.png")
        return picture


def image_data(data: Any) -> ImageDataModule:
    """The data module. Raises ConfigError if it is of another kind."""
    return check_kind(data, ImageDataModule, "image-datamodule, with data.image, data.width, data.height")


def encode_tiles(prior: DiffusionPrior, picture: Float[Tensor, "3 H W"]) -> Float[Tensor, "C h w"]:
    """Latents of a picture of any size, tile by tile in the prior's own size.

    Raises ValueError for a picture that is smaller than a tile, or no multiple of a latent's size.
    """
    size, (height, width) = prior.spec.image_sizes[-1], picture.shape[-2:]
    channels, factor = prior.spec.channels, prior.spec.factor
    if min(height, width) < size or height % factor or width % factor:
        raise ValueError(
            f"data.width={width} and data.height={height}: latents of this prior need at least {size} pixels, in "
            f"multiples of {factor}; change them, or set system.parameters=pixels"
        )
    latents = torch.zeros(channels, height // factor, width // factor, device=picture.device)
    side = size // factor
    for top in _tile_starts(height, size):
        for left in _tile_starts(width, size):
            part = prior.encode(picture[None, :, top : top + size, left : left + size])[0]
            y, x = top // factor, left // factor
            latents[:, y : y + side, x : x + side] = part
    return latents


def _tile_starts(length: int, tile: int) -> list[int]:
    return [*range(0, length - tile, tile), length - tile]
