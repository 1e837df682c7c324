"""Frames of a data set to `PosedImages`: pictures and masks read, rectified, made smaller, brought to one size."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from distill3d.camera import wrap_deg
from distill3d.data.posed.images import PosedImages, StoredView
from distill3d.data.posed.rectify import ASPECT_TOLERANCE, fovy_rad, is_ideal, rectified, scaled_lens
from distill3d.data.posed.transforms_json import Frame, FrameSets, Lens, read_frame_sets
from distill3d.data.posed.world import Similarity, fit_world
from distill3d.runtime.foreign import ForeignFileError, open_image
from distill3d.types import Cameras

log = logging.getLogger(__name__)

SAME_POSE = 1e-6  # differences of matrices, in parts of their largest number
WIDEST = 60.0  # tan(fovy / 2): 178 degrees
NARROWEST = 1e-4  # the same of an angle of .01 degrees
MOST_STRETCHED = 8.0  # pixels are as much longer as they are wide; anamorphic lenses reach 2
MOST_MOVED = 2.0  # corners of a picture, in parts of their distance from its middle
Background = Literal["white", "black", "alpha"]
World = Literal["auto", "given", "centred", "levelled"]


class Picture(NamedTuple):
    """One image as an ideal camera sees it."""

    view: StoredView
    fovy_rad: float

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.view.pixels.shape[-2:]
        return height, width


def load_frame_sets(
    sets: FrameSets, background: Background, world: World, radius: float, downscale: int
) -> tuple[PosedImages, PosedImages]:
    """The training and the test views, moved into the project's world together.

    Images of several sizes are fitted into the size that most of them have; what they do not cover does not count.
    Raises ForeignFileError for pictures that cannot be read.
    """
    frames = [*sets.train, *sets.test]
    pictures = _of_one_size([read_picture(frame, downscale) for frame in frames])
    masked = [picture.view.counted is not None and not picture.view.counted.any() for picture in pictures]
    if all(masked[: len(sets.train)]):
        raise ForeignFileError(
            f"{frames[0].mask} and the other masks leave no pixel to fit: black is masked; give white where it counts"
        )
    c2w = np.stack([frame.c2w for frame in frames])
    if world != "given" and not (world == "auto" and sets.own_world):
        c2w = _similarity(c2w, pictures, radius, level=world == "levelled").moved(c2w)
    color = torch.full((3,), 0.0 if background == "black" else 1.0) if _has_alpha(pictures) else None
    cameras = posed_cameras(c2w, [picture.fovy_rad for picture in pictures], *pictures[0].size)
    split = len(sets.train)
    return tuple(  # type: ignore[return-value]
        PosedImages(
            cameras[rows],
            tuple(picture.view for picture in pictures[rows]),
            tuple(_name(frame.path, sets.root) for frame in frames[rows]),
            color,
        )
        for rows in (slice(0, split), slice(split, None))
    )


def training_views(root: Path, setting: str) -> PosedImages:
    """The views of a folder that are not for testing, before black. Raises ValueError, naming the setting."""
    return load_frame_sets(read_frame_sets(root, 8, setting), "black", "auto", 0.6, 1)[0]


def check_shows_a_scene(views: PosedImages, where: str) -> None:
    """Raise ForeignFileError, beginning with ``where``, for views that no scene can be made of.

    All of one camera, so that nothing tells how far away anything is; or of pictures that are transparent throughout.
    """
    poses = views.cameras.c2w
    if bool((poses - poses[0]).abs().max() <= SAME_POSE * poses.abs().max()):
        raise ForeignFileError(
            f"{where}: all {len(views)} views to fit are from one place in one direction; give views from several sides"
        )
    if all(len(view.pixels) == 4 and not view.pixels[3].any() for view in views.stored):
        raise ForeignFileError(
            f"{where}: all {len(views)} images to fit are transparent everywhere, so nothing can be fitted; save "
            "them with an alpha that shows the object, or without one"
        )


def read_picture(frame: Frame, downscale: int = 1) -> Picture:
    """An image file with its mask. Raises ForeignFileError if it is none, or smaller than the factor."""
    pixels = _read_pixels(frame)
    lens = scaled_lens(frame.lens, *pixels.shape[-2:], where=str(frame.path))
    counted = None if frame.mask is None else _read_mask(frame.mask, pixels)
    tangent = math.tan(0.5 * fovy_rad(lens))
    _check_lens(lens, tangent, frame.path)
    if is_ideal(lens) and downscale == 1:
        return Picture(StoredView(pixels, counted), 2.0 * math.atan(tangent))
    color = StoredView(pixels).premultiplied()
    both = color if counted is None else torch.cat([color, counted])
    if not is_ideal(lens):
        both = rectified(both, lens)
    both, kept = _smaller(both, downscale, frame.path)
    color, counted = both[: len(color)], None if counted is None else _whole(both[len(color) :])
    return Picture(StoredView(color, counted), 2.0 * math.atan(kept * tangent))


def _check_lens(lens: Lens, tangent: float, path: Path) -> None:
    """Raise ForeignFileError for numbers that cannot be those of a photograph.

    An angle of nearly 0 or 180 degrees, pixels that are far from square, a centre far outside of the picture, or a
    distortion that moves its corners by more than twice their distance from its middle.
    """
    assert lens.fl_x and lens.fl_y and lens.width and lens.height  # of a `scaled_lens`
    sides = ((lens.cx, lens.width), (lens.cy, lens.height))
    if not NARROWEST < tangent <= WIDEST or any(c is not None and not -side <= c <= 2 * side for c, side in sides):
        raise ForeignFileError(
            f"{path}: fl_y={lens.fl_y}, cx={lens.cx} and cy={lens.cy} are no lens of a picture of "
            f"{lens.width}x{lens.height}; give them in pixels of it"
        )
    is_square = 1.0 / MOST_STRETCHED <= lens.fl_x / lens.fl_y <= MOST_STRETCHED
    r2 = tangent**2 * (1.0 + (lens.width / lens.height) ** 2)
    k1, k2, p1, p2, k3 = lens.distortion
    moved = max(abs(r2 * (k1 + r2 * (k2 + r2 * k3))), 3.0 * r2**0.5 * max(abs(p1), abs(p2)))
    if not (is_square and moved <= MOST_MOVED):
        raise ForeignFileError(
            f"{path}: fl_x={lens.fl_x:g}, fl_y={lens.fl_y:g} and the distortion {lens.distortion} are no lens of a "
            f"picture of {lens.width}x{lens.height}; give lengths in pixels of it and OpenCV's k1, k2, p1, p2, k3"
        )


def _read_pixels(frame: Frame) -> UInt8[Tensor, "C H W"]:
    """Upright, unless the frame's own size is that of the file as it lies: then its pose is of that, too."""
    image = open_image(frame.path)
    if image.size != image.size[::-1] == (frame.lens.width, frame.lens.height):
        image = open_image(frame.path, upright=False)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _read_mask(path: Path, pixels: Tensor) -> Float[Tensor, "1 H W"]:
    """1 where a pixel counts: black is masked, as nerfstudio has it, and the brightest value is not, 1 or 255."""
    image = open_image(path).convert("L")
    height, width = pixels.shape[-2:]
    if image.size != (width, height):
        if abs(image.size[0] * height - image.size[1] * width) > ASPECT_TOLERANCE * image.size[0] * height:
            raise ForeignFileError(
                f"the mask {path} is {image.size[0]}x{image.size[1]}, its image {width}x{height}; give one of its shape"
            )
        image = image.resize((width, height), 0)  # the nearest: a pixel counts or does not
    values = np.array(image)
    return torch.from_numpy((2 * values.astype(np.int64) > values.max()).astype(np.float32))[None]


def _whole(counted: Float[Tensor, "1 H W"]) -> Float[Tensor, "1 H W"]:
    """After resampling: only pixels none of whose parts are masked."""
    return (counted > 1.0 - 1e-4).float()


def _smaller(pixels: Tensor, factor: int, path: Path) -> tuple[Tensor, float]:
    """Means of squares of ``factor`` pixels, and the share of the height that they cover: a rest is cut off evenly."""
    height, width = pixels.shape[-2:]
    rows, columns = height // factor, width // factor
    if min(rows, columns) < 1:
        raise ForeignFileError(
            f"data.downscale={factor} leaves nothing of {path} ({width}x{height}); give a smaller factor"
        )
    top, left = (height - rows * factor) // 2, (width - columns * factor) // 2
    cut = pixels[:, top : top + rows * factor, left : left + columns * factor]
    return torch.nn.functional.avg_pool2d(cut[None], factor)[0], rows * factor / height


def _of_one_size(pictures: list[Picture]) -> list[Picture]:
    """All in the size that most have, of equally many in the larger one."""
    counts = Counter(picture.size for picture in pictures)
    size = max(counts, key=lambda size: (counts[size], size[0] * size[1]))
    if len(counts) > 1:
        shown = (len(counts), size[1], size[0])
        log.info("the images have %d sizes: all are resized and padded to %dx%d, the most frequent", *shown)
    return [picture if picture.size == size else _fitted(picture, *size) for picture in pictures]


def _fitted(picture: Picture, height: int, width: int) -> Picture:
    """The whole picture in the middle of a canvas, with the camera that sees the canvas; its margins do not count."""
    own_height, own_width = picture.size
    scale = min(height / own_height, width / own_width)
    size = (min(height, max(1, round(scale * own_height))), min(width, max(1, round(scale * own_width))))
    color = picture.view.premultiplied()
    counted = torch.ones_like(color[:1]) if picture.view.counted is None else picture.view.counted
    both = F.interpolate(torch.cat([color, counted])[None], size, mode="bilinear", antialias=True, align_corners=False)[
        0
    ]
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    margins = (left, width - size[1] - left, top, height - size[0] - top)
    placed = F.pad(both[None, :-1], margins, mode="replicate")[0]
    inside = F.pad(_whole(both[-1:]), margins)
    fovy = 2.0 * math.atan(height / size[0] * math.tan(0.5 * picture.fovy_rad))
    return Picture(StoredView(placed.clamp(0.0, 1.0), inside), fovy)


def _similarity(c2w: Float[np.ndarray, "N 4 4"], pictures: Sequence[Picture], radius: float, level: bool) -> Similarity:
    half = np.array([0.5 * picture.fovy_rad for picture in pictures])
    height, width = pictures[0].size
    narrower = np.arctan(np.tan(half) * min(1.0, width / height))
    return fit_world(c2w, narrower, radius, level)


def _has_alpha(pictures: Sequence[Picture]) -> bool:
    """Whether anything is transparent: it is not in photographs that were saved with an alpha."""
    pixels = [picture.view.pixels for picture in pictures if len(picture.view.pixels) == 4]
    return any(bool((p[3] < (255 if p.dtype == torch.uint8 else 1.0)).any()) for p in pixels)


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def posed_cameras(c2w: np.ndarray, fovy: Sequence[float], height: int, width: int) -> Cameras:
    """Cameras with the spherical coordinates of their positions, which choose view words."""
    poses = torch.from_numpy(c2w).float()
    position = poses[:, :3, 3]
    distance = position.norm(dim=-1)
    elevation_deg = torch.rad2deg(torch.asin((position[:, 2] / distance.clamp_min(1e-12)).clamp(-1.0, 1.0)))
    azimuth_deg = wrap_deg(torch.rad2deg(torch.atan2(position[:, 1], position[:, 0])))
    return Cameras(poses, torch.tensor(fovy), elevation_deg, azimuth_deg, distance, height, width)
