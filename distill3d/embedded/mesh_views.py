"""Captioned views of a folder of meshes: cached G-buffers, relit and recoloured for every batch."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill3d.camera import CameraRanges, random_cameras, view_words
from distill3d.data.assets import MeshEntry, load_mesh, read_index
from distill3d.embedded import relight
from distill3d.embedded.captions import SceneCaption, Thing, training_caption
from distill3d.embedded.mesh_scenes import compose, draw_override, draw_pair, group_by_noun, read_held_out
from distill3d.light import random_lights
from distill3d.runtime.files import replacing_folder
from distill3d.runtime.foreign import reading
from distill3d.runtime.rng import rng
from distill3d.scenes.mesh.raster import Mesh, rasterize
from distill3d.types import Cameras

log = logging.getLogger(__name__)
VERSION = 2  # of the cache's layout
POSE = 22  # numbers a view: position, elevation, azimuth, c2w, fovy
VIEW_SIZE = 64  # pixels that views are rasterised at
# wider than what a prior is taught: the judge must recognise an object at any distance
CAMERA_RANGES = CameraRanges((-10.0, 80.0), (-180.0, 180.0), (1.4, 1.8), (35.0, 50.0), 0.05, 0.05, 0.02)


@dataclass(frozen=True)
class ViewSpec:
    """What was rasterised: one asset, or two and their relation, under one random camera."""

    first: int  # index into the assets
    relation: str | None
    second: int | None
    seed: int


@dataclass(frozen=True)
class ViewBatch:
    """Images in [-1, 1] with what they show."""

    encoded: ClassVar[bool] = False  # an `ImageBatch` may be in the prior's space
    images: Float[Tensor, "B 3 H W"]
    captions: list[str]
    scenes: list[SceneCaption]
    views: list[str]
    textureless: list[bool]
    cameras: Cameras
    clean: Float[Tensor, "B 4 S S"]  # unlit colour times mask in [0, 1], and the mask, at the cache's own size

    def __getitem__(self, rows: slice) -> ViewBatch:
        return ViewBatch(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True)
class ShadingMix:
    """Shares of the training images, relative to their sum, and the range of the ambient light."""

    albedo: float = 0.3
    lambertian: float = 0.5
    textureless: float = 0.2
    ambient_range: tuple[float, float] = (0.1, 0.5)

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in ("albedo", "lambertian", "textureless")}
        for name, share in shares.items():
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name}={share} is a share of the images; give 0 to 1")
        if not any(shares.values()):
            raise ValueError("albedo, lambertian and textureless are all 0; give at least one of them a share")
        low, high = self.ambient_range
        if not 0.0 <= low <= high <= 1.0:
            raise ValueError(f"ambient_range={[low, high]} must be [low, high] within 0 .. 1")


class ViewCache:
    """Rasterised views on disk as one byte array, opened as a memory map; made once, reused by every run."""

    def __init__(self, folder: Path, assets: list[MeshEntry], specs: list[ViewSpec], size: int):
        self.assets, self.specs = assets, specs
        with reading(folder, "cached views", "remove it, and it is made again", "data.cache_dir"):
            self.buffers = np.load(folder / "buffers.npy", mmap_mode="r")
            cameras = np.load(folder / "cameras.npy")
        self.eye = torch.from_numpy(cameras[:, :3])
        self.elevation_deg, self.azimuth_deg = torch.from_numpy(cameras[:, 3]), torch.from_numpy(cameras[:, 4])
        self.c2w = torch.from_numpy(cameras[:, 5:21]).view(-1, 4, 4)
        self.fovy_rad = torch.from_numpy(cameras[:, 21])
        self.words = view_words(self.elevation_deg, self.azimuth_deg)
        self.size = size
        self.singles: dict[str, list[int]] = {}
        self.pairs: list[int] = []
        for index, spec in enumerate(specs):
            if spec.second is None:
                self.singles.setdefault(assets[spec.first].noun, []).append(index)
            else:
                self.pairs.append(index)

    def cameras(self, rows: list[int]) -> Cameras:
        angles, distance = (self.elevation_deg[rows], self.azimuth_deg[rows]), self.eye[rows].norm(dim=-1)
        return Cameras(self.c2w[rows], self.fovy_rad[rows], *angles, distance, self.size, self.size)

    def surface(self, rows: list[int]) -> relight.ShadedSurface:
        return relight.unpack(torch.from_numpy(np.ascontiguousarray(self.buffers[rows])))

    def unlit(self, rows: list[int]) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B 1 H W"]]:
        """Albedo and mask alone: a third of what a surface costs."""
        part = self.buffers[rows][:, list(relight.UNLIT)]
        unit = torch.from_numpy(np.ascontiguousarray(part)).float() / 255.0
        return unit[:, :3], unit[:, 3:]

    def caption(self, row: int, first_override: Thing | None = None) -> SceneCaption:
        spec = self.specs[row]
        first = first_override or Thing(self.assets[spec.first].noun)
        if spec.second is None:
            return SceneCaption(first)
        return SceneCaption(first, spec.relation, Thing(self.assets[spec.second].noun))


def view_specs(assets: list[MeshEntry], views_per_mesh: int, pair_views: int, seed: int) -> list[ViewSpec]:
    """A fixed list of views: ``views_per_mesh`` of each mesh, then pairs, without those held out."""
    held_out = read_held_out()
    draw = random.Random(f"views/{seed}")
    specs = [ViewSpec(i, None, None, draw.getrandbits(40)) for i in range(len(assets)) for _ in range(views_per_mesh)]
    index = {id(asset): i for i, asset in enumerate(assets)}
    while len(specs) < len(assets) * views_per_mesh + pair_views:
        first, relation, second = draw_pair(assets, draw)
        if not held_out.contains(SceneCaption(Thing(first.noun), relation, Thing(second.noun))):
            specs.append(ViewSpec(index[id(first)], relation, index[id(second)], draw.getrandbits(40)))
    return specs


def open_cache(
    assets: list[MeshEntry],
    cache_dir: Path,
    views_per_mesh: int,
    pair_views: int,
    seed: int,
    size: int = VIEW_SIZE,
    cameras: CameraRanges = CAMERA_RANGES,
) -> ViewCache:
    """Open the cache of these views, rasterising it first when it is not there."""
    specs = view_specs(assets, views_per_mesh, pair_views, seed)
    named = [(a.noun, a.variant, a.front, a.path.stat().st_size) for a in assets]
    key = [VERSION, size, asdict(cameras), named, [asdict(s) for s in specs]]
    name = hashlib.blake2b(json.dumps(key).encode(), digest_size=8).hexdigest()
    folder = Path(cache_dir) / f"mesh-views-{name}"
    if not folder.is_dir():
        _rasterize_all(assets, specs, folder, size, cameras)
    return ViewCache(folder, assets, specs, size)


def _rasterize_all(
    assets: list[MeshEntry], specs: list[ViewSpec], folder: Path, size: int, ranges: CameraRanges
) -> None:
    with replacing_folder(folder) as temporary:
        _write_views(assets, specs, temporary, size, ranges)


def _write_views(assets: list[MeshEntry], specs: list[ViewSpec], folder: Path, size: int, ranges: CameraRanges) -> None:
    meshes = [load_mesh(asset) for asset in assets]
    shape = (len(specs), relight.CHANNELS, size, size)
    buffers = np.lib.format.open_memmap(folder / "buffers.npy", mode="w+", dtype=np.uint8, shape=shape)
    cameras = np.zeros((len(specs), POSE), np.float32)
    start = time.monotonic()

    def render(row: int) -> None:
        buffers[row], cameras[row] = _rasterize_one(meshes, specs[row], size, ranges)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(render, range(len(specs))), start=1):
            if done % 5000 == 0 or done == len(specs):
                rate = done / (time.monotonic() - start)
                log.info(
                    "rasterised %d of %d views, %.0f/s, %.0f s left", done, len(specs), rate, (len(specs) - done) / rate
                )
    buffers.flush()
    np.save(folder / "cameras.npy", cameras)


def _rasterize_one(
    meshes: list[Mesh], spec: ViewSpec, size: int, ranges: CameraRanges
) -> tuple[np.ndarray, np.ndarray]:
    mesh = _tagged(meshes[spec.first], 0.0)
    if spec.second is not None:
        mesh = compose(mesh, spec.relation or "", _tagged(meshes[spec.second], 1.0), random.Random(spec.seed))
    camera = random_cameras(ranges, 1, size, size, torch.Generator().manual_seed(spec.seed))
    packed = relight.pack(rasterize(mesh, camera, supersample=2))
    angles = [camera.elevation_deg, camera.azimuth_deg]
    pose = torch.cat([camera.position[0], *angles, camera.c2w.flatten(), camera.fovy_rad])
    return packed[0].numpy(), pose.numpy()


def _tagged(mesh: Mesh, second: float) -> Mesh:
    """The mesh with one more attribute: 1 for the second object of a pair."""
    tag = np.full((len(mesh.vertices), 1), second, np.float32)
    return Mesh(mesh.vertices, mesh.faces, np.concatenate([mesh.colors, tag], axis=1))


class ViewSampler:
    """Draws batches: a pure function of (seed, step)."""

    def __init__(
        self,
        cache: ViewCache,
        nouns: list[str],
        seed: int,
        pair_share: float = 0.2,
        override_share: float = 0.2,
        mix: ShadingMix | None = None,
        strong: bool = False,
    ):
        self.cache, self.nouns, self.seed = cache, nouns, seed
        self.override_share = override_share
        self.mix = mix or ShadingMix()
        self.strong = strong
        self.held_out = read_held_out()
        allowed = set(nouns)
        self.pairs = [i for i in cache.pairs if {t.noun for t in cache.caption(i).things} <= allowed]
        self.pair_share = pair_share if self.pairs else 0.0

    def batch(self, step: int, size: int, image_size: int) -> ViewBatch:
        """``size`` images of ``image_size`` pixels with their captions."""
        draw = random.Random(f"batch/{self.seed}/{step}")
        generator = rng("data", self.seed, step)
        rows, scenes = zip(*(self.draw_scene(draw) for _ in range(size)), strict=True)
        kind = [draw.choices(("albedo", "lambertian", "textureless"), self._mix_weights())[0] for _ in rows]
        images, clean = self._images(list(rows), list(scenes), kind, generator)
        if self.cache.size != image_size:
            images = F.interpolate(images, (image_size, image_size), mode="area")
        views = [self.cache.words[row] for row in rows]
        textureless = [k == "textureless" for k in kind]
        captions = [training_caption(s, v, t, draw) for s, v, t in zip(scenes, views, textureless, strict=True)]
        cameras = self.cache.cameras(list(rows))
        return ViewBatch(2.0 * images - 1.0, captions, list(scenes), list(views), textureless, cameras, clean)

    def _mix_weights(self) -> tuple[float, float, float]:
        return self.mix.albedo, self.mix.lambertian, self.mix.textureless

    def draw_scene(self, draw: random.Random) -> tuple[int, SceneCaption]:
        """A cached view and what its image is to show, recoloured or not."""
        if self.pairs and draw.random() < self.pair_share:
            row = draw.choice(self.pairs)
            first = None
            if draw.random() < 0.3:
                first = self._override(self.cache.caption(row).first.noun, draw)
            return row, self.cache.caption(row, first)
        noun = draw.choice(self.nouns)
        row = draw.choice(self.cache.singles[noun])
        share = self.override_share / max(1.0 - self.pair_share, 1e-6)
        first = self._override(noun, draw) if draw.random() < share else None
        return row, self.cache.caption(row, first)

    def _override(self, noun: str, draw: random.Random) -> Thing:
        while True:
            thing = draw_override(noun, draw)
            if not self.held_out.contains(SceneCaption(thing)):
                return thing

    def _images(
        self, rows: list[int], scenes: list[SceneCaption], kind: list[str], generator: torch.Generator
    ) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B 4 H W"]]:
        """Images, and what they show unlit and before no background; in [0, 1]."""
        surface, eye = self.cache.surface(rows), self.cache.eye[rows]
        overrides = [
            (s.first.color or s.first.material, s.second and (s.second.color or s.second.material)) for s in scenes
        ]
        albedo = relight.overridden(surface, eye, overrides)
        light = random_lights(_CamerasAt(eye), generator).position  # type: ignore[arg-type]
        low, high = self.mix.ambient_range
        ambient = low + (high - low) * torch.rand(len(rows), generator=generator)
        textureless = torch.tensor([k == "textureless" for k in kind])[:, None, None, None]
        flat = torch.tensor([k == "albedo" for k in kind])[:, None, None, None]
        albedo = torch.where(textureless, torch.ones_like(albedo), albedo)
        lit = relight.lambertian(surface, albedo, light, ambient)
        color = torch.where(flat, albedo, lit)
        background = relight.random_backgrounds(len(rows), self.cache.size, generator)
        images = color * surface.mask + background * (1.0 - surface.mask)
        clean = torch.cat([albedo * surface.mask, surface.mask], dim=1)
        return _jittered(images, generator) if self.strong else images, clean


@dataclass(frozen=True)
class _CamerasAt:
    """Just enough of Cameras for the light sampler."""

    position: Float[Tensor, "B 3"]

    def __len__(self) -> int:
        return len(self.position)


def _jittered(images: Float[Tensor, "B 3 H W"], generator: torch.Generator) -> Tensor:
    """The judge's stronger augmentation: scale and shift, blur by down-sampling, gain, gamma and noise."""
    count, size = len(images), images.shape[-1]
    unit = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    scale = 0.8 + 0.5 * unit(count)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = scale, scale
    theta[:, :, 2] = 0.3 * (unit(count, 2) - 0.5)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    coarse = F.interpolate(F.interpolate(images, scale_factor=0.5, mode="area"), (size, size), mode="bilinear")
    blur = (unit(count) < 0.4).float()[:, None, None, None] * unit(count, 1, 1, 1)
    images = images * (1.0 - blur) + coarse * blur
    images = images.clamp_min(1e-4) ** (0.7 + 0.7 * unit(count, 1, 1, 1)) * (0.75 + 0.45 * unit(count, 3, 1, 1))
    noise = 0.08 * unit(count, 1, 1, 1) * torch.randn(images.shape, generator=generator)
    return (images + noise).clamp(0.0, 1.0)


def core_nouns(assets: list[MeshEntry]) -> list[str]:
    """Core nouns by rank."""
    ranked = {asset.noun: asset.rank for asset in assets if asset.core}
    return sorted(ranked, key=ranked.__getitem__)


def all_nouns(assets: list[MeshEntry]) -> list[str]:
    """All nouns, core first, each by rank."""
    core = core_nouns(assets)
    rest = {asset.noun: asset.rank for asset in assets if asset.noun not in set(core)}
    return core + sorted(rest, key=rest.__getitem__)


__all__ = ["CAMERA_RANGES", "ViewBatch", "ViewCache", "ViewSampler", "group_by_noun", "open_cache", "read_index"]
