"""Triangle surfaces: parts, smoothing, decimation, normals, and what can be measured on them. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

if TYPE_CHECKING:
    from trimesh import Trimesh


@dataclass(frozen=True)
class Surface:
    """Triangles in world units (z up), counter-clockwise seen from outside; neighbours share vertices by index."""

    vertices: Float[ndarray, "V 3"]
    faces: Int[ndarray, "F 3"]

    @property
    def volume(self) -> float:
        """Signed volume by the divergence theorem: positive where the faces point outwards."""
        return float(_signed_volumes(self).sum())

    @property
    def is_watertight(self) -> bool:
        """Whether every edge has two faces, which run along it in opposite directions."""
        mesh = as_trimesh(self)
        return bool(mesh.is_watertight and mesh.is_winding_consistent)


def as_trimesh(surface: Surface) -> Trimesh:
    """The same vertices and faces, unmerged and in the same order."""
    from trimesh import Trimesh

    return Trimesh(surface.vertices, surface.faces, process=False)


def directed_edges(faces: Int[ndarray, "F 3"]) -> Int[ndarray, "3F 2"]:
    """The three edges of every face, in the face's direction."""
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def face_normals(surface: Surface) -> Float[ndarray, "F 3"]:
    """Normals by the right-hand rule whose length is twice the area."""
    a, b, c = (surface.vertices[surface.faces[:, i]] for i in range(3))
    return np.cross(b - a, c - a)


def vertex_normals(surface: Surface) -> Float[ndarray, "V 3"]:
    """Unit normals: those of the faces around a vertex, weighted by their angles there."""
    unit = np.array(as_trimesh(surface).vertex_normals)
    unit[np.linalg.norm(unit, axis=1) < 0.5] = (0.0, 0.0, 1.0)  # a vertex of degenerate faces only: any unit vector
    return unit.astype(np.float32)


def moved(surface: Surface, offsets: Float[ndarray, "V"]) -> Surface:
    """Vertices moved along their normals, but for those of faces that would turn over."""
    vertices = (surface.vertices + offsets[:, None] * vertex_normals(surface)).astype(np.float32)
    turned = (face_normals(surface) * face_normals(Surface(vertices, surface.faces))).sum(axis=1) <= 0.0
    stay = surface.faces[turned].ravel()
    vertices[stay] = surface.vertices[stay]
    return Surface(vertices, surface.faces)


def without_unused_vertices(surface: Surface) -> Surface:
    """The same faces with the vertices that they use, in the same order."""
    used, faces = np.unique(surface.faces, return_inverse=True)
    return Surface(surface.vertices[used], faces.reshape(surface.faces.shape))


def with_distinct_vertices(surface: Surface, gap: float) -> Surface:
    """Vertices that lie on the same point, moved apart by ``gap`` (world units) inwards.

    Where two sheets touch, programs that join equal positions would find edges with four faces.
    """
    _, place, count = np.unique(surface.vertices, axis=0, return_inverse=True, return_counts=True)
    place = place.reshape(-1)
    shared = np.flatnonzero(count[place] > 1)
    if len(shared) == 0:
        return surface
    vertices, normals = surface.vertices.copy(), vertex_normals(surface)
    seen: dict[int, int] = {}
    for vertex in shared.tolist():
        rank = seen.setdefault(int(place[vertex]), 0)
        seen[int(place[vertex])] = rank + 1
        vertices[vertex] -= np.float32(rank * gap) * normals[vertex]
    return Surface(vertices, surface.faces)


def largest_parts(surface: Surface, keep_parts: int, min_part_share: float) -> tuple[Surface, int]:
    """The connected parts with the largest areas, and how many others were dropped.

    A part stays if it is among the ``keep_parts`` largest and has at least ``min_part_share`` of the largest one's
    area: that is what is seen, and the blades of a rotor have hardly any volume. Parts of negative volume are the walls
    of cavities inside the object, which nobody sees: they go.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = directed_edges(surface.faces)
    count = len(surface.vertices)
    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    part = label[surface.faces[:, 0]]
    volumes = np.bincount(part, weights=_signed_volumes(surface), minlength=label.max() + 1)
    areas = np.bincount(part, weights=_areas(surface), minlength=label.max() + 1) * (volumes > 1e-30)
    largest = np.argsort(-areas, kind="stable")[:keep_parts]
    kept = largest[areas[largest] >= max(min_part_share * areas.max(), 1e-30)]
    present = len(np.unique(part))
    return without_unused_vertices(Surface(surface.vertices, surface.faces[np.isin(part, kept)])), present - len(kept)


def smoothed(surface: Surface, iterations: int, shrink: float = 0.5, inflate: float = 0.53) -> Surface:
    """Taubin's filter (SIGGRAPH 1995): Laplacian steps that shrink and inflate by turns, so that the volume stays."""
    from trimesh.smoothing import filter_taubin

    mesh = filter_taubin(as_trimesh(surface), lamb=shrink, nu=inflate, iterations=2 * iterations)
    return Surface(np.asarray(mesh.vertices, np.float32), surface.faces)


def decimated(surface: Surface, target_faces: int) -> Surface:
    """About ``target_faces`` faces by quadric edge collapse, which ignores topology: thin parts may be pinched."""
    import fast_simplification

    if len(surface.faces) <= target_faces:
        return surface
    vertices, faces = fast_simplification.simplify(
        surface.vertices.astype(np.float64), surface.faces.astype(np.int32), target_count=target_faces
    )[:2]
    return without_unused_vertices(Surface(vertices.astype(np.float32), faces.astype(np.int64)))


def _areas(surface: Surface) -> Float[ndarray, "F"]:
    a, b, c = (surface.vertices[surface.faces[:, i]].astype(np.float64) for i in range(3))
    return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)


def _signed_volumes(surface: Surface) -> Float[ndarray, "F"]:
    a, b, c = (surface.vertices[surface.faces[:, i]].astype(np.float64) for i in range(3))
    return (a * np.cross(b, c)).sum(axis=1) / 6.0
