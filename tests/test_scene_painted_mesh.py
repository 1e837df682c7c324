"""A mesh that is painted: its colours follow the prior, its vertices stay as they are to the bit."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from system_doubles import fit, tiny_system
from trimesh.visual import TextureVisuals

from distill3d.camera import make_cameras
from distill3d.config.registry import find
from distill3d.data.mesh_file import load_fixed_mesh
from distill3d.export.painted import own_charts
from distill3d.export.preview import render_asset
from distill3d.runtime.foreign import ForeignFileError
from distill3d.scenes.base import Step
from distill3d.scenes.mesh.fixed import SHAPES, box_mesh, sphere_mesh
from distill3d.types import Cameras, Light

EXPORT = {"texture_size": 64, "view_count": 2, "view_size": 24, "viewer": False, "turntable_views": 0}
ENCODING = {"otype": "DenseGrid", "n_levels": 1, "n_features_per_level": 4, "base_resolution": 8}
SCENE = {"pos_encoding_config": ENCODING, "mlp_network_config": {"n_neurons": 8}, "material": {"ambient_only_steps": 2}}


def settings(mesh, **changes):
    exporter = {**EXPORT, **changes.pop("exporter", {})}
    scene = {**SCENE, "mesh": str(mesh), **changes}
    loss = {"lambda_orient": 0.0, "lambda_sparsity": 0.0}
    return {"scene_type": "mesh", "scene": scene, "loss": loss, "exporter": exporter}


def cameras(count=4, size=24) -> Cameras:
    azimuth = torch.arange(count) * (360.0 / count) - 180.0
    full = lambda value: torch.full((count,), value)  # noqa: E731
    return make_cameras(full(20.0), azimuth, full(1.6), full(45.0), size, size)


def torus(folder, suffix=".obj"):
    """Far from the origin, in another unit, y up: a file as it is found."""
    mesh = trimesh.creation.torus(10.0, 4.0, major_sections=24, minor_sections=12)
    mesh.apply_translation((100.3, -7.1, 1e-3))
    path = folder / f"torus{suffix}"
    mesh.export(path)
    return path


def loaded(path) -> Any:
    return trimesh.load(path, process=False, force="mesh")


def y_up(vertices):
    return vertices[:, [1, 2, 0]]


def rows(vertices):
    return {row.tobytes() for row in np.ascontiguousarray(vertices, np.float32)}


@pytest.mark.parametrize("name", SHAPES)
def test_the_shapes_are_closed_and_face_outwards(name):
    mesh = SHAPES[name]()
    solid = trimesh.Trimesh(mesh.placed, mesh.faces, process=True)
    assert solid.is_watertight and solid.volume > 0.0
    assert np.linalg.norm(mesh.placed, axis=1).max() == pytest.approx(0.5, abs=1e-6)
    expected = {"box": 1.0, "sphere": 4.0 / 3.0 * math.pi * 0.125}[name]
    assert trimesh.Trimesh(mesh.vertices, mesh.faces).volume == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("suffix", [".obj", ".glb", ".ply"])
def test_a_file_keeps_its_numbers_and_is_shown_in_the_middle(tmp_path, suffix):
    path = torus(tmp_path, suffix)
    mesh = load_fixed_mesh(path)
    raw = np.asarray(loaded(path).vertices, np.float32)
    assert np.array_equal(mesh.vertices if suffix == ".ply" else y_up(mesh.vertices), raw)
    low, high = mesh.placed.min(0), mesh.placed.max(0)
    np.testing.assert_allclose(low, -high, atol=1e-5)
    assert np.linalg.norm(mesh.placed, axis=1).max() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("source", ["box", "sphere", "file"])
def test_it_takes_the_priors_colour_and_its_glb_has_the_same_vertices(tmp_path, source):
    path = torus(tmp_path) if source == "file" else source
    before = tiny_system(**settings(path)).scene
    system, _ = fit(tmp_path, 12, optimizer={"args": {"lr": 0.05}}, **settings(path))
    red = [float(scene.preview(cameras()).rgb[:, 0].mean()) for scene in (before, system.scene)]
    assert red[1] > red[0] + 0.02  # the prior's images are red
    assert np.array_equal(before.mesh.vertices, system.scene.mesh.vertices)
    names = {file.name for file in system.export()}
    assert names == {"model.glb", "preview.png"}
    glb = next((tmp_path / "save").rglob("model.glb"))
    mesh = loaded(glb)
    assert rows(mesh.vertices) == rows(y_up(system.scene.mesh.vertices))
    assert len(mesh.faces) == len(system.scene.mesh.faces)
    assert mesh.visual.material.baseColorTexture.size == (64, 64)
    figures = json.loads((tmp_path / "metrics.json").read_text())["export"]
    assert figures["watertight"] == 1 and figures["mesh_silhouette_overlap"] > 0.9


def test_the_texture_shows_the_field(tmp_path):
    system = tiny_system(**settings("sphere", exporter={"texture_size": 256}))
    torch.nn.init.normal_(system.scene.texture.encoding.table, std=3.0)
    made = system.make("exporter").make(system.scene.surface(), {})
    seen = render_asset(made.asset, cameras())[0]
    scene = system.scene.preview(cameras(), background=torch.ones(3)).rgb
    assert float((seen - scene).abs().mean()) < 0.02 < float((scene - scene.mean()).abs().mean())


@pytest.mark.parametrize("shading", ["albedo", "lambertian", "textureless"])
def test_every_shading_is_seen_and_a_bare_shape_teaches_nothing(shading):
    probabilities = {"albedo": (0.0, 0.0), "lambertian": (1.0, 0.0), "textureless": (1.0, 1.0)}[shading]
    material = {"ambient_only_steps": 0, "diffuse_prob": probabilities[0], "textureless_prob": probabilities[1]}
    scene = tiny_system(**settings("box", material=material)).scene
    batch = SimpleNamespace(cameras=cameras(), light=Light(cameras().position))
    views = scene.views(batch, Step(3))
    assert views.shading == (shading,) * 4 and views.images.shape == (4, 3, 24, 24)
    views.images.square().sum().backward()
    slope = float(scene.texture.encoding.table.grad.abs().sum())
    assert (slope == 0.0) == (shading == "textureless")
    # the same light and the same colour behind: training and looking agree
    torch.testing.assert_close(views.images, scene.preview(cameras(), batch.light, shading).rgb)


def test_silhouettes_are_smooth_and_the_ball_is_where_it_is():
    scene = tiny_system(**settings("sphere", supersample=4)).scene
    seen = scene.preview(cameras(size=32), shading="normal")
    assert ((seen.opacity > 0.1) & (seen.opacity < 0.9)).any()
    inside = seen.opacity[:, 0] == 1.0
    assert float(seen.depth[:, 0][inside].min()) == pytest.approx(1.1, abs=0.01)
    # a ball of radius .5 in the distance 1.6 has the angular radius asin(.5 / 1.6)
    share = math.pi * math.tan(math.asin(0.5 / 1.6)) ** 2 / (2.0 * math.tan(math.radians(22.5))) ** 2
    assert float(seen.opacity.mean()) == pytest.approx(share, rel=0.02)


def test_a_checkpoint_restores_the_colours(tmp_path):
    whole, _ = fit(tmp_path / "whole", 6, **settings("box"))
    fit(tmp_path / "parts", 3, **settings("box"))
    resumed, _ = fit(tmp_path / "parts", 6, tmp_path / "parts/ckpts/last.ckpt", **settings("box"))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def textured(folder, uv):
    """A unit square of two triangles, with these texture coordinates of its corners."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    mesh = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], process=False)
    mesh.visual = TextureVisuals(uv=np.asarray(uv, float))
    path = folder / "square.glb"
    mesh.export(path)
    return path


def test_usable_texture_coordinates_are_kept_and_others_are_not(tmp_path):
    square = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]
    mesh = load_fixed_mesh(textured(tmp_path, square))
    kept = own_charts(mesh.uv, mesh.faces.astype(np.int64), 64)
    assert kept is not None and kept.charts == 1
    np.testing.assert_allclose(kept.uv, [[u, 1.0 - v] for u, v in square], atol=1e-6)
    for other in ([[u + 0.5, v] for u, v in square], [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.8, 0.1]], [[0, 0]] * 4):
        bad = load_fixed_mesh(textured(tmp_path, other))
        assert own_charts(bad.uv, bad.faces.astype(np.int64), 64) is None
    assert own_charts(None, mesh.faces, 64) is None and box_mesh().uv is None and sphere_mesh(1).uv is None


@pytest.mark.parametrize("fmt", ["obj", "stl"])
def test_other_formats_and_vertex_colours_have_the_files_own_size(tmp_path, fmt):
    exporter = {"fmt": fmt, "mode": "vertex", "preview": False, "size_mm": 50.0}
    system, _ = fit(tmp_path, 1, **settings(torus(tmp_path), exporter=exporter))
    (path,) = system.export()
    size = np.ptp(loaded(path).vertices, axis=0).max()
    assert size == pytest.approx(50.0 if fmt == "stl" else 28.0, rel=0.01)


def test_a_file_that_the_scene_wrote_itself_outlives_the_export(tmp_path):
    system = tiny_system(**settings("box", exporter={"preview": False, "mode": "vertex"}))
    for name in ("model.ply", "model.obj"):
        (tmp_path / name).write_text("of the scene")
    system.make("exporter").export(system.scene.surface(), tmp_path, {}, keep={"model.ply"})
    assert {path.name for path in tmp_path.iterdir()} == {"model.ply", "model.glb"}


def test_what_cannot_be_painted_is_told():
    cls = find("scene", "mesh")
    with pytest.raises(ForeignFileError, match=r"system.scene.mesh='nowhere.obj' does not exist; give a mesh"):
        cls(cls.Config(mesh="nowhere.obj"))
    with pytest.raises(ValueError, match="supersample=0 must lie in 1"):
        cls.Config(mesh="box", supersample=0)
