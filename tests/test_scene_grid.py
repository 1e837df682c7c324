"""Trilinear interpolation on nested grids: the torch reference."""

import itertools

import pytest
import torch

from distill3d.scenes.nerf.grid import grid_levels, interpolate_reference, vertex_index


def test_levels_follow_the_paper_and_hash_only_where_the_table_is_too_small():
    levels = grid_levels(8, 16, 1.485994289136948, 2**15)
    assert [level.resolution for level in levels] == [16, 23, 35, 52, 78, 115, 172, 256]
    assert [level.hashed for level in levels] == [False, False] + [True] * 6
    assert [level.size for level in levels] == [17**3, 24**3] + [2**15] * 6
    assert all(b.offset == a.offset + a.size for a, b in itertools.pairwise(levels))


def test_a_power_of_two_resolution_is_not_rounded_below_itself():
    assert [level.resolution for level in grid_levels(5, 16, 2.0)] == [16, 32, 64, 128, 256]


def test_a_table_size_that_is_no_power_of_two_is_refused():
    with pytest.raises(ValueError, match="max_entries=1000 must be a power of two"):
        grid_levels(2, 16, 2.0, 1000)


@pytest.mark.parametrize("max_entries", [None, 64])
def test_a_vertex_answers_with_its_own_row(max_entries):
    (level,) = grid_levels(1, 4, 2.0, max_entries)
    table = torch.randn(level.size, 3, dtype=torch.float64)
    vertex = torch.cartesian_prod(*[torch.arange(5)] * 3)
    features, _ = interpolate_reference(table, vertex.double() / 4, (level,))
    torch.testing.assert_close(features.t(), table[vertex_index(vertex, level)])


def test_a_dense_level_reproduces_linear_functions_and_their_slope():
    (level,) = grid_levels(1, 6, 2.0)
    vertex = torch.cartesian_prod(*[torch.arange(7)] * 3)
    slope = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)
    table = torch.zeros(level.size, 1, dtype=torch.float64)
    table[vertex_index(vertex, level)] = (vertex.double() / 6) @ slope.t() + 3.0
    points = torch.rand(50, 3, dtype=torch.float64)
    features, jacobian = interpolate_reference(table, points, (level,))
    torch.testing.assert_close(features[0], points @ slope[0] + 3.0)
    torch.testing.assert_close(jacobian[0].t(), slope.expand(50, 3))


def test_the_jacobian_is_the_derivative_by_the_point_and_zero_where_points_are_clamped():
    levels = grid_levels(3, 3, 1.7, 32)
    table = torch.randn(levels[-1].offset + levels[-1].size, 2, dtype=torch.float64)
    points = torch.rand(20, 3, dtype=torch.float64) * 1.4 - 0.2
    features = lambda x: interpolate_reference(table, x, levels)[0].sum(-1)  # noqa: E731
    expected = torch.autograd.functional.jacobian(features, points)  # channels points 3
    torch.testing.assert_close(interpolate_reference(table, points, levels)[1], expected.permute(0, 2, 1))
    assert (expected[:, (points < 0) | (points > 1)] == 0).all()
