"""Random cameras with their lights, one batch a step, and the fixed cameras of validation and test."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from distill3d.camera import CameraRanges, make_cameras, random_cameras
from distill3d.config.ranges import LARGEST_SIDE, MOST_VIEWS, check_at_most, check_least
from distill3d.config.registry import register
from distill3d.config.schedule import Scheduled, scheduled
from distill3d.data.camera_settings import NullableViewDistribution, ViewDistribution, cameras_folder, view_distribution
from distill3d.data.endless import endless_loader
from distill3d.light import random_lights
from distill3d.runtime.protocols import ViewSize
from distill3d.runtime.rng import rng
from distill3d.types import Cameras, Light

IntOrList = int | list[int]
MOST_RAYS = 2**26  # of one step: each needs some hundred bytes


@dataclass(frozen=True)
class RandomCameraBatch:
    """Cameras with one light each; ``index`` is the place of the first view in an evaluation."""

    cameras: Cameras
    light: Light
    index: int = 0

    def to(self, device: torch.device | str, **_: object) -> RandomCameraBatch:
        return replace(self, cameras=self.cameras.to(device), light=self.light.to(device))


@dataclass
class RandomCameraConfig(NullableViewDistribution):
    """Settings of random-camera-datamodule. Distances in world units, angles in degrees.

    ``batch_size``, ``width`` and ``height`` are numbers, or lists that change at ``resolution_milestones`` (steps).
    Null camera and light settings come from cameras.json in the folder ``cameras_like`` (the first of several), or
    from the cameras of its posed views, else from DreamFusion.
    ``progressive_until`` widens elevation and azimuth from the front view to their ranges over that many steps.
    ``n_view``: views of a set, which differ in azimuth alone, equally spaced over its range, as multi-view priors need
    them; ``batch_size`` counts views. ``relative_radius``: distances are multiplied by 1 / tan(fovy / 2).
    """

    batch_size: IntOrList = 1
    width: IntOrList = 64
    height: IntOrList = 64
    resolution_milestones: list[int] = field(default_factory=list)
    cameras_like: str | list[str] | None = None
    batch_uniform_azimuth: bool = True
    n_view: int = 1
    relative_radius: bool = False
    progressive_until: Scheduled = 0
    eval_height: int = 512
    eval_width: int = 512
    eval_batch_size: int = 1
    n_val_views: int = 4  # around the object, from its front on
    n_test_views: int = 120
    eval_elevation_deg: float = 15.0
    eval_camera_distance: float | None = None
    eval_fovy_deg: float | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "width", "height"):
            values = getattr(self, name)
            if any(v < 1 for v in (values if isinstance(values, list) else [values])):
                raise ValueError(f"{name}={values} must be positive")
            if isinstance(values, list) and len(values) != len(self.resolution_milestones) + 1:
                raise ValueError(
                    f"{name}={values} has {len(values)} entries; resolution_milestones={self.resolution_milestones} "
                    f"asks for {len(self.resolution_milestones) + 1}, one more than there are milestones"
                )
        check_least(self, eval_height=1, eval_width=1, eval_batch_size=1, n_val_views=1, n_test_views=1, n_view=1)
        views = ("batch_size", "eval_batch_size", "n_val_views", "n_test_views")
        sides = ("width", "height", "eval_width", "eval_height")
        check_at_most(self, dict.fromkeys(sides, LARGEST_SIDE) | dict.fromkeys(views, MOST_VIEWS))
        for start in (0, *self.resolution_milestones):
            batch, height, width = self.size_at(start)
            if batch * height * width > MOST_RAYS:
                raise ValueError(
                    f"batch_size={batch} with height={height} and width={width} are more than {MOST_RAYS} rays a step"
                )
        sizes = self.batch_size if isinstance(self.batch_size, list) else [self.batch_size]
        if any(size % self.n_view for size in sizes):
            raise ValueError(
                f"batch_size={self.batch_size} counts views: it must be a multiple of n_view={self.n_view}"
            )
        if self.eval_fovy_deg is not None and not 0.0 < self.eval_fovy_deg < 180.0:
            raise ValueError(f"eval_fovy_deg={self.eval_fovy_deg} must be between 0 and 180 degrees")
        if self.eval_camera_distance is not None and self.eval_camera_distance <= 0.0:
            raise ValueError(f"eval_camera_distance={self.eval_camera_distance} must be positive")
        if sorted(self.resolution_milestones) != self.resolution_milestones:
            raise ValueError(f"resolution_milestones={self.resolution_milestones} must ascend")

    def size_at(self, step: int) -> tuple[int, int, int]:
        """Views of a batch, and their height and width, at a step."""
        sizes = (self.batch_size, self.height, self.width)
        return tuple(at_milestone(values, self.resolution_milestones, step) for values in sizes)  # type: ignore[return-value]


def at_milestone(values: IntOrList, milestones: list[int], step: int) -> int:
    """The entry that holds at a step; a plain number always holds."""
    return values if isinstance(values, int) else values[sum(step >= m for m in milestones)]


def widened(ranges: CameraRanges, progress: float, elevation_deg: float) -> CameraRanges:
    """Elevation and azimuth ranges between the single front view (0) and their own size (1)."""

    def toward(bounds: tuple[float, float], centre: float) -> tuple[float, float]:
        return centre + progress * (bounds[0] - centre), centre + progress * (bounds[1] - centre)

    return replace(
        ranges,
        elevation_range=toward(ranges.elevation_range, elevation_deg),
        azimuth_range=toward(ranges.azimuth_range, 0.0),
    )


def training_batch(
    cfg: RandomCameraConfig, views: ViewDistribution, seed: int, step: int, rank: int = 0
) -> RandomCameraBatch:
    """The batch of a step: a pure function of (seed, step, rank)."""
    count, height, width = cfg.size_at(step)
    ranges = views.camera_ranges
    until = scheduled(cfg.progressive_until, step)
    if step < until:
        ranges = widened(ranges, step / until, cfg.eval_elevation_deg)
    drawn = rng("camera", seed, step, rank)
    sets = (cfg.batch_uniform_azimuth, cfg.n_view, cfg.relative_radius)
    cameras = random_cameras(ranges, count, height, width, drawn, *sets)
    light = random_lights(
        cameras,
        rng("light", seed, step, rank),
        views.light_sample_strategy,
        views.light_position_perturb,
        views.light_distance_range,
        cfg.n_view,
    )
    return RandomCameraBatch(cameras, light)


def evaluation_cameras(cfg: RandomCameraConfig, views: ViewDistribution, count: int) -> Cameras:
    """``count`` cameras equally spaced in azimuth from the front, at the evaluation's elevation, size and lens."""
    distance = _middle(views.camera_distance_range) if cfg.eval_camera_distance is None else cfg.eval_camera_distance
    fovy_deg = _middle(views.fovy_range) if cfg.eval_fovy_deg is None else cfg.eval_fovy_deg
    elevation, radius, lens = (torch.full((count,), float(v)) for v in (cfg.eval_elevation_deg, distance, fovy_deg))
    azimuth = torch.arange(count) * (360.0 / count)
    return make_cameras(elevation, azimuth, radius, lens, cfg.eval_height, cfg.eval_width)


class EvaluationViews(Dataset):
    """Fixed views in batches of at most ``batch_size``, each lit from its own camera."""

    def __init__(self, cameras: Cameras, batch_size: int) -> None:
        self.cameras = cameras
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.cameras) // self.batch_size)

    def __getitem__(self, batch: int) -> RandomCameraBatch:
        if not 0 <= batch < len(self):
            raise IndexError(batch)
        start = batch * self.batch_size
        rows = slice(start, start + self.batch_size)
        cameras = self.cameras[rows]
        return RandomCameraBatch(cameras, Light(cameras.position), start)


@register("data", "random-camera-datamodule")
class RandomCameraDataModule(pl.LightningDataModule):
    """Random cameras and lights, drawn anew each step."""

    Config = RandomCameraConfig

    def __init__(self, cfg: RandomCameraConfig, seed: int = 0) -> None:
        super().__init__()
        self.cfg = cfg
        self.seed = seed
        self.views = view_distribution(vars(cfg), cameras_folder(cfg.cameras_like))

    def view_sizes(self) -> list[ViewSize]:
        """At the beginning and after each milestone."""
        cfg, sizes = self.cfg, []
        given = f"data.width={cfg.width}, data.height={cfg.height}"
        for step in (0, *cfg.resolution_milestones):
            _, height, width = cfg.size_at(step)
            sizes.append(ViewSize(height, width, f"{given}: from step {step} on views are {width}x{height}"))
        return sizes

    def train_dataloader(self) -> DataLoader:
        return endless_loader(lambda step: None)

    def val_dataloader(self) -> DataLoader:
        return self._evaluation(self.cfg.n_val_views)

    def test_dataloader(self) -> DataLoader:
        return self._evaluation(self.cfg.n_test_views)

    def on_before_batch_transfer(self, batch: RandomCameraBatch | None, dataloader_idx: int) -> RandomCameraBatch:
        """Draws the training batch of the trainer's step: a loader that fetches ahead cannot be a step off."""
        if batch is not None:
            return batch
        if self.trainer is None:
            raise RuntimeError("random cameras are drawn for the step of a Trainer, and there is none")
        return training_batch(self.cfg, self.views, self.seed, self.trainer.global_step, draw_rank(self.trainer))

    def evaluation_batch(self, count: int) -> RandomCameraBatch:
        """``count`` views around the object, each lit from its own camera."""
        cameras = evaluation_cameras(self.cfg, self.views, count)
        return RandomCameraBatch(cameras, Light(cameras.position))

    def _evaluation(self, count: int) -> DataLoader:
        views = EvaluationViews(evaluation_cameras(self.cfg, self.views, count), self.cfg.eval_batch_size)
        return DataLoader(views, batch_size=None)


def draw_rank(trainer: pl.Trainer) -> int:
    """A number for each batch that shares one optimiser step: the device's rank, and the place in the accumulation."""
    batches = trainer.fit_loop.epoch_loop.batch_progress.current
    place = getattr(batches, "processed") % max(trainer.accumulate_grad_batches, 1)  # noqa: B009, typed too narrowly there
    return trainer.global_rank + trainer.world_size * place


def _middle(bounds: tuple[float, float]) -> float:
    return 0.5 * (bounds[0] + bounds[1])
