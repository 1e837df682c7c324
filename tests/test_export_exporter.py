"""The exporter as a whole: every format, every wrong setting, and nothing half-written."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from export_assets import assert_is_the_letter
from export_scenes import AnalyticGeometry, MarchingRenderer, letter_f

from distill3d.config.check import ConfigError, build
from distill3d.config.registry import find
from distill3d.export.exporter import MeshExporter
from distill3d.export.surface.isosurface import EmptySurfaceError
from distill3d.export.surface.smoothing import BLURS

SMALL = {"resolution": 48, "faces": 1500, "texture_size": 128, "view_count": 2, "view_size": 32, "blur": 0.003}
SMALL |= {"fit_count": 8, "fit_size": 32, "turntable_views": 0}
TURN = {"turntable_views": 2, "turntable_size": 64}
METADATA = {"prompt": "an F", "seed": "3"}


def exporter(**settings) -> MeshExporter:
    return MeshExporter(build(MeshExporter.Config, {**SMALL, **settings}, "system.exporter"))


def letter_scene() -> MarchingRenderer:
    return MarchingRenderer(AnalyticGeometry(letter_f))


def test_it_is_registered():
    assert find("exporter", "mesh-exporter") is MeshExporter


@pytest.mark.parametrize("fmt", ["glb", "obj", "obj-mtl", "ply", "usdz"])
def test_every_format_holds_the_object_upright_and_unmirrored(tmp_path, fmt):
    made = exporter(fmt=fmt, save_name="thing", threshold=1000.0, **TURN)
    result = made.export(letter_scene(), tmp_path / "out", METADATA)
    suffix = "obj" if fmt == "obj-mtl" else fmt
    assert result.files[0].name == f"thing.{suffix}"
    assert [p.name for p in result.files[-3:]] == ["viewer.html", "preview.png", "turntable.mp4"]
    assert sorted(p.name for p in result.files) == sorted(p.name for p in (tmp_path / "out").iterdir())
    assert result.figures["watertight"] == 1 and result.figures["mesh_psnr"] > 20.0
    assert json.loads(json.dumps(result.figures)) == result.figures
    if fmt == "usdz":
        return  # test_export_usdz opens it
    scene = trimesh.load(result.files[0], process=False)
    mesh = next(iter(scene.geometry.values())) if fmt == "glb" else scene
    x, y, z = np.asarray(mesh.vertices).T
    vertices = np.stack([-y, x, z] if fmt == "ply" else [z, x, y], axis=1)
    visual = mesh.visual if fmt == "ply" else mesh.visual.to_color()
    assert_is_the_letter(vertices, mesh.faces, visual.vertex_colors[:, :3] / 255.0, 0.06)


@pytest.mark.parametrize("fmt", ["obj", "ply", "stl"])
def test_either_axis_can_be_up(tmp_path, fmt):
    plain = {"fmt": fmt, "viewer": False, "preview": False, "threshold": 1000.0, "origin": "world"}
    low, high = (
        trimesh.load(exporter(up=up, **plain).export(letter_scene(), tmp_path / up, METADATA).files[0]).bounds
        for up in ("y", "z")
    )
    x, y, z = range(3)
    for up_y, up_z in ((x, x), (y, z)):  # Blender turns (x, y, z) of a y-up file to (x, -z, y)
        np.testing.assert_allclose(low[:, up_y], high[:, up_z], atol=1e-3)
    np.testing.assert_allclose(low[:, z], -high[::-1, y], atol=1e-3)


def test_prints_stand_on_the_plate_in_millimetres(tmp_path):
    plain = exporter(fmt="stl", viewer=False, preview=False, threshold=1000.0)
    mesh = trimesh.load(plain.export(letter_scene(), tmp_path, METADATA).files[0])
    assert mesh.extents.max() == pytest.approx(100.0, rel=1e-4) and mesh.bounds[0, 2] == pytest.approx(0.0, abs=1e-3)
    assert mesh.is_watertight and mesh.volume > 0.0
    flat = exporter(fmt="stl", viewer=False, preview=False, threshold=1000.0, size_mm=50.0, flat_base=0.1)
    cut = trimesh.load(flat.export(letter_scene(), tmp_path, METADATA).files[0])
    at_the_base = cut.triangles_center[:, 2] < 1e-4
    assert at_the_base.sum() > 20 and cut.extents.max() == pytest.approx(50.0, rel=1e-4)


def test_the_origin_can_be_at_the_base_or_in_the_middle(tmp_path):
    for origin, height in (("base", 0.0), ("center", 0.5)):
        path = exporter(fmt="ply", origin=origin, viewer=False, preview=False).export(letter_scene(), tmp_path, {})
        low, high = trimesh.load(path.files[0]).bounds
        assert low[2] == pytest.approx(-height * (high - low)[2], abs=1e-5)
        assert low[:2] + high[:2] == pytest.approx([0.0, 0.0], abs=1e-5)


def test_an_export_leaves_no_file_of_an_earlier_one(tmp_path):
    exporter(fmt="obj", normal_map=True).export(letter_scene(), tmp_path, METADATA)
    (tmp_path / "my-notes.txt").write_text("mine")
    files = exporter(fmt="usdz", viewer=False, preview=False).export(letter_scene(), tmp_path, METADATA).files
    assert {p.name for p in tmp_path.iterdir()} == {*(p.name for p in files), "my-notes.txt"}


def test_the_automatic_settings_are_in_the_figures(tmp_path):
    figures = exporter(blur=None).export(letter_scene(), tmp_path, METADATA).figures
    assert figures["blur"] == BLURS[0] and figures["silhouette_agreement"] > 0.7 and figures["threshold"] > 0.0


def test_vertex_colours_need_no_texture(tmp_path):
    result = exporter(mode="vertex", viewer=False, preview=False).export(letter_scene(), tmp_path, METADATA)
    assert [p.name for p in result.files] == ["model.glb"]
    assert "texture_size" not in result.figures and "mesh_psnr" not in result.figures


def test_metadata_reach_the_file(tmp_path):
    path = exporter(viewer=False, preview=False).export(letter_scene(), tmp_path, METADATA).files[0]
    data = path.read_bytes()
    document = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    assert document["asset"]["extras"].items() >= {*METADATA.items()} and document["asset"]["extras"]["version"]


def test_the_same_scene_gives_the_same_bytes(tmp_path):
    first, second = (exporter().export(letter_scene(), tmp_path / name, METADATA).files for name in ("a", "b"))
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_smoothing_and_normal_maps(tmp_path):
    settings = {"smooth": 5, "normal_map": True, "roughness": 0.4, "texture_format": "jpg", "fmt": "obj"}
    names = {p.name for p in exporter(**settings).export(letter_scene(), tmp_path, METADATA).files}
    assert names >= {"model.obj", "model.mtl", "model_albedo.jpg", "model_normal.png"}


def test_the_scenes_settings_stand_where_the_exporter_has_none(tmp_path):
    scene = letter_scene()
    scene.threshold, scene.resolution = 123.0, 40
    figures = exporter(resolution=None).export(scene, tmp_path, METADATA).figures
    assert figures["threshold"] == 123.0 and figures["voxel"] == pytest.approx(0.9 / 40, rel=0.1)
    assert exporter(threshold=456.0).export(scene, tmp_path, METADATA).figures["threshold"] == 456.0
    assert "silhouette_agreement" in exporter(threshold="auto").export(scene, tmp_path, METADATA).figures


@pytest.mark.parametrize("threshold", [None, 10.0, 1e12])
def test_an_empty_scene_is_explained_and_nothing_is_written(tmp_path, threshold):
    empty = MarchingRenderer(AnalyticGeometry(lambda p: p[:, 0] * 0.0 + 1.0))
    with pytest.raises(EmptySurfaceError, match=r"empty.*system.exporter.threshold.*density quantiles: 0% 0"):
        exporter(threshold=threshold).export(empty, tmp_path / "out", METADATA)
    assert not (tmp_path / "out").exists()


def test_a_scene_that_no_view_shows_is_empty(tmp_path):
    scene = letter_scene()
    render = scene.render

    def transparent(*args, **kwargs):
        output = render(*args, **kwargs)
        return replace(output, opacity=0.3 * output.opacity)

    scene.render = transparent
    with pytest.raises(EmptySurfaceError, match=r"no view is opaque anywhere, at most 0\.3"):
        exporter().export(scene, tmp_path, METADATA)


def test_a_full_scene_is_explained(tmp_path):
    full = MarchingRenderer(AnalyticGeometry(lambda p: p[:, 0] * 0.0 - 1.0))
    with pytest.raises(EmptySurfaceError, match=r"full.*raise system.exporter.threshold"):
        exporter(threshold=10.0).export(full, tmp_path, METADATA)


def test_a_threshold_above_all_densities_names_their_quantiles(tmp_path):
    with pytest.raises(EmptySurfaceError, match=r"no density > 1e\+06.*100% 2000"):
        exporter(threshold=1e6).export(letter_scene(), tmp_path, METADATA)


def test_a_diverged_scene_is_explained(tmp_path):
    nan = MarchingRenderer(AnalyticGeometry(lambda p: p[:, 0] * torch.nan))
    with pytest.raises(EmptySurfaceError, match="diverged"):
        exporter().export(nan, tmp_path, METADATA)


def test_an_object_that_touches_the_bound_is_closed(tmp_path):
    scene = MarchingRenderer(AnalyticGeometry(radius=0.4))  # a ball of 0.5 in a cube of 0.4
    figures = exporter(fmt="ply", threshold=1000.0).export(scene, tmp_path, METADATA).figures
    mesh = trimesh.load(tmp_path / "model.ply", process=False)
    assert figures["watertight"] == 1 and mesh.is_watertight
    assert abs(mesh.vertices).max() <= 0.4 + 1e-4 and mesh.volume == pytest.approx(0.435, rel=0.05)


def test_a_failure_while_writing_leaves_the_old_export(tmp_path, monkeypatch):
    old = {p: p.read_bytes() for p in exporter(fmt="obj").export(letter_scene(), tmp_path, METADATA).files}

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        exporter(fmt="obj", threshold=50.0).export(letter_scene(), tmp_path, METADATA)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == old


WRONG = {
    "fmt": ("fbx", "glb, obj, ply, usdz, stl, 3mf"),
    "mode": ("voxel", "texture, vertex"),
    "texture_format": ("bmp", "png, jpg"),
    "threshold": (-3.0, "a positive density or auto"),
    "resolution": (0, "16 to 512"),
    "texture_size": (-1, "16 to 8192"),
    "roughness": (1.5, "0 to 1"),
    "faces": (0, "4 to"),
    "keep_parts": (0, "1 to"),
    "blur": (-0.1, "0 to 0.1"),
    "view_size": (0, "16 to"),
    "up": ("x", "y"),
    "origin": ("top", "world, base, center"),
    "size_mm": (0.0, "0.1 to"),
    "flat_base": (1.0, "0 to 0.9"),
    "fit_count": (-1, "0 to"),
    "fit_size": (8, "16 to"),
    "sharpen_steps": (0, "1 to"),
    "save_name": ("../model", "file name"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_named(name):
    value, expected = WRONG[name]
    with pytest.raises(ConfigError, match=rf"system\.exporter\.{name}=.*{expected}"):
        exporter(**{name: value})


def test_a_standard_may_leave_no_choice_of_the_axis():
    with pytest.raises(ConfigError, match=r"system\.exporter\.up='z' is unknown; choose one of y"):
        exporter(fmt="usdz", up="z")


def test_importing_the_room_is_light_and_needs_no_diffusion_model():
    heavy = [
        "skimage",
        "scipy",
        "trimesh",
        "xatlas",
        "fast_simplification",
        "numba",
        "PIL",
        "diffusers",
        "transformers",
    ]
    code = f"import sys, distill3d.export.exporter; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
