"""What was made against the mesh it should be: silhouettes, albedo and surface. All without alignment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.camera import make_cameras
from distill3d.data.assets import y_up_to_world
from distill3d.data.posed.write import RenderedViews
from distill3d.evaluation.loaded_trial import LoadedTrial
from distill3d.evaluation.metrics import high_frequency_ratio, saturation
from distill3d.scenes.mesh.raster import Mesh, rasterize
from distill3d.types import Cameras, Light

GREY = 0.5
SURFACE_POINTS = 6000  # of each of the two, for their distance
LEAST_SATURATION = 0.01  # of a truth whose saturation something can be compared with


def scene_views(trial: LoadedTrial, cameras: Cameras) -> RenderedViews:
    """Albedo before black, with opacities."""
    parts = [
        trial.system.scene.preview(
            cameras[[i]], Light(cameras[[i]].position), "albedo", torch.zeros(3), need_normal=False
        )
        for i in range(len(cameras))
    ]
    return RenderedViews(cameras, torch.cat([p.rgb for p in parts]), torch.cat([p.opacity for p in parts]))


def around(count: int, distance: float, fovy_deg: float) -> Cameras:
    """64x64 views in equal steps of azimuth, from a little above."""
    full = torch.ones(count)
    return make_cameras(15.0 * full, torch.arange(count) * (360.0 / count), distance * full, fovy_deg * full, 64, 64)


def over_grey(views: RenderedViews) -> Float[Tensor, "V 3 H W"]:
    return views.rgb + GREY * (1.0 - views.alpha)


def silhouette_iou(made: Float[Tensor, "V 1 H W"], truth: Float[Tensor, "V 1 H W"]) -> float:
    """Of the pixels that are more than half covered; the mean over views."""
    a, b = (x.flatten(1) > 0.5 for x in (made, truth))
    return float(((a & b).sum(1) / (a | b).sum(1).clamp_min(1)).mean())


def albedo_psnr_db(made: RenderedViews, truth: RenderedViews) -> float:
    """Of the pixels that either shows, before grey; the mean over views."""
    seen = (torch.maximum(made.alpha, truth.alpha) > 0.5).float()
    error = (seen * (over_grey(made) - over_grey(truth)) ** 2).flatten(1).sum(1) / (3.0 * seen.flatten(1).sum(1))
    return float((-10.0 * torch.log10(error.clamp_min(1e-10))).mean())


def detail_ratio(made: RenderedViews, truth: RenderedViews) -> float:
    """The share of energy in high frequencies, before grey, over the truth's; below 1 is blurred."""
    return high_frequency_ratio(over_grey(made)) / max(high_frequency_ratio(over_grey(truth)), 1e-9)


def saturation_ratio(made: RenderedViews, truth: RenderedViews) -> float | None:
    """The mean saturation, before grey, over the truth's, in thousandths; None for a truth that has next to none."""
    least = saturation(over_grey(truth))
    return round(saturation(over_grey(made)) / least, 3) if least > LEAST_SATURATION else None


def exported_mesh(trial: Path) -> Mesh | None:
    """A trial's model.glb in the world frame, without its colours; None where there is none."""
    import trimesh

    files = sorted((trial / "save").glob("*-export/model.glb"))
    if not files:
        return None
    shape = trimesh.load(files[-1], force="mesh")
    vertices = np.ascontiguousarray(y_up_to_world(np.asarray(shape.vertices, np.float32)))
    return Mesh(vertices, np.asarray(shape.faces, np.int32), np.zeros_like(vertices))


def kilobytes(trial: Path) -> float | None:
    """Of the file that holds the scene: gaussians.splat of splats, else model.glb; None where there is none."""
    for name in ("gaussians.splat", "model.glb"):
        files = sorted((trial / "save").glob(f"*-export/{name}"))
        if files:
            return round(files[-1].stat().st_size / 1e3, 1)
    return None


def janus_rate(made: Float[Tensor, "V 3 H W"], truth: Float[Tensor, "V 3 H W"]) -> float:
    """The share of views that show another side, 60 degrees away or more, better (by a tenth) than the right one."""
    count = len(made)
    error = (made[:, None] - truth[None]).square().flatten(2).mean(2)
    places = torch.arange(count)
    apart = (places[:, None] - places).abs() * (360.0 / count)
    apart = torch.minimum(apart, 360.0 - apart)
    others = error.masked_fill(apart < 60.0, torch.inf).amin(1)
    return float((others < 0.9 * error.diagonal()).float().mean())


def chamfer_percent(trial: LoadedTrial, mesh: Mesh) -> float:
    """Mean distance to the nearest point of the other's visible surface, both ways, in per cent of the diagonal."""
    from scipy.spatial import cKDTree

    exported = exported_mesh(trial.trial)
    if exported is None:
        return 100.0
    a, b = visible_points(exported), visible_points(mesh)
    distance = 0.5 * (cKDTree(a).query(b)[0].mean() + cKDTree(b).query(a)[0].mean())
    return 100.0 * float(distance) / float(np.linalg.norm(np.ptp(mesh.vertices, axis=0)))


def visible_points(mesh: Mesh) -> Float[np.ndarray, "P 3"]:
    """Points that are seen from somewhere on a sphere; what lies inside does not count."""
    count = 40
    height = 1.0 - 2.0 * (torch.arange(count) + 0.5) / count  # a Fibonacci sphere
    azimuth = (torch.arange(count) * 137.50776) % 360.0
    full = torch.ones(count)
    cameras = make_cameras(torch.rad2deg(torch.asin(height)), azimuth, 1.6 * full, 40.0 * full, 96, 96)
    seen = [rasterize(mesh, cameras[[i]], supersample=1) for i in range(count)]
    points = torch.cat([s.position[0].flatten(1).T[s.mask[0, 0].flatten() > 0.5] for s in seen]).numpy()
    return points[np.random.default_rng(0).permutation(len(points))[:SURFACE_POINTS]]


def f_score(made: Mesh, truth: Mesh, share: float = 0.04, points: int = 6000) -> float:
    """Harmonic mean of precision and recall at ``share`` of the truth's diagonal, between points on both surfaces.

    What stands elsewhere or looks the other way is wrong. Inner surfaces of the truth cannot be reached.
    """
    import trimesh
    from scipy.spatial import cKDTree

    surface = lambda mesh: trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)  # noqa: E731
    samples = [trimesh.sample.sample_surface(surface(mesh), points, seed=i)[0] for i, mesh in enumerate((made, truth))]
    reach = share * float(np.linalg.norm(np.ptp(truth.vertices, axis=0)))
    precision, recall = (float((cKDTree(b).query(a)[0] < reach).mean()) for a, b in (samples, reversed(samples)))
    return 2.0 * precision * recall / max(precision + recall, 1e-9)
