"""The mesh exporter: a trained scene becomes files that open everywhere."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from distill3d import __version__
from distill3d.export.asset import Asset
from distill3d.export.files import write_atomically
from distill3d.export.glb import glb_files
from distill3d.export.mesh import vertex_normals
from distill3d.export.query import Field, albedo_at
from distill3d.export.surface import FoundSurface, Renderer, SurfaceSettings, find_surface
from distill3d.export.texture import bake, unwrap
from distill3d.registry import register

log = logging.getLogger(__name__)

Writer = Callable[[Asset, str], dict[str, bytes]]
WRITERS: dict[str, Writer] = {"glb": glb_files}
FACES = {"texture": 10_000, "vertex": 60_000}  # unwrapping is quadratic in the faces; vertex colours need many


@dataclass(frozen=True)
class ExportResult:
    """The files written, the mesh's first, and what was measured on the way."""

    files: list[Path]
    figures: dict[str, float | int | str]


@register("exporter", "mesh-exporter")
class MeshExporter:
    """The isosurface as GLB, OBJ, PLY or USDZ, with a texture or vertex colours, viewer and preview."""

    @dataclass
    class Config:
        """Settings; names that threestudio has mean what they mean there."""

        fmt: str = "glb"  # glb | obj (or obj-mtl) | ply | usdz
        save_name: str = "model"
        mode: str = "texture"  # texture | vertex (colours at the vertices, no unwrap); ply always has vertex colours
        threshold: Any = "auto"  # density at which the surface lies: a number, or auto (by silhouettes)
        resolution: int = 192  # cells along the object's longest side, 16..512
        faces: int | None = None  # target after decimation; None: 10 000 with a texture, 60 000 with vertex colours
        keep_parts: int = 8  # at most so many connected parts,
        min_part_share: float = 0.02  # each with at least this share of the largest part's volume
        smooth: int = 0  # iterations of Taubin's filter
        texture_size: int = 1024
        texture_format: str = "png"  # png | jpg
        normal_map: bool = False
        roughness: float = 0.9
        xatlas_chart_options: dict = field(default_factory=dict)
        xatlas_pack_options: dict = field(default_factory=dict)
        viewer: bool = True  # a self-contained viewer.html beside the mesh
        preview: bool = True  # a contact sheet of mesh and scene, and the PSNR between them
        view_count: int = 8  # views for the automatic threshold and the preview,
        view_size: int = 128  # and their height and width in pixels

        def __post_init__(self) -> None:
            self.fmt = "obj" if self.fmt == "obj-mtl" else self.fmt
            self.mode = "vertex" if self.fmt == "ply" else self.mode
            _choice("fmt", self.fmt, (*WRITERS, "obj-mtl"))
            _choice("mode", self.mode, tuple(FACES))
            _choice("texture_format", self.texture_format, ("png", "jpg"))
            _within("resolution", self.resolution, 16, 512)
            _within("texture_size", self.texture_size, 16, 8192)
            _within("roughness", self.roughness, 0.0, 1.0)
            _within("min_part_share", self.min_part_share, 0.0, 1.0)
            _within("keep_parts", self.keep_parts, 1, 1_000_000)
            _within("smooth", self.smooth, 0, 1000)
            _within("view_count", self.view_count, 1, 64)
            _within("view_size", self.view_size, 16, 2048)
            if self.faces is not None:
                _within("faces", self.faces, 4, 10_000_000)
            self.threshold = _threshold(self.threshold)

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg

    def export(self, renderer: Renderer, out_dir: Path, metadata: dict[str, str]) -> ExportResult:
        """Write the mesh into ``out_dir``; every file appears whole or not at all.

        Raises EmptySurfaceError (a ValueError) where the scene has no surface, OSError where it cannot write.
        """
        started = time.perf_counter()
        found = find_surface(renderer, self._surface_settings())
        extracted = time.perf_counter()
        asset, figures = self._colored(renderer.geometry, found, {"version": __version__, **metadata})
        colored = time.perf_counter()
        contents = WRITERS[self.cfg.fmt](asset, self.cfg.save_name)
        files = [write_atomically(Path(out_dir) / name, data) for name, data in contents.items()][::-1]
        seconds = {
            "seconds_surface": extracted - started,
            "seconds_color": colored - extracted,
            "seconds_write": time.perf_counter() - colored,
        }
        log.info("wrote %s", ", ".join(path.name for path in files))
        return ExportResult(files, found.figures | figures | seconds)

    def _surface_settings(self) -> SurfaceSettings:
        cfg = self.cfg
        threshold = None if cfg.threshold == "auto" else cfg.threshold
        faces = cfg.faces or FACES[cfg.mode]
        parts = (cfg.keep_parts, cfg.min_part_share, cfg.smooth)
        return SurfaceSettings(threshold, cfg.resolution, *parts, faces, cfg.view_count, cfg.view_size)

    def _colored(
        self, geometry: Field, found: FoundSurface, metadata: dict[str, str]
    ) -> tuple[Asset, dict[str, float | int | str]]:
        """The asset with vertex colours, or cut into charts with a baked texture."""
        cfg, surface = self.cfg, found.surface
        normals = vertex_normals(surface)
        colors = albedo_at(geometry, torch.from_numpy(surface.vertices)).numpy()
        common: dict[str, Any] = {"roughness": cfg.roughness, "image_format": cfg.texture_format, "metadata": metadata}
        if cfg.mode == "vertex":
            return Asset(surface.vertices, surface.faces, normals, colors, **common), {"vertices": len(normals)}
        cut = unwrap(surface, cfg.texture_size, cfg.xatlas_chart_options, cfg.xatlas_pack_options)
        images = bake(geometry, surface, cut, cfg.texture_size, found.level, found.reach, cfg.normal_map)
        common |= {"uv": cut.uv, "base_color": images[0], "normal_map": images[1], "tangents": images[2]}
        at = cut.origin
        asset = Asset(surface.vertices[at], cut.faces, normals[at], colors[at], **common)
        return asset, {"vertices": len(at), "charts": cut.charts, "texture_size": cfg.texture_size}


def _choice(setting: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{setting}={value!r} is unknown; choose one of {', '.join(known)}")


def _within(setting: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{setting}={value!r} is out of range; expected {low:g} to {high:g}")


def _threshold(value: Any) -> float | str:
    """``auto`` or a positive density."""
    if value == "auto":
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0.0):
        raise ValueError(f"threshold={value!r} is not valid; expected a positive density or auto")
    return number
