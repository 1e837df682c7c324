"""The parts of gpu.py: each gives names of rows, and what measures them. Imported by it alone."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

import torch

from distill3d.cli import main as launch
from distill3d.config.experiment import load
from distill3d.config.registry import find

Row = tuple[str, Callable[[], dict[str, Any]]]
ROOT = Path(__file__).resolve().parent.parent
# of a dry run: some that the embedded model serves, and each kind of real model
TINY_CONFIGS = (
    *("dreamfusion-quick", "image-to-3d", "image-synthesis", "splats-sd", "zero123"),
    *(f"dreamfusion-{name}" for name in ("sd", "sdxl", "sd3", "flux", "if", "mvdream")),
)
OTHER_MODELS = {  # that docs/models.md names for a config beside its own
    "dreamfusion-sd": "stable-diffusion-2",
    "dreamfusion-sdxl": "pixart-sigma",
    "dreamfusion-sd3": "z-image",
}


class Told(Protocol):
    """Of gpu.Settings what the parts read."""

    @property
    def out(self) -> Path: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def tiny(self) -> bool: ...
    @property
    def left(self) -> float: ...


def rows_of(part: str, told: Told) -> Iterator[Row]:
    """The rows of a part, in order."""
    parts = {
        "a": marked_tests,
        "b": configs,
        "c": guidance_steps,
        "d": whole_steps,
        "e": embedded,
        "f": training,
        "g": grids,
    }
    return parts[part](told)


def marked_tests(told: Told) -> Iterator[Row]:
    """(a) pytest -m cuda; of one file in a dry run."""
    where = ["tests/test_render_sampler.py"] if told.tiny else ["tests"]

    def run() -> dict[str, Any]:
        command = [sys.executable, "-m", "pytest", "-m", "cuda", "-p", "no:cacheprovider", *where]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        print(done.stdout[-4000:], done.stderr[-2000:])  # noqa: T201  to log.txt
        counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)}
        return {"exit_status": done.returncode, **counts}

    yield "pytest -m cuda", run


def guidance_steps(told: Told) -> Iterator[Row]:
    """(c) A guidance step at the shapes of SD 2.1 and SDXL, eager and compiled."""
    import prior_step as bench

    from distill3d.priors.settings import PriorConfig

    rounds = 1 if told.tiny else 10

    def measured(size: str, compiled: bool) -> dict[str, Any]:
        torch.manual_seed(0)
        prior = bench.random_prior(size, PriorConfig(compile=compiled), told.device)
        peak = bench.peak_flops(told.device, prior.dtype)
        costs = bench.guidance_step(prior, told.device, rounds)
        needed, whole = bench.SHAPES[size][2], costs["guidance step"]
        row: dict[str, Any] = {f"{stage}, ms": cost.milliseconds for stage, cost in costs.items()}
        row |= {"peak GB": whole.peak_bytes / 1e9, "TFLOP counted": whole.flops / 1e12}
        row |= {"TFLOP/s": whole.flops / whole.milliseconds / 1e9, "matrix product TFLOP/s": peak / 1e12}
        if needed:
            row["needed share of counted"] = needed["guidance step"] * 1e12 / whole.flops
            row["needed share of peak"] = needed["guidance step"] * 1e12 / (whole.milliseconds / 1000.0) / peak
        release()
        return row

    for size, title in (("tiny" if told.tiny else "base", "SD 2.1"), ("tiny-sdxl" if told.tiny else "sdxl", "SDXL")):
        for compiled in (False,) if told.tiny else (False, True):
            how = "compiled" if compiled else "eager"
            yield f"{title}, {how}", lambda size=size, compiled=compiled: measured(size, compiled)


def whole_steps(told: Told) -> Iterator[Row]:
    """(d) Where the time of a text-to-3D step goes, at batch 1 and 4."""
    import prior_step as bench

    from distill3d.priors.settings import PriorConfig

    def measured(batch: int) -> dict[str, Any]:
        torch.manual_seed(0)
        prior = bench.random_prior("tiny" if told.tiny else "base", PriorConfig(), told.device)
        samples, scene = (16, SMALL_SCENE) if told.tiny else (512, ())
        step = bench.WholeStep(prior, told.device, samples, batch, scene)
        stages = bench.split_step(step, 1 if told.tiny else 20)
        total = sum(stages.values())
        outside = 1.0 - sum(stages[name] for name in bench.INSIDE) / total
        cost = bench.measure(step, told.device, 1 if told.tiny else 20)
        split = {f"{stage}, ms": value for stage, value in stages.items()}
        row = {**split, "sum, ms": total, "without waiting, ms": cost.milliseconds, "peak GB": cost.peak_bytes / 1e9}
        release()
        return row | {"outside network and encoder": outside, "at most .15": outside <= 0.15}

    for batch in (1, 4):
        yield f"batch {batch}", lambda batch=batch: measured(batch)


def embedded(told: Told) -> Iterator[Row]:
    """(e) dreamfusion.yaml from its text to its GLB."""

    def run() -> dict[str, Any]:
        steps = ["trainer.max_steps=3", *LITTLE] if told.tiny else []
        with tempfile.TemporaryDirectory() as scratch:
            start = time.perf_counter()
            metrics, trial = trained(told, "dreamfusion.yaml", scratch, steps)
            seconds = time.perf_counter() - start
            for file in ("model.glb", "views.png"):
                found = [path for path in (trial / "save").rglob(f"*{file}") if path.stat().st_size < 16 << 20]
                if found:
                    shutil.copy(found[0], told.out / file)
        each = {f"{stage}, s/step": value for stage, value in metrics["seconds_per_step"].items()}
        return {"text to GLB, s": seconds, "steps": metrics["steps"], **each, "peak MB": metrics["peak_memory_mb"]}

    yield "dreamfusion.yaml", run


def configs(told: Told) -> Iterator[Row]:
    """(b) Three steps of every shipped config; what needs data gets views of a small box, real models tiny ones."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        os.environ["DISTILL3D_CACHE"] = str(scratch / "cache")
        names = [path.stem for path in sorted((ROOT / "configs").glob("*.yaml"))]
        # edits start from the reconstruction, which comes after them in the alphabet
        runs = [(name, "") for name in sorted(names, key=lambda name: name.startswith("nerf-edit"))]
        for name, kind in (*runs, *OTHER_MODELS.items()):
            if not told.tiny or name in TINY_CONFIGS:
                title = f"{name}.yaml, {kind}" if kind else f"{name}.yaml"
                yield title, lambda name=name, kind=kind: three_steps(told, name, scratch, kind)


def three_steps(told: Told, name: str, scratch: Path, kind: str = "") -> dict[str, Any]:
    """Train a config for three steps, with its pictures and its mesh; under a model of another kind if one is named."""
    little = (
        [
            *LITTLE,
            "data.width=16",
            "data.height=16",
            "data.resolution_milestones=[]",
            "data.batch_size=4",
            "data.reference_size=16",
        ]
        if told.tiny
        else LITTLE
    )
    needed = settings_for(name, scratch, kind)
    own = [setting for setting in little if setting.partition("=")[0] in known_settings(name, needed)] + needed
    metrics, _ = trained(told, f"{name}.yaml", str(scratch / "out" / f"{name}{kind}"), ["trainer.max_steps=3", *own])
    release()
    warnings = "; ".join(metrics["warnings"])[:200]
    return {"steps": metrics["steps"], "s/step": metrics["seconds_per_step"]["total"], "warnings": warnings}


def settings_for(name: str, scratch: Path, other_kind: str = "") -> list[str]:
    """The data and the tiny model that a config needs to run without a download."""
    from posed_scenes import make_data_set
    from tiny_pipelines import TinyFolders, tiny_settings, zero123

    views = scratch / "views"
    if not views.is_dir():
        make_data_set(views, size=32)
    picture = next(views.rglob("*.png"))
    text, own = (ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8"), []
    if name in ("image-to-3d", "zero123"):
        own.append(f"data.image={picture}")
    if "root: ???" in text or name.startswith("nerf-edit"):
        own.append(f"data.root={views}")
    if name.startswith("nerf-edit"):
        own.append(f"system.source_checkpoint={next((scratch / 'out' / 'nerf-reconstruction').rglob('last.ckpt'))}")
        own += ["system.prompt_processor.prompt=a fox", "system.prompt_processor.source_prompt=a cat"]
    if "-exact" in name:
        own.append(f"system.prior.views={views}")
    kinds = {
        "sdxl": "sdxl",
        "sd3": "sd3",
        "flux": "flux",
        "if": "deepfloyd-if",
        "sd": "stable-diffusion",
        "mvdream": "mvdream",
    }
    kind = other_kind or kinds.get(name.rpartition("-")[2])
    if name == "zero123":
        folder = scratch / "zero123"
        prior = {"pretrained_model_name_or_path": folder if folder.is_dir() else zero123(folder), "image_size": 32}
    elif kind is not None:
        prior = {"pretrained_model_name_or_path": TinyFolders(scratch / "tiny")(kind), **tiny_settings(kind)}
        prior |= {"image_size": 32} if kind in ("sd3", "flux") else {}  # their configs ask for more
    else:
        prior = {}
    if kind is not None and "lmc" in name:
        own.append("system.guidance.corrective=none")  # fitting one to random weights would teach nothing
    return own + [f"system.prior.{key}={value}" for key, value in prior.items()]


def known_settings(name: str, needed: list[str]) -> set[str]:
    """The settings that the types of an experiment have, as data.width or system.contact_views."""
    experiment = load(f"{name}.yaml", needed, check=False).experiment
    types: dict[str, Any] = {
        "data": find("data", experiment.data_type),
        "system": find("system", experiment.system_type),
    }
    return {f"{where}.{field.name}" for where, cls in types.items() for field in fields(cls.Config)}


def training(told: Told) -> Iterator[Row]:
    """(f) The embedded model's training, from nothing, for the time that is left."""

    def run() -> dict[str, Any]:
        assets = Path(os.environ.get("ASSETS", ROOT / "shared" / "assets3d"))
        if not (assets / "index.csv").is_file():
            return {"skipped": f"no meshes with an index.csv at {assets}; ASSETS names another folder"}
        few = [
            "data.noun_count=2",
            "data.views_per_mesh=4",
            "data.pair_views=4",
            "data.batch_size=4",
            "system.reading_steps=2",
        ]
        own = [f"data.assets={assets}", *(few if told.tiny else ["data.views_per_mesh=64", "data.pair_views=512"])]
        own.append("trainer.max_steps=2" if told.tiny else f"trainer.max_time={clock(told.left - 45.0)}")
        with tempfile.TemporaryDirectory() as scratch:
            metrics, _ = trained(told, "prior/embedded.yaml", scratch, own)
        steps, seconds = metrics["steps"], metrics["seconds_total"]
        return {"steps": steps, "seconds": seconds, "steps/s, all included": steps / seconds}

    yield "prior/embedded.yaml", run


def grids(told: Told) -> Iterator[Row]:
    """(g) The hash grid of dreamfusion-sd.yaml at the samples of a step, each way that runs here."""
    import grid as bench

    for name, measure in bench.rows(told.device, told.tiny, 1 if told.tiny else 10).items():

        def run(measure: Callable[[], bench.Cost] = measure) -> dict[str, Any]:
            cost = measure()
            release()
            return {"forward, ms": cost.forward_ms, "backward, ms": cost.backward_ms, "peak MB": cost.peak_bytes / 1e6}

        yield name, run


def trained(told: Told, config: str, root: str, settings: list[str]) -> tuple[dict[str, Any], Path]:
    """metrics.json and the folder of a trial. Raises RuntimeError for a launch that failed."""
    accelerator = "gpu" if told.device.type == "cuda" else "cpu"
    usual = [f"exp_root_dir={root}", f"trainer.accelerator={accelerator}", "trainer.enable_progress_bar=false"]
    before = dict(os.environ)
    try:
        status = launch(["--config", config, "--train", *usual, *settings])
    finally:  # a trial tells its children where it is
        os.environ.clear()
        os.environ.update(before)
    if status != 0:
        raise RuntimeError(f"launch.py ended with {status}, see log.txt")
    path = next(Path(root).rglob("metrics.json"))
    return json.loads(path.read_text(encoding="utf-8")), path.parent


def clock(seconds: float) -> str:
    """As Lightning's max_time: days, hours, minutes, seconds; at least ten seconds."""
    whole = max(int(seconds), 10)
    return f"00:{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def release() -> None:
    """Give the memory of a row back before the next."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


SMALL_SCENE = (
    "data.width=8",
    "data.height=8",
    "system.geometry.pos_encoding_config={otype: HashGrid, n_levels: 2, log2_hashmap_size: 8, start_level: null}",
    "system.renderer.occupancy_resolution=4",
)
LITTLE = [
    "data.eval_width=32",
    "data.eval_height=32",
    "data.n_test_views=2",
    "data.n_val_views=1",
    "system.contact_views=2",
    "system.exporter={resolution: 24, mode: vertex, view_size: 16, viewer: false, sharpen: false, fit_count: 0}",
]
