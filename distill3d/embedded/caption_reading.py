"""Pretraining of the text encoder without pictures: it predicts from a caption what the scene contains.

Trained from scratch together with the image network, the encoder collapses: while the network cannot use what it says,
differences between captions are noise, and the first thing the loss asks for is their removal. Imagen
(arXiv 2205.11487) uses a frozen encoder that was pretrained on text; this is a small version of that.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill3d.embedded.captions import (
    COLORS,
    MATERIALS,
    RELATIONS,
    VIEW_PHRASES,
    SceneCaption,
    Thing,
    training_caption,
)
from distill3d.embedded.mesh_scenes import draw_override

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

log = logging.getLogger(__name__)
NONE = "none"


@dataclass(frozen=True)
class Reading:
    """A caption and the answers to every question about its scene."""

    caption: str
    answers: dict[str, str]


def questions(nouns: list[str]) -> dict[str, list[str]]:
    """What is asked of a caption, with the possible answers."""
    overrides = [NONE, *COLORS, *MATERIALS]
    return {
        "first": nouns,
        "second": [NONE, *nouns],
        "relation": [NONE, *RELATIONS],
        "first_override": overrides,
        "second_override": overrides,
        "view": [NONE, *VIEW_PHRASES],
        "textureless": [NONE, "textureless"],
    }


def draw_reading(nouns: list[str], draw: random.Random) -> Reading:
    """A caption by the training grammar, of any scene; half of them pairs."""
    first = _thing(draw.choice(nouns), draw)
    scene = SceneCaption(first)
    if draw.random() < 0.5 and len(nouns) > 1:
        second = draw.choice([noun for noun in nouns if noun != first.noun])
        scene = SceneCaption(first, draw.choice(RELATIONS), _thing(second, draw))
    view, textureless = draw.choice(list(VIEW_PHRASES)), draw.random() < 0.3
    caption = training_caption(scene, view, textureless, draw)
    answers = {
        "first": first.noun,
        "second": scene.second.noun if scene.second else NONE,
        "relation": scene.relation or NONE,
        "first_override": first.color or first.material or NONE,
        "second_override": (scene.second.color or scene.second.material if scene.second else None) or NONE,
        # what the caption leaves out cannot be read
        "view": view if VIEW_PHRASES[view] in caption else NONE,
        "textureless": "textureless" if "textureless" in caption else NONE,
    }
    return Reading(caption, answers)


def teach_reading(
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    nouns: list[str],
    steps: int,
    seed: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
) -> float:
    """Train the encoder, in place, so that every answer is a linear function of its pooled output.

    Returns the share of right answers over the last 20 steps.
    """
    asked = questions(nouns)
    width = text_encoder.config.hidden_size
    heads = nn.ModuleDict({name: nn.Linear(width, len(options)) for name, options in asked.items()})
    index = {name: {option: i for i, option in enumerate(options)} for name, options in asked.items()}
    optimizer = torch.optim.AdamW(
        [*text_encoder.parameters(), *heads.parameters()], lr=learning_rate, weight_decay=0.01
    )
    right: list[float] = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 50, max((steps - step) / (0.3 * steps), 0.01))
        draw = random.Random(f"reading/{seed}/{step}")
        readings = [draw_reading(nouns, draw) for _ in range(batch_size)]
        ids = tokenizer(
            [reading.caption for reading in readings],
            padding="max_length",
            truncation=True,
            max_length=tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids
        pooled = text_encoder(ids).pooler_output
        loss, share = _grade(pooled, heads, readings, index)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(text_encoder.parameters(), 1.0)
        optimizer.step()
        right = [*right[-19:], share]
        if (step + 1) % 100 == 0:
            accuracy = 100 * sum(right) / len(right)
            log.info("text encoder pretraining: step %d of %d, accuracy %.1f %%", step + 1, steps, accuracy)
    return sum(right) / max(len(right), 1)


def _grade(
    pooled: Tensor, heads: nn.ModuleDict, readings: list[Reading], index: dict[str, dict[str, int]]
) -> tuple[Tensor, float]:
    # rows of length one: a question of four answers must be told apart as far as one of three hundred, else the network
    # hears nouns alone (a view's words had moved the pooled output by a quarter of what a noun moves it)
    losses, hits = [], []
    for name, head in heads.items():
        target = torch.tensor([index[name][reading.answers[name]] for reading in readings])
        logits = F.linear(pooled, F.normalize(head.get_parameter("weight")), head.get_parameter("bias"))
        losses.append(F.cross_entropy(logits, target))
        hits.append(float((logits.argmax(1) == target).float().mean()))
    return torch.stack(losses).sum(), sum(hits) / len(hits)


def _thing(noun: str, draw: random.Random) -> Thing:
    return draw_override(noun, draw) if draw.random() < 0.4 else Thing(noun)
