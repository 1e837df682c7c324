"""Prompts of two objects: which are read as such, and where the objects stand."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch

from distill3d.config.files import EMBEDDED_WEIGHTS
from distill3d.priors.hub import PriorError
from distill3d.priors.loader import load_prompt_encoder
from distill3d.priors.parts import PARTS_FILE, Extent, Pair, Placed, pair_of, read_extents
from distill3d.priors.settings import PriorConfig
from distill3d.types import PromptEmbedding

EXTENTS = {
    "frog": Extent((-0.4, -0.4, -0.2), (0.4, 0.4, 0.2), 0.2, "frog"),
    "chair": Extent((-0.2, -0.2, -0.4), (0.2, 0.2, 0.4), 0.0, "chair"),
    "red car": Extent((-0.45, -0.2, -0.15), (0.45, 0.2, 0.15), 0.15, "red car"),
    "car": Extent((-0.45, -0.2, -0.15), (0.45, 0.2, 0.15), 0.15, "red car"),
}


@pytest.mark.parametrize(
    ("prompt", "first", "second"),
    [
        ("a frog on top of a chair", "a frog", "a chair"),
        ("a blue frog next to a red car, side view", "a blue frog, side view", "a red car, side view"),
        ("A DSLR photo of a Frog and a Car", "a dslr photo of a frog", "a car"),
        ("a frog on a chair", "a frog", "a chair"),
        ("A FROG, on top of a chair.", "a frog", "a chair"),
        ("a frog, next to a car!, back view", "a frog, back view", "a car, back view"),
    ],
)
def test_two_known_objects_are_a_pair_and_views_words_are_told_of_both(prompt, first, second):
    pair = pair_of(prompt, EXTENTS)
    assert pair is not None
    assert (pair.first.text, pair.second.text) == (first, second)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a frog",
        "a frog on a skateboard",
        "a unicorn next to a chair",
        "a frog on a chair and a car",
        "frog on",
        ",",
    ],
)
def test_what_does_not_name_exactly_two_known_objects_is_no_pair(prompt):
    assert pair_of(prompt, EXTENTS) is None


def test_without_extents_nothing_is_a_pair(tmp_path):
    assert read_extents(tmp_path) == {}
    assert pair_of("a frog on a chair", {}) is None


def corners(placed: Placed, extent: Extent) -> list[list[float]]:
    own = itertools.product(*zip(extent.low, extent.high, strict=True))
    return [[c + placed.scale * x for c, x in zip(placed.center, corner, strict=True)] for corner in own]


def boxes(pair: Pair, first: str, second: str) -> tuple[list[list[float]], list[list[float]]]:
    return corners(pair.first, EXTENTS[first]), corners(pair.second, EXTENTS[second])


@pytest.mark.parametrize(("a", "b"), itertools.permutations(["frog", "chair", "car"], 2))
def test_both_lie_in_the_ball_of_one_object_and_on_their_sides_of_the_plane(a, b):
    for relation in ("on top of", "next to"):
        pair = pair_of(f"a {a} {relation} a {b}", EXTENTS)
        assert pair is not None
        first, second = boxes(pair, a, b)
        low, high = ([pick(c[i] for c in first + second) for i in range(3)] for pick in (min, max))
        assert [x + y for x, y in zip(low, high, strict=True)] == pytest.approx([0.0, 0.0, 0.0], abs=1e-9)
        assert max(math.hypot(*corner) for corner in (low, high)) > 0.3  # nor are they lost in it
        balls = [math.hypot(*p.center) + 0.5 * p.scale for p in (pair.first, pair.second)]
        assert min(max(math.hypot(*c) for c in first + second), max(balls)) <= 0.5 + 1e-9

        def side(corner: list[float], pair: Pair = pair) -> float:
            return sum(n * x for n, x in zip(pair.normal, corner, strict=True)) - pair.offset

        assert min(map(side, first)) > -0.02
        if b != "chair" or relation == "next to":  # what sits on a chair sits before its back
            assert max(map(side, second)) < 0.02


def test_one_stands_on_the_others_seat_or_on_its_floor():
    on = pair_of("a frog on top of a chair", EXTENTS)
    beside = pair_of("a frog next to a chair", EXTENTS)
    assert on is not None
    assert beside is not None
    bottom = min(corner[2] for corner in boxes(on, "frog", "chair")[0])
    seat = on.second.center[2] + on.second.scale * EXTENTS["chair"].seat
    assert bottom == pytest.approx(seat, abs=0.02)
    assert bottom < seat  # nothing floats
    floors = [min(corner[2] for corner in box) for box in boxes(beside, "frog", "chair")]
    assert floors[0] == pytest.approx(floors[1])
    assert beside.first.center[1] > beside.second.center[1]


@pytest.mark.parametrize(
    "text",
    ["[]", '{"frog": 1}', '{"frog": {"low": [0, 0], "high": [1, 1, 1], "seat": 1}}', '{"frog": {"low": [0, 0, 0]}}',
     '{"frog": {"low": [0, 0, 1e999], "high": [1, 1, 1], "seat": 1}}',
     '{"frog": {"low": "abc", "high": [], "seat": 1}}'],
)  # fmt: skip
def test_a_damaged_list_of_extents_is_named(tmp_path, text):
    (tmp_path / PARTS_FILE).write_text(text)
    with pytest.raises(PriorError, match=PARTS_FILE):
        read_extents(tmp_path)


def test_the_embedded_priors_list_has_its_nouns_by_all_their_names():
    extents = read_extents(EMBEDDED_WEIGHTS)
    nouns = json.loads((EMBEDDED_WEIGHTS / "words.json").read_text())["nouns"]
    assert set(nouns) <= set(extents)
    assert extents["burger"] == extents["hamburger"]
    assert all(max(map(abs, (*e.low, *e.high))) <= 0.5 for e in extents.values())


def test_a_pairs_row_holds_its_objects_rows_and_single_rows_stay_as_they_are():
    encode = load_prompt_encoder(PriorConfig(), "cpu")
    whole, first, second = (encode([text]) for text in ("a frog on top of a hamburger", "a frog", "a hamburger"))
    assert first.pooled is not None
    assert second.pooled is not None
    assert whole.pooled is not None
    width = first.pooled.shape[-1]
    pair = pair_of("a frog on top of a hamburger", read_extents(EMBEDDED_WEIGHTS))
    assert pair is not None
    assert whole.pooled.shape[-1] == 3 * width + len(pair.numbers())
    torch.testing.assert_close(whole.pooled[:, width : 2 * width], first.pooled, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.pooled[:, 2 * width : 3 * width], second.pooled, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.pooled[0, 3 * width :], torch.tensor(pair.numbers()))
    together = PromptEmbedding.cat([first, whole])
    assert together.pooled is not None
    assert together.pooled.shape == whole.pooled.expand(2, -1).shape
    assert torch.equal(together.pooled[0, :width], first.pooled[0])
    assert not together.pooled[0, width:].any()
