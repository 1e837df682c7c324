"""Mesh files: the frame they are in, and their colours."""

import json
import math
import struct
import time
from base64 import b64encode

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial import cKDTree

from distill3d.data.mesh_colors import coloured
from distill3d.data.mesh_file import load_fixed_mesh, load_mesh_file
from distill3d.runtime.foreign import ForeignFileError
from distill3d.scenes.mesh.raster import Mesh


def arrow(front, up):
    """A tetrahedron whose tip, red, points to the front; its base reaches farthest towards up, green."""
    front, up = np.array(front, float), np.array(up, float)
    side = np.cross(up, front)
    vertices = np.stack([2 * front, up, -0.5 * up + side, -0.5 * up - side])
    colors = [[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], [0, 0, 255, 255]]
    faces = [[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]
    return trimesh.Trimesh(vertices, faces, vertex_colors=np.array(colors, np.uint8), process=False)


def test_a_byte_order_mark_hides_no_vertex_of_an_obj(tmp_path):
    text = b"v 0 0 0\r\nv 1 0 0\r\nv 0 1 0\r\nv 0 0 1\r\nf 1 2 3\r\n"
    for name, mark in (("plain", b""), ("marked", b"\xef\xbb\xbf")):
        (tmp_path / f"{name}.obj").write_bytes(mark + text)
    plain, marked = (load_mesh_file(tmp_path / f"{name}.obj", detail=1) for name in ("plain", "marked"))
    assert np.array_equal(plain.vertices[plain.faces], marked.vertices[marked.faces])


@pytest.mark.parametrize("face", ["0 1 2", "1/1 0/1 2/1", "1 2 0"])
def test_a_vertex_0_of_an_obj_is_refused(face, tmp_path):
    (tmp_path / "a.obj").write_text(f"v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1 2 3\nf {face}\n")
    with pytest.raises(ForeignFileError, match="an OBJ counts from 1"):
        load_mesh_file(tmp_path / "a.obj")


def test_a_0_in_a_comment_is_no_vertex(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3 # part 0\n")
    assert len(load_mesh_file(tmp_path / "a.obj", detail=1).faces) == 1


@pytest.mark.parametrize(("written", "is_named"), [("maps\\a.png", False), ("b.png", True), ("junk.png", True)])
def test_a_texture_of_16_bits_is_read_by_its_range_and_one_that_cannot_be_read_is_named(
    written, is_named, tmp_path, caplog
):
    (tmp_path / "maps").mkdir()
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "maps" / "a.png")
    (tmp_path / "junk.png").write_bytes(b"no picture")
    (tmp_path / "a.mtl").write_text(f"newmtl A\nmap_Kd {written}\n")
    text = "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nusemtl A\nf 1/1 2/1 3/1\n"
    (tmp_path / "a.obj").write_text(text)
    colors = load_mesh_file(tmp_path / "a.obj", detail=1).colors
    assert (written in caplog.text) == is_named
    assert is_named or np.allclose(colors, 40000 / 65535, atol=1 / 255)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"buffers": [{"byteLength": 72, "uri": "gone.bin"}]}, r"a\.gltf needs gone\.bin, which does not exist"),
        ({"accessors": [{"componentType": 5126, "count": 10**9, "type": "VEC3"}]}, "more than 10000000 zeros"),
    ],
)
def test_a_gltf_that_lacks_its_data_is_told_at_once(changed, message, tmp_path):
    content = {"asset": {"version": "2.0"}, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}]}
    content |= {"meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}], "buffers": []}
    (tmp_path / "a.gltf").write_text(json.dumps(content | changed))
    with pytest.raises(ForeignFileError, match=message):
        load_mesh_file(tmp_path / "a.gltf")


def test_lines_beside_triangles_are_passed_over(tmp_path):
    scene = trimesh.Scene([trimesh.creation.box(), trimesh.load_path(np.array([[0.0, 0, 0], [9, 9, 9]]))])
    scene.export(tmp_path / "a.glb")
    assert len(load_mesh_file(tmp_path / "a.glb", detail=1).faces) == 12


@pytest.mark.parametrize(
    ("suffix", "front", "up", "settings"),
    [
        (".glb", (0, 0, 1), (0, 1, 0), {}),
        (".ply", (1, 0, 0), (0, 0, 1), {}),
        (".ply", (0, 0, 1), (0, 1, 0), {"up": "y"}),
        (".ply", (0, -1, 0), (0, 0, 1), {"turn_deg": 90.0}),
        (".glb", (1, 0, 0), (0, 1, 0), {"turn_deg": -90.0}),
    ],
)
def test_the_front_comes_to_plus_x_and_up_to_plus_z(suffix, front, up, settings, tmp_path):
    arrow(front, up).export(tmp_path / f"arrow{suffix}")
    mesh = load_mesh_file(tmp_path / f"arrow{suffix}", **settings)
    red, green = (mesh.vertices[mesh.colors[:, i] > 0.9] for i in (0, 1))
    assert red[0, 0] == mesh.vertices[:, 0].max() and abs(red[0, 1]) < 1e-6
    assert green[0, 2] == pytest.approx(mesh.vertices[:, 2].max())
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(0.5)
    assert np.abs(mesh.vertices.max(0) + mesh.vertices.min(0)).max() < 1e-6


def test_a_texture_is_read_finer_than_the_faces_are(tmp_path):
    """One square of two triangles whose texture is black on the left and white on the right."""
    from PIL import Image

    texture = np.zeros((16, 16, 3), np.uint8)
    texture[:, 8:] = 255
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    square = trimesh.Trimesh(np.c_[corners, np.zeros(4)], [[0, 1, 2], [0, 2, 3]], process=False)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(texture))  # its factor is white
    square.visual = trimesh.visual.TextureVisuals(corners, material=material)
    square.export(tmp_path / "square.glb")
    mesh = load_mesh_file(tmp_path / "square.glb", detail=16)
    across = mesh.vertices[:, 1]  # the file's x is the world's y
    assert len(mesh.vertices) > 100
    assert (mesh.colors[across < -0.05] < 0.1).all() and (mesh.colors[across > 0.05] > 0.9).all()


def test_a_file_without_triangles_says_so(tmp_path):
    (tmp_path / "broken.glb").write_bytes(b"no mesh")
    with pytest.raises(ValueError, match=r"broken.glb cannot be read as a mesh"):
        load_mesh_file(tmp_path / "broken.glb")
    trimesh.PointCloud(np.eye(3)).export(tmp_path / "points.ply")
    with pytest.raises(ValueError, match=r"points.ply holds no triangles"):
        load_mesh_file(tmp_path / "points.ply")


def test_a_missing_file_is_told_as_missing(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.obj does not exist; give a mesh"):
        load_mesh_file(tmp_path / "gone.obj")


# -- colours ----------------------------------------------------------------------------------------------------------


def test_an_obj_has_the_plain_colours_of_its_mtl_and_stands_upright(tmp_path):
    """Two towers, as Blender writes them: y-up, one material each and no texture coordinates."""
    boxes = [trimesh.creation.box((0.2, 1.0, 0.2)).apply_translation((x, 0, 0)) for x in (-0.3, 0.3)]
    lines = ["mtllib two.mtl"]
    for number, (name, box) in enumerate(zip(("Red", "Blue"), boxes, strict=True)):
        lines += [f"v {x} {y} {z}" for x, y, z in box.vertices.tolist()] + [f"usemtl {name}"]
        lines += [f"f {a} {b} {c}" for a, b, c in (box.faces + 1 + 8 * number).tolist()]
    (tmp_path / "two.obj").write_text("\n".join(lines))
    (tmp_path / "two.mtl").write_text("newmtl Red\nKd 0.8 0.05 0.05\n\nnewmtl Blue\nKd 0.1 0.2 0.9\n")
    mesh = load_mesh_file(tmp_path / "two.obj")
    extent = np.ptp(mesh.vertices, axis=0)
    assert extent.argmax() == 2  # the longest side is up
    left, right = mesh.colors[mesh.vertices[:, 1] < 0], mesh.colors[mesh.vertices[:, 1] > 0]
    assert np.abs(left - (0.8, 0.05, 0.05)).max() < 0.003
    assert np.abs(right - (0.1, 0.2, 0.9)).max() < 0.003
    lying = load_mesh_file(tmp_path / "two.obj", up="z")
    assert np.ptp(lying.vertices, axis=0).argmax() == 1


def material_cube(factor, texture=None, color=None):
    cube = trimesh.creation.box()
    uv = None if texture is None else np.random.default_rng(0).random((8, 2))
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=factor, baseColorTexture=texture)
    cube.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    if color is not None:
        cube.visual.vertex_attributes["color"] = np.tile(np.array(color, np.uint8), (8, 1))
    return cube


def test_a_factor_without_a_texture_is_linear(tmp_path):
    material_cube([0.5, 0.0, 1.0, 1.0]).export(tmp_path / "cube.glb")
    mesh = load_mesh_file(tmp_path / "cube.glb")
    assert np.abs(mesh.colors - (0.735, 0.0, 1.0)).max() < 0.003  # srgb(.5) = .7354


def test_a_factor_tints_its_texture_in_linear_light(tmp_path):
    from PIL import Image

    grey = Image.new("RGB", (8, 8), (188, 188, 188))  # .5 in linear light
    material_cube([1.0, 0.0, 0.5, 1.0], grey).export(tmp_path / "cube.glb")
    mesh = load_mesh_file(tmp_path / "cube.glb", detail=8)
    assert np.abs(mesh.colors - (0.737, 0.0, 0.538)).max() < 0.006  # srgb(.5), 0, srgb(.25)


def test_vertex_colours_of_a_glb_are_linear_and_those_of_a_ply_are_not(tmp_path):
    cube = trimesh.creation.box()
    cube.visual.vertex_colors = np.tile(np.array([128, 0, 255, 255], np.uint8), (8, 1))
    for suffix, expected in ((".glb", 0.737), (".ply", 0.502)):
        cube.export(tmp_path / f"cube{suffix}")
        assert np.abs(load_mesh_file(tmp_path / f"cube{suffix}").colors - (expected, 0.0, 1.0)).max() < 0.003


FORMATS = [("glb", None), ("obj", "y"), ("obj", "z"), ("obj", None), ("ply", "y"), ("ply", "z"), ("ply", None)]
FORMATS += [("stl", "y"), ("stl", "z")]


@pytest.mark.parametrize(("suffix", "up"), FORMATS)
def test_what_the_program_exports_it_reads_with_the_same_colours_and_the_same_front(suffix, up, tmp_path):
    from export_assets import letter

    from distill3d.export.exporter import WRITERS
    from distill3d.export.formats.asset import turned

    asset = letter(textured=False)
    files = WRITERS[suffix](asset if up is None else turned(asset, up), "letter")
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    mesh = load_mesh_file(tmp_path / f"letter.{suffix}")
    expected = Mesh(asset.vertices, asset.faces, asset.colors).normalized()
    distance, nearest = cKDTree(expected.vertices).query(mesh.vertices)  # STL has corners instead of vertices
    assert distance.max() < 1e-4 and len(np.unique(nearest)) == len(expected.vertices)
    if suffix != "stl":
        assert np.abs(mesh.colors - expected.colors[nearest]).max() < 0.03
    fixed = load_fixed_mesh(tmp_path / f"letter.{suffix}")
    own = Mesh(fixed.vertices, fixed.faces, fixed.vertices).normalized().vertices
    np.testing.assert_allclose(own, fixed.placed, atol=1e-4)  # its own numbers are in the world's axes, too


def test_quads_and_a_lost_mtl_are_read(tmp_path):
    corners = ["0 0 0", "1 0 0", "1 1 0", "0 1 0", "0 0 1", "1 0 1", "1 1 1", "0 1 1"]
    quads = ["-8 -7 -6 -5", "5 6 7 8", "1 2 6 5", "2 3 7 6", "3 4 8 7", "4 1 5 8"]
    text = ["mtllib C:\\Users\\me\\chair.mtl", *(f"v {c}" for c in corners), "usemtl wood", *(f"f {q}" for q in quads)]
    (tmp_path / "quads.obj").write_text("\n".join(text))
    mesh = load_mesh_file(tmp_path / "quads.obj")
    assert len(mesh.faces) == 12 and np.ptp(mesh.vertices, axis=0) == pytest.approx([3**-0.5] * 3, rel=1e-5)


# -- geometry ---------------------------------------------------------------------------------------------------------


def test_a_cube_far_from_the_origin_is_a_cube(tmp_path):
    """Coordinates of a map: float32 holds 4 649 776 m to half a metre only."""
    cube = trimesh.creation.box().apply_translation((500000.5, 4649776.25, 312.0))
    cube.export(tmp_path / "cube.obj")
    mesh = load_mesh_file(tmp_path / "cube.obj")
    assert np.ptp(mesh.vertices, axis=0) == pytest.approx([3**-0.5] * 3, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e200])
def test_any_size_is_normalised(scale, tmp_path):
    lines = [f"v {x * scale} {y * scale} {z * scale}" for x, y, z in trimesh.creation.box().vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (trimesh.creation.box().faces + 1).tolist()]
    (tmp_path / "cube.obj").write_text("\n".join(lines))
    assert np.ptp(load_mesh_file(tmp_path / "cube.obj").vertices, axis=0) == pytest.approx([3**-0.5] * 3, rel=1e-5)


def instances(path, count):
    """A glTF with ``count`` nodes of one tetrahedron."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    blob = corners.tobytes() + np.array([0, 1, 2, 0, 1, 3, 0, 2, 3, 1, 2, 3], np.uint16).tobytes()
    views = [{"buffer": 0, "byteOffset": 0, "byteLength": 48}, {"buffer": 0, "byteOffset": 48, "byteLength": 24}]
    accessors = [{"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3"}]
    accessors += [{"bufferView": 1, "componentType": 5123, "count": 12, "type": "SCALAR"}]
    content = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": list(range(count))}],
        "nodes": [{"mesh": 0, "translation": [2.0 * (i % 50), 2.0 * (i // 50), 0.0]} for i in range(count)],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": 72, "uri": "data:application/octet-stream;base64," + b64encode(blob).decode()}],
    }
    path.write_text(json.dumps(content))


def test_three_thousand_nodes_of_one_mesh_take_a_moment(tmp_path):
    instances(tmp_path / "many.gltf", 3000)
    begun = time.process_time()
    assert len(load_mesh_file(tmp_path / "many.gltf").faces) == 12_000
    assert time.process_time() - begun < 9.0  # .6, and more than 14 where the size of all is taken for each


def test_a_mesh_that_is_placed_too_often_is_refused_before_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("distill3d.data.mesh_file._MOST_TRIANGLES", 30)
    instances(tmp_path / "many.gltf", 8)
    with pytest.raises(ForeignFileError, match="places 8 meshes of 32 triangles in all, more than the 30"):
        load_mesh_file(tmp_path / "many.gltf")


def test_the_division_of_textured_parts_is_shared_by_all(tmp_path, monkeypatch):
    """Each of 10 cubes would be divided into 12 288 triangles for their textures."""
    monkeypatch.setattr("distill3d.data.mesh_file.MOST_DIVIDED", 10_000)
    scene = trimesh.Scene([material_cube([1.0, 1.0, 1.0, 1.0], Image.new("RGB", (8, 8))) for _ in range(10)])
    scene.export(tmp_path / "many.glb")
    assert 120 < len(load_mesh_file(tmp_path / "many.glb").faces) <= 10_000


def test_several_nodes_are_all_placed(tmp_path):
    scene = trimesh.Scene()
    cube = trimesh.creation.box()
    for x in (0.0, 5.0):
        scene.add_geometry(cube, node_name=f"at{x}", transform=trimesh.transformations.translation_matrix([x, 0, 0]))
    scene.export(tmp_path / "two.glb")
    mesh = load_mesh_file(tmp_path / "two.glb")
    assert len(mesh.faces) == 24 and np.ptp(mesh.vertices, axis=0)[1] > 5 * np.ptp(mesh.vertices, axis=0)[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
        ("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", "all vertices coincide"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "broken.obj"),
    ],
)
def test_meshes_that_cannot_be_used_say_so(content, message, tmp_path):
    (tmp_path / "broken.obj").write_text(content)
    with pytest.raises(ForeignFileError, match=message):
        load_mesh_file(tmp_path / "broken.obj")


# -- glTF extensions --------------------------------------------------------------------------------------------------


def with_extension(path, name, required=True):
    """A cube as a GLB whose header asks for an extension."""
    with_header(path, {"extensionsUsed": [name], "extensionsRequired": [name] if required else []})


def with_header(path, changes, mesh=None):
    """A mesh, else a cube, as a GLB with some of its header's entries replaced."""
    data = (mesh or trimesh.creation.box()).export(file_type="glb")
    length = struct.unpack("<I", data[12:16])[0]
    header = json.loads(data[20 : 20 + length]) | changes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + length :]
    path.write_bytes(
        struct.pack("<4sIIII", b"glTF", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A) + text + rest
    )


@pytest.mark.parametrize(
    ("extension", "name"),
    [
        ("KHR_draco_mesh_compression", "Draco compression is not read; export without it"),
        ("EXT_meshopt_compression", "meshopt compression is not read; export without it"),
        ("KHR_texture_basisu", "KTX2"),
        ("ACME_secret", "the glTF extension ACME_secret is not read"),
    ],
)
def test_what_a_glb_needs_and_is_not_read_is_named(extension, name, tmp_path):
    with_extension(tmp_path / "cube.glb", extension)
    with pytest.raises(ForeignFileError, match=name):
        load_mesh_file(tmp_path / "cube.glb")


def test_extensions_that_only_add_are_read(tmp_path):
    with_extension(tmp_path / "cube.glb", "KHR_materials_unlit")
    assert len(load_mesh_file(tmp_path / "cube.glb").faces) == 12


SPECULAR = "KHR_materials_pbrSpecularGlossiness"


@pytest.mark.parametrize("is_declared", [True, False])
@pytest.mark.parametrize("given", [{}, {"specularFactor": [0.2, 0.2, 0.2], "glossinessFactor": 0.5}])
def test_diffuse_colours_of_specular_materials_are_the_colours(is_declared, given, tmp_path):
    """Without a specularFactor such a material is a mirror, whose base colour would be white."""
    materials = [{"extensions": {SPECULAR: {"diffuseFactor": [0.5, 0.0, 1.0, 1.0]} | given}}]
    changes = {"materials": materials, "extensionsUsed": [SPECULAR] if is_declared else []}
    with_header(tmp_path / "cube.glb", changes, material_cube([1.0, 1.0, 1.0, 1.0]))
    assert np.abs(load_mesh_file(tmp_path / "cube.glb").colors - (0.735, 0.0, 1.0)).max() < 0.003


def test_a_diffuse_texture_is_read(tmp_path):
    cube = material_cube([1.0, 1.0, 1.0, 1.0], Image.new("RGB", (8, 8), (188, 188, 188)))
    materials = [{"extensions": {SPECULAR: {"diffuseFactor": [1.0, 0.0, 0.5, 1.0], "diffuseTexture": {"index": 0}}}}]
    with_header(tmp_path / "cube.glb", {"materials": materials}, cube)
    assert np.abs(load_mesh_file(tmp_path / "cube.glb", detail=1).colors - (0.737, 0.0, 0.538)).max() < 0.006


@pytest.mark.parametrize("factor", [[math.inf, 0, 0, 1], [math.nan] * 4, [1, 0], "red", ["a", 0, 0, 1], {}])
@pytest.mark.parametrize("of_extension", [False, True])
def test_a_factor_that_is_no_colour_is_refused(factor, of_extension, tmp_path):
    material = {"pbrMetallicRoughness": {"baseColorFactor": factor}}
    material = {"extensions": {SPECULAR: {"diffuseFactor": factor}}} if of_extension else material
    with_header(tmp_path / "cube.glb", {"materials": [material]})
    with pytest.raises(ForeignFileError, match=r"material 0: (baseColor|diffuse)Factor=.* must be four numbers"):
        load_mesh_file(tmp_path / "cube.glb")


def test_colours_of_vertices_that_are_no_numbers_are_refused(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0 nan 0 0\nv 1 0 0 1 0 0\nv 0 1 0 1 0 0\nf 1 2 3\n")
    with pytest.raises(ForeignFileError, match="vertices or colours that are not finite"):
        load_mesh_file(tmp_path / "a.obj")
    cube = material_cube([1.0, 1.0, 1.0, 1.0])
    cube.visual.vertex_attributes["color"] = np.full((8, 3), np.nan, np.float32)
    with pytest.raises(ValueError, match="colours hold NaN or infinity"):
        coloured(cube, 1.0, True)


@pytest.mark.parametrize(
    ("kd", "told", "color"),
    [
        ("nan 0 0", "Kd nan 0 0 is no colour", (0.4, 0.4, 0.4)),
        ("1e400 0 0", "is no colour", (0.4, 0.4, 0.4)),
        ("spectral file.rfl", "is no colour", (0.4, 0.4, 0.4)),
        ("255 0 0", "not within 0 .. 1", (1.0, 0.0, 0.0)),
        ("1 0 0 # red", "", (1.0, 0.0, 0.0)),
    ],
)
def test_a_material_whose_colour_is_none_is_named(kd, told, color, tmp_path, caplog):
    (tmp_path / "a.mtl").write_text(f"newmtl A\nKd {kd}\n")
    (tmp_path / "a.obj").write_text("mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl A\nf 1 2 3\n")
    assert np.abs(load_mesh_file(tmp_path / "a.obj", detail=1).colors - color).max() < 0.003
    assert told in caplog.text and bool(caplog.text) == bool(told)
