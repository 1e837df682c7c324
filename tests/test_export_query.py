"""Fields are asked in chunks, within the bound that the renderer draws."""

import torch
from export_scenes import AnalyticGeometry, MarchingRenderer

from distill3d.export import query
from distill3d.export.query import SceneField

POINTS = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2


def test_chunks_change_nothing(monkeypatch):
    field = SceneField(AnalyticGeometry(), 1.0)
    whole = field.density(POINTS), *field.density_and_albedo(POINTS), field.normal(POINTS)
    monkeypatch.setattr(query, "POINTS_PER_CHUNK", 7)
    parts = field.density(POINTS), *field.density_and_albedo(POINTS), field.normal(POINTS)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b)


def test_nothing_exists_outside_the_bound():
    everywhere = AnalyticGeometry(distance=lambda points: torch.full_like(points[:, 0], -1.0))
    in_box = SceneField(everywhere, 0.8).density(POINTS) > 0
    in_sphere = SceneField(everywhere, 0.8, "sphere").density(POINTS) > 0
    assert torch.equal(in_box, (POINTS.abs() <= 0.8).all(dim=1))
    assert torch.equal(in_sphere, POINTS.norm(dim=1) <= 0.8)


def test_a_scenes_own_bound_goes_before_the_geometrys():
    scene = MarchingRenderer(AnalyticGeometry())
    assert (SceneField.of(scene).radius, SceneField.of(scene).bound) == (1.0, "box")
    scene.radius, scene.bound = 0.7, "sphere"
    assert (SceneField.of(scene).radius, SceneField.of(scene).bound) == (0.7, "sphere")


def test_empty_questions_have_empty_answers():
    field = SceneField(AnalyticGeometry(), 1.0)
    density, albedo = field.density_and_albedo(torch.zeros(0, 3))
    assert density.shape == (0,) and albedo.shape == (0, 3)
