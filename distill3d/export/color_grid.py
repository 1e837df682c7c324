"""Colours of a surface fitted to pictures of the scene: least squares over a sparse grid around the surface."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

CORNERS = np.array(list(itertools.product((0, 1), repeat=3)))
SMOOTHNESS = 0.3  # weight of a difference between neighbouring nodes, where one pixel weighs 1
STAY = 1e-3  # pull towards no correction, for nodes that no pixel reaches
ITERATIONS = 60
TOLERANCE = 1e-3


@dataclass(frozen=True)
class NodeGrid:
    """The corners of those cubes that hold points; ``keys`` number the nodes of the full grid, ascending."""

    origin: Float[ndarray, "3"]
    spacing: float
    shape: tuple[int, int, int]
    keys: Int[ndarray, "N"]

    @staticmethod
    def around(points: Float[ndarray, "P 3"], spacing: float) -> NodeGrid:
        origin = points.min(axis=0).astype(np.float64) - spacing
        cells = np.floor((points.max(axis=0) - origin) / spacing).astype(np.int64)
        x, y, z = (int(n) + 2 for n in cells)
        corners, _ = _corners_and_weights(points, origin, spacing)
        keys = np.unique(np.ravel_multi_index(tuple(corners.reshape(-1, 3).T), (x, y, z)))
        return NodeGrid(origin, spacing, (x, y, z), keys)

    def interpolation(self, points: Float[ndarray, "P 3"]) -> csr_array:
        """``P x N``: trilinear weights. A corner that is no node, of a point outside every cube, is left out."""
        from scipy.sparse import csr_array

        corners, weights = _corners_and_weights(points, self.origin, self.spacing)
        numbers = np.ravel_multi_index(tuple(corners.reshape(-1, 3).T), self.shape, mode="clip")
        column, known = self._columns(numbers)
        inside = ((corners >= 0) & (corners < self.shape)).all(axis=2).ravel()
        row = np.repeat(np.arange(len(points)), 8)
        values = weights.ravel() * (known & inside)
        return csr_array((values, (row, column)), shape=(len(points), len(self.keys)))

    def differences(self) -> csr_array:
        """``E x N``: +1 and -1 for each pair of neighbouring nodes."""
        from scipy.sparse import csr_array

        pairs = []
        for stride in (self.shape[1] * self.shape[2], self.shape[2], 1):
            column, known = self._columns(self.keys + stride)
            pairs.append(np.stack([np.flatnonzero(known), column[known]], axis=1))
        pair = np.concatenate(pairs)
        row = np.repeat(np.arange(len(pair)), 2)
        return csr_array((np.tile([-1.0, 1.0], len(pair)), (row, pair.ravel())), shape=(len(pair), len(self.keys)))

    def least_squares(
        self,
        points: Float[ndarray, "P 3"],
        weight: Float[ndarray, "P"],
        pull: Float[ndarray, "P C"],
        smoothness: float,
        stay: float,
        scale: float = 1.0,
    ) -> Float[ndarray, "N C"]:
        """``min_v sum_p w_p (B v)_p^2 - 2 pull_p (B v)_p + scale (smoothness sum_(i,j) |v_i - v_j|^2 + stay |v|^2)``.

        With trilinear weights B, by conjugate gradients.
        """
        from scipy.sparse import diags_array, eye_array
        from scipy.sparse.linalg import cg

        weights, edges = self.interpolation(points), self.differences()
        prior = smoothness * (edges.T @ edges) + stay * eye_array(len(self.keys))
        normal = weights.T @ diags_array(weight) @ weights + scale * prior
        right, jacobi = weights.T @ pull, diags_array(1.0 / normal.diagonal())
        columns = [cg(normal, side, rtol=TOLERANCE, maxiter=ITERATIONS, M=jacobi)[0] for side in right.T]
        return np.stack(columns, axis=1)

    def _columns(self, numbers: Int[ndarray, "K"]) -> tuple[Int[ndarray, "K"], ndarray]:
        """The place of each number among the keys, and whether it is one of them."""
        column = np.minimum(np.searchsorted(self.keys, numbers), len(self.keys) - 1)
        return column, self.keys[column] == numbers


@dataclass(frozen=True)
class ColorCorrection:
    """What is added to a surface's own colours so that they look like the pictures; zero far from the grid."""

    grid: NodeGrid
    values: Float[ndarray, "N 3"]

    def at(self, points: Float[ndarray, "P 3"]) -> Float[ndarray, "P 3"]:
        return self.grid.interpolation(points) @ self.values


def fit_correction(
    surface_points: Float[ndarray, "S 3"],
    spacing: float,
    points: Float[ndarray, "P 3"],
    residual: Float[ndarray, "P 3"],
    weight: Float[ndarray, "P"],
) -> ColorCorrection:
    """The values at the nodes that explain what pictures lack: ``residual`` at ``points``, one for each pixel.

    ``min_v sum_p w_p |(B v - r)_p|^2 + SMOOTHNESS sum_(i,j) |v_i - v_j|^2 + STAY |v|^2``. Nodes live in space, not in
    the image: charts that meet at a seam read the same ones.
    """
    grid = NodeGrid.around(np.concatenate([surface_points, points]), spacing)
    return ColorCorrection(grid, grid.least_squares(points, weight, weight[:, None] * residual, SMOOTHNESS, STAY))


def _corners_and_weights(
    points: Float[ndarray, "P 3"], origin: Float[ndarray, "3"], spacing: float
) -> tuple[Int[ndarray, "P 8 3"], Float[ndarray, "P 8"]]:
    """The corners of the cube that holds each point, and their trilinear weights."""
    at = (points - origin) / spacing
    low = np.floor(at).astype(np.int64)
    share = (at - low)[:, None]
    weights = np.where(CORNERS, share, 1.0 - share).prod(axis=2)
    return low[:, None] + CORNERS, weights
