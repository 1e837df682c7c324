"""Which trials a folder holds: one, those of a sweep, or those of an experiment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from distill3d.config.experiment import ConfigError, load
from distill3d.config.files import leaves
from distill3d.config.yaml_text import parse_yaml
from distill3d.runtime.foreign import read_text
from distill3d.runtime.trial import parsed_settings
from distill3d.sweep.folder import SweepFolder, trial_status
from distill3d.sweep.ledger import Ledger

PROMPT, SEED = "system.prompt_processor.prompt", "seed"
# what differs between any two trials, and is no setting of the experiment
_PLACE = {"name", "description", "tag", "timestamp", "use_timestamp", "exp_root_dir", PROMPT, SEED}


@dataclass(frozen=True)
class Entry:
    """A trial in a comparison. Trials with the same ``settings`` differ in prompt and seed alone."""

    id: str
    trial: Path
    prompt: str
    seed: int
    settings: Mapping[str, str] = field(default_factory=dict)
    status: str = "open"  # done, diverged, failed or open
    error: str = ""

    @property
    def label(self) -> str:
        """The settings by their last names."""
        words = [f"{key.rpartition('.')[2]}={value}" for key, value in self.settings.items()]
        return " ".join(words) or "all"


def collect(folder: Path) -> list[Entry]:
    """The trials of a folder. Raises ConfigError if there is none."""
    if not folder.is_dir():
        raise ConfigError(f"--evaluate {folder}: no such folder; give a trial or a sweep, outputs/NAME/...")
    sweep = SweepFolder(folder)
    if sweep.is_sweep():
        return list(_of_sweep(sweep))
    if (folder / "configs" / "parsed.yaml").is_file():
        return [_of_trial(folder)[0]]
    trials = sorted(path.parents[1] for path in folder.glob("*/configs/parsed.yaml"))
    if not trials:
        raise ConfigError(
            f"--evaluate {folder}: neither a sweep (sweep.jsonl) nor a trial (configs/parsed.yaml), nor a folder of "
            "trials; give outputs/NAME/TRIAL or outputs/NAME/sweeps/SWEEP"
        )
    return _compared(trials)


def _of_sweep(sweep: SweepFolder) -> Iterable[Entry]:
    errors: dict[str, str] = {}
    planned: dict[str, dict[str, Any]] = {}
    for record in Ledger(sweep.ledger).records():
        if record.get("event") == "planned":
            planned.setdefault(record["run"], record)
        elif record.get("event") == "failed":
            errors[record["run"]] = str(record.get("error", ""))
    for run, record in planned.items():
        experiment = load(sweep.config, record["overrides"], check=False).experiment
        status: str = sweep.status(run)
        if status == "open" and run in errors:
            status = "failed"
        settings = {key: value for key, value in record["case"].items() if key not in (PROMPT, SEED)}
        error = errors[run] if status == "failed" else ""
        yield Entry(run, sweep.trial(run), experiment.prompt, experiment.seed, settings, status, error)


def _of_trial(trial: Path) -> tuple[Entry, dict[str, Any]]:
    try:
        experiment = load(trial / "configs" / "parsed.yaml", check=False).experiment
    except ConfigError as error:
        text = _prompt_of(trial)
        return Entry(trial.name, trial, text, 0, status="failed", error=str(error)), {}
    settings = {key: value for key, value in leaves(parsed_settings(experiment)) if key not in _PLACE}
    return Entry(trial.name, trial, experiment.prompt, experiment.seed, status=trial_status(trial)), settings


def _prompt_of(trial: Path) -> str:
    """The prompt of a configuration that no longer loads; empty if it is no YAML at all."""
    try:
        content = parse_yaml(read_text(trial / "configs" / "parsed.yaml", "YAML"))
        return str(content["system"]["prompt_processor"]["prompt"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return ""


def _compared(trials: list[Path]) -> list[Entry]:
    """Trials of one experiment: their settings are those in which they differ."""
    read = [_of_trial(trial) for trial in trials]
    whole = [settings for entry, settings in read if not entry.error]
    keys = list(dict.fromkeys(key for settings in whole for key in settings))
    differing = [key for key in keys if len({repr(settings.get(key)) for settings in whole}) > 1]
    return [
        replace(entry, settings={key: str(settings[key]) for key in differing if key in settings})
        for entry, settings in read
    ]
