"""Image editing by score distillation."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from distill3d.config.check import ConfigError
from distill3d.config.registry import register
from distill3d.data.image import ImageDataModule
from distill3d.runtime.pictures import to_uint8
from distill3d.systems.image_base import ImageSettings, ImageSystem


@register("system", "image-edit-system")
class ImageEdit(ImageSystem):
    """A picture, changed to show the prompt: by sds, lmc-sds, dds or pds.

    It starts from ``data.image``, or from a sample of ``source_prompt``. ``loss.lambda_source`` holds it there.
    """

    Config = ImageSettings

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

    def original(self, start: Float[Tensor, "1 C h w"]) -> Float[Tensor, "1 C h w"]:
        return start
