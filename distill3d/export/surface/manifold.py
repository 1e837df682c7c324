"""A closed surface after edge collapse: flaps removed and pinches opened, so that every edge has two faces again.

manifold3d opens a pinched edge by vertices on the old ones: a reader that joins equal positions finds four faces again.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from distill3d.export.surface.mesh import Surface, face_normals, without_unused_vertices


def made_manifold(surface: Surface, gap: float) -> Surface:
    """Drop flaps, and open edges with more than two faces, so that every edge has two; the surface must be closed.

    A collapse that ignores topology leaves such edges, although the faces still bound a volume: as many of them run
    one way as the other. The faces on the two sides of one solid wedge belong together; of several wedges all but the
    first get a vertex of their own at the edge's middle, ``gap`` (world units) inwards. Raises ValueError for a
    surface with a boundary.
    """
    surface = Surface(surface.vertices, without_flaps(surface.faces))
    forward, backward, extra = _paired_half_edges(surface)
    if not extra.any():
        return without_unused_vertices(surface)
    forward, backward = forward[extra], backward[extra]
    start, end = surface.faces.ravel()[forward], np.roll(surface.faces, -1, axis=1).ravel()[forward]
    normals = face_normals(surface)
    inwards = -(normals[forward // 3] + normals[backward // 3])
    inwards = inwards / np.maximum(np.linalg.norm(inwards, axis=1, keepdims=True), 1e-20)
    middles = 0.5 * (surface.vertices[start] + surface.vertices[end]) + gap * inwards
    middle_of = np.full(surface.faces.size, -1, np.int64)
    middle_of[forward] = middle_of[backward] = len(surface.vertices) + np.arange(len(middles))
    middle_of = middle_of.reshape(-1, 3)
    cut = (middle_of >= 0).any(axis=1)
    pieces = [_cut(face, middle) for face, middle in zip(surface.faces[cut], middle_of[cut], strict=True)]
    vertices = np.concatenate([surface.vertices, middles.astype(np.float32)])
    return without_unused_vertices(Surface(vertices, np.concatenate([surface.faces[~cut], *pieces])))


def _cut(face: Int[ndarray, "3"], middle: Int[ndarray, "3"]) -> Int[ndarray, "pieces 3"]:
    """A triangle with vertices added on some edges (``middle[i]`` between corners i and i + 1, or -1), in triangles."""
    pieces, outline = [], []
    for i in range(3):
        if middle[i - 1] >= 0 and middle[i] >= 0:
            pieces.append((middle[i - 1], face[i], middle[i]))  # cut the corner off
        else:
            outline.append(face[i])
        outline += [middle[i]] if middle[i] >= 0 else []
    first = next(i for i, vertex in enumerate(outline) if vertex in middle)
    outline = outline[first:] + outline[:first]  # a fan from an added vertex has no triangle without area
    pieces += [(outline[0], outline[i], outline[i + 1]) for i in range(1, len(outline) - 1)]
    return np.array(pieces, np.int64)


def without_flaps(faces: Int[ndarray, "F 3"]) -> Int[ndarray, "G 3"]:
    """Drop pairs of faces that have the same vertices in opposite order: they enclose nothing."""
    rows = np.arange(len(faces))[:, None]
    first = faces[rows, (faces.argmin(axis=1)[:, None] + np.arange(3)) % 3]  # rotated to begin with the smallest
    turned = first[:, 1] > first[:, 2]
    _, group = np.unique(np.sort(faces, axis=1), axis=0, return_inverse=True)
    group = group.ravel()
    pairs = np.minimum(
        np.bincount(group[turned], minlength=len(faces)), np.bincount(group[~turned], minlength=len(faces))
    )
    keep = np.ones(len(faces), bool)
    for side in (turned, ~turned):
        rows = np.flatnonzero(side)
        keep[rows[_rank_in_group(group[rows]) < pairs[group[rows]]]] = False
    return faces[keep]


def _paired_half_edges(surface: Surface) -> tuple[Int[ndarray, "E"], Int[ndarray, "E"], Bool[ndarray, "E"]]:
    """Half-edges ``3 face + corner`` towards higher vertex numbers, the opposite half-edge that each meets, and
    whether an earlier pair joins the same two vertices."""
    start, end = surface.faces.ravel(), np.roll(surface.faces, -1, axis=1).ravel()
    key = np.minimum(start, end) * len(surface.vertices) + np.maximum(start, end)
    forward, backward = np.flatnonzero(start < end), np.flatnonzero(start > end)
    forward, backward = forward[np.argsort(key[forward])], backward[np.argsort(key[backward])]
    if not np.array_equal(key[forward], key[backward]):
        raise ValueError("the surface has a boundary, so its edges cannot be paired")
    _, begin, count = np.unique(key[forward], return_index=True, return_counts=True)
    for first, sheets in zip(begin[count > 1], count[count > 1], strict=True):
        span = slice(first, first + sheets)
        backward[span] = backward[span][_across_the_solid(surface, forward[span], backward[span])]
    extra = np.ones(len(forward), bool)
    extra[begin] = False
    return forward, backward, extra


def _across_the_solid(surface: Surface, forward: Int[ndarray, "K"], backward: Int[ndarray, "K"]) -> Int[ndarray, "K"]:
    """For each forward half-edge of one edge the backward one on the other side of the same solid wedge.

    Faces that run along the edge have the solid at smaller angles around it, faces that run against it at larger ones.
    """
    from scipy.optimize import linear_sum_assignment

    a, b = surface.faces.ravel()[forward[0]], np.roll(surface.faces, -1, axis=1).ravel()[forward[0]]
    axis = surface.vertices[b] - surface.vertices[a]
    axis = axis / max(float(np.linalg.norm(axis)), 1e-20)
    side = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
    frame = np.stack([side, np.cross(axis, side)], axis=1)

    def angle(half_edges: Int[ndarray, "K"]) -> Float[ndarray, "K"]:
        apex = np.roll(surface.faces, -2, axis=1).ravel()[half_edges]
        x, y = ((surface.vertices[apex] - surface.vertices[a]) @ frame).T
        return np.arctan2(y, x)

    wedge = (angle(forward)[:, None] - angle(backward)[None, :]) % (2.0 * np.pi)
    return linear_sum_assignment(wedge)[1]


def _rank_in_group(group: Int[ndarray, "N"]) -> Int[ndarray, "N"]:
    order = np.argsort(group, kind="stable")
    begin = np.searchsorted(group[order], group[order])
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - begin
    return rank
