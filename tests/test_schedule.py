import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill3d.config.schedule import check_schedule, cosine, largest, scheduled, smallest

values = st.floats(-1e3, 1e3)


@st.composite
def piecewise(draw):
    steps = sorted(draw(st.lists(st.integers(0, 1000), min_size=2, max_size=5)))
    knots = [draw(values) for _ in steps]
    return [steps[0], knots[0], *(x for pair in zip(knots[1:], steps[1:], strict=True) for x in pair)]


def test_a_number_is_constant():
    assert scheduled(3, 0) == scheduled(3, 10**6) == 3.0


@given(values, values, st.integers(1, 1000), st.integers(-10, 2000))
def test_the_short_form_starts_at_step_0(v0, v1, end, step):
    assert scheduled([v0, v1, end], step) == scheduled([0, v0, v1, end], step)


def test_linear_between_constant_outside():
    spec = [100, 1.0, 3.0, 300]
    assert [scheduled(spec, s) for s in (0, 100, 200, 300, 999)] == [1.0, 1.0, 2.0, 3.0, 3.0]


def test_several_pieces():
    spec = [0, 0.0, 10.0, 10, 0.0, 20]
    assert [scheduled(spec, s) for s in (0, 5, 10, 15, 20, 30)] == [0.0, 5.0, 10.0, 5.0, 0.0, 0.0]


def test_a_piece_of_no_length_is_a_jump():
    spec = [0, 1.0, 1.0, 10, 5.0, 10]
    assert scheduled(spec, 9) == 1.0
    assert scheduled(spec, 11) == 5.0


def test_a_float_end_counts_epochs():
    assert scheduled([0, 0.0, 10.0, 10.0], step=10**6, epoch=5) == 5.0
    assert scheduled([0, 0.0, 10.0, 10], step=5, epoch=10**6) == 5.0


@given(piecewise(), st.integers(-10, 1100))
def test_values_stay_between_the_knots_and_the_extremes_are_known(spec, step):
    check_schedule(spec)
    knots = [spec[1], *spec[2::2]]
    assert min(knots) - 1e-9 <= scheduled(spec, step) <= max(knots) + 1e-9
    assert (smallest(spec), largest(spec)) == (min(knots), max(knots))
    assert smallest(3) == largest(3) == 3.0


@pytest.mark.parametrize(
    "spec",
    [True, "1", None, [], [1], [1, 2], [1, 2, 3, 4, 5], [0, 1, "2", 3], [0, True, 1, 2], [10, 1, 2, 5], float("nan")],
)
def test_other_forms_are_refused_by_name(spec):
    with pytest.raises(ValueError, match=r"^system\.loss\.lambda_orient=.*\[start, v0, v1, end\]"):
        check_schedule(spec, "system.loss.lambda_orient")


def test_cosine_goes_from_start_to_end():
    assert cosine(0, 100, 1.0, 0.2) == pytest.approx(1.0)
    assert cosine(50, 100, 1.0, 0.2) == pytest.approx(0.6)
    assert cosine(200, 100, 1.0, 0.2) == pytest.approx(0.2)
