"""Mesh files: the frame they are in, and their colours."""

import numpy as np
import pytest
import trimesh

from distill3d.data.mesh_file import load_mesh_file


def arrow(front, up):
    """A tetrahedron whose tip, red, points to the front; its base reaches farthest towards up, green."""
    front, up = np.array(front, float), np.array(up, float)
    side = np.cross(up, front)
    vertices = np.stack([2 * front, up, -0.5 * up + side, -0.5 * up - side])
    colors = [[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], [0, 0, 255, 255]]
    faces = [[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]
    return trimesh.Trimesh(vertices, faces, vertex_colors=np.array(colors, np.uint8), process=False)


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
    square.visual = trimesh.visual.TextureVisuals(corners, image=Image.fromarray(texture))
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
