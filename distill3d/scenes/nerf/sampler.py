"""Where to sample rays: equal steps, kept where the occupancy grid is not empty."""

from __future__ import annotations

import functools
import logging
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from distill3d.runtime.device import kernel_backend
from distill3d.runtime.kernel_threads import run_parallel, shares
from distill3d.types import RaySamples

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Marching:
    """How rays are marched; lengths in world units."""

    radius: float  # half the side of the volume, or the radius of the ball
    step_size: float
    near_plane: float = 0.0
    far_plane: float = 1e10
    sphere: bool = False  # only the ball inside the cube is sampled


def sample_rays(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    occupied: Bool[Tensor, "res res res"],
    marching: Marching,
    jitter: Float[Tensor, "rays"],
) -> RaySamples:
    """Intervals ``[t0 + k s, t0 + (k + 1) s]``, ``t0 = near + jitter s``, whose midpoints lie in occupied cells.

    nerfacc's meaning (arXiv 2305.04966), with its stratification: jitter in [0, 1) shifts a whole ray.
    """
    if kernel_backend(origins.device) == "cuda" and nerfacc_can_march():
        return sample_rays_nerfacc(origins, directions, occupied, marching, jitter)
    step = marching.step_size
    enter, leave = intersect_volume(origins, directions, marching)
    t0 = marching.near_plane + jitter * step
    first = torch.ceil((enter - t0) / step - 0.5).clamp_min(0.0)
    count = (torch.ceil((leave - t0) / step - 0.5).clamp_min(0.0) - first).clamp_min(0.0).long()
    mark = kept_cpu if kernel_backend(origins.device) == "numba" else kept_reference
    keep = mark(origins, directions, t0, first, count, occupied, marching)
    ray_index, column = keep.nonzero(as_tuple=True)
    t_start = t0[ray_index] + (first[ray_index] + column) * step
    return RaySamples(ray_index, t_start, t_start + step, len(origins))


def kept_reference(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    t0: Float[Tensor, "rays"],
    first: Float[Tensor, "rays"],
    count: Int[Tensor, "rays"],
    occupied: Bool[Tensor, "res res res"],
    marching: Marching,
) -> Bool[Tensor, "rays steps"]:
    """Which intervals ``first .. first + count`` of each ray have their midpoint in an occupied cell."""
    column = torch.arange(most_steps(marching), device=origins.device)  # count.max() would wait for a GPU
    t_mid = t0[:, None] + (first[:, None] + column + 0.5) * marching.step_size
    points = origins[:, None] + t_mid[..., None] * directions[:, None]
    return (column < count[:, None]) & occupied_at(points, occupied, marching.radius)


def kept_cpu(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    t0: Float[Tensor, "rays"],
    first: Float[Tensor, "rays"],
    count: Int[Tensor, "rays"],
    occupied: Bool[Tensor, "res res res"],
    marching: Marching,
) -> Bool[Tensor, "rays steps"]:
    """`kept_reference` by the CPU kernel, the same bits."""
    from distill3d.scenes.nerf.kernels import marching as kernels

    keep = torch.zeros(len(count), _longest(count), dtype=torch.bool)
    real = t0.numpy().dtype.type
    rays = tuple(x.contiguous().numpy() for x in (origins, directions, t0))
    steps = (real(marching.step_size), first.numpy(), count.numpy(), occupied.numpy(), real(0.5 / marching.radius))
    parts = shares(len(count), 4 * torch.get_num_threads())
    run_parallel(kernels.mark_kept, [(*rays, *steps, begin, end, keep.numpy()) for begin, end in parts])
    return keep


def sample_rays_nerfacc(
    origins: Float[Tensor, "rays 3"],
    directions: Float[Tensor, "rays 3"],
    occupied: Bool[Tensor, "res res res"],
    marching: Marching,
    jitter: Float[Tensor, "rays"],
) -> RaySamples:
    """`sample_rays` by nerfacc's CUDA kernel, which knows boxes only: a ball is cut out afterwards."""
    from nerfacc.grid import traverse_grids

    box = origins.new_tensor([[-marching.radius] * 3 + [marching.radius] * 3])
    near = marching.near_plane + jitter * marching.step_size
    far = torch.full_like(near, marching.far_plane)
    intervals, found, _ = traverse_grids(
        origins, directions, occupied[None], box, near_planes=near, far_planes=far, step_size=marching.step_size
    )
    ray_index = torch.as_tensor(found.ray_indices)
    left, right = (places(torch.as_tensor(mask), len(ray_index)) for mask in (intervals.is_left, intervals.is_right))
    t_start, t_end = intervals.vals[left], intervals.vals[right]
    if marching.sphere:
        enter, leave = (t[ray_index] for t in intersect_volume(origins, directions, marching))
        t_mid = 0.5 * (t_start + t_end)
        inside = ((t_mid >= enter) & (t_mid < leave)).nonzero()[:, 0]  # once: the host waits for each mask
        ray_index, t_start, t_end = ray_index[inside], t_start[inside], t_end[inside]
    return RaySamples(ray_index, t_start, t_end, len(origins))


def places(mask: Bool[Tensor, "n"], count: int) -> Int[Tensor, "count"]:
    """Where a mask is true, for a known number of places: `nonzero` would have the host wait for that number."""
    slot = torch.where(mask, mask.cumsum(0) - 1, count)
    order = torch.arange(len(mask), device=mask.device)
    return slot.new_empty(count + 1).scatter_(0, slot, order)[:count]


@functools.cache
def nerfacc_can_march() -> bool:
    """Whether nerfacc's CUDA kernels are there; they are compiled on first use, and need nvcc for that."""
    try:
        from nerfacc.cuda import _backend
    except (ImportError, OSError, RuntimeError) as error:  # an nvcc without its toolkit, ninja or a C++ compiler
        logger.info("ray sampler: torch, as nerfacc's CUDA kernels cannot be compiled: %s", error)
        return False
    if _backend._C is None:
        logger.info("ray sampler: torch, as nerfacc found no nvcc to compile its CUDA kernels with")
    return _backend._C is not None


def intersect_volume(
    origins: Float[Tensor, "rays 3"], directions: Float[Tensor, "rays 3"], marching: Marching
) -> tuple[Float[Tensor, "rays"], Float[Tensor, "rays"]]:
    """Where rays enter and leave the volume, within the planes; a ray that misses it leaves before it enters."""
    if marching.sphere:
        middle = -(origins * directions).sum(-1)
        squared = marching.radius**2 - (origins + middle[:, None] * directions).square().sum(-1)
        half = squared.clamp_min(0.0).sqrt()
        enter, leave = middle - half, torch.where(squared > 0.0, middle + half, middle - half - 1.0)
    else:
        # a direction of 0 along an axis divides to +-inf, and min and max then do what is right
        safe = torch.where(directions.abs() < 1e-12, torch.full_like(directions, 1e-12), directions)
        bounds = torch.stack([-marching.radius - origins, marching.radius - origins]) / safe
        enter, leave = bounds.amin(0).amax(-1), bounds.amax(0).amin(-1)
    return enter.clamp_min(marching.near_plane), leave.clamp_max(marching.far_plane)


def occupied_at(
    points: Float[Tensor, "... 3"], occupied: Bool[Tensor, "res res res"], radius: float
) -> Bool[Tensor, "..."]:
    """Whether world points lie in occupied cells of the cube; a point outside answers for the nearest cell."""
    resolution = occupied.shape[0]
    cell = ((points * (0.5 / radius) + 0.5) * resolution).floor().long().clamp(0, resolution - 1)
    return occupied[cell[..., 0], cell[..., 1], cell[..., 2]]


def most_steps(marching: Marching) -> int:
    """As many intervals as the longest way through the volume can have."""
    longest = 2.0 * marching.radius * (1.0 if marching.sphere else 3.0**0.5)
    return math.ceil(longest / marching.step_size) + 1


def _longest(count: Int[Tensor, "rays"]) -> int:
    return int(count.max()) if len(count) else 0
