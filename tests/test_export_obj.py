"""OBJ and MTL: what other programs read."""

import numpy as np
import pytest
import trimesh
from export_assets import METADATA, assert_is_the_letter, letter

from distill3d.export.formats.obj import obj_files


def written(tmp_path, asset, name="model"):
    files = obj_files(asset, name)
    for file_name, data in files.items():
        (tmp_path / file_name).write_bytes(data)
    return tmp_path / next(iter(files))


def test_the_texture_comes_back_in_the_world_frame(tmp_path):
    mesh = trimesh.load(written(tmp_path, letter(True)), process=False)
    colors = mesh.visual.to_color().vertex_colors[:, :3] / 255.0
    assert_is_the_letter(mesh.vertices, mesh.faces, colors)
    np.testing.assert_allclose(mesh.visual.material.diffuse[:3], 255)


def test_a_closed_surface_reads_as_closed(tmp_path):
    path = written(tmp_path, letter(True))
    lines = path.read_text().splitlines()
    corners = [[int(c.split("/")[0]) for c in line.split()[1:]] for line in lines if line.startswith("f ")]
    positions = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    assert trimesh.Trimesh(positions, np.array(corners) - 1, process=False).is_watertight


def test_vertex_colours_come_back(tmp_path):
    mesh = trimesh.load(written(tmp_path, letter(False)), process=False)
    assert_is_the_letter(mesh.vertices, mesh.faces, mesh.visual.vertex_colors[:, :3] / 255.0, 0.01)


@pytest.mark.parametrize("image_format", ["png", "jpg"])
def test_the_material_names_files_that_exist(tmp_path, image_format):
    path = written(tmp_path, letter(True, True, image_format), "cheese.f")
    material = (tmp_path / "cheese.f.mtl").read_text()
    assert "mtllib cheese.f.mtl\n" in path.read_text() and "usemtl surface\n" in path.read_text()
    assert "newmtl surface\n" in material and "Kd 1 1 1\n" in material and "Pr 0.7\n" in material
    for line in material.splitlines():
        if line.startswith(("map_", "norm")):
            assert (tmp_path / line.split()[1]).stat().st_size > 1000
    assert f"map_Kd cheese.f_albedo.{image_format}\n" in material and "norm cheese.f_normal.png\n" in material


def test_metadata_are_comments_of_one_line_each(tmp_path):
    lines = written(tmp_path, letter(False)).read_text().splitlines()
    assert lines[0] == '# prompt: an "F" \\ of cheese # 한 🍔' and lines[1] == f"# seed: {METADATA['seed']}"
    assert not any(line.startswith("mtllib") for line in lines)
