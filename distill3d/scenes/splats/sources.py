"""What a scene of Gaussians begins with, where that is no ball: files of Gaussians, points or meshes, and trials."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.camera import camera_rays, orbit_cameras
from distill3d.config.check import ConfigError
from distill3d.runtime.foreign import ForeignFileError, named, reading, user_path
from distill3d.runtime.rng import rng
from distill3d.scenes.splats.files import SCALE, checked, read_gaussians, read_ply_vertices
from distill3d.scenes.splats.gaussians import Gaussians, facing_outward, logit
from distill3d.types import Cameras

SETTING = "system.scene.init"
SURFACE_OPACITY = 0.8  # of what lies on a known surface
ELEVATIONS_DEG, VIEWS, VIEW_SIZE = (-40.0, 0.0, 40.0, 75.0), 12, 64  # from where a volume is looked at
VIEW_DISTANCE, VIEW_FOVY_DEG = 4.0, 30.0  # in radii of the scene


def read_source(cfg: Any, seed: int) -> Gaussians:
    """The Gaussians that ``init`` names: a folder is a trial, a file is told by its name and what is in it.

    Raises ForeignFileError, CheckpointError or ConfigError, whose messages name the setting.
    """
    path = user_path(cfg.init)
    generator = rng("scene", seed, -1)
    if path.is_dir():
        return _within(_from_trial(path, cfg, generator), cfg, path)
    if not path.is_file():
        raise ForeignFileError(
            f"{named(path, SETTING)} does not exist; write ball, or give a .ply, a .splat, a mesh, or a trial's folder"
        )
    if path.suffix.lower() == ".splat":
        return _within(read_gaussians(path, SETTING), cfg, path)
    if path.suffix.lower() == ".ply":
        with reading(path, "a PLY file", setting=SETTING), path.open("rb") as file:
            head = file.read(1 << 16).partition(b"end_header")[0]
        if SCALE[0].encode() in head or b"f_dc_0" in head:
            return _within(read_gaussians(path, SETTING), cfg, path)
        if b"element face" not in head:
            return _within(_from_points(path, cfg, generator), cfg, path)
    return _from_mesh(path, cfg, generator)


def _within(gaussians: Gaussians, cfg: Any, path: Path) -> Gaussians:
    farthest = float(gaussians.means.norm(dim=1).max())
    if farthest > cfg.radius:
        raise ForeignFileError(
            f"{named(path, SETTING)} reaches {farthest:.3g} from the origin, beyond system.scene.radius={cfg.radius}: "
            "raise it, or move and scale what is in the file"
        )
    return gaussians


def _from_points(path: Path, cfg: Any, generator: torch.Generator) -> Gaussians:
    """At most ``count`` points as they stand, as large as it is far to their neighbours."""
    from scipy.spatial import KDTree

    table = read_ply_vertices(path, SETTING)
    if not {"x", "y", "z"} <= set(table):
        raise ForeignFileError(f"{named(path, SETTING)} has points without x, y, z; give a point cloud or a mesh")
    points = torch.from_numpy(np.stack([table[name] for name in "xyz"], axis=1)).float()
    has_colors = {"red", "green", "blue"} <= set(table)
    colors = np.stack([table[name] for name in ("red", "green", "blue")], axis=1) / 255.0 if has_colors else None
    chosen = torch.randperm(len(points), generator=generator)[: cfg.count]
    points = points[chosen]
    seen = torch.full_like(points, 0.5) if colors is None else torch.from_numpy(colors).float()[chosen]
    near = min(4, len(points))
    bad = not bool(points.isfinite().all())
    apart = np.zeros((len(points), 2)) if near < 2 or bad else KDTree(points.numpy()).query(points.numpy(), near)[0]
    size = torch.from_numpy(apart[:, 1:].mean(axis=1)).float().clamp(1e-3 * cfg.radius, cfg.max_size)
    outward = torch.nn.functional.normalize(points - points.mean(dim=0), dim=1)
    return checked(_on_surface(points, seen, outward, 0.6 * size, cfg.flatness), path, SETTING)


def _from_mesh(path: Path, cfg: Any, generator: torch.Generator) -> Gaussians:
    """``count`` Gaussians all over the surface, flat upon it; the mesh is centred, its farthest vertex at 0.5."""
    from distill3d.data.mesh_file import load_mesh_file

    mesh = load_mesh_file(path, setting=SETTING)
    corners = torch.from_numpy(mesh.vertices)[torch.from_numpy(mesh.faces.astype(np.int64))]  # F 3 3
    cross = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = 0.5 * cross.norm(dim=1)
    face = torch.multinomial(area, cfg.count, replacement=True, generator=generator)
    weights = torch.rand(cfg.count, 2, generator=generator).sort(dim=1).values
    weights = torch.stack([weights[:, 0], weights[:, 1] - weights[:, 0], 1.0 - weights[:, 1]], dim=1)[..., None]
    points = (corners[face] * weights).sum(dim=1)
    colors = (torch.from_numpy(mesh.colors)[torch.from_numpy(mesh.faces.astype(np.int64))][face] * weights).sum(dim=1)
    size = torch.full((cfg.count,), 0.6 * math.sqrt(float(area.sum()) / cfg.count))
    normals = torch.nn.functional.normalize(cross[face], dim=1)
    return _on_surface(points, colors, normals, size, cfg.flatness)


def _from_trial(folder: Path, cfg: Any, generator: torch.Generator) -> Gaussians:
    """The Gaussians of a trial, or Gaussians on what is seen of its volume."""
    from distill3d.config.experiment import load
    from distill3d.runtime.checkpoint import read_checkpoint

    parsed = folder / "configs" / "parsed.yaml"
    if not parsed.is_file():
        raise ConfigError(f"{SETTING}={folder} is no trial: it has no configs/parsed.yaml", SETTING)
    state = read_checkpoint(folder / "ckpts" / "last.ckpt", SETTING)["state_dict"]
    own = {name.removeprefix("scene."): value for name, value in state.items() if name.startswith("scene.")}
    if "means" in own and "quaternions" in own:
        names = Gaussians.__dataclass_fields__
        return checked(Gaussians(**{name: own[name] for name in names}), folder, SETTING)
    volume = {k.removeprefix("renderer."): v for k, v in own.items() if k.startswith("renderer.")}
    if not volume:
        raise ConfigError(f"{SETTING}={folder} has neither Gaussians nor a volume; give a trial of text to 3D", SETTING)
    return _from_volume(load(parsed, check=False).experiment.system, volume, cfg, generator)


def _from_volume(system: dict[str, Any], state: dict[str, Tensor], cfg: Any, generator: torch.Generator) -> Gaussians:
    from distill3d.scenes.nerf.scene import PARTS, NeRFScene, build_renderer

    settings = {}
    for part in PARTS:
        settings[f"{part}_type"] = system.get(f"{part}_type") or getattr(NeRFScene.Config, f"{part}_type")
        settings[part] = dict(system.get(part) or {})
    renderer = build_renderer(settings)
    renderer.load_state_dict(state)
    distance = VIEW_DISTANCE * renderer.radius
    views = [orbit_cameras(VIEWS, e, distance, VIEW_FOVY_DEG, VIEW_SIZE) for e in ELEVATIONS_DEG]
    cameras = Cameras.cat(views)
    seen = renderer.render(cameras, None, "albedo", torch.zeros(3))
    rays, solid = camera_rays(cameras), seen.opacity[:, 0] > 0.5
    if not bool(solid.any()):
        raise ConfigError(f"{SETTING}={cfg.init}: nothing is to be seen of its volume; train it longer", SETTING)
    points = (rays.origins + seen.depth.permute(0, 2, 3, 1) * rays.directions)[solid]
    shown = [(image / seen.opacity).permute(0, 2, 3, 1)[solid] for image in (seen.rgb, seen.normal)]
    chosen = torch.randint(len(points), (cfg.count,), generator=generator)
    reach = float((points - points.mean(dim=0)).norm(dim=1).mean())  # the object is about a sphere of this radius
    size = torch.full((cfg.count,), 0.6 * math.sqrt(4.0 * math.pi * reach**2 / cfg.count))
    normals = torch.nn.functional.normalize(shown[1][chosen], dim=1)
    return _on_surface(points[chosen], shown[0][chosen].clamp(0.0, 1.0), normals, size, cfg.flatness)


def _on_surface(
    points: Float[Tensor, "N 3"],
    colors: Float[Tensor, "N 3"],
    normals: Float[Tensor, "N 3"],
    size: Float[Tensor, "N"],
    flatness: float,
) -> Gaussians:
    """Thin along the normals."""
    deviations = size[:, None] * size.new_tensor([1.0, 1.0, min(flatness, 0.5)])
    opacities = torch.full_like(size, math.log(SURFACE_OPACITY / (1.0 - SURFACE_OPACITY)))
    return Gaussians(points, deviations.log(), facing_outward(normals), opacities, logit(colors, 0.02))
