"""A mesh whose shape stays as it is: that of a file, or a box, or a sphere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from distill3d.scenes.mesh.raster import Mesh


@dataclass(frozen=True)
class FixedMesh:
    """Triangles twice: in the units of their file, which is what an export writes, and where the scene shows them."""

    vertices: Float[ndarray, "V 3"]  # float32, z up, otherwise the file's own numbers
    faces: Int[ndarray, "F 3"]
    placed: Float[ndarray, "V 3"]  # in the scene's world: centred, the farthest vertex at 0.5, the front at +x
    uv: Float[ndarray, "V 2"] | None = None  # origin at the upper left

    @property
    def shown(self) -> Mesh:
        """What is rasterised: no attributes, as colours are those of the points that are seen."""
        return Mesh(self.placed, self.faces, np.zeros((len(self.placed), 0), np.float32))


def box_mesh() -> FixedMesh:
    """A cube of side 1, each side with vertices of its own, so that its edges stay sharp."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)
    sides = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            side = np.insert(corners[:: int(sign)], axis, sign, axis=1)  # counter-clockwise seen from outside
            sides.append(side if axis != 1 else side[::-1])
    vertices = 0.5 * np.concatenate(sides).astype(np.float32)
    faces = np.array([[4 * s + i for i in triangle] for s in range(6) for triangle in ((0, 1, 2), (0, 2, 3))])
    return _own(vertices, faces)


def sphere_mesh(subdivisions: int = 4) -> FixedMesh:
    """A ball of radius 0.5: an icosahedron, each face divided in four again and again."""
    from trimesh.creation import icosphere

    ball = icosphere(subdivisions, radius=0.5)
    return _own(np.asarray(ball.vertices, np.float32), np.asarray(ball.faces))


SHAPES = {"box": box_mesh, "sphere": sphere_mesh}


def _own(vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]) -> FixedMesh:
    faces = faces.astype(np.int32)
    return FixedMesh(vertices, faces, Mesh(vertices, faces, vertices).normalized().vertices)
