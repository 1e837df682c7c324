"""The figures of one trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.evaluation import metrics
from distill3d.evaluation.judges import ImageTextJudge
from distill3d.evaluation.loaded_trial import SceneViews
from distill3d.evaluation.retrieval import distractors_of, janus, r_precision, view_accuracy

Figures = dict[str, float | None]


@dataclass(frozen=True)
class Figure:
    """What a name in the report means. ``better``: +1 where more is better, -1 where less is, 0 where neither."""

    label: str
    better: int
    meaning: str


FIGURES: dict[str, Figure] = {
    "r_precision": Figure("R-Precision", 1, "share of views whose prompt the judge ranks first"),
    "r_precision_shape": Figure("R-Precision, shape", 1, "the same on textureless renders"),
    "score": Figure("score", 1, "mean cosine of views and prompt under the judge"),
    "score_shape": Figure("score, shape", 1, "the same on textureless renders"),
    "view_accuracy": Figure("views right", 1, "share of views that look like what they are: front, side, back"),
    "janus": Figure("Janus", -1, "share of side and back views that look like the front"),
    "view_consistency": Figure("consistency", 1, "mean cosine of neighbouring views in the judge's features"),
    "saturation": Figure("saturation", 0, "max - min of the channels, mean over the object's pixels"),
    "colourfulness": Figure("colourfulness", 0, "Hasler and Suesstrunk, 2003"),
    "high_frequency": Figure("high frequencies", 0, "share of energy above a quarter cycle a pixel"),
    "saturation_ratio": Figure("saturation / prior", 0, "saturation over that of samples of the prior: 1 is the same"),
    "colourfulness_ratio": Figure("colourfulness / prior", 0, "the same for colourfulness"),
    "high_frequency_ratio": Figure("high frequencies / prior", 0, "the same for high frequencies"),
    "diversity": Figure("diversity", 0, "several pictures: mean of 1 - cosine over their pairs"),
    "opacity": Figure("opacity", 0, "mean over pixels"),
    "ssim": Figure("SSIM to source", 0, "edits: structural similarity to the original"),
    "source_distance": Figure("distance to source", 0, "edits: 1 - cosine to the original in the judge's features"),
    "steps": Figure("steps", 0, "of training"),
    "seconds_total": Figure("seconds", -1, "of the whole run"),
    "peak_memory_mb": Figure("MB", -1, "the most memory that the run held"),
}


def picture_figures(images: Float[Tensor, "B 3 H W"]) -> Figures:
    """The figures that renders and samples of the prior share: of the object, as samples have any background."""
    weight = metrics.foreground(images)
    before_grey = weight * images + 0.5 * (1.0 - weight)
    return {
        "saturation": metrics.saturation(images, weight),
        "colourfulness": metrics.colourfulness(before_grey),
        "high_frequency": metrics.high_frequency_ratio(before_grey),
    }


def agreement(judge: ImageTextJudge, embedded: Tensor, prompt: str, captions: Sequence[str]) -> Figures:
    """R-Precision and score of embedded images."""
    texts = distractors_of(prompt, [*judge.captions, *captions])
    own = judge.embed_texts([prompt])[0]
    others = judge.embed_texts(texts) if texts else own.new_zeros(0, len(own))
    return {"r_precision": r_precision(embedded, own, others), "score": float((embedded @ own).mean())}


def judged_figures(judge: ImageTextJudge, views: SceneViews, prompt: str, captions: Sequence[str]) -> Figures:
    """Retrieval, score, consistency and view words of one object. ``captions`` are what else it might show."""
    color = judge.embed_images(views.color)
    result = agreement(judge, color, prompt, captions)
    shape = agreement(judge, judge.embed_images(views.textureless), prompt, captions)
    result.update({f"{name}_shape": value for name, value in shape.items()})
    result["view_consistency"] = metrics.view_consistency(color) if len(color) > 1 else None
    found = judge.view_words(views.color, prompt)
    result["view_accuracy"] = view_accuracy(found, views.words) if found else None
    result["janus"] = janus(found, views.words) if found else None
    return result


def scene_figures(views: SceneViews, prompt: str, judge: ImageTextJudge | None, captions: Sequence[str]) -> Figures:
    """All figures of renders; those of the judge are left out where there is none."""
    result = {**picture_figures(views.color), "opacity": float(views.opacity.mean())}
    return {**result, **(judged_figures(judge, views, prompt, captions) if judge else {})}


def edit_figures(judge: ImageTextJudge | None, edited: Tensor, source: Tensor) -> Figures:
    """How much of the original an edit keeps, over pairs of images."""
    result: Figures = {"ssim": float(metrics.ssim(edited, source).mean())}
    if judge is not None:
        result["source_distance"] = metrics.feature_distance(judge.embed_images(edited), judge.embed_images(source))
    return result


def against_samples(own: Figures, samples: Float[Tensor, "B 3 H W"] | None) -> Figures:
    """Ratios to the same figures of samples of the prior, at the size of the samples; none without samples."""
    if samples is None or not len(samples):
        return {}
    ratios: Figures = {}
    for name, reference in picture_figures(samples).items():
        value = own.get(name)
        ratios[f"{name}_ratio"] = value / reference if value is not None and reference else None
    return ratios


def run_figures(metrics: dict[str, Any]) -> Figures:
    """What a run cost, from its metrics.json."""
    names = ("steps", "seconds_total", "peak_memory_mb")
    return {name: float(metrics[name]) for name in names if isinstance(metrics.get(name), (int, float))}


def resized(images: Float[Tensor, "B 3 H W"], size: int) -> Float[Tensor, "B 3 h w"]:
    """As `torch.nn.functional.interpolate` with antialiasing; unchanged where the size is right."""
    if images.shape[-2:] == (size, size):
        return images
    return torch.nn.functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
