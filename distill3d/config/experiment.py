"""Experiments from YAML: load, merge, resolve and check. Nothing is written, nothing is fetched."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from distill3d.config.check import ConfigError, build, coerce, nearest
from distill3d.config.files import (
    SettingsLayer,
    escape_texts,
    find_config,
    merge,
    missing_settings,
    origin,
    read_layers,
    refuse_what_cannot_be_written,
    settings,
)
from distill3d.config.registry import is_imported, make
from distill3d.config.resolvers import resolve
from distill3d.config.schema import check_parts, prune
from distill3d.config.threestudio import is_foreign, translate
from distill3d.config.yaml_text import is_text_key
from distill3d.runtime.names import safe_name

__all__ = ["ConfigError", "Experiment", "build", "find_config", "load", "load_layers"]


@dataclass
class Experiment:
    """One experiment, every interpolation resolved. ``system`` and ``data`` hold plain settings for their types."""

    name: str = ""  # the folder of its trials; empty: the config's file name
    description: str = ""
    tag: str = ""  # the trial's folder, before the timestamp; empty: the prompt
    seed: int = 0
    use_timestamp: bool = True
    timestamp: str = ""  # set when a trial begins
    exp_root_dir: str = "outputs"
    resume: str | None = None
    data_type: str = "random-camera-datamodule"
    data: dict[str, Any] = field(default_factory=dict)
    system_type: str = "dreamfusion-system"
    system: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    checkpoint: dict[str, Any] = field(default_factory=dict)
    viewer: dict[str, Any] = field(default_factory=dict)  # enable: true shows the scene in a browser while it trains

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed={self.seed} must be between 0 and {2**32 - 1}")
        if not self.exp_root_dir.strip():
            raise ValueError("exp_root_dir is empty: give the folder for results, such as outputs")

    @property
    def prompt(self) -> str:
        return str((self.system.get("prompt_processor") or {}).get("prompt") or "")

    def make(self, kind: Literal["system", "data"]) -> Any:
        """The system or the data module, with its checked settings and the seed."""
        return make(kind, getattr(self, f"{kind}_type"), getattr(self, kind), kind, seed=self.seed)


@dataclass(frozen=True)
class Loaded:
    """An experiment, the merged settings that it was read from, unresolved, and the file."""

    experiment: Experiment
    raw: dict[str, Any]
    path: Path


def load(config: str | Path, overrides: Sequence[str] = (), check: bool = True) -> Loaded:
    """The experiment of a YAML with ``key=value`` arguments, checked against every type that it names.

    Raises ConfigError in one line that says which setting is wrong, what is expected, and where it was given.
    """
    return load_layers(read_layers(config, overrides), find_config(config), check)


def load_layers(layers: Sequence[SettingsLayer], path: Path, check: bool = True) -> Loaded:
    """`load`, from layers that were read before."""
    raw, origins = merge(layers)
    with _saying_where(origins):
        refuse_what_cannot_be_written(raw)
        experiment = _experiment(copy.deepcopy(raw), path.stem)
        if check:
            from distill3d.config.validate import check_experiment  # imports Lightning, so only where it is needed

            check_experiment(experiment)
    return Loaded(experiment, raw, path)


def check_early(config: str | Path, overrides: Sequence[str], parts: bool = False) -> None:
    """What `load` finds without importing torch: files, arguments, and settings outside of the registered types.

    With ``parts``, after `import_extensions`, also what it finds without Lightning: settings of the types within one of
    our systems. Raises ConfigError, as `load` does.
    """
    raw, origins = merge(read_layers(config, overrides))
    with _saying_where(origins):
        refuse_what_cannot_be_written(raw)
        content = _with_defaults(copy.deepcopy(raw))
        if not is_foreign(content):
            _check_names(content)
            if parts and not is_imported("system", content["system_type"]):
                check_parts(content["system"])


@contextmanager
def _saying_where(origins: dict[str, str]) -> Iterator[None]:
    """Add to a ConfigError where its setting was given."""
    try:
        yield
    except ConfigError as error:
        source = origin(error.setting, origins)
        raise ConfigError(f"{error} [{source}]" if source else str(error), error.setting) from error


def _experiment(content: dict[str, Any], file_name: str) -> Experiment:
    content = translate(_with_defaults(content))
    _check_names(content)
    content = prune(content)
    _refuse_missing(content)
    experiment = build(Experiment, resolve(escape_texts(content)))
    experiment.name = safe_name(experiment.name) or safe_name(file_name)
    experiment.tag = safe_name(experiment.tag) or safe_name(experiment.prompt)
    return experiment


def _with_defaults(content: dict[str, Any]) -> dict[str, Any]:
    """Content with every section, each of which is a mapping."""
    blank = Experiment()
    content = {key: value for key, value in content.items() if value is not None}
    content = {key: getattr(blank, key) for key in ("data_type", "data", "system_type", "system")} | content
    for key in ("data", "system", "trainer", "checkpoint", "viewer"):
        content[key] = coerce(content.get(key) or {}, dict[str, Any], key)
    for key in ("data_type", "system_type"):
        coerce(content[key], str, key)
    return content


def _check_names(content: dict[str, Any]) -> None:
    """A top-level key that does not exist is often one from further down, so look there too."""
    valid = Experiment.__dataclass_fields__
    for key in content:
        if key == "sweep":
            raise ConfigError("sweep: this config describes many runs; add --sweep to the command", "sweep")
        if key not in valid:
            deeper = next((name for name in settings(content) if name.endswith(f".{key}")), None)
            hint = f"did you mean {deeper!r}?" if deeper else nearest(str(key), valid)
            raise ConfigError(f"{key} is not a setting; {hint}", str(key))


def _refuse_missing(content: dict[str, Any]) -> None:
    missing = missing_settings(content)
    if not missing:
        return
    setting = missing[0]
    if is_text_key(setting.rpartition(".")[2]):
        raise ConfigError(f'the prompt is missing: give {setting}="a hamburger", for example', setting)
    raise ConfigError(f"{', '.join(missing)}: missing, give a value, such as {setting}=...", setting)
