"""Gaussians as a field: density, colour and normals in space, which a mesh is extracted from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from distill3d.runtime.kernel_threads import run_parallel, shares
from distill3d.scenes.splats.gaussians import Gaussians, rotations
from distill3d.types import FieldSample

CELLS = 48  # along each axis of the table that tells which Gaussians reach where
REACH = 3.0  # standard deviations
THINNEST = 1.0 / 150.0  # of the radius: thinner Gaussians would fall between the nodes of a grid


@dataclass(frozen=True)
class SplatField:
    """A sum of Gaussians in space; it fills at most the cube ``[-radius, radius]^3``."""

    radius: float
    means: ndarray  # N 3
    whitening: ndarray  # N 3 3: rows are axes over deviations
    peaks: ndarray  # N, density in the middle
    colors: ndarray  # N 3
    starts: ndarray  # CELLS^3 + 1
    members: ndarray

    @staticmethod
    def of(gaussians: Gaussians, radius: float) -> SplatField:
        """Such that a ray through the middle along the shortest axis has the Gaussian's opacity."""
        from distill3d.scenes.splats.kernels import field as kernels

        own = {name: value.detach().cpu().float() for name, value in gaussians.tensors().items()}
        deviations = own["scales"].exp().clamp_min(THINNEST * radius)
        turn = rotations(own["quaternions"])
        depth = -(1.0 - own["opacities"].sigmoid().clamp_max(0.99)).log()
        peaks = depth / (deviations.amin(dim=1) * math.sqrt(2.0 * math.pi))
        whitening = (turn / deviations[:, None]).transpose(1, 2)
        reach = REACH * (turn * deviations[:, None]).norm(dim=2)
        spacing = 2.0 * radius / CELLS
        low = ((own["means"] - reach + radius) / spacing).floor().clamp(0, CELLS - 1).int().numpy()
        high = ((own["means"] + reach + radius) / spacing).floor().clamp(0, CELLS - 1).int().numpy()
        starts, members = kernels.table(low, high, CELLS)
        parts = (own["means"], whitening, peaks, own["colors"].sigmoid())
        means, white, peak, color = (p.contiguous().numpy() for p in parts)
        return SplatField(radius, means, white, peak, color, starts, members)

    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]:
        return self._sums(points)[:, 0]

    def sample(self, points: Float[Tensor, "P 3"], need_normal: bool) -> FieldSample:
        """Colours are means by density; normals point to where it falls."""
        sums = self._sums(points)
        albedo = sums[:, 1:4] / sums[:, :1].clamp_min(1e-12)
        normal = torch.nn.functional.normalize(-sums[:, 4:], dim=1) if need_normal else None
        return FieldSample(sums[:, 0], albedo, normal)

    def _sums(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 7"]:
        """Density, density times colour, gradient of the density."""
        from distill3d.scenes.splats.kernels import field as kernels

        given = points.detach().cpu().float().contiguous()
        out = torch.zeros(len(given), 7)
        own = (self.means, self.whitening, self.peaks, self.colors, self.starts, self.members)
        tasks = [(given.numpy(), self.radius, CELLS, REACH, *own, out.numpy(), *part) for part in shares(len(given), 8)]
        run_parallel(kernels.sums, tasks)
        return out.to(points)
