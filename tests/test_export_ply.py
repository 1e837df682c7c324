"""PLY: what other programs read."""

import trimesh
from export_assets import assert_is_the_letter, letter

from distill3d.export.formats.ply import ply_files


def test_vertex_colours_come_back_in_the_world_frame(tmp_path):
    path = tmp_path / "model.ply"
    path.write_bytes(ply_files(letter(False), "model")["model.ply"])
    mesh = trimesh.load(path, process=False)
    assert mesh.is_watertight and mesh.volume > 0.0
    assert_is_the_letter(mesh.vertices, mesh.faces, mesh.visual.vertex_colors[:, :3] / 255.0, 0.01)


def test_the_header_is_ascii_whatever_the_prompt():
    header = ply_files(letter(False), "model")["model.ply"].split(b"end_header\n")[0].decode("ascii")
    assert header.startswith("ply\nformat binary_little_endian 1.0\ncomment prompt: an ")
    assert "cheese # \\ud55c" in header and "comment seed: 3\n" in header
