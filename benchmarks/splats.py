"""Milliseconds to draw Gaussians and to go back, on this machine.

    python benchmarks/splats.py --count 4000 --size 64 --views 1

Prints the median, the fastest and the slowest of ``--repeats`` runs; the first, which compiles, is left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch

from distill3d.camera import orbit_cameras
from distill3d.runtime.device import keep_freed_memory, kernel_backend, set_threads
from distill3d.scenes.splats.draw import draw
from distill3d.scenes.splats.gaussians import Gaussians, ball


def seconds(cloud: Gaussians, views: int, size: int) -> tuple[float, float]:
    """Of one picture, and of its gradients for all parameters."""
    cameras = orbit_cameras(views, 15.0, 1.5, 45.0, size)
    parts = {name: value.clone().requires_grad_() for name, value in cloud.tensors().items()}
    start = time.perf_counter()
    own = Gaussians(**parts)
    seen = draw(own, own.colors.sigmoid().expand(views, -1, -1), cameras)
    middle = time.perf_counter()
    (seen.values.square().sum() + seen.passed.sum()).backward()
    return middle - start, time.perf_counter() - middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=4000, help="Gaussians")
    parser.add_argument("--size", type=int, default=64, help="of a view, in pixels")
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--deviation", type=float, default=0.02, help="standard deviation in a ball of radius .5")
    args = parser.parse_args()
    threads = set_threads()
    keep_freed_memory()
    cloud = ball(args.count, 0.5, args.deviation, 0.5, 0.3, torch.Generator().manual_seed(0))
    timings = [seconds(cloud, args.views, args.size) for _ in range(args.repeats + 1)][1:]
    sys.stdout.write(
        f"{args.count} Gaussians, {args.views} x {args.size}x{args.size}, {threads} threads, {kernel_backend('cpu')}\n"
    )
    for name, values in (
        ("forward", [t[0] for t in timings]),
        ("backward", [t[1] for t in timings]),
        ("both", [sum(t) for t in timings]),
    ):
        low, middle, high = min(values), statistics.median(values), max(values)
        sys.stdout.write(f"{name:9s} {1e3 * middle:7.1f} ms   ({1e3 * low:.1f} to {1e3 * high:.1f})\n")


if __name__ == "__main__":
    main()
