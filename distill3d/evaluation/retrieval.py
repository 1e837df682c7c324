"""R-Precision and the Janus indicator, from embeddings and view words."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from distill3d.camera import ViewWord
from distill3d.embedded.judge import split_words
from distill3d.evaluation.metrics import share

_ARTICLES = {"a", "an", "the"}


def r_precision(
    images: Float[Tensor, "V E"], caption: Float[Tensor, "E"], distractors: Float[Tensor, "C E"]
) -> float | None:
    """The share of views that are nearer to their caption than to any distractor (Dream Fields, arXiv 2112.01455).

    All have unit length. None where there is nothing to confuse the caption with.
    """
    if not len(distractors):
        return None
    own, others = images @ caption, images @ distractors.T
    return float((own > others.amax(dim=1)).float().mean())


def distractors_of(prompt: str, captions: Sequence[str]) -> list[str]:
    """Captions that would be wrong for the prompt: one whose words all stand in the prompt ("a fox", where a blue fox
    is asked for) is right as well."""
    words = set(split_words(prompt)) | _ARTICLES
    return [caption for caption in dict.fromkeys(captions) if not set(split_words(caption)) <= words]


def view_accuracy(found: Sequence[ViewWord], true: Sequence[ViewWord]) -> float:
    """The share of views that look like what they are."""
    hits = [a == b for a, b in zip(found, true, strict=True)]
    return share(hits) if hits else 0.0


def janus(found: Sequence[ViewWord], true: Sequence[ViewWord]) -> float | None:
    """The share of side and back views that look like the front: 0 for an object with one face. None without such."""
    hits = [a == "front" for a, b in zip(found, true, strict=True) if b in ("side", "back")]
    return share(hits) if hits else None


def most_like(images: Float[Tensor, "V E"], texts: Float[Tensor, "W E"], names: Sequence[ViewWord]) -> list[ViewWord]:
    """The name of the text nearest to each view."""
    return [names[i] for i in (images @ texts.T).argmax(dim=1).tolist()]
