"""Which runs a sweep has: the product of its axes, from ``key=value`` arguments and a config's ``sweep:`` block."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill3d.config.check import ConfigError, check_keys
from distill3d.config.files import NAME_KEYS
from distill3d.config.yaml_text import is_text_key
from distill3d.sweep.values import split_values

Case = dict[str, str]  # setting -> its value as the command line takes it
_BLOCK = ("grid", "zip", "cases")


@dataclass(frozen=True)
class Axes:
    """``fixed`` arguments hold for every run; a run takes one row of each axis."""

    fixed: tuple[str, ...]
    axes: tuple[tuple[Case, ...], ...]

    def cases(self) -> Iterator[Case]:
        """Every combination, the last axis fastest."""
        for rows in itertools.product(*self.axes):
            yield {key: value for row in rows for key, value in row.items()}

    def __len__(self) -> int:
        total = 1
        for axis in self.axes:
            total *= len(axis)
        return total


def read_axes(overrides: Sequence[str], block: Mapping[str, Any] | None = None) -> Axes:
    """Axes of the block, then of the arguments; an argument replaces an axis of the block's grid.

    Raises ConfigError for an empty list, a value given twice, or a setting that two axes have.
    """
    fixed, swept = [], {}
    for argument in overrides:
        key, separator, text = argument.partition("=")
        values = split_values(key, text) if separator and key not in NAME_KEYS else [text]
        if len(values) == 1 and not text.startswith("@"):
            fixed.append(argument)
        else:
            swept[key] = values
    given = {argument.partition("=")[0] for argument in fixed} | set(swept)
    axes = [*_block_axes(block or {}, given), *(_axis(key, values) for key, values in swept.items())]
    _refuse_overlap(axes)
    return Axes(tuple(fixed), tuple(axes))


def _block_axes(block: Mapping[str, Any], given: set[str]) -> Iterator[tuple[Case, ...]]:
    check_keys(block, _BLOCK, "sweep")
    for key, values in _mapping(block.get("grid"), "sweep.grid").items():
        texts = _texts(key, values, "sweep.grid")
        if key not in given:
            yield _axis(key, texts)
    for name, rows in (("zip", _zip_rows(block.get("zip"))), ("cases", _case_rows(block.get("cases")))):
        both = given & {key for row in rows for key in row}
        if both:
            setting = sorted(both)[0]
            raise ConfigError(f"{setting} is both an argument and in sweep.{name}; remove one", setting)
        if rows:
            yield tuple(rows)


def _zip_rows(content: Any) -> list[Case]:
    columns = {key: _texts(key, values, "sweep.zip") for key, values in _mapping(content, "sweep.zip").items()}
    lengths = {key: len(values) for key, values in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key}: {length}" for key, length in lengths.items())
        raise ConfigError(f"sweep.zip: the lists must be equally long, and are not ({listed})", "sweep.zip")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _case_rows(content: Any) -> list[Case]:
    if content is None:
        return []
    if not isinstance(content, list) or not content:
        raise ConfigError("sweep.cases must be a list of mappings of settings, with at least one", "sweep.cases")
    rows = [_mapping(case, f"sweep.cases[{i}]") for i, case in enumerate(content)]
    return [{key: as_text(key, value) for key, value in row.items()} for row in rows]


def _mapping(content: Any, where: str) -> Mapping[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{where} must map settings, by their full names, to values", where)
    return content


def _texts(key: str, values: Any, where: str) -> list[str]:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{where}: {key}={values!r} must be a list with at least one value", f"{where}.{key}")
    return [as_text(key, value) for value in values]


def as_text(key: str, value: Any) -> str:
    """A value as the command line takes it: prompts verbatim, others as JSON, which is YAML."""
    if is_text_key(key.rpartition(".")[2]) and isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _axis(key: str, values: Sequence[str]) -> tuple[Case, ...]:
    for i, value in enumerate(values):
        if value in values[:i]:
            raise ConfigError(f"{key}: {value} is listed twice; remove one", key)
    return tuple({key: value} for value in values)


def _refuse_overlap(axes: Sequence[tuple[Case, ...]]) -> None:
    seen: set[str] = set()
    for axis in axes:
        keys = {key for row in axis for key in row}
        for key in sorted(keys & NAME_KEYS):
            raise ConfigError(f"{key} cannot be swept: a sweep names the folders of its runs", key)
        for key in sorted(keys & seen):
            raise ConfigError(f"{key} is swept twice; remove one", key)
        seen |= keys
