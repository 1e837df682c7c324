"""Assets for the tests of writers: an F that fits no mirror image, textured or with vertex colours."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from export_scenes import AnalyticGeometry, letter_f, smooth_colors
from export_surfaces import extracted

from distill3d.export.fitted_color import SurfaceColors
from distill3d.export.formats.asset import Asset
from distill3d.export.query import SceneField
from distill3d.export.surface.alignment import aligned
from distill3d.export.surface.mesh import decimated, vertex_normals, with_distinct_vertices
from distill3d.export.texture import bake, unwrap

METADATA = {"prompt": 'an "F" \\ of\ncheese # 한 🍔', "seed": "3", "version": "0.1.0"}
VOLUME = 0.0256 * 0.8 + 0.16 * 0.14 * (0.4 + 0.26 + 0.4) - 0.0036  # stem and bars, less what they share
FIELD = SceneField(AnalyticGeometry(letter_f), 1.0)


@cache
def letter(textured: bool, normal_map: bool = False, image_format: str = "png") -> Asset:
    surface = aligned(FIELD, decimated(extracted(letter_f, 48), 1500), 1000.0, 0.04)
    surface = with_distinct_vertices(surface, 0.0003)  # as the exporter does
    normals = vertex_normals(surface)
    colors = smooth_colors(torch.from_numpy(surface.vertices)).numpy()
    rest = {"roughness": 0.7, "metadata": METADATA}
    if not textured:
        return Asset(surface.vertices, surface.faces, normals, colors, **rest)
    cut = unwrap(surface, 256)
    albedo, normal_image, tangents = bake(
        SurfaceColors(FIELD, 0.02), surface, cut, 256, extracted(letter_f, 96) if normal_map else None
    )
    rest |= {"uv": cut.uv, "base_color": albedo, "normal_map": normal_image, "tangents": tangents}
    at = cut.origin
    return Asset(surface.vertices[at], cut.faces, normals[at], colors[at], image_format=image_format, **rest)


def assert_is_the_letter(vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray, tolerance: float = 0.03) -> None:
    """Unmirrored and upright in the world frame, faces outwards, every vertex in the field's colour."""
    points = torch.from_numpy(np.asarray(vertices, np.float32))
    assert float(letter_f(points).abs().mean()) < 0.004
    assert float(letter_f(points * torch.tensor([1.0, -1.0, 1.0])).abs().mean()) > 0.03  # a mirror image would not fit
    low, high = points.amin(0), points.amax(0)
    torch.testing.assert_close(low, torch.tensor([-0.08, -0.28, -0.4]), atol=0.02, rtol=0.0)
    torch.testing.assert_close(high, torch.tensor([0.4, 0.25, 0.4]), atol=0.02, rtol=0.0)
    corners = points[torch.from_numpy(np.asarray(faces, np.int64))]
    volume = (corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() / 6.0
    assert float(volume) == pytest.approx(VOLUME, rel=0.03)
    expected = smooth_colors(points).numpy()
    assert np.abs(np.asarray(colors) - expected).mean() < tolerance / 2.0
    assert np.quantile(np.abs(np.asarray(colors) - expected), 0.99) < 2.0 * tolerance
