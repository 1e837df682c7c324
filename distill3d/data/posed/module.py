"""The datamodule of posed images: batches of whole views, a function of the seed and the trainer's step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from distill3d.camera import ranges_of
from distill3d.config.ranges import LARGEST_SIDE, MOST_VIEWS, check_at_most, check_least
from distill3d.config.registry import register
from distill3d.data.camera_settings import ViewDistribution
from distill3d.data.endless import endless_loader
from distill3d.data.posed.files import Background, World, check_shows_a_scene, load_frame_sets
from distill3d.data.posed.images import PosedImageBatch, PosedImages
from distill3d.data.posed.transforms_json import read_frame_sets
from distill3d.data.random_cameras import EvaluationViews, RandomCameraBatch, draw_rank, evaluation_cameras
from distill3d.runtime.foreign import user_path
from distill3d.runtime.protocols import ViewSize
from distill3d.runtime.rng import rng
from distill3d.types import Light


@register("data", "posed-images-datamodule")
class PosedImageDataModule(pl.LightningDataModule):
    """Images with camera poses, in Blender's and nerfstudio's format, and a turntable of the scene."""

    @dataclass
    class Config:
        """Settings of posed-images-datamodule.

        root: the folder (or the JSON file) of the data set.
        batch_size: whole views a step; each is seen once before any is seen again.
        background: what is behind pictures with an alpha; ``alpha``: another colour each time they are trained on,
            white in evaluation.
        world: ``given`` takes poses as they are; ``centred`` moves and scales them so that the cameras look at the
            origin and see a ball of ``radius``; ``levelled`` also turns the cameras' mean up to +z; ``auto`` is
            ``given`` for data sets of --render-views and ``centred`` for others.
        test_every: each view of this interval is held out for testing, where the data set has no split of its own.
        eval_*, n_test_views: the turntable. Null: the mean of the data set's cameras.
        """

        root: str = ""
        batch_size: int = 2
        background: Background = "alpha"
        world: World = "auto"
        radius: float = 0.6
        downscale: int = 1
        test_every: int = 8
        eval_batch_size: int = 4
        n_val_views: int = 1
        n_test_views: int = 60
        eval_height: int | None = None
        eval_width: int | None = None
        eval_elevation_deg: float = 15.0
        eval_camera_distance: float | None = None
        eval_fovy_deg: float | None = None

        def __post_init__(self) -> None:
            check_least(self, batch_size=1, downscale=1, eval_batch_size=1, n_val_views=1, n_test_views=1)
            check_least(self, eval_height=1, eval_width=1)  # or null, the images' own
            counts = ("batch_size", "eval_batch_size", "n_val_views", "n_test_views")
            sides = ("eval_width", "eval_height")
            check_at_most(self, dict.fromkeys(sides, LARGEST_SIDE) | dict.fromkeys(counts, MOST_VIEWS))
            if self.radius <= 0:
                raise ValueError(f"radius={self.radius} must be positive")
            if self.test_every < 2:
                raise ValueError(f"test_every={self.test_every} leaves no view to fit; give 2 or more")

    def __init__(self, cfg: Config, seed: int = 0) -> None:
        super().__init__()
        self.cfg, self.seed = cfg, seed

    # -- the data set --------------------------------------------------------------------------------------------

    @cached_property
    def _views(self) -> tuple[PosedImages, PosedImages]:
        cfg = self.cfg
        if not cfg.root:
            raise ValueError("data.root is not set; give the folder of posed images: data.root=PATH")
        sets = read_frame_sets(user_path(cfg.root), cfg.test_every)
        train, test = load_frame_sets(sets, cfg.background, cfg.world, cfg.radius, cfg.downscale)
        check_shows_a_scene(train, f"data.root={cfg.root!r}")
        return train, test

    @property
    def train_views(self) -> PosedImages:
        """The views to fit. Raises ValueError for a data set that cannot be used."""
        return self._views[0]

    @property
    def test_views(self) -> PosedImages:
        """The views held out."""
        return self._views[1]

    def check(self) -> None:
        """Read the data set, so that a mistake in it is found before anything begins."""
        _ = self._views

    def view_sizes(self) -> list[ViewSize]:
        """That of the images."""
        own = self.train_views.cameras
        told = f"data.root={self.cfg.root!r}: its images are {own.width}x{own.height}"
        return [ViewSize(own.height, own.width, told)]

    @property
    def views(self) -> ViewDistribution:
        """Where the training cameras are: what a turntable's distance and lens are the middle of."""
        return ViewDistribution(**vars(ranges_of(self.train_views.cameras)))

    # -- training ------------------------------------------------------------------------------------------------

    def batch(self, step: int, rank: int = 0) -> PosedImageBatch:
        """The training views of a step: a pure function of (seed, step, rank)."""
        views = self.train_views
        batch = views.batch(training_rows(len(views), self.cfg.batch_size, self.seed, step, rank))
        if batch.alpha is None or self.cfg.background != "alpha":
            return batch
        colors = torch.rand(len(batch), 3, generator=rng("background", self.seed, step, rank))
        return batch.over(colors)

    def train_dataloader(self) -> DataLoader:
        return endless_loader(lambda step: None)

    def on_before_batch_transfer(
        self, batch: PosedImageBatch | RandomCameraBatch | None, dataloader_idx: int
    ) -> PosedImageBatch | RandomCameraBatch:
        """Takes the training batch of the trainer's step: a loader that fetches ahead cannot be a step off."""
        if batch is not None:
            return batch
        if self.trainer is None:
            raise RuntimeError("posed images are drawn for the step of a Trainer, and there is none")
        return self.batch(self.trainer.global_step, draw_rank(self.trainer))

    # -- evaluation ----------------------------------------------------------------------------------------------

    def val_dataloader(self) -> DataLoader:
        """The first test views, one a batch."""
        views = self.test_views
        shown: Any = range(min(self.cfg.n_val_views, len(views)))
        return DataLoader(shown, batch_size=None, collate_fn=lambda row: views.batch(torch.tensor([row])))

    def test_dataloader(self) -> DataLoader:
        """The turntable."""
        cameras = self.evaluation_batch(self.cfg.n_test_views).cameras
        return DataLoader(EvaluationViews(cameras, self.cfg.eval_batch_size), batch_size=None)

    def evaluation_batch(self, count: int) -> RandomCameraBatch:
        """``count`` views around the object, each lit from its own camera."""
        cameras = evaluation_cameras(self._turntable(), self.views, count)  # type: ignore[arg-type]
        return RandomCameraBatch(cameras, Light(cameras.position))

    def _turntable(self) -> PosedImageDataModule.Config:
        own = self.train_views.cameras
        height, width = self.cfg.eval_height or own.height, self.cfg.eval_width or own.width
        return type(self.cfg)(**{**vars(self.cfg), "eval_height": height, "eval_width": width})


def training_rows(views: int, count: int, seed: int, step: int, rank: int = 0) -> list[int]:
    """Rows of a step: the steps walk through one random order of all views after another."""
    orders: dict[int, list[int]] = {}

    def row(place: int) -> int:
        turn, position = divmod(place, views)
        if turn not in orders:
            orders[turn] = torch.randperm(views, generator=rng("data", seed, turn, rank)).tolist()
        return orders[turn][position]

    return [row(place) for place in range(step * count, (step + 1) * count)]


@register("data", "edit-views-datamodule")
class EditViewsDataModule(PosedImageDataModule):
    """Posed images of the scene that is edited."""

    @dataclass
    class Config(PosedImageDataModule.Config):
        """Those of posed-images-datamodule.

        source: what an edit is compared with: the data set's own ``images``, or ``renders`` of the scene as it was
            before the edit, from the same cameras.
        """

        source: Literal["images", "renders"] = "images"

    cfg: Config
