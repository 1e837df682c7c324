"""Triton's grid against its oracle, on a CPU by Triton's interpreter (on a GPU: test_on_a_gpu.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from grids import GRIDS, POINTS, answered, reference, table_and_points

pytest.importorskip("triton")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("triton") / "answers.pt"
    script = Path(__file__).with_name("interpreted_grid.py")
    subprocess.run([sys.executable, str(script), str(file)], check=True)
    return torch.load(file)


@pytest.mark.parametrize("need_jacobian", [False, True])
@pytest.mark.parametrize("name", GRIDS)
def test_it_is_the_reference_in_values_and_gradients(answers: Any, name: str, need_jacobian: bool) -> None:
    expected = answered(reference, *table_and_points(name, torch.float32, POINTS), need_jacobian)
    assert len(expected) == 2 + need_jacobian
    for got, want in zip(answers[name, need_jacobian], expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6 * float(want.abs().max()))


def test_a_point_that_is_no_number_stays_alone(answers: Any) -> None:
    features, jacobian = answers["no number"]
    for channels in (features, jacobian.flatten(0, 1)):
        assert channels.isnan().any(0).nonzero().flatten().tolist() == [7]


def test_no_points_give_no_features_and_no_gradient(answers: Any) -> None:
    features, jacobian, gradient = answers["no points"]
    assert features.shape == (10, 0) and jacobian.shape == (10, 3, 0) and not gradient.any()


def test_another_type_of_number_is_refused(answers: Any) -> None:
    assert (
        answers["refused"]
        == "points: torch.float64, and Triton's grid has float32 alone; interpolate_gathered has others"
    )
