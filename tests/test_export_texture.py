"""Unwrapping without overlap, and textures that hold the field's colours and normals."""

import numpy as np
import pytest
import torch
from export_scenes import AnalyticGeometry, smooth_colors, torus
from export_surfaces import extracted

from distill3d.export.fitted_color import SurfaceColors
from distill3d.export.query import SceneField
from distill3d.export.surface.mesh import Surface, decimated, face_normals, vertex_normals
from distill3d.export.texture import Texels, bake, covered_texels, nearest_covered, unwrap, vertex_tangents

SIZE = 256
SURFACE = decimated(extracted(torus), 2000)
CUT = unwrap(SURFACE, SIZE)


def random_surface_points(count: int = 4000):
    """Faces by area, barycentric coordinates uniform in each."""
    draw = np.random.default_rng(0)
    area = np.linalg.norm(face_normals(SURFACE), axis=1)
    face = draw.choice(len(area), count, p=area / area.sum())
    a, b = np.sqrt(draw.random(count)), draw.random(count)
    return face, np.stack([1.0 - a, a * (1.0 - b), a * b], axis=1)


def bilinear(image: np.ndarray, uv: np.ndarray) -> np.ndarray:
    texture = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255.0
    at = torch.from_numpy(uv).float()[None, None] * 2.0 - 1.0
    return torch.nn.functional.grid_sample(texture, at, align_corners=False)[0, :, 0].T.numpy()


def at_corners(attribute: np.ndarray, faces: np.ndarray, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.einsum("pk,pka->pa", weights, attribute[faces[face]])


def test_unwrapping_cuts_but_does_not_change_the_surface():
    assert CUT.uv.min() >= 0.0 and CUT.uv.max() <= 1.0 and CUT.charts >= 2
    np.testing.assert_array_equal(np.sort(CUT.origin[CUT.faces], axis=1), np.sort(SURFACE.faces, axis=1))


def test_no_texel_lies_inside_two_triangles():
    corners = CUT.uv[CUT.faces].astype(np.float64)
    grid = (np.stack(np.meshgrid(np.arange(64), np.arange(64)), axis=-1).reshape(-1, 2) + 0.5) / 64.0
    a, b, c = (corners[None, :, i] - grid[:, None] for i in range(3))
    cross = lambda u, v: u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]  # noqa: E731
    signs = np.stack([cross(a, b), cross(b, c), cross(c, a)])
    inside = (signs > 1e-12).all(axis=0) | (signs < -1e-12).all(axis=0)
    assert inside.sum(axis=1).max() == 1
    assert inside.any(axis=1).mean() > 0.3


def test_coverage_matches_a_triangle_by_hand():
    uv = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
    texels = covered_texels(uv, np.array([[0, 1, 2]]), 4)
    assert sorted(zip(texels.row.tolist(), texels.column.tolist(), strict=True)) == [
        (r, c) for r in range(4) for c in range(4) if r + c <= 3
    ]
    at = texels.interpolate(uv, np.array([[0, 1, 2]]))
    np.testing.assert_allclose(at, np.stack([texels.column + 0.5, texels.row + 0.5], axis=1) / 4.0, atol=1e-6)


def test_coverage_does_not_depend_on_the_chunks(monkeypatch):
    whole = covered_texels(CUT.uv, CUT.faces, SIZE)
    monkeypatch.setattr("distill3d.export.texture.CANDIDATES_PER_CHUNK", 500)
    parts = covered_texels(CUT.uv, CUT.faces, SIZE)
    for name in ("row", "column", "face", "barycentric"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_gutters_take_the_nearest_colour():
    texels = Texels(np.array([0, 3]), np.array([0, 3]), np.zeros(2, int), np.zeros((2, 3)))
    np.testing.assert_array_equal(nearest_covered(texels, 4)[[0, 1, 2, 3], [1, 0, 3, 2]], [0, 0, 1, 1])


def test_the_texture_shows_the_fields_albedo_at_random_surface_points():
    colors = SurfaceColors(SceneField(AnalyticGeometry(torus), 1.0), 0.02)
    albedo, none, _ = bake(colors, SURFACE, CUT, SIZE)
    face, weights = random_surface_points()
    seen = bilinear(albedo, at_corners(CUT.uv, CUT.faces, face, weights))
    points = at_corners(SURFACE.vertices, SURFACE.faces, face, weights)  # xatlas keeps the order of faces
    exact = smooth_colors(torch.from_numpy(points).float()).numpy()
    assert none is None
    assert np.abs(seen - exact).mean() < 2.0 / 255.0
    assert np.quantile(np.abs(seen - exact), 0.999) < 10.0 / 255.0  # no seam shows a wrong colour


def test_the_normal_map_gives_the_fields_normals_back():
    geometry = AnalyticGeometry(torus)
    colors = SurfaceColors(SceneField(geometry, 1.0), 0.02)
    _, image, tangents = bake(colors, SURFACE, CUT, SIZE, extracted(torus, 128))
    face, weights = random_surface_points()
    local = bilinear(image, at_corners(CUT.uv, CUT.faces, face, weights)) * 2.0 - 1.0
    unit = lambda v: v / np.linalg.norm(v, axis=1, keepdims=True)  # noqa: E731
    normal = unit(at_corners(vertex_normals(SURFACE)[CUT.origin], CUT.faces, face, weights))
    tangent = at_corners(tangents, CUT.faces, face, weights)
    bitangent = np.cross(normal, tangent[:, :3]) * np.sign(tangent[:, 3:])  # as glTF's viewers do
    shown = unit(local[:, :1] * unit(tangent[:, :3]) + local[:, 1:2] * unit(bitangent) + local[:, 2:] * normal)
    points = at_corners(SURFACE.vertices, SURFACE.faces, face, weights)
    exact = geometry.normal(torch.from_numpy(points).float()).numpy()
    error = np.degrees(np.arccos(np.clip((shown * exact).sum(axis=1), -1.0, 1.0)))
    flat = np.degrees(np.arccos(np.clip((normal * exact).sum(axis=1), -1.0, 1.0)))
    assert error.mean() < 1.5 and error.mean() < flat.mean()


def test_tangents_are_orthonormal_and_follow_u():
    vertices = np.array([[0, 0, 0], [0, 2, 0], [0, 0, 2]], np.float32)  # seen from +x: u along y, v along -z
    flat = unwrap(SURFACE, SIZE).__class__(np.arange(3), np.array([[0, 1, 2]]), np.array([[0, 1], [1, 1], [0, 0]]), 1)
    tangents = vertex_tangents(vertices, np.tile(np.float32([1, 0, 0]), (3, 1)), flat)
    np.testing.assert_allclose(tangents, np.tile([0, 1, 0, 1], (3, 1)), atol=1e-6)  # bitangent +z: up in the image


def test_an_option_that_xatlas_lacks_is_named():
    with pytest.raises(ValueError, match=r"xatlas_chart_options.max_kost is unknown.*max_cost"):
        unwrap(SURFACE, SIZE, {"max_kost": 1.0})
    assert unwrap(Surface(SURFACE.vertices, SURFACE.faces), SIZE, {"max_iterations": 2}, {"padding": 2}).charts > 0
