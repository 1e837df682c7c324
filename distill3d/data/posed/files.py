"""Frames of a data set to `PosedImages`: pictures read, rectified, made smaller, and put over their background."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.camera import wrap_deg
from distill3d.data.posed.images import PosedImages
from distill3d.data.posed.rectify import fovy_rad, is_ideal, rectified, scaled_lens
from distill3d.data.posed.transforms_json import Frame, FrameSets
from distill3d.data.posed.world import Similarity, fit_world
from distill3d.types import Cameras

Background = Literal["white", "black", "alpha"]
World = Literal["auto", "given", "centred", "levelled"]


class Picture(NamedTuple):
    """One image with its premultiplied colours, as an ideal camera sees it."""

    rgb: Float[Tensor, "3 H W"]
    alpha: Float[Tensor, "1 H W"] | None
    fovy_rad: float


def load_frame_sets(
    sets: FrameSets, background: Background, world: World, radius: float, downscale: int
) -> tuple[PosedImages, PosedImages]:
    """The training and the test views, moved into the project's world together.

    Raises ValueError for pictures that cannot be read or differ in size.
    """
    frames = [*sets.train, *sets.test]
    pictures = [read_picture(frame, downscale) for frame in frames]
    _check_one_size(pictures, frames)
    c2w = np.stack([frame.c2w for frame in frames])
    if world != "given" and not (world == "auto" and sets.own_world):
        c2w = _similarity(c2w, pictures, radius, level=world == "levelled").moved(c2w)
    views = _joined(pictures, c2w, [frame.path for frame in frames], sets.root, background)
    split = len(sets.train)
    return _rows(views, slice(0, split)), _rows(views, slice(split, None))


def read_picture(frame: Frame, downscale: int = 1) -> Picture:
    """An image file. Raises ValueError if it is none, or smaller than the factor."""
    rgb, alpha = _read_pixels(frame.path)
    lens = scaled_lens(frame.lens, *rgb.shape[-2:], where=str(frame.path))
    pixels = rgb if alpha is None else torch.cat([rgb * alpha, alpha])  # premultiplied: edges do not bleed
    if not is_ideal(lens):
        pixels = rectified(pixels, lens)
    pixels, kept = _smaller(pixels, downscale, frame.path)
    fovy = 2.0 * math.atan(kept * math.tan(0.5 * fovy_rad(lens)))
    return Picture(pixels[:3], None if alpha is None else pixels[3:], fovy)


def _read_pixels(path: Path) -> tuple[Tensor, Tensor | None]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            has_alpha = "A" in file.getbands() or "transparency" in file.info
            pixels = np.array(file.convert("RGBA" if has_alpha else "RGB"), dtype=np.float32) / 255.0
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    return image[:3], image[3:] if has_alpha else None


def _smaller(pixels: Tensor, factor: int, path: Path) -> tuple[Tensor, float]:
    """Means of squares of ``factor`` pixels, and the share of the height that they cover: a rest is cut off evenly."""
    height, width = pixels.shape[-2:]
    rows, columns = height // factor, width // factor
    if min(rows, columns) < 1:
        raise ValueError(f"data.downscale={factor} leaves nothing of {path} ({width}x{height}); give a smaller factor")
    top, left = (height - rows * factor) // 2, (width - columns * factor) // 2
    cut = pixels[:, top : top + rows * factor, left : left + columns * factor]
    return torch.nn.functional.avg_pool2d(cut[None], factor)[0], rows * factor / height


def _check_one_size(pictures: Sequence[Picture], frames: Sequence[Frame]) -> None:
    first = tuple(pictures[0].rgb.shape[-2:])
    for picture, frame in zip(pictures, frames, strict=True):
        size = tuple(picture.rgb.shape[-2:])
        if size != first:
            raise ValueError(
                f"images differ in size: {frames[0].path} is {first[1]}x{first[0]}, {frame.path} is "
                f"{size[1]}x{size[0]}; bring them to one size, with their lenses"
            )


def _similarity(c2w: Float[np.ndarray, "N 4 4"], pictures: Sequence[Picture], radius: float, level: bool) -> Similarity:
    half = np.array([0.5 * picture.fovy_rad for picture in pictures])
    height, width = pictures[0].rgb.shape[-2:]
    narrower = np.arctan(np.tan(half) * min(1.0, width / height))
    return fit_world(c2w, narrower, radius, level)


def _joined(
    pictures: Sequence[Picture], c2w: np.ndarray, paths: Sequence[Path], root: Path, background: Background
) -> PosedImages:
    rgb = torch.stack([picture.rgb for picture in pictures])
    alpha = _alphas(pictures)
    color = None
    if alpha is not None:
        color = torch.full((3,), 0.0 if background == "black" else 1.0)
        rgb = rgb + (1.0 - alpha) * color[:, None, None]
    names = tuple(path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path) for path in paths)
    cameras = posed_cameras(c2w, [picture.fovy_rad for picture in pictures], *rgb.shape[-2:])
    return PosedImages(cameras, rgb.clamp(0.0, 1.0), alpha, names, root, color)


def _alphas(pictures: Sequence[Picture]) -> Float[Tensor, "N 1 H W"] | None:
    """Opacities; None where nothing is transparent, as in photographs that were saved with an alpha."""
    whole = torch.ones_like(pictures[0].rgb[:1])
    alpha = torch.stack([whole if picture.alpha is None else picture.alpha for picture in pictures])
    return None if bool((alpha == 1.0).all()) else alpha


def posed_cameras(c2w: np.ndarray, fovy: Sequence[float], height: int, width: int) -> Cameras:
    """Cameras with the spherical coordinates of their positions, which choose view words."""
    poses = torch.from_numpy(c2w).float()
    position = poses[:, :3, 3]
    distance = position.norm(dim=-1)
    elevation_deg = torch.rad2deg(torch.asin((position[:, 2] / distance.clamp_min(1e-12)).clamp(-1.0, 1.0)))
    azimuth_deg = wrap_deg(torch.rad2deg(torch.atan2(position[:, 1], position[:, 0])))
    return Cameras(poses, torch.tensor(fovy), elevation_deg, azimuth_deg, distance, height, width)


def _rows(views: PosedImages, rows: slice) -> PosedImages:
    alpha = None if views.alpha is None else views.alpha[rows]
    names = views.names[rows]
    return PosedImages(views.cameras[rows], views.images[rows], alpha, names, views.source_root, views.background)
