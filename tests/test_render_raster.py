"""The rasteriser against closed forms: silhouettes, depth order, colours, handedness."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from distill3d.camera import camera_rays, make_cameras, orbit_cameras
from distill3d.scenes.mesh.raster import Mesh, face_normals, rasterize, unit_vectors


def quad(x: float, color: tuple[float, float, float], half: float = 0.3) -> Mesh:
    """A square across the x axis at ``x``, facing +x."""
    corners = [[x, -half, -half], [x, half, -half], [x, half, half], [x, -half, half]]
    colors = np.tile(np.asarray(color, np.float32), (4, 1))
    return Mesh(np.asarray(corners, np.float32), np.asarray([[0, 1, 2], [0, 2, 3]], np.int32), colors)


def icosphere(subdivisions: int = 4) -> Mesh:
    import trimesh

    sphere = trimesh.creation.icosphere(subdivisions=subdivisions, radius=0.5)
    vertices = np.asarray(sphere.vertices, np.float32)
    return Mesh(vertices, np.asarray(sphere.faces, np.int32), np.ones((len(vertices), 3), np.float32))


def front_camera(size: int = 32, distance: float = 2.0, fovy_deg: float = 40.0):
    return orbit_cameras(1, 0.0, distance, fovy_deg, size)


def test_a_sphere_covers_the_disc_that_its_cone_of_tangents_cuts():
    buffer = rasterize(icosphere(), front_camera(64), supersample=4)
    focal = 32.0 / math.tan(math.radians(20.0))
    radius = focal * math.tan(math.asin(0.5 / 2.0))
    assert float(buffer.mask.sum()) == pytest.approx(math.pi * radius**2, rel=0.01)


def test_normals_of_a_sphere_point_outward_and_positions_lie_on_it():
    buffer = rasterize(icosphere(), front_camera(48))
    seen = buffer.mask[0, 0] > 0.99
    position, normal = buffer.position[0][:, seen], buffer.normal[0][:, seen]
    assert torch.allclose(position.norm(dim=0), torch.tensor(0.5), atol=0.01)
    assert float((torch.nn.functional.normalize(position, dim=0) * normal).sum(0).min()) > 0.97


def test_positions_lie_on_the_rays_of_their_pixels():
    cameras = make_cameras(
        torch.tensor([20.0]), torch.tensor([70.0]), torch.tensor([1.6]), torch.tensor([42.0]), 24, 32
    )
    buffer = rasterize(icosphere(), cameras, supersample=1)
    rays = camera_rays(cameras)
    seen = buffer.mask[0, 0] > 0
    to_point = buffer.position[0].permute(1, 2, 0) - rays.origins[0]
    cosine = (torch.nn.functional.normalize(to_point, dim=-1) * rays.directions[0]).sum(-1)
    assert float(cosine[seen].min()) > 1.0 - 1e-5


def test_the_nearer_surface_hides_the_farther_whatever_the_order_of_faces():
    near, far = quad(0.2, (1.0, 0.0, 0.0)), quad(-0.2, (0.0, 1.0, 0.0), half=0.5)
    for meshes in ([near, far], [far, near]):
        buffer = rasterize(Mesh.merged(meshes), front_camera())
        assert buffer.attributes[0, :, 16, 16].tolist() == pytest.approx([1.0, 0.0, 0.0])
    behind = orbit_cameras(2, 0.0, 2.0, 40.0, 32)
    back_view = rasterize(Mesh.merged([near, far]), behind).attributes[1, :, 16, 16]
    assert back_view.tolist() == pytest.approx([0.0, 1.0, 0.0])


def test_the_image_is_not_mirrored():
    """Seen from the front (+x), what lies at +y appears on the right, what lies at +z on top."""
    right = quad(0.0, (1.0, 1.0, 1.0), half=0.1).transformed(1.0, (0.0, 0.3, 0.2))
    mask = rasterize(right, front_camera()).mask[0, 0]
    rows, columns = torch.nonzero(mask > 0.5, as_tuple=True)
    assert float(columns.float().mean()) > 20.0
    assert float(rows.float().mean()) < 12.0


def test_attributes_are_interpolated_in_perspective():
    """On a plane that recedes, the colour equals the linear function of the world position."""
    floor = np.asarray([[-1.0, -1.0, -0.3], [0.8, -1.0, -0.3], [0.8, 1.0, -0.3], [-1.0, 1.0, -0.3]], np.float32)
    mesh = Mesh(floor, np.asarray([[0, 1, 2], [0, 2, 3]], np.int32), 0.5 + 0.5 * floor)
    camera = make_cameras(torch.tensor([25.0]), torch.tensor([0.0]), torch.tensor([1.6]), torch.tensor([42.0]), 32, 32)
    buffer = rasterize(mesh, camera, supersample=1)
    seen = buffer.mask[0, 0] > 0
    assert torch.allclose(buffer.attributes[0][:, seen], 0.5 + 0.5 * buffer.position[0][:, seen], atol=2e-5)


def test_normalized_centres_and_reaches_the_radius():
    mesh = quad(3.0, (0.0, 0.0, 0.0)).normalized(0.5)
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(0.5, abs=1e-6)
    assert np.abs(mesh.vertices.min(0) + mesh.vertices.max(0)).max() < 1e-6


def test_degenerate_faces_draw_nothing_and_bad_meshes_are_refused():
    flat = Mesh(np.zeros((3, 3), np.float32), np.asarray([[0, 1, 2]], np.int32), np.ones((3, 3), np.float32))
    assert float(rasterize(flat, front_camera()).mask.sum()) == 0.0
    assert np.isfinite(face_normals(flat.vertices, flat.faces)).all()
    with pytest.raises(ValueError, match="no indices"):
        rasterize(Mesh(flat.vertices, np.zeros((0, 3), np.int32), flat.colors), front_camera())
    with pytest.raises(ValueError, match="no indices"):
        rasterize(Mesh(flat.vertices, np.asarray([[0, 1, 9]], np.int32), flat.colors), front_camera())


def test_unit_vectors_are_those_of_torch_and_zero_stays_zero():
    image = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    image[:, :, 0] = 0.0
    torch.testing.assert_close(unit_vectors(image), torch.nn.functional.normalize(image, dim=1))
    assert bool((unit_vectors(image)[:, :, 0] == 0.0).all())
