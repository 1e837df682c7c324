"""The mesh exporter: a trained scene becomes files that open everywhere."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from distill3d import __version__
from distill3d.config.registry import register
from distill3d.export.fitted_color import fitted_colors
from distill3d.export.formats.asset import Asset, Up, turned
from distill3d.export.formats.glb import glb_bytes, glb_files
from distill3d.export.formats.obj import obj_files
from distill3d.export.formats.ply import ply_files
from distill3d.export.formats.stl import stl_files
from distill3d.export.formats.threemf import threemf_files
from distill3d.export.formats.usdz import usdz_files
from distill3d.export.formats.viewer import viewer_html
from distill3d.export.formats.welding import Origin, flattened, placed, sized
from distill3d.export.painted import FieldColors, own_charts, welded_surface
from distill3d.export.preview import preview, turntable
from distill3d.export.query import SceneField
from distill3d.export.sharpening import sharpened
from distill3d.export.surface.extraction import (
    FoundSurface,
    SurfaceSettings,
    find_surface,
    framed_views,
    object_box,
)
from distill3d.export.surface.grid import Box
from distill3d.export.surface.mesh import Surface, vertex_normals
from distill3d.export.texture import PointColors, Unwrapped, bake, unwrap
from distill3d.export.views import AlbedoViews, fitting_cameras, surrounding_cameras
from distill3d.runtime.files import write_atomically
from distill3d.runtime.video import video_bytes
from distill3d.scenes.base import Solid
from distill3d.scenes.mesh.fixed import FixedMesh
from distill3d.scenes.nerf.renderer import NeRFVolumeRenderer

log = logging.getLogger(__name__)

Writer = Callable[[Asset, str], dict[str, bytes]]
WRITERS: dict[str, Writer] = {
    "glb": glb_files,
    "obj": obj_files,
    "ply": ply_files,
    "usdz": usdz_files,
    "stl": stl_files,
    "3mf": threemf_files,
}
UPS: dict[str, tuple[Up, ...]] = {  # axes that a file may have up, the usual one first; some standards leave no choice
    "glb": ("y",),
    "obj": ("y", "z"),
    "ply": ("z", "y"),
    "usdz": ("y",),
    "stl": ("z", "y"),
    "3mf": ("z",),
}
PRINTED = ("stl", "3mf")  # in millimetres, standing on the plate
UNTEXTURED = ("ply", *PRINTED)
TURNED_BY_WRITER = ("glb", "usdz")
TURN_SECONDS = 3  # of the turntable
RESOLUTION = 192
FACES = {"texture": 10_000, "vertex": 60_000}  # unwrapping is quadratic in the faces; vertex colours need many
RANGES: dict[str, tuple[float, float]] = {
    "resolution": (16, 512),
    "faces": (4, 10_000_000),
    "keep_parts": (1, 1_000_000),
    "min_part_share": (0.0, 1.0),
    "blur": (0.0, 0.1),
    "smooth": (0, 1000),
    "texture_size": (16, 8192),
    "roughness": (0.0, 1.0),
    "view_count": (1, 64),
    "view_size": (16, 2048),
    "fit_count": (0, 256),
    "fit_size": (16, 1024),
    "sharpen_steps": (1, 100_000),
    "turntable_views": (0, 1000),
    "turntable_size": (16, 2048),
    "size_mm": (0.1, 100_000.0),
    "flat_base": (0.0, 0.9),
}


@dataclass(frozen=True)
class ExportResult:
    """The files written, the mesh's first, and what was measured on the way."""

    files: list[Path]
    figures: dict[str, float | int | str]


@dataclass(frozen=True)
class MadeAsset:
    """A mesh before it is written, the box that the object fills, and what was measured on the way."""

    asset: Asset
    box: Box
    figures: dict[str, float | int | str]
    own_vertices: Float[ndarray, "V 3"] | None = None  # of a mesh of a file, where the scene shows it elsewhere

    @property
    def in_own_units(self) -> Asset:
        """What is written."""
        return self.asset if self.own_vertices is None else replace(self.asset, vertices=self.own_vertices)


@register("exporter", "mesh-exporter")
class MeshExporter:
    """Writes the isosurface as GLB, OBJ, PLY, USDZ, STL or 3MF, with texture or vertex colours, viewer and preview."""

    @dataclass
    class Config:
        """Settings; names that threestudio has mean what they mean there."""

        fmt: str = "glb"  # glb | obj (or obj-mtl) | ply | usdz | stl | 3mf
        save_name: str = "model"
        mode: str = "texture"  # texture | vertex (colours at the vertices, no unwrap), as ply, stl and 3mf always are
        threshold: Any = None  # density at which the surface lies; null: the geometry's isosurface_threshold, else auto
        resolution: int | None = None  # cells along the object; null: the geometry's isosurface_resolution, else 192
        faces: int | None = None  # target after decimation; null: 10 000 with a texture, 60 000 with vertex colours
        keep_parts: int = 8  # the largest number of connected parts,
        min_part_share: float = 0.02  # each with at least this share of the largest part's area
        blur: float | None = (
            None  # removes surface noise finer than this share of the object's size; null: chosen in .0075 to .03
        )
        smooth: int = 0  # iterations of Taubin's filter
        texture_size: int = 1024
        texture_format: str = "png"  # png | jpg
        normal_map: bool = False
        roughness: float = 0.9
        xatlas_chart_options: dict = field(default_factory=dict)
        xatlas_pack_options: dict = field(default_factory=dict)
        viewer: bool = True  # a self-contained viewer.html beside the mesh
        preview: bool = True  # preview.png, scene and mesh from the same views and the PSNR between them; turntable.mp4
        turntable_views: int = 36  # of turntable.mp4, colour and normal of the mesh; 0: none
        turntable_size: int = 512  # height of its pictures, which are square
        # y (front +z) | z (front -y), which Blender shows alike; null: y for glb, usdz and obj; z for ply, stl and 3mf,
        # and there a mesh that was given keeps its own axes
        up: str | None = None
        size_mm: float = 100.0  # stl and 3mf: length of the object's longest side
        flat_base: float = 0.0  # stl and 3mf: the lowest share of the height, which is pressed flat to stand on
        origin: str | None = None  # world | base | center: where the origin is; null: base for stl and 3mf, else world
        view_count: int = 8  # views of the preview, which nothing is fitted to,
        view_size: int = 128  # and their height and width in pixels
        sharpen: bool = True  # make a soft volume thin first: the field is fitted to its own pictures, without a prior
        sharpen_steps: int = 200
        fit_count: int = 32  # views that the level, the sharp volume and the colours are fitted to; 0: none, and then
        # colours are what is seen along the surface's normals
        fit_size: int = 96  # their height and width in pixels

        def __post_init__(self) -> None:
            self.fmt = "obj" if self.fmt == "obj-mtl" else self.fmt
            _choice("fmt", self.fmt, (*WRITERS, "obj-mtl"))
            _choice("mode", self.mode, tuple(FACES))
            _choice("texture_format", self.texture_format, ("png", "jpg"))
            if not re.fullmatch(r"[\w-][\w.-]*", self.save_name):
                raise ValueError(f"save_name={self.save_name!r} must be a file name of letters, digits, '.', '_', '-'")
            for name, (low, high) in RANGES.items():
                value = getattr(self, name)
                if value is not None and not low <= value <= high:
                    raise ValueError(f"{name}={value!r} is out of range; expected {low:g} to {high:g}")
            self.threshold = _threshold(self.threshold)
            self.mode = "vertex" if self.fmt in UNTEXTURED else self.mode
            if self.up is not None:
                _choice("up", self.up, UPS[self.fmt])
            if self.origin is not None:
                _choice("origin", self.origin, get_args(Origin))

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg

    def export(
        self, solid: Solid, out_dir: Path, metadata: Mapping[str, str], keep: Collection[str] = ()
    ) -> ExportResult:
        """Write the mesh, viewer, preview and turntable into ``out_dir``; each appears whole or not at all.

        ``keep``: names of files there that the scene wrote itself; they are no leftovers of an earlier export.
        Raises EmptySurfaceError (a ValueError) where the scene has no surface, OSError where it cannot write.
        """
        cfg, clock = self.cfg, LapTimer()
        made = self.make(solid, metadata, clock)
        asset, figures = made.asset, made.figures
        contents = WRITERS[cfg.fmt](self.written(made), cfg.save_name)
        if cfg.viewer:
            name = f"{cfg.save_name}.glb"
            page = viewer_html(glb_bytes(asset), asset.metadata, name, gaussians=solid.gaussians)
            contents["viewer.html"] = page.encode()
        if cfg.preview:
            others = framed_views(solid, surrounding_cameras(made.box, cfg.view_count, cfg.view_size))
            contents["preview.png"], seen = preview(asset, others, "volume" if solid.mesh is None else "scene")
            figures |= seen
            if cfg.turntable_views:
                frames = turntable(asset, cfg.turntable_views, cfg.turntable_size)
                contents["turntable.mp4"] = video_bytes(frames, max(cfg.turntable_views // TURN_SECONDS, 1))
        files = [write_atomically(Path(out_dir) / name, contents[name]) for name in reversed(contents)][::-1]
        remove_stale(Path(out_dir), cfg.save_name, {*keep, *(path.name for path in files)})
        clock.lap("seconds_write")
        log.info("wrote %s to %s", ", ".join(path.name for path in files), out_dir)
        return ExportResult(files, figures | clock.laps)

    def written(self, made: MadeAsset) -> Asset:
        """The asset in the frame and the size of the file."""
        cfg, printed = self.cfg, self.cfg.fmt in PRINTED
        asset = made.in_own_units
        asset = flattened(asset, cfg.flat_base) if printed and cfg.flat_base else asset
        asset = sized(asset, cfg.size_mm) if printed else asset
        asset = placed(asset, cast(Origin, cfg.origin or ("base" if printed else "world")))
        up = cast(Up, cfg.up or UPS[cfg.fmt][0])
        keeps_axes = up == "z" and cfg.up is None and made.own_vertices is not None
        return asset if cfg.fmt in TURNED_BY_WRITER or keeps_axes else turned(asset, up)

    def make(self, solid: Solid, metadata: Mapping[str, str], clock: LapTimer | None = None) -> MadeAsset:
        """The mesh with its colours, in memory. Raises EmptySurfaceError where the scene has no surface."""
        cfg, clock = self.cfg, clock or LapTimer()
        if solid.mesh is not None:
            return self.painted(SceneField.of(solid), solid.mesh, {"version": __version__, **metadata})
        settings = self.surface_settings(solid)
        box = object_box(SceneField.of(solid), settings.threshold)
        fit = framed_views(solid, fitting_cameras(box, cfg.fit_count, cfg.fit_size)) if cfg.fit_count else None
        clock.lap("seconds_views")
        sharp = self.sharp(solid, fit, float(box.extent.max()))
        clock.lap("seconds_sharpen")
        found = find_surface(sharp, settings, box, fit)
        clock.lap("seconds_surface")
        asset, figures = self.colored(found, {"version": __version__, **metadata}, fit)
        clock.lap("seconds_color")
        return MadeAsset(asset, box, found.figures | figures)

    def painted(self, field: SceneField, mesh: FixedMesh, metadata: Mapping[str, str]) -> MadeAsset:
        """A mesh as it is, in the colours of a field; its texture coordinates are kept where they are usable."""
        cfg, surface = self.cfg, Surface(mesh.placed, mesh.faces.astype(np.int64))
        colors, closed = FieldColors(field), welded_surface(surface)
        cut = None
        if cfg.mode == "texture":
            cut = own_charts(mesh.uv, surface.faces, cfg.texture_size) or self.unwrapped(surface)
        asset, figures = self.finished(surface, colors, cut, metadata)
        figures |= {"faces": len(surface.faces), "watertight": int(closed.is_watertight), "volume": closed.volume}
        low, high = (torch.from_numpy(corner) for corner in (mesh.placed.min(axis=0), mesh.placed.max(axis=0)))
        own = mesh.vertices if cut is None else mesh.vertices[cut.origin]
        return MadeAsset(asset, Box(low, high), figures, own)

    def sharp(self, solid: Solid, fit: AlbedoViews | None, size: float) -> Solid:
        """The scene, or a copy of it with a thin density, where that is asked for and possible."""
        cfg = self.cfg
        if not cfg.sharpen or fit is None or self.surface_settings(solid).threshold is not None:
            return solid  # a density that the user names is one of the volume as it is
        if not isinstance(solid.renderer, NeRFVolumeRenderer):
            return solid
        thin = sharpened(solid.renderer, fit, size, cfg.sharpen_steps)
        return replace(solid, geometry=thin.geometry, render=thin.render, renderer=thin)

    def surface_settings(self, solid: Solid) -> SurfaceSettings:
        """The settings, and those that the scene keeps where the exporter has none."""
        cfg = self.cfg
        threshold = cfg.threshold if cfg.threshold is not None else _threshold(solid.threshold)
        return SurfaceSettings(
            threshold=threshold if isinstance(threshold, float) else None,
            resolution=cfg.resolution or solid.resolution or RESOLUTION,
            blur=cfg.blur,
            keep_parts=cfg.keep_parts,
            min_part_share=cfg.min_part_share,
            smooth=cfg.smooth,
            faces=cfg.faces or FACES[cfg.mode],
            views=cfg.view_count,
            view_size=cfg.view_size,
        )

    def colored(
        self, found: FoundSurface, metadata: dict[str, str], fit: AlbedoViews | None = None
    ) -> tuple[Asset, dict[str, float | int | str]]:
        """The asset with vertex colours, or cut into charts with a baked texture; fitted to views where there are."""
        seen = fitted_colors(found.field, found.surface, found.reach, fit)
        cut = None if self.cfg.mode == "vertex" else self.unwrapped(found.surface)
        return self.finished(found.surface, seen, cut, metadata, found.detail if self.cfg.normal_map else None)

    def unwrapped(self, surface: Surface) -> Unwrapped:
        cfg = self.cfg
        return unwrap(surface, cfg.texture_size, cfg.xatlas_chart_options, cfg.xatlas_pack_options)

    def finished(
        self,
        surface: Surface,
        seen: PointColors,
        cut: Unwrapped | None,
        metadata: Mapping[str, str],
        detail: Surface | None = None,
    ) -> tuple[Asset, dict[str, float | int | str]]:
        """Colours in a texture where the surface is cut, else at its vertices."""
        cfg, normals = self.cfg, vertex_normals(surface)
        colors = seen.at(surface.vertices, normals)
        common: dict[str, Any] = {"roughness": cfg.roughness, "image_format": cfg.texture_format, "metadata": metadata}
        if cut is None:
            return Asset(surface.vertices, surface.faces, normals, colors, **common), {"vertices": len(normals)}
        images = bake(seen, surface, cut, cfg.texture_size, detail)
        common |= {"uv": cut.uv, "base_color": images[0], "normal_map": images[1], "tangents": images[2]}
        at = cut.origin
        asset = Asset(surface.vertices[at], cut.faces, normals[at], colors[at], **common)
        return asset, {"vertices": len(at), "charts": cut.charts, "texture_size": cfg.texture_size}


def remove_stale(folder: Path, name: str, kept: Collection[str]) -> None:
    """Remove what an earlier export under this name left there and this one did not write; other files stay."""
    old = [f"{name}.{suffix}" for suffix in (*WRITERS, "mtl")]
    old += [f"{name}_{part}.{suffix}" for part in ("albedo", "normal") for suffix in ("png", "jpg")]
    for file in {*old, "viewer.html", "preview.png", "turntable.mp4"} - set(kept):
        (folder / file).unlink(missing_ok=True)


class LapTimer:
    """Seconds between laps, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float | int | str] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now


def _choice(setting: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{setting}={value!r} is unknown; choose one of {', '.join(known)}")


def _threshold(value: Any) -> float | str | None:
    """None, ``auto`` or a positive density."""
    if value is None or value == "auto":
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0.0):
        raise ValueError(f"threshold={value!r} is not valid; expected a positive density or auto")
    return number
