"""Where settings come from: a YAML, the bases that it names, and ``key=value`` arguments, merged in that order."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distill3d.config.check import ConfigError, T, build, join, nearest
from distill3d.config.yaml_text import MISSING, escape, is_text_key, parse_value, parse_yaml
from distill3d.runtime.foreign import ForeignFileError, read_text

PACKAGE = Path(__file__).resolve().parents[1]
PROJECT = PACKAGE.parent  # the checkout; for an installed wheel the folder of all packages
IN_CHECKOUT = not (PACKAGE / "configs").is_dir()  # a wheel has the configs inside the package
SHIPPED_CONFIGS = PROJECT / "configs" if IN_CHECKOUT else PACKAGE / "configs"
EMBEDDED_WEIGHTS = PACKAGE / "embedded" / "weights"
# names and paths: taken verbatim from the command line, but their interpolations still count
NAME_KEYS = {"name", "tag", "description", "timestamp", "exp_root_dir", "resume"}
_OVERRIDE = re.compile(r"(?P<key>\w[\w-]*(?:\.\w[\w-]*)*)=(?P<text>.*)", re.DOTALL)


@dataclass(frozen=True)
class SettingsLayer:
    """Some settings, and what they were read from."""

    content: dict[str, Any]
    source: str


def read_layers(config: str | Path, overrides: Sequence[str]) -> list[SettingsLayer]:
    """The chain of bases, the config itself, then one layer for each argument. Reads files, writes none.

    Raises ConfigError for a missing or malformed file, a circular base, or a malformed argument.
    """
    return [*_read_chain(find_config(config), ()), *(parse_override(argument) for argument in overrides)]


def find_config(config: str | Path, beside: Path | None = None) -> Path:
    """A config as a path, else in configs/ of the current folder, then among the shipped ones.

    ``.yaml`` may be left out, and ``configs/`` before the name of a shipped one may stay. Raises ConfigError.
    """
    known_in = (Path("configs"), SHIPPED_CONFIGS)
    folders = [*([beside] if beside else []), Path(), *known_in, SHIPPED_CONFIGS.parent]
    for folder in folders:
        for name in (Path(config), Path(f"{config}.yaml")):
            if (folder / name).is_file():
                return folder / name
    known = {path.relative_to(folder).as_posix() for folder in known_in for path in folder.rglob("*.yaml")}
    raise ConfigError(f"--config {config}: no such file, also not in configs/; {nearest(str(config), known)}")


def parse_override(argument: str) -> SettingsLayer:
    """``a.b=value`` as nested settings; prompts are taken verbatim, other values are YAML; ``@file.txt`` holds one."""
    match = _OVERRIDE.fullmatch(argument)
    if match is None:
        raise ConfigError(f"argument {argument!r} is not a setting; write it as key=value, such as data.batch_size=2")
    path, text = match["key"].split("."), match["text"]
    try:
        if path[-1] in NAME_KEYS and len(path) == 1:
            value: Any = text if text not in ("null", "None") else None
        else:
            value = parse_value(path[-1], _only_value(match["key"], text) if text.startswith("@") else text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{match['key']}={text!r} is not a YAML value: {_yaml_reason(error)}", match["key"]
        ) from error
    for key in reversed(path):
        value = {key: value}
    return SettingsLayer(value, f"argument {argument.split('=')[0]}=...")


def settings_of(cls: type[T], overrides: Sequence[str]) -> T:
    """An instance of a dataclass from ``key=value`` arguments alone. Raises ConfigError."""
    return build(cls, merge([parse_override(argument) for argument in overrides])[0])


def values_of_file(key: str, text: str) -> list[str]:
    """The lines of ``@file.txt`` that are not blank and do not begin with ``#``. Raises ConfigError without any."""
    try:
        content = read_text(Path(text[1:]), "values, one a line", "a value that begins with @ names a file", key)
    except ForeignFileError as error:
        raise ConfigError(str(error), key) from error
    lines = (line.strip() for line in content.splitlines())
    values = [line for line in lines if line and not line.startswith("#")]
    if not values:
        raise ConfigError(f"{key}={text}: the file holds no value; write one a line", key)
    return values


def _only_value(key: str, text: str) -> str:
    values = values_of_file(key, text)
    if len(values) > 1:
        raise ConfigError(f"{key}={text}: the file holds {len(values)} values; add --sweep for a run of each", key)
    return values[0]


def merge(layers: Sequence[SettingsLayer]) -> tuple[dict[str, Any], dict[str, str]]:
    """All layers as one, mappings key by key, later ones winning; and the source of each setting by its full name."""
    content: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        _merge_into(content, layer.content)
        origins.update({setting: layer.source for setting, _ in leaves(layer.content)})
    return content, origins


def leaves(content: dict[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting that is no mapping, and every empty mapping, with its full name."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, join(where, str(key)))
        else:
            yield join(where, str(key)), value


def settings(content: dict[str, Any], where: str = "") -> Iterator[str]:
    """The full name of every setting, mappings included."""
    for key, value in content.items():
        yield join(where, str(key))
        if isinstance(value, dict):
            yield from settings(value, join(where, str(key)))


def origin(setting: str, origins: dict[str, str]) -> str:
    """Where a setting was given: itself, what holds it, or something in it; empty if nowhere."""
    name = setting.split("[")[0]
    while name:
        if name in origins:
            return origins[name]
        inside = [source for key, source in origins.items() if key.startswith(name + ".")]
        if inside:
            return inside[-1]
        name = name.rpartition(".")[0]
    return ""


def escape_texts(content: Any) -> Any:
    """A copy in which prompts hold no interpolation, whatever their text."""
    if isinstance(content, dict):
        return {
            key: escape(value) if is_text_key(key) and isinstance(value, str) else escape_texts(value)
            for key, value in content.items()
        }
    return [escape_texts(value) for value in content] if isinstance(content, list) else content


def refuse_what_cannot_be_written(content: dict[str, Any]) -> None:
    """Raise ConfigError for text that is no Unicode (bytes of another encoding in an argument) or holds a zero byte."""
    for setting, value in leaves(content):
        try:
            text = json.dumps(value, ensure_ascii=False, default=str)
            text.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"{setting}={value!a} is not text in UTF-8; write it in UTF-8", setting) from error
        if "\\u0000" in text.replace("\\\\", ""):
            raise ConfigError(f"{setting}={value!a} holds a zero byte; remove it", setting)


def missing_settings(content: dict[str, Any]) -> list[str]:
    return [setting for setting, value in leaves(content) if value == MISSING]


def _read_chain(path: Path, below: tuple[Path, ...]) -> list[SettingsLayer]:
    if path.resolve() in below:
        chain = " -> ".join(p.name for p in (*below, path))
        raise ConfigError(f"base in {path} is circular: {chain}", "base")
    content = _read_file(path)
    base = content.pop("base", None)
    if base is None:
        return [SettingsLayer(content, str(path))]
    if not isinstance(base, str):
        raise ConfigError(f"base={base!r} in {path} must be the name of one YAML file", "base")
    try:
        base_path = find_config(base, beside=path.parent)
    except ConfigError as error:
        raise ConfigError(f"base={base!r} in {path}: {str(error).partition(': ')[2]}", "base") from error
    return [*_read_chain(base_path, (*below, path.resolve())), SettingsLayer(content, str(path))]


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = parse_yaml(read_text(path, "YAML"))
    except ForeignFileError as error:
        raise ConfigError(str(error)) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {_yaml_reason(error)}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, not {type(content).__name__}")
    return content


def _yaml_reason(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def _merge_into(content: dict[str, Any], top: dict[str, Any]) -> None:
    for key, value in top.items():
        if isinstance(value, dict) and isinstance(content.get(key), dict):
            _merge_into(content[key], value)
        else:
            content[key] = copy.deepcopy(value)
