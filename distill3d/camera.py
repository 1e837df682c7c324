"""Spherical cameras, their rays, and the words for what they see."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill3d.config.ranges import check_least
from distill3d.types import Cameras, Rays

ViewWord = Literal["front", "side", "back", "overhead"]
VIEW_WORDS: tuple[ViewWord, ...] = get_args(ViewWord)
VIEW_PHRASES: Mapping[str, str] = {word: f"{word} view" for word in VIEW_WORDS}  # as prompts and captions say it


@dataclass(frozen=True)
class CameraRanges:
    """What random cameras are drawn from. Angles in degrees, lengths in world units.

    DreamFusion (arXiv 2209.14988, appendix A.2): elevation uniform in angle for half the draws, uniform by area for
    the rest; position + U(-p, p)^3, look-at + N(0, c^2), up + N(0, u^2).
    """

    elevation_range: tuple[float, float] = (-10.0, 90.0)
    azimuth_range: tuple[float, float] = (-180.0, 180.0)
    camera_distance_range: tuple[float, float] = (1.0, 1.5)
    fovy_range: tuple[float, float] = (41.0, 71.0)
    camera_perturb: float = 0.1
    center_perturb: float = 0.2
    up_perturb: float = 0.02

    def __post_init__(self) -> None:
        for name in ("elevation_range", "azimuth_range", "camera_distance_range", "fovy_range"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}={[low, high]} must be [low, high]")
        if self.camera_distance_range[0] <= 0:
            raise ValueError(
                f"camera_distance_range={list(self.camera_distance_range)} must be positive distances in world units"
            )
        if self.elevation_range[0] < -90 or self.elevation_range[1] > 90:
            raise ValueError(f"elevation_range={list(self.elevation_range)} must lie in [-90, 90] degrees")
        if self.fovy_range[0] <= 0 or self.fovy_range[1] >= 180:
            raise ValueError(f"fovy_range={list(self.fovy_range)} must lie in (0, 180) degrees")
        check_least(self, camera_perturb=0, center_perturb=0, up_perturb=0)


def ranges_of(cameras: Cameras) -> CameraRanges:
    """The ranges that these cameras fill, all around and without perturbation."""
    span = lambda values: (float(values.min()), float(values.max()))  # noqa: E731
    return CameraRanges(
        elevation_range=span(cameras.elevation_deg),
        camera_distance_range=span(cameras.distance),
        fovy_range=span(torch.rad2deg(cameras.fovy_rad)),
        camera_perturb=0.0,
        center_perturb=0.0,
        up_perturb=0.0,
    )


def spherical_position(elevation_deg: Tensor, azimuth_deg: Tensor, distance: Tensor) -> Float[Tensor, "B 3"]:
    """World positions on spheres around the origin: azimuth 0 on +x, 90 on +y, elevation 90 on +z."""
    elevation, azimuth = torch.deg2rad(elevation_deg), torch.deg2rad(azimuth_deg)
    x = distance * elevation.cos() * azimuth.cos()
    y = distance * elevation.cos() * azimuth.sin()
    return torch.stack([x, y, distance * elevation.sin()], dim=-1)


def look_at(
    position: Float[Tensor, "B 3"], target: Float[Tensor, "B 3"], up: Float[Tensor, "B 3"]
) -> Float[Tensor, "B 4 4"]:
    """Camera-to-world matrices in the OpenGL convention; the view direction maps to -z.

    Straight above the target, where ``up`` says nothing, the top of the image is the side away from the front; straight
    below it is the front.
    """
    backward = torch.nn.functional.normalize(position - target, dim=-1)
    right = torch.linalg.cross(up, backward, dim=-1)
    degenerate = right.norm(dim=-1, keepdim=True) < 1e-6
    right = torch.where(degenerate, right.new_tensor([0.0, 1.0, 0.0]), right)
    right = torch.nn.functional.normalize(right, dim=-1)
    true_up = torch.linalg.cross(backward, right, dim=-1)
    c2w = torch.eye(4, dtype=position.dtype, device=position.device).repeat(len(position), 1, 1)
    c2w[:, :3, :4] = torch.stack([right, true_up, backward, position], dim=-1)
    return c2w


def make_cameras(
    elevation_deg: Tensor,
    azimuth_deg: Tensor,
    distance: Tensor,
    fovy_deg: Tensor,
    height: int,
    width: int,
    position_offset: Tensor | None = None,
    target: Tensor | None = None,
    up_offset: Tensor | None = None,
) -> Cameras:
    """Cameras on spheres around the origin, z up, with optional perturbations (each ``B 3``)."""
    position = spherical_position(elevation_deg, azimuth_deg, distance)
    up = position.new_tensor([0.0, 0.0, 1.0]).expand_as(position)
    position = position if position_offset is None else position + position_offset
    target = torch.zeros_like(position) if target is None else target
    up = up if up_offset is None else up + up_offset
    c2w = look_at(position, target, up)
    return Cameras(c2w, torch.deg2rad(fovy_deg), elevation_deg, wrap_deg(azimuth_deg), distance, height, width)


def random_cameras(
    ranges: CameraRanges,
    count: int,
    height: int,
    width: int,
    generator: torch.Generator,
    stratified_azimuth: bool = False,
    n_view: int = 1,
    relative_radius: bool = False,
) -> Cameras:
    """Draw ``count`` cameras; with ``stratified_azimuth`` each comes from its own equal share of the azimuth range.

    With ``n_view`` each draw is a set of ``n_view`` consecutive cameras that differ in azimuth alone, equally spaced
    over the range (MVDream, arXiv 2308.16512). With ``relative_radius`` distances are multiplied by
    ``1 / tan(fovy / 2)``, so that an object looks equally large through every lens. Raises ValueError unless
    ``n_view`` divides ``count``.
    """
    count = set_count(count, n_view)
    unit = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    low, high = (math.radians(e) for e in ranges.elevation_range)
    by_angle = low + (high - low) * unit(count)
    by_area = torch.asin(math.sin(low) + (math.sin(high) - math.sin(low)) * unit(count))
    elevation_deg = torch.rad2deg(torch.where(unit(count) < 0.5, by_angle, by_area))
    share = (torch.arange(count) + unit(count)) / count if stratified_azimuth else unit(count)
    if n_view > 1:
        share = ((torch.arange(n_view) + share[:, None]) / n_view).flatten()
    azimuth_deg = ranges.azimuth_range[0] + (ranges.azimuth_range[1] - ranges.azimuth_range[0]) * share
    distance = _uniform(ranges.camera_distance_range, unit(count))
    fovy_deg = _uniform(ranges.fovy_range, unit(count))
    position_offset = (2.0 * unit(count, 3) - 1.0) * ranges.camera_perturb
    target = torch.randn(count, 3, generator=generator) * ranges.center_perturb
    up_offset = torch.randn(count, 3, generator=generator) * ranges.up_perturb
    if relative_radius:
        distance = distance / torch.tan(0.5 * torch.deg2rad(fovy_deg))
    each = lambda drawn: for_each_view(drawn, n_view)  # noqa: E731
    sphere = each(elevation_deg), azimuth_deg, each(distance), each(fovy_deg)
    return make_cameras(*sphere, height, width, each(position_offset), each(target), each(up_offset))


def set_count(rows: int, n_view: int) -> int:
    """The number of sets of ``n_view`` views among the rows of a batch. Raises ValueError for an incomplete set."""
    if rows % n_view:
        raise ValueError(
            f"{rows} views cannot be divided into sets of {n_view}: set data.n_view={n_view} and data.batch_size to "
            "a multiple of it"
        )
    return rows // n_view


def for_each_view(drawn: Float[Tensor, "sets ..."], n_view: int) -> Float[Tensor, "B ..."]:
    """What was drawn once for a set, for each of its views."""
    return drawn if n_view == 1 else drawn.repeat_interleave(n_view, 0)


def orbit_cameras(count: int, elevation_deg: float, distance: float, fovy_deg: float, size: int) -> Cameras:
    """``count`` cameras equally spaced in azimuth, starting at the front, without perturbation."""
    azimuth_deg = torch.arange(count) * (360.0 / count)
    full = lambda value: torch.full((count,), float(value))  # noqa: E731
    return make_cameras(full(elevation_deg), azimuth_deg, full(distance), full(fovy_deg), size, size)


def camera_rays(cameras: Cameras) -> Rays:
    """Rays through the pixel centres; row 0 is the top of the image."""
    height, width, device = cameras.height, cameras.width, cameras.c2w.device
    row = torch.arange(height, device=device) + 0.5 - height / 2
    column = torch.arange(width, device=device) + 0.5 - width / 2
    focal = 0.5 * height / torch.tan(0.5 * cameras.fovy_rad)  # pixels, B
    y, x = torch.meshgrid(-row, column, indexing="ij")
    local = torch.stack([x, y, torch.zeros_like(x)], dim=-1)[None] / focal[:, None, None, None]
    local = local + local.new_tensor([0.0, 0.0, -1.0])
    directions = torch.einsum("bij,bhwj->bhwi", cameras.c2w[:, :3, :3], local)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    return Rays(cameras.position[:, None, None].expand_as(directions), directions)


def view_index(
    elevation_deg: Float[Tensor, "B"],
    azimuth_deg: Float[Tensor, "B"],
    overhead_threshold_deg: float = 60.0,
    front_threshold_deg: float = 45.0,
    back_threshold_deg: float = 45.0,
) -> Int[Tensor, "B"]:
    """DreamFusion's words as places in `VIEW_WORDS`: overhead above the threshold, else front, back or side by azimuth.

    They stay on the cameras' device: no step waits to read them.
    """
    azimuth = wrap_deg(azimuth_deg).abs()
    front, side, back, overhead = range(4)
    index = torch.where(azimuth > 180.0 - back_threshold_deg, back, side)
    index = torch.where(azimuth < front_threshold_deg, front, index)
    return torch.where(elevation_deg > overhead_threshold_deg, overhead, index)


def view_words(
    elevation_deg: Float[Tensor, "B"], azimuth_deg: Float[Tensor, "B"], *thresholds: float
) -> list[ViewWord]:
    """`view_index` in words."""
    return [VIEW_WORDS[i] for i in view_index(elevation_deg, azimuth_deg, *thresholds).tolist()]


def wrap_deg(angle_deg: Tensor) -> Tensor:
    """The same angle in [-180, 180)."""
    return (angle_deg + 180.0) % 360.0 - 180.0


def _uniform(bounds: tuple[float, float], unit: Tensor) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * unit
