"""Retrieval and view words on embeddings that are made by hand."""

import pytest
import torch

from distill3d.evaluation.retrieval import distractors_of, janus, most_like, r_precision, view_accuracy


def test_precision_is_the_share_of_views_that_choose_their_caption():
    views = torch.nn.functional.normalize(torch.tensor([[1.0, 0.2], [0.2, 1.0], [1.0, 0.0], [0.9, 0.1]]), dim=1)
    assert r_precision(views, torch.tensor([1.0, 0.0]), torch.tensor([[0.0, 1.0]])) == 0.75
    assert r_precision(views, torch.tensor([1.0, 0.0]), torch.zeros(0, 2)) is None


def test_a_tie_is_no_hit():
    views = torch.tensor([[1.0, 0.0]])
    assert r_precision(views, views[0], views) == 0.0


def test_captions_that_are_right_as_well_are_no_distractors():
    captions = ["a fox", "a hat", "a blue fox", "The Fox.", "a hat", "a fox wearing a hat"]
    assert distractors_of("a blue fox", captions) == ["a hat", "a fox wearing a hat"]
    assert distractors_of("a fox", captions) == ["a hat", "a blue fox", "a fox wearing a hat"]


def test_janus_counts_faces_where_none_should_be():
    true = ["front", "side", "back", "side"]
    assert janus(["front"] * 4, true) == 1.0
    assert janus(true, true) == 0.0
    assert janus(["side", "front", "back", "side"], true) == pytest.approx(1 / 3)
    assert janus(["front"], ["front"]) is None
    assert view_accuracy(["front", "side", "front", "side"], true) == 0.75


def test_the_nearest_text_names_the_view():
    texts = torch.eye(3)
    assert most_like(torch.tensor([[0.1, 0.9, 0.0], [0.0, 0.1, 0.5]]), texts, ("front", "side", "back")) == [
        "side",
        "back",
    ]
