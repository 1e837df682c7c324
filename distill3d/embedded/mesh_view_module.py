"""The datamodule of captioned mesh views: batches are a function of the seed and the trainer's step."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from distill3d.camera import CameraRanges
from distill3d.config.check import ConfigError
from distill3d.config.ranges import check_least, check_shares
from distill3d.config.registry import register
from distill3d.data.assets import MeshEntry, first_variants, read_index
from distill3d.data.camera_settings import cameras_folder, read_cameras_json, view_distribution
from distill3d.data.endless import endless_loader
from distill3d.embedded.mesh_views import (
    CAMERA_RANGES,
    VIEW_SIZE,
    ShadingMix,
    ViewBatch,
    ViewCache,
    ViewSampler,
    all_nouns,
    core_nouns,
    open_cache,
)


@register("data", "mesh-view-datamodule")
class MeshViewDataModule(pl.LightningDataModule):
    """Captioned renders of a folder of meshes, relit and recoloured, to train the embedded prior and its judge."""

    @dataclass
    class Config:
        assets: str | None = None  # a folder with index.csv; there is no other
        cache_dir: str = "outputs/cache"
        nouns: str | list[str] = "all"  # all | core | [cat, dog]
        noun_count: int | None = None  # only the first so many; all and core are by rank, core nouns first
        variants_per_noun: int | None = None  # only so many meshes of each noun
        cameras: CameraRanges = CAMERA_RANGES
        cameras_like: str | None = None  # a prior (embedded, or a folder) whose cameras are drawn instead
        batch_size: int = 64
        image_sizes: list[int] = field(default_factory=lambda: [64, 32])  # one a step, in turn
        views_per_mesh: int = 120
        pair_views: int = 30000
        view_seed: int = 0
        pair_share: float = 0.2
        override_share: float = 0.2
        strong_augmentation: bool = False
        mix: ShadingMix = field(default_factory=ShadingMix)

        def __post_init__(self) -> None:
            if isinstance(self.nouns, str) and self.nouns not in ("all", "core"):
                raise ValueError(f"nouns={self.nouns!r}: choose all, core or a list such as data.nouns=[cat, dog]")
            if not self.nouns:
                raise ValueError("nouns=[] is empty; choose all, core or a list such as data.nouns=[cat, dog]")
            check_least(self, pair_views=0, batch_size=1, views_per_mesh=1, noun_count=1, variants_per_noun=1)
            check_shares(self, "pair_share", "override_share")
            if not self.image_sizes or not all(1 <= size <= VIEW_SIZE for size in self.image_sizes):
                raise ValueError(
                    f"image_sizes={self.image_sizes} must be a list of sizes from 1 to {VIEW_SIZE}, that of the views"
                )
            if self.pair_share + self.override_share > 1.0:
                raise ValueError(
                    f"override_share={self.override_share} and pair_share={self.pair_share} must add up to at most 1"
                )

    def __init__(self, cfg: Config, seed: int = 0) -> None:
        super().__init__()
        self.cfg, self.seed = cfg, seed
        self._assets: list[MeshEntry] | None = None
        self._sampler: ViewSampler | None = None

    def check(self) -> None:
        """Read the index and the cameras, find the nouns. Raises ValueError or FileNotFoundError with the setting."""
        chosen_nouns(self.cfg.nouns, self.assets)
        _ = self.cameras

    @property
    def assets(self) -> list[MeshEntry]:
        """The index of the mesh folder. Raises ValueError when none is given."""
        if self._assets is None:
            if self.cfg.assets is None:
                raise ValueError("data.assets is not set; give the folder of meshes: data.assets=PATH (with index.csv)")
            self._assets = first_variants(read_index(self.cfg.assets), self.cfg.variants_per_noun)
        return self._assets

    @property
    def nouns(self) -> list[str]:
        """The nouns that are trained on."""
        return chosen_nouns(self.cfg.nouns, self.assets)[: self.cfg.noun_count]

    @property
    def sampler(self) -> ViewSampler:
        if self._sampler is None:
            cfg = self.cfg
            self._sampler = ViewSampler(
                self.cache(),
                self.nouns,
                self.seed,
                cfg.pair_share,
                cfg.override_share,
                cfg.mix,
                cfg.strong_augmentation,
            )
        return self._sampler

    def cache(self) -> ViewCache:
        """The rasterised views of the nouns that are trained on, alone and in pairs; made on first use."""
        cfg, trained = self.cfg, set(self.nouns)
        assets = [asset for asset in self.assets if asset.noun in trained]
        pair_views = cfg.pair_views if len(trained) > 1 and cfg.pair_share else 0
        return open_cache(
            assets, Path(cfg.cache_dir), cfg.views_per_mesh, pair_views, cfg.view_seed, cameras=self.cameras
        )

    @property
    def cameras(self) -> CameraRanges:
        """What the views are drawn from."""
        if self.cfg.cameras_like is None:
            return self.cfg.cameras
        folder = cameras_folder(self.cfg.cameras_like)
        if folder is None or not read_cameras_json(folder):
            raise ConfigError(
                f"data.cameras_like={self.cfg.cameras_like!r} is no folder with a cameras.json; name such a prior, or "
                "give data.cameras",
                "data.cameras_like",
            )
        return view_distribution({}, folder).camera_ranges

    def held_out_views(self, nouns: list[str], count: int, mix: ShadingMix | None = None) -> ViewBatch:
        """``count`` views of single objects at 64x64, by cameras that nothing was trained on."""
        sampler = ViewSampler(self.held_out_cache(), nouns, seed=2, pair_share=0.0, override_share=0.0, mix=mix)
        return sampler.batch(0, count, 64)

    def held_out_cache(self) -> ViewCache:
        """Four views of every mesh by cameras that nothing was trained on."""
        folder, seed = Path(self.cfg.cache_dir), self.cfg.view_seed + 100
        return open_cache(self.assets, folder, 4, 0, seed, cameras=self.cameras)

    def train_dataloader(self) -> DataLoader:
        return endless_loader(self.batch, lambda: self.trainer.global_step if self.trainer is not None else 0)

    def batch(self, step: int) -> ViewBatch:
        """The views of a step."""
        return self.sampler.batch(step, self.cfg.batch_size, self.image_size(step))

    def transfer_batch_to_device(self, batch: ViewBatch, device: torch.device, dataloader_idx: int) -> ViewBatch:
        moved = {name: getattr(batch, name).to(device) for name in ("images", "cameras", "clean")}
        return replace(batch, **moved)

    def image_size(self, step: int) -> int:
        return self.cfg.image_sizes[step % len(self.cfg.image_sizes)]


def chosen_nouns(choice: str | list[str], assets: list[MeshEntry]) -> list[str]:
    """All nouns, the core ones, or those that are listed. Raises ConfigError for one that has no mesh."""
    if choice == "core":
        return core_nouns(assets)
    known = all_nouns(assets)
    if isinstance(choice, str):
        return known
    for noun in choice:
        if noun not in known:
            near = difflib.get_close_matches(noun, known, n=1, cutoff=0.0)
            hint = f"the nearest that has one is {near[0]!r}" if near else "its index.csv is empty"
            raise ConfigError(f"data.nouns: {noun!r} has no mesh in data.assets; {hint}", "data.nouns")
    return list(dict.fromkeys(choice))
