"""--render-views: a data set of posed images from a mesh, or from the scene of a finished trial."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill3d.camera import CameraRanges, random_cameras
from distill3d.config.check import ConfigError
from distill3d.config.ranges import LARGEST_SIDE, MOST_VIEWS, check_at_most, check_least
from distill3d.data.mesh_file import SUFFIXES, UpAxis, load_mesh_file
from distill3d.data.posed.write import RenderedViews, check_free, write_posed_images
from distill3d.runtime.rng import rng
from distill3d.scenes.mesh.raster import Mesh, rasterize, unit_vectors
from distill3d.types import Cameras, Light

log = logging.getLogger(__name__)

LIGHT_POSITION = (1.6, 1.0, 2.0)  # of lit views, in world units: above the front, the same for all of them
AMBIENT = 0.4  # of lit meshes
SUPERSAMPLE = 4  # subpixels of a mesh's pixel, along each side

Renderer = Callable[[Cameras], RenderedViews]


@dataclass
class RenderViewsSettings:
    """``python launch.py --render-views MESH_OR_TRIAL OUT train_views=48 size=64 ...``: angles in degrees, world units.

    shading: ``albedo`` or ``lambertian``, with one light that stays where it is. up and turn_deg: see `load_mesh_file`.
    """

    train_views: int = 48
    test_views: int = 8
    size: int = 64  # pixels
    shading: Literal["albedo", "lambertian"] = "albedo"
    elevation_range: tuple[float, float] = (-10.0, 60.0)
    azimuth_range: tuple[float, float] = (-180.0, 180.0)
    camera_distance: float | tuple[float, float] = 1.6  # or the range that it is drawn from
    fovy: float | tuple[float, float] = 40.0
    caption: str = ""  # what the object is called, for a prior of these views: OUT/caption.txt
    up: UpAxis = "auto"
    turn_deg: float = 0.0
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_least(self, train_views=2, test_views=1, size=8)
        check_at_most(self, {"train_views": MOST_VIEWS, "test_views": MOST_VIEWS, "size": LARGEST_SIDE // SUPERSAMPLE})
        (nearest, farthest), (narrow, wide) = span(self.camera_distance), span(self.fovy)
        if not 0 < nearest <= farthest or not 0 < narrow <= wide < 180:
            raise ValueError(
                f"camera_distance={self.camera_distance} must be positive, fovy={self.fovy} in 0 .. 180 degrees, and "
                "a range must ascend"
            )
        low, high = self.elevation_range
        if not -90 <= low <= high <= 90:
            raise ValueError(f"elevation_range={list(self.elevation_range)} must ascend within -90 .. 90")


def render_data_set(source: Path, out: Path, settings: RenderViewsSettings) -> None:
    """Write training and test views of ``source`` into ``out``.

    Raises ConfigError or ValueError for a source that shows nothing, or a folder that is not free.
    """
    check_free(out, settings.overwrite)
    render = scene_renderer(source, settings)
    splits = {"train": settings.train_views, "test": settings.test_views}
    views = {name: render(view_cameras(settings, count, i)) for i, (name, count) in enumerate(splits.items())}
    if not bool((views["train"].alpha > 0.5).any()):
        raise ValueError(f"{source}: all {settings.train_views} views are empty; is the scene empty or too faint?")
    write_posed_images(out, views, source.name, settings.overwrite, settings.caption)
    log.info("%d views to fit, %d to test: %s", *splits.values(), out)


def span(value: float | tuple[float, float]) -> tuple[float, float]:
    """A range; of a number, that number alone."""
    return value if isinstance(value, tuple) else (value, value)


def view_cameras(settings: RenderViewsSettings, count: int, split: int) -> Cameras:
    """Cameras around the object, spread evenly in azimuth and over the elevations: a function of the seed."""
    distance, fovy = span(settings.camera_distance), span(settings.fovy)
    ranges = CameraRanges(settings.elevation_range, settings.azimuth_range, distance, fovy, 0.0, 0.0, 0.0)
    generator = rng("camera", settings.seed, split)
    return random_cameras(ranges, count, settings.size, settings.size, generator, stratified_azimuth=True)


def scene_renderer(source: Path, settings: RenderViewsSettings) -> Renderer:
    """Cameras to views of a mesh file, a trial folder or a checkpoint in one. Raises ConfigError for anything else."""
    if source.suffix.lower() in SUFFIXES and not source.is_dir():
        mesh = load_mesh_file(source, settings.up, settings.turn_deg, detail=settings.size)
        return lambda cameras: mesh_views(mesh, cameras, settings.shading)
    if source.is_dir() or source.suffix == ".ckpt":
        return trial_renderer(source, settings.shading)
    raise ConfigError(f"{source} is not a mesh ({', '.join(SUFFIXES)}), a trial folder or a checkpoint")


def mesh_views(mesh: Mesh, cameras: Cameras, shading: str) -> RenderedViews:
    """Means over subpixels of premultiplied colours; lit ones are ``albedo (a + (1 - a) max(0, n.l))``."""
    fine = Cameras(**{**vars(cameras), "height": SUPERSAMPLE * cameras.height, "width": SUPERSAMPLE * cameras.width})
    parts = [_mesh_view(mesh, fine[slice(i, i + 1)], shading) for i in range(len(cameras))]
    rgb, alpha = (torch.cat(images) for images in zip(*parts, strict=True))
    return RenderedViews(cameras, rgb, alpha)


def _mesh_view(mesh: Mesh, camera: Cameras, shading: str) -> tuple[Float[Tensor, "1 3 H W"], Float[Tensor, "1 1 H W"]]:
    seen = rasterize(mesh, camera, supersample=1)
    color = seen.attributes * seen.mask
    if shading == "lambertian":
        to_light = unit_vectors(torch.tensor(LIGHT_POSITION)[None, :, None, None] - seen.position)
        cosine = (seen.normal * to_light).sum(1, keepdim=True).clamp_min(0.0)
        color = color * (AMBIENT + (1.0 - AMBIENT) * cosine)
    return F.avg_pool2d(color, SUPERSAMPLE), F.avg_pool2d(seen.mask, SUPERSAMPLE)


def trial_renderer(source: Path, shading: Literal["albedo", "lambertian"]) -> Renderer:
    """The scene of a trial's last checkpoint, or of the checkpoint that ``source`` is, before black."""
    from distill3d.evaluation.loaded_trial import load_trial

    scene = load_trial(source) if source.is_dir() else load_trial(source.absolute().parents[1], checkpoint=source)
    if not scene.system.scene.has_cameras:
        raise ConfigError(f"{source} is a trial of {scene.experiment.system_type}, which has no 3D scene to render")

    def render(cameras: Cameras) -> RenderedViews:
        light = Light(torch.tensor(LIGHT_POSITION).expand(len(cameras), 3))
        seen = scene.system.scene.preview(cameras, light, shading, torch.zeros(3), need_normal=False)
        return RenderedViews(cameras, seen.rgb, seen.opacity)

    return render
