"""Strokes as the union of simple parts: rounded pieces, cut at butt and square ends, and the tips of mitered joins."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from distill3d.scenes.svg.vector_curves import Boxes, Curves, Near, Pieces, distance_to_pieces, near_pixels

BUTT, ROUND, SQUARE = 0, 1, 2
SMALLEST_TURN = 0.1  # radians: below it a miter adds next to nothing to a rounded join


@dataclass(frozen=True)
class Ends:
    """Half planes that cut the rounded pieces near the ends of open subpaths: ``(p - origin) . inward >= 0``."""

    piece: Int[Tensor, "E"]
    origin: Float[Tensor, "E 2"]
    inward: Float[Tensor, "E 2"]


@dataclass(frozen=True)
class Miters:
    """Tips of joins: the corner, unit tangents before and after it, the outer normals, and their shape."""

    corner: Float[Tensor, "K 2"]
    tangents: Float[Tensor, "K 2 2"]
    normals: Float[Tensor, "K 2 2"]
    sharpness: Float[Tensor, "K"]  # the tip's distance from the corner over half the stroke's width
    shape: Int[Tensor, "K"]

    def signed_distance(self, rows: Int[Tensor, "P"], pixel: Float[Tensor, "P 2"], half: Float[Tensor, "P"]) -> Tensor:
        """Negative inside: within both outer edges, on the outer side, and not along the strokes."""
        q = pixel - self.corner[rows]
        normals, tangents = self.normals[rows], self.tangents[rows]
        edges = torch.einsum("pkc,pc->pk", normals, q) - half[:, None]
        along = torch.einsum("pkc,pc->pk", tangents, q)
        overlap = half.clamp_max(1.0)[:, None]  # parts that only touched would leave a seam
        sides = torch.stack([-along[:, 0], along[:, 1]], dim=1) - overlap
        bisector = -(normals.sum(dim=1) * q).sum(-1, keepdim=True)
        return torch.cat([edges, sides, bisector], dim=1).amax(dim=1)


@dataclass(frozen=True)
class StrokeParts:
    """All parts of all strokes; the first ones are the pieces, then come the miters."""

    pieces: Pieces
    ends: tuple[Ends, Ends]  # at most one start and one end for a piece
    miters: Miters

    def signed_distance(
        self, part: Int[Tensor, "P"], pixel: Float[Tensor, "P 2"], half_width: Float[Tensor, "N"]
    ) -> Float[Tensor, "P"]:
        """Of pixels to the parts paired with them, negative inside."""
        count = len(self.pieces.shape)
        is_piece = part < count
        rows, tips = is_piece.nonzero()[:, 0], (~is_piece).nonzero()[:, 0]
        result = pixel.new_zeros(len(part))
        result = result.index_put((rows,), self._to_pieces(part[rows], pixel[rows], half_width))
        miter = part[tips] - count
        half = half_width[self.miters.shape[miter]]
        return result.index_put((tips,), self.miters.signed_distance(miter, pixel[tips], half))

    def shape(self, part: Int[Tensor, "P"]) -> Int[Tensor, "P"]:
        return torch.cat([self.pieces.shape, self.miters.shape])[part]

    def near(self, boxes: Boxes, half_width: Float[Tensor, "N"]) -> Near:
        """The pixels that each part may cover."""
        pieces, miters = self.pieces, self.miters
        reach = (half_width[pieces.shape] + 0.5)[:, None]
        tip = (half_width[miters.shape] * miters.sharpness + 0.5)[:, None]
        low = torch.cat([torch.minimum(pieces.a, pieces.b) - reach, miters.corner - tip])
        high = torch.cat([torch.maximum(pieces.a, pieces.b) + reach, miters.corner + tip])
        return near_pixels(low, high, torch.cat([pieces.shape, miters.shape]), boxes)

    def _to_pieces(self, rows: Tensor, pixel: Tensor, half_width: Tensor) -> Float[Tensor, "P"]:
        pieces = self.pieces
        distance = distance_to_pieces(pixel, pieces.a[rows], pieces.b[rows]) - half_width[pieces.shape[rows]]
        for ends in self.ends:
            cut = torch.full((len(pieces.shape),), -1, device=rows.device)
            cut[ends.piece] = torch.arange(len(ends.piece), device=rows.device)
            index = cut[rows]
            hit = (index >= 0).nonzero()[:, 0]
            end = index[hit]
            beyond = ((ends.origin[end] - pixel[hit]) * ends.inward[end]).sum(-1)
            distance = distance.index_put((hit,), torch.maximum(distance[hit], beyond))
        return distance


def stroke_parts(
    curves: Curves,
    pieces: Pieces,
    half_width: Float[Tensor, "N"],
    cap: Int[Tensor, "N"],
    miter_limit: Float[Tensor, "N"],
) -> StrokeParts:
    """The parts of the strokes along ``curves``, which ``pieces`` approximate."""
    subpath = curves.subpath[pieces.curve]
    change = subpath[1:] != subpath[:-1]
    yes = change.new_ones(min(1, len(subpath)))
    first, last = torch.cat([yes, change]), torch.cat([change, yes])
    open_ended = ~curves.closed[pieces.curve] & (cap[pieces.shape] != ROUND)
    start, end = (first & open_ended).nonzero()[:, 0], (last & open_ended).nonzero()[:, 0]
    half = half_width[pieces.shape]
    a, b = pieces.a, pieces.b
    tangent = _unit(b - a)
    square = (cap[pieces.shape] == SQUARE).to(half) * half
    a = a.index_add(0, start, -square[start, None] * tangent[start])
    b = b.index_add(0, end, square[end, None] * tangent[end])
    drawn = Pieces(a, b, pieces.curve, pieces.shape)
    with torch.no_grad():
        length = (b - a).norm(dim=-1)
        after = length.cumsum(0)
        group = torch.cumsum(first, 0) - 1
        begin = (after - length)[first]
        finish = after[last]
        near_start = open_ended & (after - length - begin[group] <= half)
        near_end = open_ended & (finish[group] - after <= half)
    head, tail = first.nonzero()[:, 0][group], last.nonzero()[:, 0][group]
    starts, ends = near_start.nonzero()[:, 0], near_end.nonzero()[:, 0]
    heads, tails = head[starts], tail[ends]
    cuts = Ends(starts, a[heads], tangent[heads]), Ends(ends, b[tails], -tangent[tails])
    return StrokeParts(drawn, cuts, _miters(curves, pieces, tangent, first, last, miter_limit))


def _miters(
    curves: Curves, pieces: Pieces, tangent: Tensor, first: Bool[Tensor, "M"], last: Tensor, miter_limit: Tensor
) -> Miters:
    """At each piece's end, where the direction jumps to the next piece's and the tip is within the limit."""
    following = torch.arange(len(first), device=first.device) + 1
    group = torch.cumsum(first, 0) - 1
    following = torch.where(last, first.nonzero()[:, 0][group], following)
    joined = ~last | curves.closed[pieces.curve]
    new_curve = pieces.curve[following] != pieces.curve
    with torch.no_grad():
        cosine = (tangent * tangent[following]).sum(-1)
        sharpness = (0.5 * (1.0 + cosine)).clamp_min(1e-9).rsqrt()
        turns = cosine < torch.cos(cosine.new_tensor(SMALLEST_TURN))
    rows = (joined & new_curve & turns & (sharpness <= miter_limit[pieces.shape])).nonzero()[:, 0]
    tangents = torch.stack([tangent[rows], tangent[following[rows]]], dim=1)
    before, after = tangents.unbind(dim=1)
    side = torch.sign(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]).detach()
    normals = side[:, None, None] * torch.stack([tangents[..., 1], -tangents[..., 0]], dim=-1)
    return Miters(pieces.b[rows], tangents, normals, sharpness[rows], pieces.shape[rows])


def _unit(vectors: Float[Tensor, "M 2"]) -> Float[Tensor, "M 2"]:
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-9)
