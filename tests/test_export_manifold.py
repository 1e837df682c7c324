"""After edge collapse every edge has two faces again, and the volume is the same."""

import numpy as np
import pytest
import torch
from export_surfaces import CUBE, joined, moved

from distill3d.export.surface.grid import DensityGrid
from distill3d.export.surface.isosurface import extract_isosurface
from distill3d.export.surface.manifold import made_manifold, without_flaps
from distill3d.export.surface.mesh import Surface, decimated, largest_parts


def welded(surface: Surface) -> Surface:
    vertices, index = np.unique(surface.vertices, axis=0, return_inverse=True)
    return Surface(vertices, index.ravel()[surface.faces])


def test_a_clean_surface_stays_as_it_is():
    clean = made_manifold(CUBE, 0.01)
    np.testing.assert_array_equal(clean.faces, CUBE.faces)
    np.testing.assert_array_equal(clean.vertices, CUBE.vertices)


def test_cubes_that_share_an_edge_are_told_apart():
    pinched = welded(joined(CUBE, moved(CUBE, (1, 1, 0))))
    assert not pinched.is_watertight
    opened = made_manifold(pinched, 0.01)
    assert opened.is_watertight and welded(opened).is_watertight
    assert opened.volume == pytest.approx(2.0, rel=0.01)
    middle = opened.vertices[len(pinched.vertices) :]
    np.testing.assert_allclose(np.linalg.norm(middle - (1, 1, 0.5), axis=1), 0.01, rtol=1e-4)
    assert abs(middle[0, 0] - 1.0) == pytest.approx(0.01 / np.sqrt(2.0), rel=1e-3)  # into one of the cubes


def test_flaps_go_and_leave_the_rest():
    flap = np.array([[0, 1, 7], [7, 1, 0], [1, 7, 0]])  # two of one direction, one of the other
    kept = without_flaps(np.concatenate([CUBE.faces, flap]))
    assert len(kept) == len(CUBE.faces) + 1
    np.testing.assert_array_equal(kept[: len(CUBE.faces)], CUBE.faces)
    assert without_flaps(CUBE.faces).shape == CUBE.faces.shape


@pytest.mark.parametrize("seed", range(4))
def test_decimated_noise_is_closed(seed):
    """The worst case: a sponge, of which edge collapse pinches hundreds of edges."""
    values = torch.rand(24, 24, 24, generator=torch.Generator().manual_seed(seed))
    sponge = extract_isosurface(DensityGrid(values * 2.0, torch.zeros(3), 1.0), 1.0)
    assert sponge.is_watertight
    simple = decimated(sponge, len(sponge.faces) // 5)
    assert not simple.is_watertight
    closed = made_manifold(simple, 1e-3)
    assert closed.is_watertight and welded(closed).is_watertight
    assert closed.volume == pytest.approx(simple.volume, rel=1e-3)
    assert largest_parts(closed, 1, 0.0)[0].is_watertight


def test_a_boundary_is_an_error():
    with pytest.raises(ValueError, match="boundary"):
        made_manifold(Surface(CUBE.vertices, CUBE.faces[1:]), 0.01)
