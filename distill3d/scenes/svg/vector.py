"""A differentiable rasteriser of filled and stroked outlines.

Coverage comes from the signed distance to the outline, inside by winding number, and falls from 1 to 0 over one pixel:
``clamp(1/2 - d, 0, 1)``, which is exact for straight edges along the grid. Gradients flow to control points, colours,
opacities and stroke widths; which pixels are inside, and which piece is nearest, is found without them.

Limits: a filled sliver thinner than a pixel covers too much, joins that are not mitered are round, and edges that
coincide within one shape leave a seam.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from distill3d.scenes.svg.vector_curves import (
    Boxes,
    Curves,
    distance_to_pieces,
    flatten,
    near_pixels,
    nearest,
    shape_boxes,
    winding_numbers,
)
from distill3d.scenes.svg.vector_gradient import Ramp, ramp_picture
from distill3d.scenes.svg.vector_stroke import ROUND, stroke_parts


@dataclass(frozen=True)
class Paints:
    """How each of N shapes is painted: fill below stroke, both faded by ``opacity``. Widths are in pixels."""

    fill: Float[Tensor, "N 4"]  # colour and opacity, in [0, 1]
    stroke: Float[Tensor, "N 4"]
    stroke_width: Float[Tensor, "N"]
    opacity: Float[Tensor, "N"]
    filled: Bool[Tensor, "N"]
    stroked: Bool[Tensor, "N"]
    even_odd: Bool[Tensor, "N"]
    cap: Int[Tensor, "N"]  # BUTT, ROUND or SQUARE of vector_stroke
    miter_limit: Float[Tensor, "N"]  # 0: joins are round
    fill_ramps: Mapping[int, Ramp] = field(default_factory=dict)  # of shapes whose fill is a gradient
    stroke_ramps: Mapping[int, Ramp] = field(default_factory=dict)


class Layers(Protocol):
    """Shapes (by number) and further layers in painter's order, which fade as a whole."""

    @property
    def opacity(self) -> float: ...
    @property
    def items(self) -> Sequence[int | Layers]: ...
    @property
    def clip(self) -> int | None: ...  # the number of the mask that the layer is cut to


def rasterise(
    curves: Curves,
    paints: Paints,
    layers: Layers,
    height: int,
    width: int,
    masks: Sequence[Float[Tensor, "H W"]] = (),
) -> Float[Tensor, "4 H W"]:
    """The picture with premultiplied colours and its opacity, from back to front; layers are cut to ``masks``."""
    reach = torch.where(paints.stroked, 0.5 * paints.stroke_width.detach() * _reach(paints), 0.0)
    boxes = shape_boxes(curves, reach, height, width)
    fills = fill_coverage(curves.of_shapes(paints.filled), paints.even_odd, boxes)
    strokes = stroke_coverage(curves.of_shapes(paints.stroked), paints, boxes)
    canvas = curves.points.new_zeros(4, height, width)
    return _cut(_paint(layers, canvas, paints, boxes, fills, strokes, masks), layers, masks)


def over(picture: Float[Tensor, "4 H W"], background: Float[Tensor, "3"]) -> Float[Tensor, "3 H W"]:
    """A premultiplied picture over one colour."""
    return picture[:3] + (1.0 - picture[3:]) * background[:, None, None]


def fill_coverage(curves: Curves, even_odd: Bool[Tensor, "N"], boxes: Boxes) -> Float[Tensor, "total"]:
    """The share of each pixel that is inside, packed as in ``boxes``; open subpaths are closed by a line."""
    if not len(curves):
        return curves.points.new_zeros(int(boxes.offset[-1]))
    pieces = flatten(_closed(curves))
    winding = winding_numbers(pieces, boxes)
    with torch.no_grad():
        a, b = pieces.a, pieces.b
        near = near_pixels(torch.minimum(a, b) - 0.5, torch.maximum(a, b) + 0.5, pieces.shape, boxes)
        rule = even_odd[pieces.shape[near.primitive]]
        inside = _inside(winding[near.key], rule)
        # what is crossed on the way to the other side of the piece: within a self-overlap it is still inside
        first, second = a[near.primitive], b[near.primitive]
        d, e = second - first, near.pixel - first
        other = winding[near.key] + torch.where(d[:, 0] * e[:, 1] > d[:, 1] * e[:, 0], 1, -1)
        distance = distance_to_pieces(near.pixel, first, second)
        distance = torch.where(inside != _inside(other, rule), distance, torch.inf)
        rows = nearest(near, distance, len(winding))
        sign = torch.where(inside[rows], 1.0, -1.0).to(a)
    piece, key = near.primitive[rows], near.key[rows]
    distance = distance_to_pieces(near.pixel[rows], pieces.a[piece], pieces.b[piece])
    base = _inside(winding, _per_entry(even_odd, boxes)).to(pieces.a)
    return base.index_put((key,), (0.5 + sign * distance).clamp(0.0, 1.0))


def stroke_coverage(curves: Curves, paints: Paints, boxes: Boxes) -> Float[Tensor, "total"]:
    """The share of each pixel under the stroke; the second term makes lines thinner than a pixel fainter."""
    if not len(curves):
        return curves.points.new_zeros(int(boxes.offset[-1]))
    pieces = flatten(curves)
    half = 0.5 * paints.stroke_width
    parts = stroke_parts(curves, pieces, half, paints.cap, paints.miter_limit)
    with torch.no_grad():
        near = parts.near(boxes, half)
        distance = parts.signed_distance(near.primitive, near.pixel, half)
        rows = nearest(near, distance.where(distance < 0.5, torch.inf), int(boxes.offset[-1]))
    part, key = near.primitive[rows], near.key[rows]
    distance = parts.signed_distance(part, near.pixel[rows], half)
    width = paints.stroke_width[parts.shape(part)]
    coverage = (0.5 - distance).clamp(0.0, 1.0) - (0.5 - distance - width).clamp(0.0, 1.0)
    return curves.points.new_zeros(int(boxes.offset[-1])).index_put((key,), coverage)


def _paint(
    layer: Layers,
    canvas: Float[Tensor, "4 H W"],
    paints: Paints,
    boxes: Boxes,
    fills: Tensor,
    strokes: Tensor,
    masks: Sequence[Float[Tensor, "H W"]],
) -> Float[Tensor, "4 H W"]:
    """Each item over what lies below it, within its box."""
    for item in layer.items:
        if isinstance(item, int):
            rows, columns = boxes.slices(item)
            if rows.start == rows.stop:
                continue
            top = _shape_picture(item, paints, boxes, fills, strokes)
        else:
            rows = columns = slice(None)
            inner = _paint(item, torch.zeros_like(canvas), paints, boxes, fills, strokes, masks)
            top = item.opacity * _cut(inner, item, masks)
        painted = top + (1.0 - top[3:]) * canvas[:, rows, columns]
        canvas = canvas.clone()  # autograd keeps what was below
        canvas[:, rows, columns] = painted
    return canvas


def _cut(picture: Float[Tensor, "4 H W"], layer: Layers, masks: Sequence[Float[Tensor, "H W"]]) -> Tensor:
    return picture if layer.clip is None else picture * masks[layer.clip]


def _shape_picture(shape: int, paints: Paints, boxes: Boxes, fills: Tensor, strokes: Tensor) -> Float[Tensor, "4 h w"]:
    """A shape in its box, premultiplied."""
    area = boxes.slices(shape)
    fill = _colour(paints.fill[shape], paints.fill_ramps.get(shape), area) * boxes.view(fills, shape)
    if not paints.stroked[shape]:
        return paints.opacity[shape] * fill
    stroke = _colour(paints.stroke[shape], paints.stroke_ramps.get(shape), area) * boxes.view(strokes, shape)
    return paints.opacity[shape] * (stroke + (1.0 - stroke[3:]) * fill)


def _colour(rgba: Float[Tensor, "4"], ramp: Ramp | None, area: tuple[slice, slice]) -> Float[Tensor, "4 h w"]:
    """Premultiplied: one colour, or a gradient faded as a whole by the opacity of ``rgba``."""
    return _premultiplied(rgba) if ramp is None else ramp_picture(ramp, *area) * rgba[3]


def _premultiplied(rgba: Float[Tensor, "4"]) -> Float[Tensor, "4 1 1"]:
    return (torch.cat([rgba[:3], torch.ones_like(rgba[:1])]) * rgba[3])[:, None, None]


def _reach(paints: Paints) -> Float[Tensor, "N"]:
    """How many half widths a stroke may reach beyond its outline: tips of joins, corners of square ends."""
    return torch.where(paints.cap == ROUND, 1.0, 1.5).to(paints.miter_limit).maximum(paints.miter_limit)


def _inside(winding: Int[Tensor, "P"], even_odd: Bool[Tensor, "P"]) -> Bool[Tensor, "P"]:
    return torch.where(even_odd, winding % 2 != 0, winding != 0)


def _per_entry(values: Bool[Tensor, "N"], boxes: Boxes) -> Bool[Tensor, "total"]:
    return torch.repeat_interleave(values, boxes.offset.diff())


def _closed(curves: Curves) -> Curves:
    """With a line from the end of each open subpath to its start."""
    last = torch.ones(len(curves), dtype=torch.bool, device=curves.shape.device)
    last[:-1] = curves.subpath[1:] != curves.subpath[:-1]
    first = last.roll(1)
    ends, starts = (last & ~curves.closed).nonzero()[:, 0], (first & ~curves.closed).nonzero()[:, 0]
    weights = torch.arange(4, device=last.device).to(curves.points)[:, None] / 3.0
    begin, finish = curves.points[ends, 3][:, None], curves.points[starts, 0][:, None]
    lines = begin + weights * (finish - begin)
    lines = torch.cat([begin, lines[:, 1:3], finish], dim=1)  # exactly at the end points, or rows would not add up to 0
    return Curves(
        torch.cat([curves.points, lines]),
        torch.cat([curves.shape, curves.shape[ends]]),
        torch.cat([curves.subpath, curves.subpath[ends]]),
        torch.cat([curves.closed, curves.closed[ends]]),
    )
