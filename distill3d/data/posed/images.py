"""Images with known cameras: what a scene is reconstructed from, and what an edit of it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill3d.types import Cameras


@dataclass(frozen=True)
class PosedImageBatch:
    """Some views of a data set. ``index`` holds their rows in the `PosedImages` that they are from.

    ``background`` is the colour behind each image, known where there is an alpha: the images are composited over it.
    """

    cameras: Cameras
    images: Float[Tensor, "B 3 H W"]  # in [0, 1]
    alpha: Float[Tensor, "B 1 H W"] | None
    index: Int[Tensor, "B"]
    background: Float[Tensor, "B 3"] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str, **_: object) -> PosedImageBatch:
        moved = {k: v.to(device) for k, v in vars(self).items() if v is not None}
        return replace(self, **moved)

    def over(self, background: Float[Tensor, "B 3"]) -> PosedImageBatch:
        """The same views over other colours; views without an alpha stay as they are."""
        if self.alpha is None or self.background is None:
            return self
        images = recomposited(self.images, self.alpha, background - self.background)
        return replace(self, images=images, background=background)


@dataclass(frozen=True)
class PosedImages:
    """Views of one scene: N cameras of one image size, in the world of `distill3d.types`, with their images."""

    cameras: Cameras
    images: Float[Tensor, "N 3 H W"]  # in [0, 1], over ``background`` where there is an alpha
    alpha: Float[Tensor, "N 1 H W"] | None
    names: tuple[str, ...]
    source_root: Path
    background: Float[Tensor, "3"] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Sequence[int] | Int[Tensor, "B"]) -> PosedImageBatch:
        """The views of these rows, in this order."""
        rows = torch.as_tensor(indices, dtype=torch.long)
        alpha = None if self.alpha is None else self.alpha[rows]
        background = None if self.background is None else self.background.expand(len(rows), 3)
        return PosedImageBatch(self.cameras[rows], self.images[rows], alpha, rows, background)


def recomposited(
    images: Float[Tensor, "B 3 H W"], alpha: Float[Tensor, "B 1 H W"], change: Float[Tensor, "B 3"]
) -> Float[Tensor, "B 3 H W"]:
    """``C + (1 - alpha) (b' - b)``: images over b as they are over b', exactly, for ``change = b' - b``."""
    return images + (1.0 - alpha) * change[:, :, None, None]
