"""What programs that print need: one vertex for each position, in millimetres, standing on the plate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from distill3d.export.formats.asset import Asset

Origin = Literal["world", "base", "center"]


@dataclass(frozen=True)
class Welded:
    """The triangles of an asset over positions of which each occurs once, so that a closed surface reads as one."""

    positions: Float[ndarray, "P 3"]
    faces: Int[ndarray, "F 3"]
    first: Int[ndarray, "P"]  # one of the asset's vertices at each position


def welded(asset: Asset) -> Welded:
    """Undo the cuts of the texture's charts: vertices on both sides of a cut have equal coordinates.

    The positions keep the order in which they first occur.
    """
    _, first, place = np.unique(asset.vertices, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    first = first[order]
    return Welded(asset.vertices[first], rank[place.reshape(-1)][asset.faces], first)


def placed(asset: Asset, origin: Origin) -> Asset:
    """The asset moved so that the world's origin is in the middle of its base, or of its box."""
    if origin == "world":
        return asset
    low, high = asset.vertices.min(axis=0), asset.vertices.max(axis=0)
    at = 0.5 * (low + high)
    if origin == "base":
        at[2] = low[2]
    return replace(asset, vertices=(asset.vertices - at).astype(np.float32))


def sized(asset: Asset, size_mm: float) -> Asset:
    """Scaled so that the longest side of its box is ``size_mm`` units long."""
    longest = float(np.ptp(asset.vertices, axis=0).max())
    return replace(asset, vertices=(asset.vertices * (size_mm / longest)).astype(np.float32))


def flattened(asset: Asset, share: float) -> Asset:
    """Pressed flat below this share of its height: it stands on a plane, and a closed surface stays closed."""
    low, height = asset.vertices[:, 2].min(), np.ptp(asset.vertices[:, 2])
    vertices = asset.vertices.copy()
    vertices[:, 2] = np.maximum(vertices[:, 2], low + np.float32(share) * height)
    return replace(asset, vertices=vertices)
