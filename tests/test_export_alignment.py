"""Offsets to the isosurface, and the accuracy of the whole way from field to surface."""

import math

import numpy as np
import pytest
import torch
from export_scenes import AnalyticGeometry, MarchingRenderer, box, letter_f, sphere, torus
from export_surfaces import extracted

from distill3d.export.query import SceneField
from distill3d.export.surface.alignment import aligned, isosurface_offset
from distill3d.export.surface.extraction import SurfaceSettings, find_surface
from distill3d.export.surface.mesh import Surface, face_normals

DIRECTIONS = torch.nn.functional.normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=1)
SETTINGS = SurfaceSettings(
    threshold=1000.0,
    resolution=64,
    blur=0.0075,
    keep_parts=8,
    min_part_share=0.02,
    smooth=0,
    faces=6000,
    views=1,
    view_size=16,
)
VOLUMES = [
    (sphere, 4.0 / 3.0 * math.pi * 0.5**3),
    (torus, 2.0 * math.pi**2 * 0.4 * 0.15**2),
    (box, 8.0 * 0.4 * 0.3 * 0.2),
]


@pytest.mark.parametrize("sharpness", [30.0, 400.0])
def test_offsets_find_the_root_from_both_sides(sharpness):
    field = SceneField(AnalyticGeometry(sharpness=sharpness), 1.0)
    start = torch.linspace(0.47, 0.53, 200)
    offset = isosurface_offset(field, start[:, None] * DIRECTIONS, DIRECTIONS, 1000.0, reach=0.04)
    torch.testing.assert_close(start + offset, torch.full((200,), 0.5), atol=6e-4, rtol=0.0)


def test_offsets_out_of_reach_are_not_numbers():
    field = SceneField(AnalyticGeometry(), 1.0)
    assert isosurface_offset(field, 0.4 * DIRECTIONS, DIRECTIONS, 1000.0, reach=0.04).isnan().all()


def test_a_common_offset_is_corrected_and_scatter_is_not():
    surface = extracted(sphere)
    radii = np.linalg.norm(surface.vertices, axis=1, keepdims=True)
    shrunk = Surface(surface.vertices / radii * np.float32(0.485), surface.faces)
    clean = aligned(SceneField(AnalyticGeometry(), 1.0), shrunk, 1000.0, 0.04)
    assert float(sphere(torch.from_numpy(clean.vertices)).abs().max()) < 0.0005

    def rough(points):
        return sphere(points) + 0.01 * torch.sin(300.0 * points).prod(dim=-1)

    noisy = aligned(SceneField(AnalyticGeometry(rough), 1.0), shrunk, 1000.0, 0.04)
    roughness = 0.01 * 0.5**1.5  # the product of three sines
    assert float(sphere(torch.from_numpy(noisy.vertices)).std()) < 0.5 * roughness


def test_no_face_turns_over():
    surface = extracted(letter_f, 24)
    after = aligned(SceneField(AnalyticGeometry(letter_f), 1.0), surface, 1000.0, 0.2)
    assert (face_normals(surface) * face_normals(after)).sum(axis=1).min() >= 0.0


@pytest.mark.parametrize("sharpness", [100.0, 400.0])
@pytest.mark.parametrize(("distance", "volume"), VOLUMES, ids=lambda x: getattr(x, "__name__", ""))
def test_known_shapes_from_field_to_surface(distance, volume, sharpness):
    renderer = MarchingRenderer(AnalyticGeometry(distance, sharpness=sharpness), steps=8)
    found = find_surface(renderer, SETTINGS)
    surface, voxel = found.surface, float(found.figures["voxel"])
    assert surface.is_watertight and found.figures["watertight"] == 1
    assert surface.volume == pytest.approx(volume, rel=0.01)
    draw = np.random.default_rng(0).dirichlet((1.0, 1.0, 1.0), len(surface.faces)).astype(np.float32)
    points = torch.from_numpy(np.einsum("fk,fka->fa", draw, surface.vertices[surface.faces]))
    assert float(distance(points).abs().mean()) < 0.25 * voxel  # to and fro: half a voxel of Chamfer distance
    outward = found.field.normal(points).numpy()
    area = np.linalg.norm(face_normals(surface), axis=1)
    assert area[(face_normals(surface) * outward).sum(axis=1) < 0.0].sum() < 1e-3 * area.sum()


@pytest.mark.parametrize("resolution", [40, 64, 100, 130])
def test_resolution_counts_cells_along_the_object(resolution):
    settings = SurfaceSettings(**{**vars(SETTINGS), "resolution": resolution, "faces": 400})
    found = find_surface(MarchingRenderer(AnalyticGeometry(), steps=8), settings)
    assert float(found.figures["voxel"]) == pytest.approx(1.1 / resolution, rel=0.1)
