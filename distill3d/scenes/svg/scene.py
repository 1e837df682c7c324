"""An SVG as the scene: control points, colours, stroke widths and opacities are the parameters.

Points and widths are in fractions of the picture's longer side, whatever units and transforms the file uses, so that a
learning rate means the same for every file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.config.registry import register
from distill3d.scenes.base import Scene, Step, Views
from distill3d.scenes.svg.drawing import Fill, Gradient, Outline, Stroke, SvgDocument, SvgShape
from distill3d.scenes.svg.geometry import Subpath
from distill3d.scenes.svg.vector import Curves, Paints, fill_coverage, over, rasterise
from distill3d.scenes.svg.vector_curves import shape_boxes
from distill3d.scenes.svg.vector_gradient import Ramp
from distill3d.scenes.svg.vector_stroke import BUTT, ROUND, SQUARE
from distill3d.scenes.svg.viewport import compose
from distill3d.scenes.svg.writer import ShapeEdit, StopEdit, write_svg

Quantity = Literal["points", "colours", "widths", "opacities"]
QUANTITIES: tuple[Quantity, ...] = ("points", "colours", "widths", "opacities")
CAPS = {"butt": BUTT, "round": ROUND, "square": SQUARE}
THINNEST = 1e-4  # of the picture: a stroke of no width has no gradient to come back with


class Trained(nn.Module):
    """One quantity of all shapes: its own module, so that the optimiser can give it a learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.empty(0))
        self.register_buffer("start", torch.empty(0), persistent=False)
        self.start: Tensor

    def begin(self, values: Tensor, train: bool) -> None:
        self.values = nn.Parameter(values.clone(), requires_grad=train and values.numel() > 0)
        self.start = values.clone()

    def changed(self, rows: Any) -> bool:
        return not torch.equal(self.values[rows], self.start[rows])


@dataclass(frozen=True)
class Layout:
    """Where each shape's values lie among all of them, and what does not change."""

    points: list[slice]
    indices: Tensor  # (curves 4) control points of each curve
    elevation: Float[Tensor, "S 4 4"]  # from these to those of a cubic
    shape: Tensor
    subpath: Tensor
    closed: Tensor
    filled: list[int]  # shapes with a fill: their colours come first
    stroked: list[int]  # shapes with a stroke: their colours follow, their widths are in this order


@register("scene", "svg")
class SvgScene(Scene):
    """An SVG drawing, with the geometry and colours of its shapes as parameters.

    Empty before `begin`, since the file is known only with the data or a checkpoint. It is shown in ``size``
    (height and width in pixels), for ``copies`` times and noises a step.
    """

    @dataclass
    class Config:
        trained: list[Quantity] = field(default_factory=lambda: list(QUANTITIES))

        def __post_init__(self) -> None:
            if not self.trained:
                raise ValueError(f"trained=[] leaves nothing to optimise; choose from {', '.join(QUANTITIES)}")

    def __init__(self, cfg: Config | None = None) -> None:
        super().__init__(cfg or SvgScene.Config())
        self.size, self.copies = (0, 0), 1
        self.points, self.colours, self.widths, self.opacities = (Trained() for _ in QUANTITIES)
        self.document: SvgDocument | None = None

    @property
    def is_empty(self) -> bool:
        return self.document is None

    def begin(self, document: SvgDocument, trained: tuple[Quantity, ...] = QUANTITIES) -> None:
        """Start from a file; what is not among ``trained`` stays as it is."""
        self.document, self.layout = document, make_layout(document.shapes)
        shapes, side = document.shapes, max(document.size)
        flat = np.concatenate([to_picture(shape, part.points) for shape in shapes for part in shape.subpaths])
        strokes = [(shape, shape.stroke) for shape in shapes if shape.stroke]
        colours = [shape.fill.colour.rgb for shape in shapes if shape.fill] + [s.colour.rgb for _, s in strokes]
        colours += [stop.colour.rgb for stop in document.stops]
        widths = [stroke.width * stretch(shape) / side for shape, stroke in strokes]
        start = {
            "points": torch.from_numpy(flat / side).float(),
            "colours": torch.tensor(colours).view(-1, 3),
            "widths": torch.tensor(widths),
            "opacities": torch.tensor([shape.opacity for shape in shapes]),
        }
        for name, values in start.items():
            getattr(self, name).begin(values, name in trained)

    def render(self, height: int, width: int, background: Float[Tensor, "3"] | None = None) -> Float[Tensor, "3 H W"]:
        """The picture over one colour (default white) in any size; the drawing fills it as far as its shape allows."""
        curves, paints = self.curves(height, width), self.paints(height, width)
        picture = rasterise(curves, paints, self._layers(), height, width, self._masks(height, width))
        white = picture.new_ones(3) if background is None else background.to(picture)
        return over(picture, white)

    def render_source(self, height: int, width: int) -> Float[Tensor, "3 H W"]:
        """The same of the file as it was."""
        start = {f"scene.{name}.values": getattr(self, name).start for name in QUANTITIES}
        with torch.no_grad():
            return torch.func.functional_call(_Renderer(self), start, (height, width))

    def views(self, batch: Any, step: Step) -> Views:
        return Views(self.render(*self.size)[None], terms={"points": self.displacement}, copies=self.copies)

    def after_backward(self, optimizer: torch.optim.Optimizer, step: Step) -> None:
        """Back into what SVG can say."""
        self.clamp_()

    def curves(self, height: int, width: int) -> Curves:
        """All outlines as cubics in pixels."""
        layout, device = self.layout, self.points.values.device
        scale, shift = self._fit(height, width)
        pixels = self.points.values * scale + self.points.values.new_tensor(shift)
        cubics = layout.elevation.to(pixels) @ pixels[layout.indices.to(device)]
        return Curves(cubics, layout.shape.to(device), layout.subpath.to(device), layout.closed.to(device))

    def paints(self, height: int, width: int) -> Paints:
        """How the shapes are painted, with the present colours, widths (in pixels) and opacities."""
        assert self.document is not None
        shapes, layout, like = self.document.shapes, self.layout, self.colours.values
        fills = [shape.fill.opacity * shape.fill.colour.alpha for shape in shapes if shape.fill]
        strokes = [shape.stroke.opacity * shape.stroke.colour.alpha for shape in shapes if shape.stroke]
        split, last = len(layout.filled), len(layout.filled) + len(layout.stroked)
        pixels = self.widths.values * self._fit(height, width)[0]
        caps = [CAPS[shape.stroke.cap] if shape.stroke else ROUND for shape in shapes]
        limits = [shape.stroke.miter_limit if shape.stroke else 0.0 for shape in shapes]
        return Paints(
            fill=self._spread(torch.cat([like[:split], like.new_tensor(fills)[:, None]], 1), layout.filled),
            stroke=self._spread(torch.cat([like[split:last], like.new_tensor(strokes)[:, None]], 1), layout.stroked),
            stroke_width=self._spread(pixels, layout.stroked),
            opacity=self.opacities.values,
            filled=torch.tensor([shape.fill is not None for shape in shapes], device=like.device),
            stroked=torch.tensor([shape.stroke is not None for shape in shapes], device=like.device),
            even_odd=torch.tensor([bool(shape.fill and shape.fill.even_odd) for shape in shapes], device=like.device),
            cap=torch.tensor(caps, device=like.device),
            miter_limit=like.new_tensor(limits),
            fill_ramps=self._ramps([shape.fill for shape in shapes], height, width),
            stroke_ramps=self._ramps([shape.stroke for shape in shapes], height, width),
        )

    def displacement(self) -> Float[Tensor, ""]:
        """``0.5 sum ||p - p_0||^2`` over control points."""
        return 0.5 * (self.points.values - self.points.start).square().sum()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Keep colours and opacities in [0, 1], and widths positive."""
        self.colours.values.clamp_(0.0, 1.0)
        self.opacities.values.clamp_(0.0, 1.0)
        self.widths.values.clamp_(self.widths.start.clamp_max(THINNEST))

    @torch.no_grad()
    def svg(self) -> str:
        """The file with its present values. What has not moved is written as it was, to the letter."""
        assert self.document is not None
        edits = {i: self._edit(i, shape) for i, shape in enumerate(self.document.shapes)}
        first = len(self.layout.filled) + len(self.layout.stroked)
        stops = {
            stop.node: StopEdit(stop, tuple(self.colours.values[first + i].tolist()))
            for i, stop in enumerate(self.document.stops)
            if self.colours.changed(first + i)
        }
        return write_svg(self.document, edits, stops)

    # -- parts ---------------------------------------------------------------------------------------------------

    def _edit(self, index: int, shape: SvgShape) -> ShapeEdit:
        layout = self.layout
        edit: dict[str, Any] = {}
        if self.points.changed(layout.points[index]):
            edit["subpaths"] = self._moved(index, shape)
        for kind, rows, offset in (("fill", layout.filled, 0), ("stroke", layout.stroked, len(layout.filled))):
            if index in rows and self.colours.changed(row := offset + rows.index(index)):
                edit[kind] = tuple(self.colours.values[row].tolist())
        if index in layout.stroked and self.widths.changed(row := layout.stroked.index(index)):
            ratio = float(self.widths.values[row]) / float(self.widths.start[row])
            edit["stroke_width"] = ratio * shape.stroke.width  # type: ignore[union-attr]
        if self.opacities.changed(index):
            edit["opacity"] = float(self.opacities.values[index])
        return ShapeEdit(**edit)

    def _moved(self, index: int, shape: SvgShape) -> list[Subpath]:
        """The shape's outline in its own coordinates: the original, and what the points have moved since."""
        assert self.document is not None
        rows = self.layout.points[index]
        moved = (self.points.values[rows].double() - self.points.start[rows].double()).detach().cpu().numpy()
        local = moved * max(self.document.size) @ np.linalg.inv(shape.to_picture[:, :2]).T
        result, first = [], 0
        for part in shape.subpaths:
            result.append(part.moved(part.points + local[first : first + len(part.points)]))
            first += len(part.points)
        return result

    def _fit(self, height: int, width: int) -> tuple[float, tuple[float, float]]:
        """Pixels of the picture's longer side, and the drawing's place in the middle."""
        assert self.document is not None
        across, down = (side / max(self.document.size) for side in self.document.size)
        scale = min(width / across, height / down)
        return scale, (0.5 * (width - scale * across), 0.5 * (height - scale * down))

    def _ramps(self, paints: Sequence[Fill | Stroke | None], height: int, width: int) -> dict[int, Ramp]:
        """The gradients among some paints, one of each shape, in pixels and with the present colours of their stops."""
        assert self.document is not None
        scale, shift = self._fit(height, width)
        pixels = np.column_stack([np.eye(2), -np.array(shift)]) * (max(self.document.size) / scale)
        first = len(self.layout.filled) + len(self.layout.stroked)
        return {
            i: self._ramp(paint.gradient, compose(paint.gradient.to_unit, pixels), self.colours.values[first:])
            for i, paint in enumerate(paints)
            if paint is not None and paint.gradient is not None
        }

    def _ramp(self, gradient: Gradient, to_unit: Any, stops: Float[Tensor, "S 3"]) -> Ramp:
        assert self.document is not None
        said = [self.document.stops[i] for i in gradient.stops]
        alpha = stops.new_tensor([stop.opacity * stop.colour.alpha for stop in said])
        rgba = torch.cat([stops[list(gradient.stops)], alpha[:, None]], dim=1)
        as_double = {"dtype": torch.float64, "device": stops.device}
        to_unit, offsets = torch.tensor(to_unit, **as_double), torch.tensor(gradient.offsets, **as_double)
        return Ramp(gradient.kind, gradient.spread, to_unit, gradient.focus, offsets, rgba)

    @torch.no_grad()
    def _masks(self, height: int, width: int) -> list[Float[Tensor, "H W"]]:
        """How much of each pixel lies inside each clip path; these do not change."""
        assert self.document is not None
        scale, shift = self._fit(height, width)
        factor, like = scale / max(self.document.size), self.points.values
        return [clip_mask(clip, factor, shift, height, width, like) for clip in self.document.clips]

    def _layers(self) -> Any:
        assert self.document is not None
        return self.document.layers

    def _spread(self, values: Tensor, rows: list[int]) -> Tensor:
        """The values of some shapes in a row for every shape; 0 for the others."""
        assert self.document is not None
        whole = values.new_zeros(len(self.document.shapes), *values.shape[1:])
        return whole.index_copy(0, torch.tensor(rows, dtype=torch.long, device=values.device), values)


class _Renderer(nn.Module):
    """`render` as a forward, which functional_call wants."""

    def __init__(self, scene: SvgScene) -> None:
        super().__init__()
        self.scene = scene

    def forward(self, height: int, width: int) -> Float[Tensor, "3 H W"]:
        return self.scene.render(height, width)


def clip_mask(
    clip: Sequence[Outline], factor: float, shift: tuple[float, float], height: int, width: int, like: Tensor
) -> Float[Tensor, "H W"]:
    """The coverage of the union of outlines, of which ``factor`` makes pixels."""
    mask = like.new_zeros(height, width)
    if not clip:
        return mask
    shapes = [SvgShape(0, "path", "", outline.subpaths, np.eye(2, 3), None, None, 1.0) for outline in clip]
    layout = make_layout(tuple(shapes))
    flat = np.concatenate([part.points for shape in shapes for part in shape.subpaths])
    pixels = torch.from_numpy(flat * factor + np.array(shift)).to(like)
    parts = (part.to(like.device) for part in (layout.shape, layout.subpath, layout.closed))
    curves = Curves(layout.elevation.to(like) @ pixels[layout.indices.to(like.device)], *parts)
    boxes = shape_boxes(curves, like.new_zeros(len(shapes)), height, width)
    even_odd = torch.tensor([outline.even_odd for outline in clip], device=like.device)
    coverage = fill_coverage(curves, even_odd, boxes)
    for i in range(len(shapes)):
        rows, columns = boxes.slices(i)
        if rows.start < rows.stop:
            mask[rows, columns] = torch.maximum(mask[rows, columns], boxes.view(coverage, i))
    return mask


# from the control points of a line and of a quadratic (the last one repeated) to those of the same curve as a cubic
_ELEVATION = {
    1: [[3, 0, 0, 0], [2, 1, 0, 0], [1, 2, 0, 0], [0, 3, 0, 0]],
    2: [[3, 0, 0, 0], [1, 2, 0, 0], [0, 2, 1, 0], [0, 0, 3, 0]],
    3: [[3, 0, 0, 0], [0, 3, 0, 0], [0, 0, 3, 0], [0, 0, 0, 3]],
}


def make_layout(shapes: tuple[SvgShape, ...]) -> Layout:
    """The order of all control points, and which curve each belongs to."""
    slices, indices, elevation, owner, part, closed = [], [], [], [], [], []
    first = subpath_number = 0
    for number, shape in enumerate(shapes):
        begin = first
        for subpath in shape.subpaths:
            for row, degree in zip(subpath.curves(), subpath.degrees, strict=True):
                indices.append([first + i for i in (*row, *[row[-1]] * (3 - degree))])
                elevation.append(_ELEVATION[degree])
                owner.append(number)
                part.append(subpath_number)
                closed.append(subpath.closed)
            first += len(subpath.points)
            subpath_number += 1
        slices.append(slice(begin, first))
    filled = [i for i, shape in enumerate(shapes) if shape.fill]
    stroked = [i for i, shape in enumerate(shapes) if shape.stroke]
    weights = torch.tensor(elevation, dtype=torch.float64) / 3.0
    shape_of, subpath_of, is_closed = (torch.tensor(values) for values in (owner, part, closed))
    return Layout(slices, torch.tensor(indices), weights, shape_of, subpath_of, is_closed, filled, stroked)


def to_picture(shape: SvgShape, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """From the element's coordinates to the picture's."""
    return points @ shape.to_picture[:, :2].T + shape.to_picture[:, 2]


def stretch(shape: SvgShape) -> float:
    """How much wider a stroke is in the picture: the mean over directions of a transform that is not uniform."""
    return float(np.sqrt(abs(np.linalg.det(shape.to_picture[:, :2]))))
