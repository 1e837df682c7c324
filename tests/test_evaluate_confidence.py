"""The bootstrap: what it must give in closed form, and how often it is right."""

import numpy as np
import pytest

from distill3d.evaluation.compare import Measured, compare
from distill3d.evaluation.confidence import interval, paired_difference


def test_the_mean_is_over_prompts_and_not_over_runs():
    values = {("a", 0): 0.0, ("a", 1): 0.0, ("a", 2): 0.0, ("b", 0): 1.0, ("c", 0): 1.0}
    found = interval(values)
    assert found.mean == pytest.approx(2 / 3)
    assert (found.prompts, found.pairs) == (3, 5)
    assert found.low == 0.0
    assert found.high == 1.0


def test_without_spread_the_interval_is_a_point():
    found = interval({(p, s): 0.25 for p in "abcd" for s in (0, 1)})
    assert (found.low, found.mean, found.high) == (0.25, 0.25, 0.25)
    assert found.is_clear


def test_differences_are_taken_on_the_same_prompt_and_seed():
    generator = np.random.default_rng(0)
    hard = {(p, s): float(generator.normal(scale=10.0)) for p in "abcdef" for s in (0, 1)}
    better = {key: value + 0.5 for key, value in hard.items()} | {("only here", 0): 99.0}
    found = paired_difference(hard, better)
    assert found.mean == pytest.approx(0.5)
    assert found.low == pytest.approx(0.5)
    assert found.pairs == 12
    assert paired_difference({("a", 0): 1.0}, {("a", 1): 1.0}) is None


def test_two_prompts_have_no_interval():
    found = interval({("a", 0): 1.0, ("b", 0): 2.0, ("b", 1): 2.0})
    assert (found.low, found.high) == (None, None)
    assert not found.is_clear


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """Prompts differ by a deviation of 1, seeds by .5; the truth is 0. With 20 prompts it is a little short."""
    generator = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        effects = generator.normal(size=20)
        values = {(str(p), s): effects[p] + 0.5 * float(generator.normal()) for p in range(20) for s in (0, 1)}
        found = interval(values, resamples=300, seed=trial)
        hits += found.low <= 0.0 <= found.high
    assert 0.86 <= hits / 200 <= 0.99


def runs(figures):
    return [
        Measured(prompt, seed, {"type": kind, "w": w}, {"score": value})
        for (kind, w, prompt, seed), value in figures.items()
    ]


def test_settings_are_compared_where_exactly_one_differs():
    measured = runs({(k, w, p, 0): float(len(k)) for k in ("sds", "lmc") for w in ("10", "20") for p in "abc"})
    found = compare(measured, ["score", "absent"], resamples=100)
    changes = {tuple(sorted(dict(c.before).items() ^ dict(c.after).items())) for c in found}
    assert len(found) == 4
    assert all(len({name for name, _ in change}) == 1 for change in changes)


def test_unlike_settings_are_compared_with_the_first_and_few_pairs_are_listed():
    measured = [Measured("a", 0, {"x": "1", "y": "1"}, {"score": 1.0}), Measured("a", 0, {"x": "2"}, {"score": 3.0})]
    (found,) = compare(measured, ["score"])
    assert found.as_dict()["mean"] is None
    assert found.as_dict()["differences"] == [2.0]
