"""What a gallery holds: the middles of clusters of views (k-means), and keys that read nouns and view words."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from distill3d.embedded.captions import VIEW_PHRASES, SceneCaption, Thing, training_caption
from distill3d.embedded.gallery import Gallery
from distill3d.embedded.mesh_views import ViewCache
from distill3d.embedded.posterior import FlatViews

VIEW_WORDS = tuple(VIEW_PHRASES)
Encode = Callable[[list[str]], Float[Tensor, "B D"]]


def fill_gallery(gallery: Gallery, cache: ViewCache, nouns: list[str], encode: Encode, seed: int) -> None:
    """An equal share of the table for each noun, in place; ``encode`` gives captions' pooled text.

    Raises ValueError if there are more nouns than pictures.
    """
    share = len(gallery.pictures) // len(nouns)
    if share < 1:
        raise ValueError(f"gallery_size={len(gallery.pictures)} is too small for {len(nouns)} nouns")
    noun_key, view_key = fit_keys(nouns, encode, seed)
    with torch.no_grad():
        gallery.keys.weight.zero_()
        gallery.keys.bias.fill_(-100.0)  # pictures that are left over are never recalled
        for index, noun in enumerate(nouns):
            rows = cache.singles[noun]
            pictures, members = cluster(pictures_of(cache, rows, gallery.side), share, seed)
            for i, picture in enumerate(pictures):
                at = index * share + i
                gallery.pictures[at] = picture
                words = [cache.words[rows[m]] for m in (members == i).nonzero().flatten().tolist()]
                if not words:
                    continue
                word = max(VIEW_WORDS, key=words.count)
                for target, key in ((gallery.keys.weight, "weight"), (gallery.keys.bias, "bias")):
                    known = noun_key.get_parameter(key)[index] + view_key.get_parameter(key)[VIEW_WORDS.index(word)]
                    target[at] = known
                gallery.keys.bias[at] += math.log(len(words) / len(rows))


def pictures_of(cache: ViewCache, rows: list[int], side: int) -> Float[Tensor, "N 4 s s"]:
    """Unlit views in the gallery's form: twice the colour in [0, 1] times mask, and the mask."""
    views = FlatViews.of(cache.surface(rows), side)
    return torch.cat([2.0 * views.color.float(), views.mask.float()], dim=1)


def cluster(
    pictures: Float[Tensor, "N 4 s s"], count: int, seed: int, rounds: int = 8
) -> tuple[Float[Tensor, "K 4 s s"], Int[Tensor, "N"]]:
    """k-means: middles and each picture's cluster. Fewer pictures than ``count``: some middles are repeated."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pictures), generator=generator)
    middles = pictures[order[torch.arange(count) % len(pictures)]].clone()
    nearest = torch.zeros(len(pictures), dtype=torch.long)
    for _ in range(rounds):
        nearest = torch.cdist(pictures.flatten(1), middles.flatten(1)).argmin(dim=1)
        for i in range(count):
            if bool((nearest == i).any()):
                middles[i] = pictures[nearest == i].mean(dim=0)
    return middles, nearest


def fit_keys(
    nouns: list[str], encode: Encode, seed: int, captions: int = 6000, steps: int = 400
) -> tuple[nn.Linear, nn.Linear]:
    """Linear readings of a caption's noun and view words by logistic regression; no caption may be any."""
    draw = random.Random(f"keys/{seed}")
    texts, noun_of, view_of = [], [], []
    for _ in range(captions):
        noun, view = draw.choice(nouns), draw.choice(VIEW_WORDS)
        told = draw.random() < 0.6
        texts.append(training_caption(SceneCaption(Thing(noun)), view, False, draw, 1.0 if told else 0.0))
        noun_of.append(_one_hot(nouns.index(noun), len(nouns)))
        view_of.append(_one_hot(VIEW_WORDS.index(view) if told else None, len(VIEW_WORDS)))
    texts += [""] * (captions // 10)
    noun_of += [_one_hot(None, len(nouns))] * (captions // 10)
    view_of += [_one_hot(None, len(VIEW_WORDS))] * (captions // 10)
    with torch.no_grad():
        pooled = torch.cat([encode(texts[i : i + 256]).float() for i in range(0, len(texts), 256)])
    heads = []
    for target in (torch.stack(noun_of), torch.stack(view_of)):
        head = nn.Linear(pooled.shape[1], target.shape[1])
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
        for _ in range(steps):
            loss = F.cross_entropy(head(pooled), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        heads.append(head.requires_grad_(False))
    return heads[0], heads[1]


def _one_hot(index: int | None, count: int) -> Float[Tensor, "C"]:
    """All equally likely where the caption does not tell."""
    return torch.full((count,), 1.0 / count) if index is None else F.one_hot(torch.tensor(index), count).float()
