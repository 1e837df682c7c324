"""The benchmarks' tables and pictures anew: python benchmarks/results.py --assets MESHES [--only NAME ...].

The steps below run one after the other, each a benchmark's own command. A step that ran whole under the present weights
is not run again, and what it wrote gets its fingerprint; each benchmark resumes by itself where it was stopped. Last,
the claims of the three papers stand in one table, benchmarks/results/claims.md. What ran whole in this checkout is
noted in outputs/results.json: ``--list`` shows it, and ``--again`` is for a config that changed under the same weights.
Pictures of docs/ that no step names are made by hand.
"""

# ruff: noqa: T201  a benchmark prints

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fingerprint import PROJECT, Fingerprint, commit, record, weights_hash
from paper_claims import write_claims

from distill3d.runtime.files import write_json
from distill3d.runtime.foreign import read_json_mapping

RESULTS = PROJECT / "benchmarks" / "results"
CLAIMS = "benchmarks/results/claims.md"
STOPPED = 130  # the exit status after Ctrl-C
ASSETS = "{assets}"  # in a command: the folder of meshes


@dataclass(frozen=True)
class Step:
    """A benchmark's command, and the files in the checkout that it writes. ``minutes``: about, on two cores."""

    name: str
    command: tuple[str, ...]
    files: tuple[str, ...]
    config: str
    minutes: int
    weights: bool = True  # whether the embedded weights have a part in it


def _results(*names: str) -> tuple[str, ...]:
    return tuple(f"benchmarks/results/{name}" for name in names)


def _exact_k(name: str, *settings: str) -> Step:
    """LMC-SDS without k under the exact prior: is it the rule or b_psi that lets the finest patterns grow?"""
    objects = ("--objects", "car", "chair", "duck", "robot")
    about = ("--conditions", "camera", "--rules", "lmc-sds", "--name", name, "--against", "shipped")
    command = ("benchmarks/exact.py", "--jobs", "2", *objects, *about, "--set", "system.guidance.k=0", *settings)
    files = _results(f"exact-{name}.md", f"exact-{name}.jpg")
    return Step(f"exact-{name}", command, files, "benchmarks/exact.py", 3, weights=False)


def _shipped_k(name: str, *settings: str) -> Step:
    """The same under the embedded prior, for every twelfth noun."""
    to = f"benchmarks/results/{name}"
    about = ("--config", "dreamfusion-lmc.yaml", "--every", "12", "--jobs", "2", "--assets", ASSETS, "--results", to)
    against = ("--against", "benchmarks/results/text_to_3d.json")
    command = ("benchmarks/text_to_3d.py", *about, *against, "system.guidance.k=0", *settings)
    files = _results(*(f"{name}/{file}" for file in ("text_to_3d.md", "text_to_3d.jpg", "against.md")))
    return Step(name, command, files, "dreamfusion-lmc.yaml", 7)


STEPS = (
    Step(
        "exact",
        ("benchmarks/exact.py", "--jobs", "2"),
        _results("exact.md", "exact.jpg"),
        "benchmarks/exact.py",
        60,
        weights=False,
    ),
    Step(
        "exact-rules",
        (
            *("benchmarks/exact.py", "--jobs", "2", "--objects", "car", "chair", "--among-all"),
            *("--conditions", "camera"),
            *("--rules", "sds", "lmc-sds", "csd", "nfsd", "vsd", "ism", "sdi"),
            *("--scales", "1", "10", "--name", "rules"),
        ),
        _results("exact-rules.md", "exact-rules.jpg"),
        "benchmarks/exact.py",
        30,
        weights=False,
    ),
    Step(
        "exact-scales",
        (
            *("benchmarks/exact.py", "--jobs", "2", "--among-all", "--name", "scales"),
            *("--objects", "car", "chair", "duck", "--conditions", "camera"),
            *("--rules", "sds", "lmc-sds", "--scales", "1", "3", "10", "20", "50", "100"),
        ),
        _results("exact-scales.md", "exact-scales.jpg"),
        "benchmarks/exact.py",
        30,
        weights=False,
    ),
    Step(
        "text-to-3d",
        (
            *("benchmarks/text_to_3d.py", "--config", "dreamfusion-lmc.yaml", "--every", "1", "--jobs", "2"),
            *("--assets", ASSETS, "--picture", "docs/pictures/text-to-3d.jpg"),
            *("--chosen", "a bicycle", "a wizard", "an apple next to a banana", "a chair"),
        ),
        (*_results("text_to_3d.md", "text_to_3d.jpg"), "docs/pictures/text-to-3d.jpg"),
        "dreamfusion-lmc.yaml",
        65,
    ),
    Step(
        "pairs",
        (
            *("benchmarks/text_to_3d.py", "--config", "dreamfusion-lmc.yaml", "--pairs", "16", "--jobs", "2"),
            *("--assets", ASSETS, "--results", "benchmarks/results/pairs"),
        ),
        _results("pairs/text_to_3d.md", "pairs/text_to_3d.jpg"),
        "dreamfusion-lmc.yaml",
        12,
    ),
    Step(
        "splats",
        (
            *("benchmarks/text_to_3d.py", "--config", "splats-lmc.yaml", "--every", "6", "--jobs", "2"),
            *("--assets", ASSETS, "--results", "benchmarks/results/splats"),
            *("--against", "benchmarks/results/text_to_3d.json"),
        ),
        _results("splats/text_to_3d.md", "splats/text_to_3d.jpg", "splats/against.md"),
        "splats-lmc.yaml",
        10,
    ),
    Step(
        "splats-exact",
        (
            *("benchmarks/exact.py", "--jobs", "2", "--objects", "car", "chair", "duck", "robot"),
            *("--conditions", "camera", "--rules", "sds", "--name", "splats", "--against", "shipped"),
            *("--set", "system.scene_type=splats"),
        ),
        _results("exact-splats.md", "exact-splats.jpg"),
        "benchmarks/exact.py",
        5,
        weights=False,
    ),
    _exact_k("k0"),
    _exact_k("k0-jacobian", "system.guidance.corrective_jacobian=true"),
    _shipped_k("k0"),
    _shipped_k("k0-jacobian", "system.guidance.corrective_jacobian=true"),
    _shipped_k("k0-spectral", "system.guidance.corrective=spectral"),
    Step(
        "running-corrective",
        ("benchmarks/running_corrective.py",),
        _results("running_corrective.md"),
        "dreamfusion-lmc.yaml",
        10,
    ),
    _shipped_k("k0-running", "system.guidance.corrective=outputs/running-corrective/b_psi"),
    Step(
        "lmc-vs-sds",
        ("benchmarks/lmc_vs_sds.py", "--first", "--jobs", "2"),
        _results(
            "lmc_vs_sds.md",
            "lmc_vs_sds.jpg",
            *(f"lmc_vs_sds-{suite}.png" for suite in ("2d", "3d", "64", "noise-2d", "noise-3d", "translation")),
        ),
        "benchmarks/lmc_vs_sds.py",
        90,
    ),
    Step(
        "ablation",
        ("benchmarks/dreamfusion_ablation.py", "--jobs", "2"),
        _results("dreamfusion_ablation.md", "dreamfusion_ablation.jpg"),
        "dreamfusion-quick.yaml",
        20,
    ),
    Step(
        "edit",
        ("benchmarks/edit.py", "--assets", ASSETS, "--jobs", "2"),
        _results("edit.md", "edit.jpg", "edit_scenes.jpg"),
        "benchmarks/edit.py",
        25,
    ),
    Step("edit-toy", ("benchmarks/edit_toy.py",), _results("edit_toy.png"), "benchmarks/edit_toy.py", 1, weights=False),
    Step("texture-mesh", ("benchmarks/texture_mesh.py",), ("docs/pictures/texture-mesh.jpg",), "texture-mesh.yaml", 3),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", help="the folder of meshes that the prior was taught, with index.csv")
    parser.add_argument("--only", nargs="+", default=None, choices=[step.name for step in STEPS], metavar="NAME")
    parser.add_argument("--again", action="store_true", help="also what ran whole under these weights")
    parser.add_argument("--list", action="store_true", help="run nothing")
    parser.add_argument("--done", type=Path, default=PROJECT / "outputs" / "results.json", help="what ran whole")
    given = parser.parse_args(arguments)
    chosen = [step for step in STEPS if given.only is None or step.name in given.only]
    waiting = [step for step in chosen if given.again or not is_done(step, given.done)]
    if given.list:
        for step in chosen:
            print(f"{step.name:18} {'waiting' if step in waiting else 'done':7} {' '.join(step.command)}")
        return 0
    if given.assets is None and any(ASSETS in step.command for step in waiting):
        parser.error("--assets is missing: the folder of meshes that the prior was taught")
    if len(waiting) < len(chosen):
        print(f"done before: {' '.join(step.name for step in chosen if step not in waiting)}", flush=True)
    for number, step in enumerate(waiting, 1):
        left = sum(other.minutes for other in waiting[number - 1 :])
        print(f"[{number}/{len(waiting)}] {step.name}; about {left} min for what is left", flush=True)
        try:
            run(step, given.assets or "", given.done)
        except (KeyboardInterrupt, subprocess.CalledProcessError) as error:
            status = error.returncode if isinstance(error, subprocess.CalledProcessError) else STOPPED
            print(f"{step.name} {'was stopped' if status == STOPPED else 'failed'}; the same command resumes with it")
            return status
    write_claims(RESULTS)
    record([CLAIMS], Fingerprint(weights_hash(), "benchmarks/paper_claims.py", commit()))
    return 0


def run(step: Step, assets: str, done: Path) -> None:
    """Run a step whole, then note it and the fingerprints. Raises CalledProcessError where the benchmark fails."""
    begun = time.monotonic()
    command = [assets if word == ASSETS else word for word in step.command]
    subprocess.run([sys.executable, *command], cwd=PROJECT, check=True)
    print(f"{step.name}: {time.monotonic() - begun:.0f} s", flush=True)
    made = Fingerprint(weights_hash() if step.weights else None, step.config, commit())
    record([name for name in step.files if (PROJECT / name).is_file()], made)
    write_json(done, {**_read(done), step.name: asdict(made)})


def is_done(step: Step, done: Path) -> bool:
    """Whether it ran whole under the present weights, or, where they have no part in it, at all."""
    entry = _read(done).get(step.name)
    return entry is not None and entry["weights"] == (weights_hash() if step.weights else None)


def _read(done: Path) -> dict[str, dict[str, str | None]]:
    return read_json_mapping(done, "remove it, and all is run again") if done.is_file() else {}


if __name__ == "__main__":
    raise SystemExit(main())
