"""The caption grammar, the scenes behind it, and the combinations that are held out."""

from __future__ import annotations

import random

import numpy as np
import pytest
from tiny_assets import make_assets

from distill3d.data.assets import load_mesh, read_index
from distill3d.embedded.captions import (
    PLAIN_NOUN,
    RELATIONS,
    SceneCaption,
    Thing,
    training_caption,
    vocabulary,
    with_article,
)
from distill3d.embedded.mesh_scenes import compose, draw_override, read_held_out


def test_plain_captions():
    assert SceneCaption(Thing("apple")).text() == "an apple"
    assert SceneCaption(Thing("red car", color="blue")).text() == "a blue car"
    assert SceneCaption(Thing("fox"), "on top of", Thing("hamburger")).text() == "a fox on top of a hamburger"
    assert with_article("french fries") == "french fries"


def test_nouns_that_name_a_colour_lose_it_when_recoloured():
    for noun, plain in PLAIN_NOUN.items():
        assert SceneCaption(Thing(noun, color="green")).text() == f"a green {plain}"


def test_captions_carry_view_words_and_the_textureless_suffix_about_as_often_as_asked():
    draw = random.Random(0)
    scene = SceneCaption(Thing("fox"))
    captions = [training_caption(scene, "back", True, draw) for _ in range(2000)]
    assert np.mean([c.endswith(", back view") for c in captions]) == pytest.approx(0.6, abs=0.04)
    assert np.mean([", textureless" in c for c in captions]) == pytest.approx(0.7, abs=0.04)
    assert not any("textureless" in training_caption(scene, "back", False, draw) for _ in range(100))


def test_every_word_of_a_caption_is_in_the_vocabulary():
    nouns = ["red car", "fox", "french fries", "tyrannosaurus rex"]
    known, draw = set(vocabulary(nouns)), random.Random(1)
    for _ in range(500):
        first, second = draw.sample(nouns, 2)
        scene = SceneCaption(draw_override(first, draw), draw.choice(RELATIONS), Thing(second))
        words = training_caption(scene, "side", True, draw).replace(",", "").lower().split()
        assert set(words) <= known


def test_the_held_out_list_is_recognised():
    held_out = read_held_out()
    assert held_out.contains(SceneCaption(Thing("hamburger", color="blue")))
    assert not held_out.contains(SceneCaption(Thing("hamburger", color="red")))
    assert held_out.contains(SceneCaption(Thing("frog"), "on top of", Thing("hamburger")))
    assert not held_out.contains(SceneCaption(Thing("hamburger"), "on top of", Thing("frog")))
    assert all(held_out.contains(scene) for scene in held_out.scenes())


def test_a_bad_line_of_the_held_out_list_is_quoted(tmp_path):
    (tmp_path / "list.txt").write_text("transparent fox\n")
    with pytest.raises(ValueError, match="transparent fox"):
        read_held_out(tmp_path / "list.txt")


@pytest.fixture
def meshes(tmp_path):
    return {asset.noun: load_mesh(asset) for asset in read_index(make_assets(tmp_path))}


def test_compositions_are_true_to_their_relation(meshes):
    apple, fox, crown = meshes["apple"], meshes["fox"], meshes["crown"]
    split = len(apple.vertices)
    on_top = compose(apple, "on top of", fox, random.Random(0)).vertices
    assert on_top[:split, 2].min() >= on_top[split:, 2].max() - 0.05
    beside = compose(apple, "next to", fox, random.Random(0)).vertices
    gap = max(beside[split:, 1].min() - beside[:split, 1].max(), beside[:split, 1].min() - beside[split:, 1].max())
    assert 0.0 < gap < 0.1
    assert beside[:split, 2].min() == pytest.approx(beside[split:, 2].min(), abs=1e-5)
    wearing = compose(apple, "wearing", crown, random.Random(0)).vertices
    assert wearing[split:, 2].mean() > wearing[:split, 2].max() - 0.1
    with pytest.raises(ValueError, match="beneath"):
        compose(apple, "beneath", fox, random.Random(0))
