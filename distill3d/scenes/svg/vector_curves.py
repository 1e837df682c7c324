"""Bezier curves on a pixel grid: flattening, boxes, which pixels are near which piece, and winding numbers.

All shapes of a picture are worked on at once, packed: pixels of a shape's box lie one after the other, row by row, and
each row ends with one more entry that no picture shows. There a row's winding ends at 0 again, so that one cumulative
sum over everything counts the crossings of every row of every shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TOLERANCE = 0.05  # pixels between a curve and its pieces
LONGEST = 8.0  # pixels of a piece: boxes of short pieces hold few pixels that are far from them
# sample points lie this far off the pixel centres, since edges on half pixels are common and have no side there
OFF_CENTRE = 1.0 / 1024.0


@dataclass(frozen=True)
class Curves:
    """Cubics in pixels, in the order of their shapes and subpaths."""

    points: Float[Tensor, "S 4 2"]
    shape: Int[Tensor, "S"]
    subpath: Int[Tensor, "S"]
    closed: Bool[Tensor, "S"]  # whether the subpath ends where it began

    def __len__(self) -> int:
        return len(self.shape)

    def of_shapes(self, wanted: Bool[Tensor, "N"]) -> Curves:
        """Those of some shapes."""
        rows = wanted[self.shape]
        return Curves(self.points[rows], self.shape[rows], self.subpath[rows], self.closed[rows])


@dataclass(frozen=True)
class Pieces:
    """Straight pieces from ``a`` to ``b``, in the order of the curves that they approximate."""

    a: Float[Tensor, "M 2"]
    b: Float[Tensor, "M 2"]
    curve: Int[Tensor, "M"]
    shape: Int[Tensor, "M"]


@dataclass(frozen=True)
class Boxes:
    """The pixels that each shape may touch, within the picture; a box may be empty."""

    left: Int[Tensor, "N"]
    top: Int[Tensor, "N"]
    width: Int[Tensor, "N"]
    height: Int[Tensor, "N"]

    @cached_property
    def offset(self) -> Int[Tensor, "N+1"]:
        """Where each shape's entries begin, and how many there are in all."""
        sizes = self.height * (self.width + 1)
        return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])

    def key(self, shape: Int[Tensor, "P"], x: Int[Tensor, "P"], y: Int[Tensor, "P"]) -> Int[Tensor, "P"]:
        """The entry of a pixel in a shape's box."""
        return self.offset[shape] + (y - self.top[shape]) * (self.width[shape] + 1) + x - self.left[shape]

    def view(self, packed: Float[Tensor, "total"], shape: int) -> Float[Tensor, "h w"]:
        """A shape's entries as a picture."""
        start, end = int(self.offset[shape]), int(self.offset[shape + 1])
        return packed[start:end].view(int(self.height[shape]), int(self.width[shape]) + 1)[:, :-1]

    def slices(self, shape: int) -> tuple[slice, slice]:
        """Rows and columns of a box in the picture."""
        top, left = int(self.top[shape]), int(self.left[shape])
        return slice(top, top + int(self.height[shape])), slice(left, left + int(self.width[shape]))


@dataclass(frozen=True)
class Near:
    """Pairs of a primitive and a pixel that it may touch."""

    primitive: Int[Tensor, "P"]
    key: Int[Tensor, "P"]
    pixel: Float[Tensor, "P 2"]  # the sample point


def flatten(curves: Curves) -> Pieces:
    """Pieces no farther than TOLERANCE from the curves and about LONGEST pixels long at most.

    n pieces are off by at most ``6 D / (8 n^2)``, D the larger second difference of the control points.
    """
    p = curves.points
    with torch.no_grad():
        bend = (p[:, :-2] - 2.0 * p[:, 1:-1] + p[:, 2:]).norm(dim=-1).amax(dim=1)
        length = (p[:, 1:] - p[:, :-1]).norm(dim=-1).sum(dim=1)
        count = torch.maximum((0.75 * bend / TOLERANCE).sqrt(), length / LONGEST).ceil().clamp(1, 512).long()
        curve = torch.repeat_interleave(torch.arange(len(p), device=p.device), count)
        index = torch.arange(len(curve), device=p.device) - (count.cumsum(0) - count)[curve]
        total = count[curve]
    ends = [_on_cubic(p[curve], (index + step).to(p) / total) for step in (0, 1)]
    return Pieces(ends[0], ends[1], curve, curves.shape[curve])


def shape_boxes(curves: Curves, reach: Float[Tensor, "N"], height: int, width: int) -> Boxes:
    """Boxes of the control points, larger by each shape's ``reach`` and a pixel."""
    low = curves.points.new_full((len(reach), 2), torch.inf)
    index = curves.shape[:, None].expand(-1, 2)
    points = curves.points.detach()
    low = low.scatter_reduce(0, index, points.amin(dim=1), "amin")
    high = (-torch.ones_like(low) * torch.inf).scatter_reduce(0, index, points.amax(dim=1), "amax")
    limit = low.new_tensor([width, height])
    empty = ~(low <= high).all(dim=1)
    low = torch.where(empty[:, None], 0.0, (low - reach[:, None] - 1.0)).floor().clamp_min(0.0).minimum(limit).long()
    high = torch.where(empty[:, None], 0.0, (high + reach[:, None] + 1.0)).ceil().clamp_min(0.0).minimum(limit).long()
    size = (high - low).clamp_min(0)
    size = size * (size > 0).all(dim=1, keepdim=True)
    return Boxes(low[:, 0], low[:, 1], size[:, 0], size[:, 1])


def near_pixels(low: Float[Tensor, "M 2"], high: Float[Tensor, "M 2"], shape: Int[Tensor, "M"], boxes: Boxes) -> Near:
    """All pixels whose sample points lie within the rectangles from ``low`` to ``high``, one of each primitive."""
    first = torch.stack([boxes.left, boxes.top], dim=1)[shape]
    size = torch.stack([boxes.width, boxes.height], dim=1)[shape]
    start = (low - 0.5 - OFF_CENTRE).ceil().long().maximum(first)
    stop = ((high - 0.5 - OFF_CENTRE).floor().long() + 1).minimum(first + size)
    side = (stop - start).clamp_min(0)
    count = side.prod(dim=1)
    primitive = torch.repeat_interleave(torch.arange(len(count), device=low.device), count)
    index = torch.arange(len(primitive), device=low.device) - (count.cumsum(0) - count)[primitive]
    columns = side[primitive, 0]
    x, y = start[primitive, 0] + index % columns, start[primitive, 1] + index // columns
    return Near(primitive, boxes.key(shape[primitive], x, y), torch.stack([x, y], dim=1).to(low) + 0.5 + OFF_CENTRE)


def winding_numbers(pieces: Pieces, boxes: Boxes) -> Int[Tensor, "total"]:
    """How often the closed outlines of its shape go around each pixel: the signed crossings to its left."""
    a, b = pieces.a.detach(), pieces.b.detach()
    half = 0.5 + OFF_CENTRE
    low, high = torch.minimum(a[:, 1], b[:, 1]), torch.maximum(a[:, 1], b[:, 1])
    top, left = boxes.top[pieces.shape], boxes.left[pieces.shape]
    first = (low - half).ceil().long().maximum(top)
    last = (high - half).ceil().long().minimum(top + boxes.height[pieces.shape])
    count = (last - first).clamp_min(0) * (boxes.width[pieces.shape] > 0)
    piece = torch.repeat_interleave(torch.arange(len(count), device=a.device), count)
    y = first[piece] + torch.arange(len(piece), device=a.device) - (count.cumsum(0) - count)[piece]
    share = (y + half - a[piece, 1]) / (b[piece, 1] - a[piece, 1])
    crossing = a[piece, 0] + share * (b[piece, 0] - a[piece, 0])
    x = (crossing - half).ceil().long().maximum(left[piece])
    x = x.minimum(left[piece] + boxes.width[pieces.shape[piece]])
    direction = torch.where(b[piece, 1] > a[piece, 1], 1, -1)
    total = torch.zeros(int(boxes.offset[-1]), dtype=torch.long, device=a.device)
    return total.index_add_(0, boxes.key(pieces.shape[piece], x, y), direction).cumsum(0)


def nearest(near: Near, distance: Float[Tensor, "P"], total: int) -> Int[Tensor, "W"]:
    """The pair of smallest finite distance for each pixel that has one; of equal ones the first."""
    best = distance.new_full((total,), torch.inf).scatter_reduce(0, near.key, distance, "amin")
    rows = ((distance <= best[near.key]) & distance.isfinite()).nonzero()[:, 0]
    count = len(distance)
    winner = torch.full((total,), count, device=distance.device).scatter_reduce(0, near.key[rows], rows, "amin")
    return winner[winner < count]


def distance_to_pieces(
    pixel: Float[Tensor, "P 2"], a: Float[Tensor, "P 2"], b: Float[Tensor, "P 2"]
) -> Float[Tensor, "P"]:
    """Euclidean distance from points to pieces.

    The place of the nearest point carries no gradient: it minimises the distance, so it has none to give.
    """
    along = b - a
    with torch.no_grad():
        t = ((pixel - a) * along).sum(-1) / along.square().sum(-1).clamp_min(1e-12)
        t = t.clamp(0.0, 1.0)[:, None]
    return (pixel - a - t * along).norm(dim=-1)


def _on_cubic(p: Float[Tensor, "M 4 2"], t: Float[Tensor, "M"]) -> Float[Tensor, "M 2"]:
    s = 1.0 - t
    weights = torch.stack([s**3, 3.0 * s * s * t, 3.0 * s * t * t, t**3], dim=1)
    return (weights[:, :, None] * p).sum(dim=1)
