"""Trials that make pictures instead of scenes: their results, and the original of an edit, from the trial's save/."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.evaluation import metrics
from distill3d.evaluation.judges import ImageTextJudge
from distill3d.evaluation.scene_report import Figures, agreement, edit_figures, picture_figures, resized
from distill3d.runtime.pictures import read_rgb

_RESULT = re.compile(r"it(\d+)-(\d+)\.png")


@dataclass(frozen=True)
class FinalPictures:
    """Square pictures in [0, 1]; ``source`` is what an edit started from."""

    images: Float[Tensor, "N 3 S S"]
    source: Float[Tensor, "1 3 S S"] | None


def final_pictures(trial: Path, size: int) -> FinalPictures | None:
    """The pictures of the last step, ``save/it{N}-{i}.png``, brought to a square; None where there is none."""
    found = [(match, path) for path in (trial / "save").glob("it*-*.png") if (match := _RESULT.fullmatch(path.name))]
    if not found:
        return None
    last = max(int(match[1]) for match, _ in found)
    paths = sorted((int(match[2]), path) for match, path in found if int(match[1]) == last)
    source = trial / "save" / "source.png"
    images = torch.cat([_read(path, size) for _, path in paths])
    return FinalPictures(images, _read(source, size) if source.is_file() else None)


def final_figures(final: FinalPictures, prompt: str, judge: ImageTextJudge | None, captions: Sequence[str]) -> Figures:
    """All figures of pictures; those of the judge are left out where there is none."""
    result = picture_figures(final.images)
    if judge is not None:
        embedded = judge.embed_images(final.images)
        result.update(agreement(judge, embedded, prompt, captions))
        result["diversity"] = metrics.diversity(embedded) if len(embedded) > 1 else None
    if final.source is not None:
        result.update(edit_figures(judge, final.images, final.source.expand_as(final.images)))
    return result


def _read(path: Path, size: int) -> Float[Tensor, "1 3 S S"]:
    return resized(read_rgb(path)[None].float() / 255.0, size)
