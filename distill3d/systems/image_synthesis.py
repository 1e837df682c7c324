"""Image synthesis by score distillation: what a guidance does, without the third dimension."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.config.registry import register
from distill3d.data.image import ImageDataModule
from distill3d.systems.image_base import ImageSettings, ImageSystem


@register("system", "image-synthesis-system")
class ImageSynthesis(ImageSystem):
    """Pictures from a prompt, from 50 % grey, in any size (as in LMC-SDS, arXiv 2401.05293)."""

    Config = ImageSettings
    has_original = False

    def first_picture(self, data: ImageDataModule) -> Float[Tensor, "3 H W"]:
        """Grey, in the size that is asked for, else in the prior's."""
        side = self.prior.image_sizes[-1]
        return torch.full((3, *data.size(side, side)), 0.5)
