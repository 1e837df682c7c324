"""STL and 3MF: closed as re-read, in millimetres, and 3MF with its colours."""

import io
import xml.etree.ElementTree as ElementTree
import zipfile

import numpy as np
import pytest
import trimesh
from export_assets import METADATA, VOLUME, letter

from distill3d.export.formats.stl import stl_files
from distill3d.export.formats.threemf import CORE, MATERIALS, threemf_files
from distill3d.export.formats.welding import flattened, placed, sized, welded


def read_3mf(data: bytes):
    """Positions, faces, and one colour for each corner, by the standard library's readers."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {"[Content_Types].xml", "_rels/.rels", "3D/3dmodel.model"} == set(archive.namelist())
        root = ElementTree.fromstring(archive.read("3D/3dmodel.model"))
    number = lambda e, names: [float(e.get(n)) for n in names]  # noqa: E731
    positions = np.array([number(v, "xyz") for v in root.iter(f"{{{CORE}}}vertex")])
    corners = np.array([number(t, ("v1", "v2", "v3", "p1", "p2", "p3")) for t in root.iter(f"{{{CORE}}}triangle")], int)
    shades = [bytes.fromhex(c.get("color")[1:]) for c in root.iter(f"{{{MATERIALS}}}color")]
    palette = np.array([list(shade) for shade in shades])
    return root, positions, corners[:, :3], palette[corners[:, 3:]]


@pytest.mark.parametrize("textured", [True, False])
def test_a_closed_surface_is_closed_as_re_read(textured):
    asset = sized(letter(textured), 80.0)
    _, positions, faces, _ = read_3mf(threemf_files(asset, "model")["model.3mf"])
    printed = trimesh.Trimesh(positions, faces, process=False)
    stl = trimesh.load(io.BytesIO(stl_files(asset, "model")["model.stl"]), file_type="stl")
    for mesh in (printed, stl):
        assert mesh.is_watertight and mesh.extents.max() == pytest.approx(80.0, rel=1e-4)
        assert mesh.volume == pytest.approx(
            VOLUME * (80.0 / np.ptp(letter(textured).vertices, axis=0).max()) ** 3, rel=0.03
        )


def test_colours_come_back_within_rounding():
    asset = letter(False)
    root, positions, faces, colors = read_3mf(threemf_files(asset, "model")["model.3mf"])
    assert root.get("unit") == "millimeter"
    found = {
        tuple(np.round(p, 4)): c for p, c in zip(positions[faces].reshape(-1, 3), colors.reshape(-1, 3), strict=True)
    }
    for vertex, color in zip(asset.vertices.tolist(), asset.colors, strict=True):
        key = tuple(np.round(np.float64([float(f"{x:.6g}") for x in vertex]), 4))
        assert np.abs(found[key] / 255.0 - color).max() < 2.0 / 255.0


def test_the_prompt_is_in_the_file_whatever_it_holds():
    root, *_ = read_3mf(threemf_files(letter(False), "model")["model.3mf"])
    kept = {m.get("name"): m.text for m in root.iter(f"{{{CORE}}}metadata")}
    assert kept["Description"] == METADATA["prompt"]
    header = stl_files(letter(False), "model")["model.stl"][:80]
    assert header.startswith(b"distill3d; up: z; front: +x; prompt: an ") and not header.startswith(b"solid")


def test_welding_undoes_the_cuts_of_the_texture():
    asset = letter(True)
    mesh = welded(asset)
    assert len(mesh.positions) < len(asset.vertices)
    np.testing.assert_array_equal(mesh.positions[mesh.faces], asset.vertices[asset.faces])
    np.testing.assert_array_equal(asset.vertices[mesh.first], mesh.positions)


def test_placing_and_flattening():
    asset = letter(False)
    based, centred = placed(asset, "base").vertices, placed(asset, "center").vertices
    np.testing.assert_allclose(based.min(axis=0) + based.max(axis=0), [0.0, 0.0, np.ptp(based[:, 2])], atol=1e-6)
    assert based[:, 2].min() == pytest.approx(0.0, abs=1e-7) and placed(asset, "world") is asset
    np.testing.assert_allclose(centred.min(axis=0), -centred.max(axis=0), atol=1e-6)
    flat = flattened(asset, 0.2)
    assert np.ptp(flat.vertices[:, 2]) == pytest.approx(0.8 * np.ptp(asset.vertices[:, 2]), rel=1e-4)
    assert (flat.vertices[:, 2] == flat.vertices[:, 2].min()).sum() > 20
