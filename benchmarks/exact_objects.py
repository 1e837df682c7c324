"""Eight objects made in code of coloured primitives: front at +x, z up. Their meshes are known, so is the truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from distill3d.scenes.mesh.raster import Mesh

Color = tuple[float, float, float]
Point = tuple[float, float, float]

RED, BLUE, GREEN, YELLOW = (0.85, 0.12, 0.1), (0.15, 0.3, 0.8), (0.2, 0.6, 0.2), (0.95, 0.8, 0.1)
BLACK, WHITE, GREY, ORANGE = (0.08, 0.08, 0.1), (0.95, 0.95, 0.95), (0.5, 0.52, 0.55), (0.95, 0.5, 0.1)
BROWN, TAN, SKY, PINK = (0.4, 0.24, 0.12), (0.85, 0.7, 0.5), (0.6, 0.8, 0.95), (0.95, 0.6, 0.65)


def box(size: Point, at: Point, color: Color) -> Mesh:
    import trimesh

    return _mesh(trimesh.creation.box(size), at, color)


def ball(radius: float, at: Point, color: Color, stretch: Point = (1.0, 1.0, 1.0)) -> Mesh:
    import trimesh

    shape = trimesh.creation.icosphere(subdivisions=3, radius=radius)
    shape.vertices *= np.array(stretch)
    return _mesh(shape, at, color)


def tube(radius: float, height: float, at: Point, color: Color, axis: str = "z") -> Mesh:
    import trimesh

    return _mesh(_along(trimesh.creation.cylinder(radius, height, sections=40), axis), at, color)


def cone(radius: float, height: float, at: Point, color: Color, axis: str = "z") -> Mesh:
    """``at`` is the middle of its base."""
    import trimesh

    return _mesh(_along(trimesh.creation.cone(radius, height, sections=40), axis), at, color)


def car() -> Mesh:
    wheels = [tube(0.19, 0.14, (x, y, 0.19), BLACK, "y") for x in (-0.55, 0.55) for y in (-0.42, 0.42)]
    lamps = [box((0.05, 0.16, 0.1), (0.93, y, 0.45), YELLOW) for y in (-0.28, 0.28)]
    cabin = [box((0.9, 0.7, 0.34), (-0.1, 0.0, 0.77), SKY), box((0.94, 0.72, 0.06), (-0.1, 0.0, 0.95), RED)]
    return Mesh.merged([box((1.85, 0.85, 0.38), (0.0, 0.0, 0.42), RED), *cabin, *wheels, *lamps])


def table_lamp() -> Mesh:
    shade = [tube(r, 0.05, (0.0, 0.0, 0.86 + 0.05 * i), YELLOW) for i, r in enumerate(np.linspace(0.42, 0.22, 8))]
    return Mesh.merged([tube(0.3, 0.08, (0.0, 0.0, 0.04), BROWN), tube(0.06, 0.8, (0.0, 0.0, 0.45), GREY), *shade])


def snowman() -> Mesh:
    body = [ball(0.42, (0, 0, 0.4), WHITE), ball(0.32, (0, 0, 0.95), WHITE), ball(0.23, (0, 0, 1.38), WHITE)]
    hat = [tube(0.27, 0.05, (0, 0, 1.56), BLACK), tube(0.18, 0.28, (0, 0, 1.7), BLACK)]
    face = [ball(0.04, (0.2, y, 1.46), BLACK) for y in (-0.09, 0.09)]
    buttons = [ball(0.04, (0.31, 0.0, z), BLACK) for z in (0.88, 1.04)]
    return Mesh.merged([*body, *hat, *face, *buttons, cone(0.06, 0.26, (0.2, 0.0, 1.38), ORANGE, "x")])


def chair() -> Mesh:
    legs = [box((0.09, 0.09, 0.5), (x, y, 0.25), BROWN) for x in (-0.3, 0.3) for y in (-0.3, 0.3)]
    back = [box((0.08, 0.7, 0.2), (-0.3, 0.0, 1.05), TAN)]
    posts = [box((0.08, 0.08, 0.6), (-0.3, y, 0.85), BROWN) for y in (-0.3, 0.3)]
    return Mesh.merged([box((0.72, 0.72, 0.1), (0.0, 0.0, 0.52), TAN), *legs, *posts, *back])


def house() -> Mesh:
    import trimesh

    eaves = [(x, y, 0.8) for x in (-0.6, 0.6) for y in (-0.5, 0.5)]
    roof = trimesh.convex.convex_hull([*eaves, (-0.6, 0.0, 1.25), (0.6, 0.0, 1.25)])
    door = [box((0.04, 0.22, 0.4), (0.52, 0.15, 0.2), BROWN), box((0.04, 0.22, 0.2), (0.52, -0.2, 0.5), SKY)]
    windows = [box((0.3, 0.04, 0.22), (0.0, y, 0.48), SKY) for y in (-0.42, 0.42)]
    chimney = box((0.16, 0.16, 0.4), (-0.3, 0.22, 1.15), GREY)
    return Mesh.merged([box((1.0, 0.8, 0.8), (0, 0, 0.4), TAN), _mesh(roof, (0, 0, 0), RED), *door, *windows, chimney])


def duck() -> Mesh:
    wings = [ball(0.2, (-0.1, y, 0.42), ORANGE, (1.4, 0.35, 0.8)) for y in (-0.36, 0.36)]
    eyes = [ball(0.045, (0.56, y, 0.92), BLACK) for y in (-0.13, 0.13)]
    body = [ball(0.4, (0, 0, 0.36), YELLOW, (1.35, 0.95, 0.85)), ball(0.25, (0.38, 0, 0.84), YELLOW)]
    tail = ball(0.16, (-0.5, 0, 0.55), YELLOW, (1.2, 0.8, 0.7))
    return Mesh.merged([*body, tail, *wings, *eyes, ball(0.11, (0.65, 0, 0.79), RED, (1.3, 1.1, 0.4))])


def rocket() -> Mesh:
    fins = [box((0.3, 0.05, 0.4), (0.28 * math.cos(a), 0.28 * math.sin(a), 0.25), BLUE) for a in (0.0, math.pi)]
    fins += [box((0.05, 0.3, 0.4), (0.0, y, 0.25), BLUE) for y in (-0.28, 0.28)]
    porthole = [tube(0.1, 0.06, (0.24, 0.0, 0.95), SKY, "x"), box((0.05, 0.16, 0.2), (0.24, 0.0, 0.6), RED)]
    nose, nozzle = cone(0.25, 0.5, (0, 0, 1.2), RED), cone(0.2, 0.3, (0, 0, 0.0), BLACK)
    return Mesh.merged([tube(0.25, 1.1, (0, 0, 0.68), WHITE), nose, nozzle, *fins, *porthole])


def robot() -> Mesh:
    head = [box((0.4, 0.46, 0.36), (0, 0, 1.36), GREY), tube(0.03, 0.2, (0, 0, 1.62), RED)]
    eyes = [tube(0.07, 0.05, (0.21, y, 1.42), YELLOW, "x") for y in (-0.11, 0.11)]
    arms = [box((0.14, 0.14, 0.55), (0, y, 0.85), GREY) for y in (-0.42, 0.42)]
    hands = [ball(0.11, (0, y, 0.54), RED) for y in (-0.42, 0.42)]
    legs = [box((0.18, 0.18, 0.45), (0, y, 0.25), GREY) for y in (-0.16, 0.16)]
    feet = [box((0.32, 0.22, 0.1), (0.06, y, 0.05), BLACK) for y in (-0.16, 0.16)]
    chest = [box((0.4, 0.62, 0.66), (0, 0, 0.8), BLUE), box((0.04, 0.34, 0.26), (0.2, 0, 0.86), GREEN)]
    return Mesh.merged([*chest, *head, *eyes, *arms, *hands, *legs, *feet])


OBJECTS: dict[str, Callable[[], Mesh]] = {
    "car": car,
    "table lamp": table_lamp,
    "snowman": snowman,
    "chair": chair,
    "house": house,
    "duck": duck,
    "rocket": rocket,
    "robot": robot,
}


def _along(shape, axis: str):
    """A shape that stands along z, laid along another axis; its top then points to the positive side."""
    x, y, z = shape.vertices.T
    shape.vertices = {"x": np.stack([z, y, -x], 1), "y": np.stack([x, z, -y], 1), "z": shape.vertices}[axis]
    return shape


def _mesh(shape, at: Point, color: Color) -> Mesh:
    vertices = (np.asarray(shape.vertices) + np.asarray(at)).astype(np.float32)
    return Mesh(vertices, np.asarray(shape.faces), np.tile(np.float32(color), (len(vertices), 1)))
