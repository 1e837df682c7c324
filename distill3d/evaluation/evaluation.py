"""--evaluate: from a folder to figures, comparisons, and a report."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distill3d.config.files import settings_of
from distill3d.evaluation.collect import Entry, collect
from distill3d.evaluation.final_pictures import FinalPictures, final_figures, final_pictures
from distill3d.evaluation.judges import ImageTextJudge, choose_judge, judge_identity
from distill3d.evaluation.loaded_trial import LoadedTrial, load_trial, render_views
from distill3d.evaluation.report import Report, ReportedRun, write_report
from distill3d.evaluation.samples import ReferenceSamples, write_strip
from distill3d.evaluation.scene_report import (
    against_samples,
    picture_figures,
    resized,
    run_figures,
    scene_figures,
)
from distill3d.evaluation.settings import EvaluateSettings
from distill3d.runtime.device import choose_accelerator
from distill3d.runtime.files import finite_or_none, write_json
from distill3d.runtime.foreign import read_record
from distill3d.sweep.folder import read_metrics

log = logging.getLogger(__name__)

OUT = "evaluation"
MEANING = 2  # of the figures that are kept; another number where one of them is measured in another way


@dataclass
class Evaluator:
    """Evaluates trials one after the other; judges and samples are made when the first trial needs them."""

    settings: EvaluateSettings
    samples: ReferenceSamples
    captions: list[str]
    device: str = "cpu"
    judges: dict[str, ImageTextJudge | None] = field(default_factory=dict)

    def run(self, entry: Entry) -> ReportedRun:
        """The metrics of one trial; an error is recorded and does not stop the evaluation of others."""
        run = ReportedRun(entry, run_figures(read_metrics(entry.trial)))
        if entry.status not in ("done", "diverged") and not (entry.trial / "ckpts" / "last.ckpt").is_file():
            run.error = entry.error or f"{entry.trial} is not finished"
            return run
        try:
            self._scene(load_trial(entry.trial, self.device), run)
        except (ValueError, OSError, RuntimeError) as error:
            run.error = " ".join(str(error).split()) or type(error).__name__
            log.warning("%s: %s", entry.trial, run.error)
        return run

    def _scene(self, scene: LoadedTrial, run: ReportedRun) -> None:
        final = None if scene.can_turn else final_pictures(scene.trial, self.settings.size)
        if final is None and not scene.can_turn:
            run.error = "neither a scene nor pictures: only its cost is compared"
            return
        judge = self.judge(scene.prior)
        run.judge = judge.name if judge else None
        folder = run.entry.trial / OUT
        key = self._key(scene, judge)
        known = read_record(folder / "figures.json")
        names = ("color.png", "textureless.png") if final is None else ("color.png",)
        if known.get("key") != key or self.settings.again or not _all_exist(folder, names):
            known = {"key": key, "figures": self._figures(scene, final, judge, folder)}
            write_json(folder / "figures.json", known)
        run.figures = {**known["figures"], **run.figures}
        run.pictures = {name.removesuffix(".png"): folder / name for name in names}

    def _figures(
        self, scene: LoadedTrial, final: FinalPictures | None, judge: ImageTextJudge | None, folder: Path
    ) -> dict[str, float | None]:
        folder.mkdir(parents=True, exist_ok=True)
        if final is None:
            own = self.settings
            views = render_views(scene, own.views, own.size, own.batch_size, min(own.shape_size, own.size))
            write_strip(folder / "textureless.png", views.textureless)
            color, figures = views.color, scene_figures(views, scene.prompt, judge, self.captions)
        else:
            color, figures = final.images, final_figures(final, scene.prompt, judge, self.captions)
        write_strip(folder / "color.png", color)
        samples = self.samples(scene)
        if samples is not None:
            seen = picture_figures(resized(color, samples.shape[-1]))
            figures.update(against_samples(seen, samples))
        return {name: finite_or_none(value) for name, value in figures.items()}

    def judge(self, prior: str) -> ImageTextJudge | None:
        """One judge for each prior; a named one judges all."""
        key = prior if self.settings.judge == "auto" else ""
        if key not in self.judges:
            self.judges[key] = choose_judge(self.settings.judge, prior)
        return self.judges[key]

    def _key(self, scene: LoadedTrial, judge: ImageTextJudge | None) -> str:
        """A hash of all that the figures depend on: the scene, the weights that judge it, and how it is looked at."""
        stat, own = scene.checkpoint.stat(), self.settings
        content = [MEANING, stat.st_size, stat.st_mtime_ns, judge_identity(judge)]
        content += [self.samples.identity(scene), self.captions]
        content += [own.views, own.size, own.shape_size, own.samples]
        return hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()


def evaluate_folder(folder: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Evaluate a trial, a sweep or an experiment, and return the report's folder.

    Raises ConfigError for a wrong setting or a folder without trials.
    """
    folder = Path(folder)
    settings = settings_of(EvaluateSettings, overrides)
    entries = collect(folder)
    out = folder / OUT
    captions = sorted({entry.prompt for entry in entries if entry.prompt})
    device = choose_accelerator(settings.device)
    evaluator = Evaluator(settings, ReferenceSamples(settings.samples), captions, device)
    if settings.judge != "auto":
        evaluator.judge("")  # a wrong name is told before anything is rendered
    runs = []
    for number, entry in enumerate(entries, 1):
        log.info("evaluating %d of %d: %s %s seed %d", number, len(entries), entry.prompt, entry.label, entry.seed)
        runs.append(evaluator.run(entry))
    write_report(Report(folder.resolve().name, settings, runs), out)
    log.info("done: %s", out / "report.html")
    return out


def _all_exist(folder: Path, names: Sequence[str]) -> bool:
    return all((folder / name).is_file() for name in names)
