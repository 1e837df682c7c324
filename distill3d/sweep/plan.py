"""From a command line to the runs of a sweep, all checked before the first begins."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill3d.config.experiment import ConfigError, Experiment, load_layers
from distill3d.config.files import SettingsLayer, find_config, merge, parse_override, read_layers
from distill3d.config.yaml_text import dump_yaml
from distill3d.runtime.files import write_atomically
from distill3d.runtime.names import safe_name
from distill3d.runtime.trial import parsed_settings
from distill3d.sweep.cases import Case, read_axes
from distill3d.sweep.folder import SweepFolder
from distill3d.sweep.ledger import Ledger
from distill3d.sweep.weights import frozen_weights

log = logging.getLogger(__name__)

# where a run writes is not what it is: a moved or renamed sweep has the same runs
_PLACE = ("name", "description", "tag", "timestamp", "use_timestamp", "exp_root_dir", "resume")


@dataclass(frozen=True)
class PlannedRun:
    """A run: the hash of its whole configuration and of the weights it reads, and what it has of its own."""

    id: str
    case: Case

    @property
    def overrides(self) -> list[str]:
        return [f"{key}={value}" for key, value in self.case.items()]


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep, in order, and the configuration that they share."""

    folder: SweepFolder
    config_text: str
    runs: tuple[PlannedRun, ...]

    @property
    def name(self) -> str:
        return self.folder.root.name


def make_plan(config: str | Path, overrides: Sequence[str], name: str | None = None) -> Plan:
    """Load and check every run. The name defaults to a hash of the runs, so the same command finds its own ledger.

    Raises ConfigError for whatever is wrong with any of them. Writes nothing.
    """
    path = find_config(config)
    layers, block = _without_block(read_layers(config, ()))
    axes = read_axes(overrides, block)
    layers += [parse_override(argument) for argument in axes.fixed]
    if not axes.axes:
        raise ConfigError("--sweep: no setting has several values; write seed=0,1 or a sweep: block in the YAML")
    runs: dict[str, PlannedRun] = {}
    experiment = None
    for case in axes.cases():
        own = [parse_override(f"{key}={value}") for key, value in case.items()]
        experiment = load_layers([*layers, *own], path).experiment
        run = PlannedRun(run_id(experiment), case)
        if run.id in runs:
            same = _words(runs[run.id].case)
            log.warning("%s is the same run as %s, since some settings do not apply: run once", _words(case), same)
        runs.setdefault(run.id, run)
    assert experiment is not None  # no axis is empty
    if experiment.resume is not None:
        raise ConfigError("resume cannot be set in a sweep: its runs resume automatically", "resume")
    planned = tuple(runs.values())
    root = Path(experiment.exp_root_dir) / experiment.name / "sweeps" / (safe_name(name or "") or _name(planned))
    shared = {**merge(layers)[0], "name": experiment.name}
    return Plan(SweepFolder(root), dump_yaml(shared), planned)


def write_plan(plan: Plan) -> None:
    """Put the plan into the sweep's folder; runs that an earlier call has planned are not planned twice.

    Raises ConfigError if a sweep of this name has another configuration, or was done under other weights.
    """
    folder, ledger = plan.folder, Ledger(plan.folder.ledger)
    if folder.config.is_file() and folder.config.read_text(encoding="utf-8") != plan.config_text:
        raise ConfigError(
            f"--sweep-name {plan.name}: {folder.root} was begun with another configuration; choose another name"
        )
    known = {record["run"]: record["case"] for record in ledger.records() if record.get("event") == "planned"}
    _refuse_other_weights(plan, known)
    folder.root.mkdir(parents=True, exist_ok=True)
    write_atomically(folder.config, plan.config_text)
    if ledger.torn:
        log.warning("%s: %d incomplete line(s) skipped", ledger.path, ledger.torn)
    new = [run for run in plan.runs if run.id not in known]
    ledger.append(*({"event": "planned", "run": run.id, "case": run.case, "overrides": run.overrides} for run in new))


def run_id(experiment: Experiment) -> str:
    """A hash of the resolved configuration, without where and when it runs, and of the frozen weights it reads."""
    settings = {key: value for key, value in parsed_settings(experiment).items() if key not in _PLACE}
    weights = frozen_weights(experiment)
    return _digest({**settings, "weights": weights} if weights else settings, 6)


def _refuse_other_weights(plan: Plan, known: Mapping[str, Case]) -> None:
    """Of two runs of one case under one configuration, the weights differ: a report would take their mean."""
    cases = {_digest(case, 8): run for run, case in known.items()}
    for run in plan.runs:
        if cases.get(_digest(run.case, 8), run.id) != run.id:
            raise ConfigError(
                f"--sweep-name {plan.name}: {plan.folder.root} was begun with other weights of the prior or its "
                "corrective; choose another name"
            )


def _name(runs: Sequence[PlannedRun]) -> str:
    return _digest([run.id for run in runs], 4)


def _digest(content: Any, size: int) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def _words(case: Case) -> str:
    return " ".join(f"{key}={value}" for key, value in case.items())


def _without_block(layers: Sequence[SettingsLayer]) -> tuple[list[SettingsLayer], dict[str, Any]]:
    """The layers without ``sweep:``; of several blocks the last one counts, as it stands nearest to the user."""
    block: dict[str, Any] = {}
    rest = []
    for layer in layers:
        content = dict(layer.content)
        own = content.pop("sweep", None)
        if own is not None:
            if not isinstance(own, dict):
                raise ConfigError(f"sweep={own!r} must hold grid:, zip: or cases: [{layer.source}]", "sweep")
            block = own
        rest.append(SettingsLayer(content, layer.source))
    return rest, block
