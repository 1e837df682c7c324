"""A photograph cut out of its background: by the alpha that it has, or by rembg where that is installed."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill3d.runtime.foreign import open_image

Removal = Literal["auto", "alpha", "rembg", "none"]


def cut_out(path: Path, removal: Removal = "auto", setting: str = "data.image") -> Float[Tensor, "4 H W"]:
    """The object of a picture, square, with premultiplied colours and its alpha, in [0, 1].

    removal: ``alpha`` is that of the file, ``rembg`` a network's (its weights are fetched at its first use), ``auto``
    the file's where any pixel is transparent, else rembg's; ``none`` keeps all of the picture. What is not square is
    padded, transparent. Raises ValueError where the background cannot be told, or nothing is left.
    """
    if not path.is_file():
        raise ValueError(f"{setting}={str(path)!r} is no file; give a picture of one object")
    image = open_image(path, setting).convert("RGBA")
    pixels = _pixels(image)
    opaque = bool((pixels[3] == 1.0).all())
    if removal == "none":
        pixels[3] = 1.0
    elif removal == "rembg" or (removal == "auto" and opaque):
        pixels = _pixels(_rembg(path, setting).remove(image))
    elif opaque:
        raise ValueError(f"{setting}={str(path)!r} has no transparent background; {_REMEDY}")
    if not bool((pixels[3] > 0.5).any()):
        raise ValueError(f"{setting}={str(path)!r}: nothing is left of the picture without its background; {_REMEDY}")
    height, width = pixels.shape[1:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    premultiplied = torch.cat([pixels[:3] * pixels[3:], pixels[3:]])
    return F.pad(premultiplied, (left, side - width - left, top, side - height - top))


def framed(
    picture: Float[Tensor, "4 S S"], size: int, fill: float | None = None
) -> tuple[Float[Tensor, "3 s s"], Float[Tensor, "1 s s"]]:
    """Premultiplied colours and alpha in another size; with ``fill`` the object centred, and so much of a side long."""
    if fill is not None:
        picture = _centred(picture, fill)
    small = F.interpolate(picture[None], (size, size), mode="bilinear", antialias=True, align_corners=False)[0]
    small = small.clamp(0.0, 1.0)
    return small[:3], small[3:]


def _centred(picture: Float[Tensor, "4 S S"], fill: float) -> Float[Tensor, "4 s s"]:
    rows, columns = (torch.nonzero((picture[3] > 0.5).any(axis)).flatten() for axis in (1, 0))
    (top, bottom), (left, right) = ((int(line[0]), int(line[-1]) + 1) for line in (rows, columns))
    height, width = bottom - top, right - left
    side = max(round(max(height, width) / fill), height, width)
    above, before = (side - height) // 2, (side - width) // 2
    return F.pad(picture[:, top:bottom, left:right], (before, side - width - before, above, side - height - above))


def _pixels(image: Any) -> Float[Tensor, "4 H W"]:
    import numpy as np

    return torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1) / 255.0


def _rembg(path: Path, setting: str) -> Any:
    """The module. Raises ValueError where it is not installed."""
    if importlib.util.find_spec("rembg") is None:
        raise ValueError(
            f"{setting}={str(path)!r} has no transparent background, and rembg, which would remove it, is not "
            f'installed (pip install "rembg[cpu]"); {_REMEDY}'
        )
    return importlib.import_module("rembg")


_REMEDY = "give a PNG whose background is transparent, or set data.background_removal=none to keep all of the picture"
