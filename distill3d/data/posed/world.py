"""From a data set's world to the project's: the object around the origin, within the scene's radius, z up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray


@dataclass(frozen=True)
class Similarity:
    """``x' = scale R (x - center)``, from one world to another."""

    center: Float[ndarray, "3"]
    rotation: Float[ndarray, "3 3"]
    scale: float

    def moved(self, c2w: Float[ndarray, "N 4 4"]) -> Float[ndarray, "N 4 4"]:
        """The same cameras in the other world; rotations stay rotations."""
        out = c2w.copy()
        out[:, :3, :3] = self.rotation @ c2w[:, :3, :3]
        out[:, :3, 3] = self.scale * (c2w[:, :3, 3] - self.center) @ self.rotation.T
        return out


def fit_world(
    c2w: Float[ndarray, "N 4 4"], half_fov_rad: Float[ndarray, "N"], radius: float, level: bool
) -> Similarity:
    """The similarity after which the cameras look at the origin and see a ball of ``radius`` around it.

    center: the point nearest to all optical axes, ``min_c sum_i ||(I - d_i d_i^T)(c - o_i)||^2``.
    scale: of the balls around it that fill the narrower side of each picture, ``distance sin(fov / 2)``, the median one
    becomes ``radius``. level: also turns the mean of the cameras' up to +z, for captures whose world has no up.
    """
    origins, toward, up = c2w[:, :3, 3], -c2w[:, :3, 2], c2w[:, :3, 1]
    center = nearest_point(origins, toward)
    seen = np.linalg.norm(origins - center, axis=1) * np.sin(half_fov_rad)
    rotation = turn(up.mean(0), np.array([0.0, 0.0, 1.0])) if level else np.eye(3)
    return Similarity(center, rotation, radius / max(float(np.median(seen)), 1e-12))


def nearest_point(origins: Float[ndarray, "N 3"], directions: Float[ndarray, "N 3"]) -> Float[ndarray, "3"]:
    """The point with the least sum of squared distances to lines. Lines in parallel leave it at their origins' mean."""
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    mean = origins.mean(0)
    offset = np.einsum("nij,nj->i", across, origins - mean)
    return mean + np.linalg.pinv(across.sum(0), rcond=1e-6) @ offset


def turn(start: Float[ndarray, "3"], end: Float[ndarray, "3"]) -> Float[ndarray, "3 3"]:
    """The smallest rotation that brings the direction of ``start`` to that of ``end`` (Rodrigues)."""
    a, b = start / max(np.linalg.norm(start), 1e-12), end / np.linalg.norm(end)
    axis, cosine = np.cross(a, b), float(a @ b)
    if cosine < -1.0 + 1e-9:  # opposite: half a turn about anything across
        across = np.linalg.svd(b[None])[2][1]
        return 2.0 * np.outer(across, across) - np.eye(3)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + cross + cross @ cross / (1.0 + cosine)
