"""What the Triton grid answers on a CPU, by Triton's interpreter: python tests/interpreted_grid.py FILE.

A process of its own, as Triton asks whether to interpret when it is imported.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from grids import GRIDS, POINTS, answered, table_and_points

from distill3d.scenes.nerf.kernels.grid_triton import interpolate_by_triton


def main() -> None:
    answers: dict[object, object] = {}
    for name in GRIDS:
        table, points, levels = table_and_points(name, torch.float32, POINTS)
        for need_jacobian in (False, True):
            answers[name, need_jacobian] = answered(interpolate_by_triton, table, points, levels, need_jacobian)
    table, points, levels = table_and_points("dense and hashed", torch.float32, POINTS)
    answers["no points"] = answered(interpolate_by_triton, table, points[:0], levels, True)
    try:
        interpolate_by_triton(table, points.double(), levels, True)
    except TypeError as error:
        answers["refused"] = str(error)
    points[7, 1] = torch.nan
    answers["no number"] = [x.detach() for x in interpolate_by_triton(table, points, levels, True)]
    torch.save(answers, sys.argv[1])


if __name__ == "__main__":
    main()
