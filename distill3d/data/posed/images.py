"""Images with known cameras: what a scene is reconstructed from, and what an edit of it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from distill3d.types import Cameras


@dataclass(frozen=True)
class PosedImageBatch:
    """Some views of a data set. ``index`` holds their rows in the `PosedImages` that they are from.

    ``background`` is the colour behind each image, known where there is an alpha: the images are composited over it.
    ``counted`` is 1 where a pixel is to be fitted and 0 where a mask covers it; None where all count.
    """

    cameras: Cameras
    images: Float[Tensor, "B 3 H W"]  # in [0, 1]
    alpha: Float[Tensor, "B 1 H W"] | None
    index: Int[Tensor, "B"]
    background: Float[Tensor, "B 3"] | None = None
    counted: Float[Tensor, "B 1 H W"] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def light(self) -> None:
        """None: images bring their own."""

    def to(self, device: torch.device | str, **_: object) -> PosedImageBatch:
        moved = {k: v.to(device) for k, v in vars(self).items() if v is not None}
        return replace(self, **moved)

    def over(self, background: Float[Tensor, "B 3"]) -> PosedImageBatch:
        """The same views over other colours; views without an alpha stay as they are."""
        if self.alpha is None or self.background is None:
            return self
        images = recomposited(self.images, self.alpha, background - self.background)
        return replace(self, images=images, background=background)

    def filled_in(
        self, images: Float[Tensor, "B 3 H W"], renders: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B 3 H W"]:
        """``images`` of these views, with ``renders`` where pixels do not count."""
        return images if self.counted is None else torch.where(self.counted > 0, images, renders)

    def shown_in(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """``images``, with the data set's own pixels where these do not count, so that no measure sees them differ."""
        return self.filled_in(images, self.images)


@dataclass(frozen=True)
class StoredView:
    """One image as it is kept: 8-bit with straight colours as the file has them, or float32 with premultiplied ones."""

    pixels: Shaped[Tensor, "C H W"]  # C is 3, or 4 with an alpha
    counted: Float[Tensor, "1 H W"] | None = None

    def premultiplied(self) -> Float[Tensor, "C H W"]:
        """Colours times alpha, so that edges do not bleed; in [0, 1]."""
        if self.pixels.dtype != torch.uint8:
            return self.pixels
        straight = self.pixels.float() / 255.0
        return straight if len(straight) == 3 else torch.cat([straight[:3] * straight[3:], straight[3:]])


@dataclass(frozen=True)
class PosedImages:
    """Views of one scene: N cameras of one image size, in the world of `distill3d.types`, with their images.

    Images are kept as small as their files allow and become floats for the rows that are asked for: 300 views of
    800x800 are .8 GB so, and 3 GB as floats. ``background`` is known where there is an alpha.
    """

    cameras: Cameras
    stored: tuple[StoredView, ...]
    names: tuple[str, ...]
    background: Float[Tensor, "3"] | None = None

    @staticmethod
    def of(cameras: Cameras, images: Float[Tensor, "N 3 H W"], names: Sequence[str]) -> PosedImages:
        """Opaque images that are in memory."""
        return PosedImages(cameras, tuple(StoredView(image) for image in images), tuple(names))

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def images(self) -> Float[Tensor, "N 3 H W"]:
        """All of them, in [0, 1], over ``background`` where there is an alpha."""
        return self.batch(range(len(self))).images

    @property
    def alpha(self) -> Float[Tensor, "N 1 H W"] | None:
        """All opacities; None where nothing is transparent."""
        return self.batch(range(len(self))).alpha

    def batch(self, indices: Sequence[int] | Int[Tensor, "B"]) -> PosedImageBatch:
        """The views of these rows, in this order."""
        rows = torch.as_tensor(indices, dtype=torch.long)
        views = [self.stored[row] for row in rows.tolist()]
        pixels = [view.premultiplied() for view in views]
        images, alpha, background = torch.stack([p[:3] for p in pixels]), None, None
        if self.background is not None:
            alpha = torch.stack([p[3:] if len(p) == 4 else torch.ones_like(p[:1]) for p in pixels])
            images = images + (1.0 - alpha) * self.background[:, None, None]
            background = self.background.expand(len(rows), 3)
        return PosedImageBatch(
            self.cameras[rows], images.clamp(0.0, 1.0), alpha, rows, background, self._counted(views, images)
        )

    def _counted(self, views: Sequence[StoredView], like: Tensor) -> Float[Tensor, "B 1 H W"] | None:
        if all(view.counted is None for view in self.stored):
            return None
        whole = torch.ones_like(like[0, :1])
        return torch.stack([whole if view.counted is None else view.counted for view in views])


def counted_mean(error: Float[Tensor, "B C H W"], counted: Float[Tensor, "B 1 H W"] | None) -> Float[Tensor, ""]:
    """The mean over the pixels that count, 0 where none does; over all for None."""
    if counted is None:
        return error.mean()
    return (error * counted).sum() / (counted.sum() * error.shape[1]).clamp_min(1.0)


def recomposited(
    images: Float[Tensor, "B 3 H W"], alpha: Float[Tensor, "B 1 H W"], change: Float[Tensor, "B 3"]
) -> Float[Tensor, "B 3 H W"]:
    """``C + (1 - alpha) (b' - b)``: images over b as they are over b', exactly, for ``change = b' - b``."""
    return images + (1.0 - alpha) * change[:, :, None, None]
