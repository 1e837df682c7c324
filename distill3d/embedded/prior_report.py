"""The report of a prior: samples ranked by the judge, held-out combinations, view words, nearest training views."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from distill3d.camera import orbit_cameras
from distill3d.embedded.captions import COLORS, VIEW_PHRASES, SceneCaption, Thing, with_article
from distill3d.embedded.condition_effects import ConditionEffect
from distill3d.embedded.judge import Judge
from distill3d.embedded.mesh_scenes import read_held_out
from distill3d.evaluation.metrics import saturation
from distill3d.priors.base import DiffusionPrior, PromptEncoder
from distill3d.priors.sampling import ddim_sample
from distill3d.runtime.files import write_json
from distill3d.runtime.pictures import CHARACTER, label, tiled, write_png
from distill3d.runtime.rng import rng
from distill3d.types import Cameras

log = logging.getLogger(__name__)
ELEVATION_DEG, DISTANCE_AND_FOVY_DEG = 20.0, (1.55, 39.0)  # of samples that a camera is told for


@dataclass(frozen=True)
class SampleSettings:
    """How the report draws samples. ``guidance_scale`` is the papers' w."""

    guidance_scale: float = 4.0
    steps: int = 25
    eta: float = 0.0  # 1: new noise in each step, as in DDPM
    per_noun: int = 4
    per_combination: int = 4
    batch_size: int = 40
    image_size: int | None = None
    seed: int = 0


@dataclass
class PriorReport:
    """Shares in [0, 1]; ranks are among all nouns of the judge."""

    precision_core: float = 0.0  # R-Precision@1 over the nouns marked core
    precision_all: float = 0.0
    top5_core: float = 0.0
    top5_all: float = 0.0
    override_and_noun: float = 0.0  # held-out colours and materials: both right
    both_nouns_top5: float = 0.0  # held-out pairs: both nouns among the five best
    view_words: float = 0.0
    nearest_distance_samples: float = 0.0  # mean distance in the judge's features to the nearest training view
    nearest_distance_held_out: float = 0.0  # the same for held-out renders: copying would be far below it
    saturation: float = 0.0
    missed_nouns: list[str] = field(default_factory=list)
    seconds: float = 0.0
    image_size: int = 0
    condition_effects: list[ConditionEffect] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


Sampler = Callable[[list[str], Cameras | None], Float[Tensor, "B 3 H W"]]


def make_sampler(prior: DiffusionPrior, encoder: PromptEncoder, settings: SampleSettings) -> Sampler:
    """A function from captions to images in [0, 1]; its noise is a function of the seed and of how much was drawn."""
    drawn = 0

    def sample(captions: list[str], cameras: Cameras | None = None) -> Float[Tensor, "B 3 H W"]:
        nonlocal drawn
        images = []
        for start in range(0, len(captions), settings.batch_size):
            part = captions[start : start + settings.batch_size]
            text, empty = encoder(part), encoder([""] * len(part))
            generator = rng("noise", settings.seed, drawn)
            how = (settings.guidance_scale, settings.steps, 1.0, settings.eta)
            seen_from = None if cameras is None else cameras[start : start + settings.batch_size]
            x = ddim_sample(prior, text, generator, settings.image_size, empty, *how, cameras=seen_from)
            images.append(prior.decode(x).cpu())
            drawn += len(part)
        return torch.cat(images)

    return sample


def report_prior(
    sample: Sampler,
    judge: Judge,
    nouns: list[str],
    core: list[str],
    settings: SampleSettings,
    training_views: Float[Tensor, "N 3 H W"] | None = None,
    held_out_views: Float[Tensor, "M 3 H W"] | None = None,
) -> tuple[PriorReport, dict[str, Float[Tensor, "B 3 H W"]]]:
    """Every figure, and the pictures behind it by section: ``nouns``, ``combinations``, ``views``."""
    begun = time.monotonic()
    report = PriorReport()
    pictures = {"nouns": _nouns(sample, judge, nouns, core, settings, report)}
    pictures["combinations"] = _combinations(sample, judge, nouns, settings, report)
    pictures["views"] = _views(sample, judge, nouns, report)
    report.saturation = saturation(pictures["nouns"])
    report.image_size = pictures["nouns"].shape[-1]
    if training_views is not None and held_out_views is not None:
        known = judge.embed_images(training_views)
        report.nearest_distance_samples = nearest_distance(judge.embed_images(pictures["nouns"]), known)
        report.nearest_distance_held_out = nearest_distance(judge.embed_images(held_out_views), known)
    report.seconds = time.monotonic() - begun
    return report, pictures


def _nouns(
    sample: Sampler, judge: Judge, nouns: list[str], core: list[str], settings: SampleSettings, report: PriorReport
) -> Tensor:
    images = draw_nouns(sample, nouns, settings)
    captions = [with_article(noun) for noun in nouns for _ in range(settings.per_noun)]
    ranks = judge.rank_of(images, captions, judge.captions)
    ranks = ranks.view(len(nouns), settings.per_noun)
    is_core = torch.tensor([noun in set(core) for noun in nouns])
    report.precision_all, report.top5_all = share(ranks < 1), share(ranks < 5)
    report.precision_core, report.top5_core = share(ranks[is_core] < 1), share(ranks[is_core] < 5)
    report.missed_nouns = [noun for noun, row in zip(nouns, ranks, strict=True) if bool((row >= 5).all())]
    return images


def draw_nouns(sample: Sampler, nouns: list[str], settings: SampleSettings) -> Float[Tensor, "B 3 H W"]:
    """``per_noun`` samples of every noun, noun by noun, from so many sides where the prior takes cameras."""
    around = orbit_cameras(settings.per_noun, ELEVATION_DEG, *DISTANCE_AND_FOVY_DEG, 64)
    cameras = around[list(range(settings.per_noun)) * len(nouns)]
    images = sample([with_article(noun) for noun in nouns for _ in range(settings.per_noun)], cameras)
    log.info("%d samples of %d nouns drawn", len(images), len(nouns))
    return images


def _held_out_scenes(nouns: list[str]) -> list[SceneCaption]:
    """The held-out scenes of these nouns alone."""
    return [scene for scene in read_held_out().scenes() if {thing.noun for thing in scene.things} <= set(nouns)]


def _combinations(
    sample: Sampler, judge: Judge, nouns: list[str], settings: SampleSettings, report: PriorReport
) -> Tensor:
    scenes = _held_out_scenes(nouns)
    if not scenes:
        return torch.zeros(0, 3, 1, 1)
    repeated = [scene for scene in scenes for _ in range(settings.per_combination)]
    images = sample([scene.text() for scene in repeated], None)
    right = [_is_right(judge, image[None], scene) for image, scene in zip(images, repeated, strict=True)]
    pairs = [ok for ok, scene in zip(right, repeated, strict=True) if scene.second is not None]
    singles = [ok for ok, scene in zip(right, repeated, strict=True) if scene.second is None]
    report.both_nouns_top5 = sum(pairs) / max(len(pairs), 1)
    report.override_and_noun = sum(singles) / max(len(singles), 1)
    return images


def _is_right(judge: Judge, image: Float[Tensor, "1 3 H W"], scene: SceneCaption) -> bool:
    """A pair: both nouns in the top five. A colour or material: the best override of this noun, and the noun itself."""
    best = judge.top_nouns(image, 5)[0]
    if scene.second is not None:
        return {thing.noun for thing in scene.things} <= set(best)
    noun, word = scene.first.noun, scene.first.color or scene.first.material or ""
    others = [SceneCaption(Thing(noun, color=color)).text() for color in COLORS if color != word]
    color_right = int(judge.rank_of(image, [scene.text()], others)[0]) == 0
    return color_right and noun in best[:1]


def _views(sample: Sampler, judge: Judge, nouns: list[str], report: PriorReport) -> Tensor:
    """One sample for each view word of every noun with a front."""
    fronted = [noun for noun in nouns if noun in set(judge.config.nouns_with_front)]
    if not fronted:
        return torch.zeros(0, 3, 1, 1)
    wanted = [word for _ in fronted for word in VIEW_PHRASES]
    captions = [f"{with_article(noun)}, {phrase}" for noun in fronted for phrase in VIEW_PHRASES.values()]
    images = sample(captions, None)
    found = judge.view_words(images)
    report.view_words = sum(a == b for a, b in zip(found, wanted, strict=True)) / len(wanted)
    return images


def nearest_distance(queries: Float[Tensor, "N E"], known: Float[Tensor, "M E"]) -> float:
    """Mean over the queries of ``1 - cosine`` to the nearest known embedding."""
    return float((1.0 - (queries @ known.T).amax(dim=1)).mean())


def share(hits: Tensor) -> float:
    return float(hits.float().mean()) if hits.numel() else 0.0


def sheet(images: Float[Tensor, "B 3 H W"], columns: int, labels: list[str] | None = None) -> UInt8[Tensor, "3 h w"]:
    """Tiles in rows, each over its label when there are any (one a tile)."""
    size = max(images.shape[-1], 64)
    images = F.interpolate(images, (size, size), mode="nearest")
    if labels is not None:
        strips = torch.stack([label(text[: size // CHARACTER], size) for text in labels])
        images = torch.cat([images, strips / 255.0], dim=2)
    return tiled(images, columns)


def save_sheets(pictures: dict[str, Tensor], nouns: list[str], settings: SampleSettings, folder: Path) -> list[Path]:
    """samples.png, combinations.png, views.png, with labels."""
    scenes = _held_out_scenes(nouns)
    labels = {
        "nouns": [n for n in nouns for _ in range(settings.per_noun)],
        "combinations": [s.text().removeprefix("a ") for s in scenes for _ in range(settings.per_combination)],
    }
    columns = {"nouns": 4 * settings.per_noun, "combinations": 4 * settings.per_combination, "views": 16}
    names = {"nouns": "samples.png", "combinations": "combinations.png", "views": "views.png"}
    written = []
    for section, images in pictures.items():
        if len(images):
            write_png(folder / names[section], sheet(images, columns[section], labels.get(section)))
            written.append(folder / names[section])
    return written


def write_report(report: PriorReport, path: Path, judged: bool = True) -> None:
    """The figures as JSON, and in the log. Without a judge only what needs none is written."""
    content = report.as_dict()
    if not judged:
        content = {name: content[name] for name in ("condition_effects",)}
    write_json(path, content)
    log.info("%s", ", ".join(f"{k} {v:.3g}" for k, v in content.items() if isinstance(v, float)))
