"""Files as other programs read them: the same front, the same colours, closed.

Fast: trimesh. Slow, as they need programs: `apt-get install -y assimp-utils blender python3-numpy` and
`python -m pytest -m slow tests/test_export_readers.py`. Khronos' validator is in test_export_glb, usd-core in
test_export_usdz, the standard library's reader of 3MF in test_export_print.
"""

import io
import json
import shutil
import subprocess

import numpy as np
import pytest
import trimesh
from export_assets import letter
from scipy.spatial import cKDTree

from distill3d.export.exporter import UPS, WRITERS
from distill3d.export.formats.asset import turned
from distill3d.runtime.srgb import linear_from_srgb

KINDS = ("glb", "obj", "ply")
BLENDER = """
import bmesh, bpy, json, sys
import numpy
numpy.bool = getattr(numpy, "bool", bool)  # Debian's glTF add-on is older than its numpy
found = {}
for path in sys.argv[sys.argv.index("--") + 1:]:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    kind = path.rsplit(".", 1)[1]
    if kind == "glb":
        bpy.ops.import_scene.gltf(filepath=path)
    elif kind == "obj":
        bpy.ops.wm.obj_import(filepath=path)
    elif hasattr(bpy.types, "WM_OT_ply_import"):
        bpy.ops.wm.ply_import(filepath=path)
    else:
        bpy.ops.import_mesh.ply(filepath=path)
    (thing,) = [o for o in bpy.context.scene.objects if o.type == "MESH"]
    mesh = thing.data
    mesh.transform(thing.matrix_world)
    solid = bmesh.new()
    solid.from_mesh(mesh)
    bmesh.ops.remove_doubles(solid, verts=solid.verts, dist=1e-7)
    found[kind] = {
        "points": [list(v.co) for v in mesh.vertices],
        "faces": len(mesh.polygons),
        "open": sum(not e.is_manifold for e in solid.edges),
        "volume": solid.calc_volume(signed=True),
    }
print("FOUND" + json.dumps(found))
"""


def written(folder, textured: bool) -> dict:
    """One asset in three formats, in the frames that the exporter gives them."""
    asset, paths = letter(textured), {}
    for kind in KINDS:
        framed = asset if kind == "glb" else turned(asset, UPS[kind][0])
        for name, data in WRITERS[kind](framed, f"of_{kind}").items():
            (folder / name).write_bytes(data)
        paths[kind] = folder / f"of_{kind}.{kind}"
    return paths


def in_blender(points: np.ndarray, kind: str) -> np.ndarray:
    """As Blender turns them: y-up files to z up, ``(x, y, z) -> (x, -z, y)``; PLY not at all."""
    x, y, z = np.asarray(points, float).T
    return np.stack([x, y, z] if kind == "ply" else [x, -z, y], axis=1)


def colors_at(mesh, kind: str) -> np.ndarray:
    """sRGB bytes at the vertices, from the texture where there is one."""
    if mesh.visual.kind == "texture" and mesh.visual.uv is not None:
        picture = np.asarray(mesh.visual.material.image if kind == "obj" else mesh.visual.material.baseColorTexture)
        uv = np.asarray(mesh.visual.uv)
        at = np.stack([uv[:, 0], 1.0 - uv[:, 1]], axis=1) * picture.shape[1::-1] - 0.5
        return np.stack([sampled(picture[..., i].astype(float), at) for i in range(3)], axis=1)
    if kind != "glb":
        return np.asarray(mesh.visual.vertex_colors)[:, :3].astype(float)
    linear = np.asarray(mesh.visual.vertex_attributes["color"])[:, :3]
    assert linear.dtype == np.float32
    ladder = np.linspace(0.0, 1.0, 4096)
    return 255.0 * np.interp(linear, linear_from_srgb(ladder), ladder)


def sampled(channel: np.ndarray, at: np.ndarray) -> np.ndarray:
    from scipy.ndimage import map_coordinates

    return map_coordinates(channel, at[:, ::-1].T, order=1, mode="nearest")


@pytest.mark.parametrize("textured", [False, True])
def test_glb_obj_and_ply_have_the_same_front_and_the_same_colours(tmp_path, textured):
    paths = written(tmp_path, textured)
    scenes = {kind: trimesh.load(path, force="scene", process=False) for kind, path in paths.items()}
    meshes = {kind: next(iter(scene.geometry.values())) for kind, scene in scenes.items()}
    points = {kind: in_blender(mesh.vertices, kind) for kind, mesh in meshes.items()}
    colors = {kind: colors_at(mesh, kind) for kind, mesh in meshes.items()}
    world = letter(textured).vertices
    assert np.abs(points["glb"][:, 1].min() + world[:, 0].max()) < 1e-5  # the front, +x of the world, is at -y
    for kind in ("obj", "ply"):
        distance, nearest = cKDTree(points["glb"]).query(points[kind])
        assert distance.max() < 1e-5
        if not textured:
            assert np.abs(colors[kind] - colors["glb"][nearest]).max() <= 2.0
    if textured:  # vertices on a seam have several places in the image
        assert np.array_equal(np.asarray(meshes["obj"].visual.material.image), picture_of(meshes["glb"]))
        _, nearest = cKDTree(points["ply"]).query(points["glb"])
        for kind in ("glb", "obj"):
            _, nearest = cKDTree(points["ply"]).query(points[kind])
            assert np.abs(colors[kind] - colors["ply"][nearest]).mean() <= 1.0
            assert np.quantile(np.abs(colors[kind] - colors["ply"][nearest]), 0.95) <= 2.0


def picture_of(mesh) -> np.ndarray:
    return np.asarray(mesh.visual.material.baseColorTexture)


@pytest.mark.slow
@pytest.mark.parametrize("textured", [False, True])
def test_assimp_reads_a_closed_mesh_of_the_same_front(tmp_path, textured):
    if shutil.which("assimp") is None:
        pytest.fail("this test needs assimp: apt-get install -y assimp-utils")
    for kind, path in written(tmp_path, textured).items():
        target = tmp_path / f"assimp_of_{kind}.stl"
        done = subprocess.run(["assimp", "export", str(path), str(target)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        mesh = trimesh.load(io.BytesIO(target.read_bytes()), file_type="stl")
        assert mesh.is_watertight and len(mesh.faces) == len(letter(textured).faces), kind
        distance, _ = cKDTree(in_blender(mesh.vertices, kind)).query(
            turned(letter(textured), "z").vertices
        )  # of Blender's frame
        assert distance.max() < 1e-4, kind


@pytest.mark.slow
@pytest.mark.parametrize("textured", [False, True])
def test_blender_shows_all_three_alike_and_closed(tmp_path, textured):
    if shutil.which("blender") is None:
        pytest.fail("this test needs Blender: apt-get install -y blender python3-numpy")
    paths = [str(path) for path in written(tmp_path, textured).values()]
    command = ["blender", "-b", "--factory-startup", "--python-expr", BLENDER, "--", *paths]
    done = subprocess.run(command, capture_output=True, text=True)
    line = next((line for line in done.stdout.splitlines() if line.startswith("FOUND")), None)
    assert line is not None, done.stdout[-2000:] + done.stderr[-2000:]
    expected = turned(letter(textured), "z").vertices
    for kind, found in json.loads(line.removeprefix("FOUND")).items():
        assert cKDTree(found["points"]).query(expected)[0].max() < 1e-4, kind
        assert found["faces"] == len(letter(textured).faces) and found["open"] == 0, kind
        assert found["volume"] > 0.0, kind
