"""Seconds of drawing an SVG and of its gradients: python benchmarks/svg.py.

Each picture has as many random paths as asked for, of four cubics each, every second one stroked; the time is the
median over repetitions, forward and backward apart. Nothing else may run meanwhile.
"""

# ruff: noqa: T201  a benchmark prints

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from distill3d.scenes.svg.document import parse_svg
from distill3d.scenes.svg.scene import SvgScene


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paths", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [measure(n, size, arguments.repetitions) for n in arguments.paths for size in arguments.sizes]
    print("paths  pixels  forward s  backward s  together s")
    for row in rows:
        forward, backward, together = (row[name] for name in ("forward", "backward", "together"))
        print(f"{row['paths']:5d}  {row['size']:6d}  {forward:9.3f}  {backward:10.3f}  {together:10.3f}")
    print(json.dumps({"torch": torch.__version__, "threads": arguments.threads, "rows": rows}))


def measure(paths: int, size: int, repetitions: int) -> dict[str, float]:
    """Medians over repetitions, after one that is not counted."""
    scene = SvgScene()
    scene.begin(parse_svg(random_drawing(paths)))
    times = [step(scene, size) for _ in range(repetitions + 1)][1:]
    forward, backward = (statistics.median(column) for column in zip(*times, strict=True))
    together = statistics.median(sum(pair) for pair in times)
    return {"paths": paths, "size": size, "forward": forward, "backward": backward, "together": together}


def step(scene: SvgScene, size: int) -> tuple[float, float]:
    scene.zero_grad()
    start = time.perf_counter()
    picture = scene.render(size, size)
    middle = time.perf_counter()
    picture.square().sum().backward()
    return middle - start, time.perf_counter() - middle


def random_drawing(paths: int, seed: int = 0) -> str:
    """Closed outlines around random centres, between a tenth and four tenths of the picture across."""
    draw = np.random.default_rng(seed)
    lines = []
    for i in range(paths):
        centre, radius = draw.uniform(20, 108, 2), draw.uniform(6, 26)
        angles = np.linspace(0, 2 * np.pi, 13)[:-1]
        points = centre + radius * draw.uniform(0.7, 1.3, (12, 1)) * np.stack([np.cos(angles), np.sin(angles)], 1)
        words = [f"{x:.2f} {y:.2f}" for x, y in points]
        curves = " ".join("C" + " ".join([*words[k : k + 2], words[(k + 2) % 12]]) for k in range(1, 12, 3))
        red, green, blue = draw.integers(0, 256, 3)
        stroke = f' stroke="black" stroke-width="{draw.uniform(0.5, 4):.2f}"' if i % 2 else ""
        lines.append(f'<path d="M{words[0]} {curves} Z" fill="rgb({red},{green},{blue})" opacity="0.8"{stroke}/>')
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 128 128">{"".join(lines)}</svg>'


if __name__ == "__main__":
    main()
