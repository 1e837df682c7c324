"""The text encoder's schooling: questions with true answers, and an encoder that learns to read."""

from __future__ import annotations

import random

import torch

from distill3d.embedded.caption_reading import NONE, draw_reading, questions, teach_reading
from distill3d.embedded.captions import VIEW_PHRASES
from distill3d.embedded.text import make_text_encoder, make_tokenizer

NOUNS = ["apple", "fox", "crown"]


def test_answers_are_options_and_can_be_read_in_the_caption():
    asked, draw = questions(NOUNS), random.Random(0)
    for _ in range(300):
        reading = draw_reading(NOUNS, draw)
        assert all(answer in asked[name] for name, answer in reading.answers.items())
        caption = reading.caption
        for name in ("first", "second", "relation", "first_override", "second_override", "textureless"):
            answer = reading.answers[name]
            assert answer == NONE or answer in caption
        view = reading.answers["view"]
        assert (view == NONE) == (not any(phrase in caption for phrase in VIEW_PHRASES.values()))


def test_a_short_schooling_teaches_to_read(tmp_path):
    tokenizer = make_tokenizer(NOUNS, tmp_path)
    torch.manual_seed(0)
    encoder = make_text_encoder(tokenizer, width=64, layers=1)
    before = teach_reading(encoder, tokenizer, NOUNS, steps=1, seed=0, batch_size=64)
    after = teach_reading(encoder, tokenizer, NOUNS, steps=120, seed=1, batch_size=32)
    assert before < 0.6 < 0.8 < after


def test_schooling_is_a_function_of_the_seed(tmp_path):
    tokenizer = make_tokenizer(NOUNS, tmp_path)
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        encoder = make_text_encoder(tokenizer, width=64, layers=1)
        teach_reading(encoder, tokenizer, NOUNS, steps=3, seed=0, batch_size=4)
        states.append(encoder.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_views_words_move_the_pooled_output_about_as_far_as_a_noun(tmp_path):
    tokenizer = make_tokenizer(NOUNS, tmp_path)
    torch.manual_seed(0)
    encoder = make_text_encoder(tokenizer, width=64, layers=1)
    teach_reading(encoder, tokenizer, NOUNS, steps=120, seed=1, batch_size=32)

    def distance(one: str, other: str) -> float:
        ids = tokenizer([one, other], padding="max_length", max_length=32, return_tensors="pt").input_ids
        with torch.no_grad():
            pooled = encoder(ids).pooler_output
        return float((pooled[0] - pooled[1]).norm())

    views = distance("a fox, front view", "a fox, side view")
    assert views > 0.4 * distance("a fox, front view", "an apple, front view")
