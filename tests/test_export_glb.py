"""GLB: valid by Khronos' validator, and what other programs read."""

import io
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import trimesh
from export_assets import METADATA, assert_is_the_letter, letter

from distill3d.export.formats.glb import glb_bytes, glb_files
from distill3d.runtime.srgb import linear_from_srgb

VALIDATOR = "gltf-validator@2.0.0-dev.3.10"
CACHE = Path(__file__).parents[1] / ".cache" / "gltf-validator"
SCRIPT = """
const validator = require("gltf-validator");
validator.validateBytes(new Uint8Array(require("fs").readFileSync(0))).then((r) => console.log(JSON.stringify(r)));
"""
VARIANTS = [(True, False, "png"), (True, True, "png"), (True, False, "jpg"), (False, False, "png")]


@pytest.fixture(scope="session")
def validator() -> Path:
    """The folder of Khronos' validator, installed once."""
    if shutil.which("npm") is None:
        pytest.fail("Khronos' glTF validator needs Node.js: apt-get install -y nodejs npm")
    if not (CACHE / "node_modules" / "gltf-validator").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--prefix", str(CACHE), "--no-audit", "--no-fund", VALIDATOR]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(command)} failed: {done.stderr[-2000:]}"
    return CACHE


def document_of(data: bytes) -> dict:
    magic, version, total = struct.unpack_from("<4sII", data)
    assert (magic, version, total) == (b"glTF", 2, len(data))
    length, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON"
    return json.loads(data[20 : 20 + length])


@pytest.mark.parametrize(("textured", "normal_map", "image_format"), VARIANTS)
def test_khronos_validator_finds_nothing(validator, textured, normal_map, image_format):
    data = glb_bytes(letter(textured, normal_map, image_format))
    environment = {**os.environ, "NODE_PATH": str(validator / "node_modules")}
    done = subprocess.run(["node", "-e", SCRIPT], input=data, capture_output=True, env=environment, check=True)
    report = json.loads(done.stdout)
    assert report["issues"]["messages"] == []
    assert report["info"]["totalTriangleCount"] == len(letter(textured, normal_map, image_format).faces)


@pytest.mark.parametrize(("textured", "normal_map", "image_format"), VARIANTS)
def test_the_mesh_comes_back_y_up_with_the_front_towards_z(textured, normal_map, image_format):
    data = glb_files(letter(textured, normal_map, image_format), "model")["model.glb"]
    scene = trimesh.load(io.BytesIO(data), file_type="glb", process=False)
    (mesh,) = scene.geometry.values()
    world = mesh.vertices[:, [2, 0, 1]]  # (x, y, z) -> (y, z, x) undone
    if textured:
        assert_is_the_letter(world, mesh.faces, mesh.visual.to_color().vertex_colors[:, :3] / 255.0)
        assert mesh.visual.material.metallicFactor == 0.0 and mesh.visual.material.roughnessFactor == 0.7
    else:
        linear = mesh.visual.vertex_attributes["color"][:, :3]
        linear = linear / (255.0 if linear.dtype == np.uint8 else 1.0)
        srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        assert_is_the_letter(world, mesh.faces, srgb, 0.02)


def test_sections_name_and_extras():
    document = document_of(glb_bytes(letter(True, True), "cheese"))
    assert document["asset"]["extras"] == METADATA
    assert document["asset"]["generator"].startswith("distill3d ")
    assert document["meshes"][0]["name"] == "cheese"
    assert [image["name"] for image in document["images"]] == ["albedo", "normal"]


def test_vertex_colours_are_stored_linear():
    asset = letter(False)
    data = glb_bytes(asset)
    document = document_of(data)
    accessor = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
    binary = data.index(b"BIN\0") + 4 + document["bufferViews"][accessor["bufferView"]]["byteOffset"]
    stored = np.frombuffer(data, "<f4", 3 * accessor["count"], binary).reshape(-1, 3)
    np.testing.assert_allclose(stored, linear_from_srgb(asset.colors), atol=1e-6)


def test_the_transfer_function_at_known_points():
    known = {0.0: 0.0, 0.04045: 0.0031308, 0.5: 0.2140411, 1.0: 1.0}
    np.testing.assert_allclose(linear_from_srgb(np.array(list(known))), list(known.values()), atol=1e-6)


def test_wide_indices_where_they_are_needed():
    asset = letter(False)
    many = type(asset)(
        np.tile(asset.vertices, (90, 1)),
        asset.faces + 89 * len(asset.vertices),
        np.tile(asset.normals, (90, 1)),
        np.tile(asset.colors, (90, 1)),
    )
    kinds = [document_of(glb_bytes(a))["accessors"][-1]["componentType"] for a in (asset, many)]
    assert kinds == [5123, 5125]
