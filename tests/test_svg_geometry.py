"""Outlines: every command and every basic shape, and back to path data."""

from __future__ import annotations

import numpy as np
import pytest

from distill3d.scenes.svg.geometry import Subpath, has_extent, is_flat, number, path_data, path_subpaths, shape_subpaths


def sampled(subpaths: list[Subpath], steps: int = 9) -> np.ndarray:
    """Points on all curves, by de Casteljau."""
    points = []
    for subpath in subpaths:
        for row in subpath.curves():
            for t in np.linspace(0, 1, steps):
                level = subpath.points[row]
                while len(level) > 1:
                    level = (1 - t) * level[:-1] + t * level[1:]
                points.append(level[0])
    return np.array(points)


def length_of(attributes):
    return lambda name, axis, default: float(attributes.get(name, default))


def shape(tag: str, **attributes) -> list[Subpath]:
    given = {name: str(value) for name, value in attributes.items()}
    return shape_subpaths(tag, given, length_of(given))


@pytest.mark.parametrize(
    ("data", "degrees", "closed"),
    [
        ("M1 2L3 4", (1,), False),
        ("m1 2 3 4 h5 v6 z", (1, 1, 1, 1), True),
        ("M0 0Q1 1 2 0T4 0", (2, 2), False),
        ("M0 0C1 1 2 1 3 0S5 -1 6 0", (3, 3), False),
        ("M0 0L4 0L4 4L0 0Z", (1, 1, 1), True),  # it ends where it began: no line of no length is added
        ("M0 0C0 4 4 4 4 0Z", (3, 1), True),
    ],
)
def test_commands_become_curves(data, degrees, closed):
    (subpath,) = path_subpaths(data)
    assert (subpath.degrees, subpath.closed) == (degrees, closed)
    assert len(subpath.points) == sum(degrees) + (not closed)


def test_a_closed_outline_cannot_open():
    (subpath,) = path_subpaths("M0 0C0 4 4 4 4 0C4 -4 0 -4 0 0Z")
    assert subpath.curves()[-1][-1] == 0 == subpath.curves()[0][0]


def test_a_subpath_after_z_starts_where_the_one_before_it_did():
    first, second = path_subpaths("M5 5h10v10zL9 9")
    assert first.closed and not second.closed
    assert second.points.tolist() == [[5, 5], [9, 9]]


def test_arcs_lie_on_their_ellipse():
    points = sampled(path_subpaths("M10 0A20 10 0 0 1 -10 0A20 10 0 1 1 10 0Z"))
    centre = np.array([0.0, 10 * np.sqrt(0.75)])
    for sign in (1, -1):  # one of the two centres that such arcs can have
        radii = (((points - sign * centre) / [20, 10]) ** 2).sum(axis=1)
        if abs(radii[0] - 1) < 1e-6 and abs(radii[40] - 1) < 1e-2:
            assert np.abs(radii - 1).max() < 2e-3
            return
    pytest.fail("neither centre fits")


def test_a_circle_is_round_and_a_rounded_rectangle_keeps_its_sides():
    circle = sampled(shape("circle", cx=3, cy=4, r=5))
    assert np.abs(np.hypot(*(circle - [3, 4]).T) - 5).max() < 2e-3 * 5
    (rectangle,) = shape("rect", x=1, y=2, width=10, height=6, rx=20)  # a radius is half a side at most
    assert rectangle.points.min(axis=0).tolist() == [1, 2] and rectangle.points.max(axis=0).tolist() == [11, 8]
    assert rectangle.degrees == (1, 3) * 4


@pytest.mark.parametrize(
    ("tag", "attributes"),
    [
        ("rect", {"width": 0, "height": 5}),
        ("circle", {"r": 0}),
        ("ellipse", {"rx": 3}),
        ("path", {"d": ""}),
        ("path", {"d": "M5 5Z"}),
        ("polygon", {"points": "1,2"}),
    ],
)
def test_what_svg_does_not_draw_has_no_outline(tag, attributes):
    assert shape(tag, **attributes) == []


@pytest.mark.parametrize("data", ["M 1 1 L foo", "L 5 5"])
def test_data_that_cannot_be_read_is_named(data):
    with pytest.raises(ValueError, match=r"path data .* cannot be read"):
        path_subpaths(data)


@pytest.mark.parametrize("data", ["M1 2h3v4z m1 1 q2 2 4 0 t4 0", "M0 0C1 5 7 2 3 9Z", "M0 0A4 3 20 1 0 5 5L1 1"])
def test_path_data_says_the_same_again(data):
    once = path_subpaths(data)
    again = path_subpaths(path_data(once))
    assert [(s.degrees, s.closed) for s in again] == [(s.degrees, s.closed) for s in once]
    np.testing.assert_allclose(sampled(again), sampled(once), atol=1e-5)
    assert path_data(again) == path_data(once)


def test_numbers_are_short():
    texts = [number(v) for v in (1.0, -0.0, 0.1 + 0.2, 1234.56789, 1e-9)]
    assert texts == ["1", "0", "0.3", "1234.568", "1e-09"]


def test_lines_have_no_area_and_points_no_extent():
    assert is_flat(path_subpaths("M0 0L5 5L9 9")) and not is_flat(path_subpaths("M0 0L5 5L9 8"))
    assert not has_extent(path_subpaths("M5 5L5 5")) and has_extent(path_subpaths("M5 5L5 6"))
