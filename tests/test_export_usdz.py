"""USDZ: opened by usd-core, without a complaint of its validators."""

import io
import struct
import zipfile

import numpy as np
import pytest
from export_assets import METADATA, assert_is_the_letter, letter
from PIL import Image

from distill3d.export.formats.usdz import aligned_zip, usdz_files
from distill3d.runtime.srgb import linear_from_srgb


def opened(tmp_path, asset):
    from pxr import Usd

    path = tmp_path / "model.usdz"
    path.write_bytes(usdz_files(asset, "model")["model.usdz"])
    return path, Usd.Stage.Open(str(path))


def from_y_up(points) -> np.ndarray:
    return np.asarray(points)[:, [2, 0, 1]]


@pytest.mark.parametrize(("textured", "normal_map"), [(True, False), (True, True), (False, False)])
def test_no_validator_complains(tmp_path, textured, normal_map):
    from pxr import UsdValidation

    _, stage = opened(tmp_path, letter(textured, normal_map))
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) > 10
    assert [error.GetMessage() for error in UsdValidation.ValidationContext(validators).Validate(stage)] == []


def test_the_texture_comes_back_y_up_with_the_front_towards_z(tmp_path):
    from pxr import UsdGeom

    path, stage = opened(tmp_path, letter(True))
    assert UsdGeom.GetStageUpAxis(stage) == "Y" and UsdGeom.GetStageMetersPerUnit(stage) == 1.0
    mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/Model/Mesh"))
    st = np.asarray(UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st").Get())
    image = np.asarray(Image.open(io.BytesIO(zipfile.ZipFile(path).read("textures/albedo.png")))) / 255.0
    row, column = ((1.0 - st[:, 1]) * 256).astype(int).clip(0, 255), (st[:, 0] * 256).astype(int).clip(0, 255)
    faces = np.asarray(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
    assert_is_the_letter(from_y_up(mesh.GetPointsAttr().Get()), faces, image[row, column])


def test_vertex_colours_are_linear(tmp_path):
    from pxr import UsdGeom

    asset = letter(False)
    _, stage = opened(tmp_path, asset)
    color = np.asarray(UsdGeom.PrimvarsAPI(stage.GetPrimAtPath("/Model/Mesh")).GetPrimvar("displayColor").Get())
    np.testing.assert_allclose(color, linear_from_srgb(asset.colors), atol=1e-5)


def test_metadata_survive_any_prompt(tmp_path):
    _, stage = opened(tmp_path, letter(False))
    kept = stage.GetRootLayer().customLayerData["distill3d"]
    assert kept == {**METADATA, "prompt": METADATA["prompt"].replace("\n", " ")}


def test_contents_are_stored_and_aligned():
    files = {"a.usda": b"#usda 1.0\n", "textures/b.png": b"x" * 1000, "c": b""}
    data = aligned_zip(files)
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.namelist() == list(files) and archive.testzip() is None
    for info in archive.infolist():
        name, extra = struct.unpack("<2H", data[info.header_offset + 26 : info.header_offset + 30])
        start = info.header_offset + 30 + name + extra
        assert start % 64 == 0 and info.compress_type == zipfile.ZIP_STORED
        assert data[start : start + info.file_size] == files[info.filename]
    assert aligned_zip(files) == data
