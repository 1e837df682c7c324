"""Milliseconds and memory of the hash grid of dreamfusion-sd.yaml, forward and backward: python benchmarks/grid.py.

By torch's autograd of the reference, by the gathered version of it and, on CUDA, by Triton, at 64 samples of each of
64x64 rays: features alone, as for densities, and with the Jacobian, as for normals. The median of ``--repeats`` runs;
peak memory is that of both passes above the table. ``--device cpu --tiny`` tries the script.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from distill3d.scenes.nerf.encoding import has_triton
from distill3d.scenes.nerf.grid import GridLevel, grid_levels, interpolate_reference
from distill3d.scenes.nerf.grid_gather import interpolate_gathered

Interpolation = Callable[[Tensor, Tensor, tuple[GridLevel, ...], bool], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Cost:
    forward_ms: float
    backward_ms: float
    peak_bytes: int


def samples_of_rays(side: int, device: torch.device) -> Tensor:
    """Points in [0, 1]^3 along side x side rays through the volume, 64 of each, in the order of the rays."""
    u = (torch.arange(side, device=device) + 0.5) / side
    depth = (torch.arange(64, device=device) + 0.5) / 64
    y, x, z = torch.meshgrid(u, u, depth, indexing="ij")
    wider = 0.5 + 0.5 * z  # a camera's rays part from each other
    return torch.stack([0.5 + (x - 0.5) * wider, 0.5 + (y - 0.5) * wider, z], dim=-1).reshape(-1, 3)


def ways(table: Tensor, points: Tensor) -> dict[str, Interpolation]:
    """Those that run here, by name."""
    found: dict[str, Interpolation] = {
        "reference": lambda table, points, levels, _: interpolate_reference(table, points, levels),
        "gathered": interpolate_gathered,
    }
    if has_triton(table, points):
        from distill3d.scenes.nerf.kernels.grid_triton import interpolate_by_triton

        found["triton"] = interpolate_by_triton
    return found


def measured(
    way: Interpolation, table: Tensor, points: Tensor, levels: tuple[GridLevel, ...], jacobian: bool, repeats: int
) -> Cost:
    """The median of some runs after one to warm up; with a gradient for all that is asked for."""
    on_gpu = table.device.type == "cuda"
    clock = _gpu_clock if on_gpu else time.perf_counter
    grads, times = [], []
    if on_gpu:
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    for _ in range(repeats + 1):
        start = clock()
        answers = way(table, points, levels, jacobian)[: 1 + jacobian]
        middle = clock()
        grads = grads or [torch.rand_like(x) for x in answers]
        begin = clock()
        torch.autograd.grad(answers, table, grads)
        times.append((middle - start, clock() - begin))
    forward, backward = (1e3 * statistics.median(t) for t in zip(*times[1:], strict=True))
    return Cost(forward, backward, torch.cuda.max_memory_allocated() - before if on_gpu else 0)


def _gpu_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def rows(device: torch.device, tiny: bool, repeats: int) -> dict[str, Callable[[], Cost]]:
    """What measures each way, by its name."""
    levels = grid_levels(16, 16, 1.447269237440378, 2 ** (10 if tiny else 19))
    table = 1e-4 * torch.randn(levels[-1].offset + levels[-1].size, 2, device=device)
    points = samples_of_rays(4 if tiny else 64, device)
    table.requires_grad_()
    return {
        f"{name}, {'with Jacobian' if jacobian else 'features'}": (
            lambda way=way, jacobian=jacobian: measured(way, table, points, levels, jacobian, repeats)
        )
        for jacobian in (False, True)
        for name, way in ways(table, points).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="few points and a small table: does the script run?")
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    for name, measure in rows(torch.device(args.device), args.tiny, args.repeats).items():
        cost = measure()
        sys.stdout.write(
            f"{name:26s} forward {cost.forward_ms:8.3f} ms, backward {cost.backward_ms:8.3f} ms, "
            f"peak {cost.peak_bytes / 1e6:7.1f} MB\n"
        )


if __name__ == "__main__":
    main()
