"""From plain mappings to checked dataclasses: unknown keys, wrong types and bad values become one clear line."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from distill3d.config.schedule import Scheduled, check_schedule, is_finite_number

T = TypeVar("T")


class ConfigError(ValueError):
    """A mistake in the configuration, in words for the user. ``setting`` is the full name of the key that is wrong."""

    def __init__(self, message: str, setting: str = "") -> None:
        super().__init__(message)
        self.setting = setting


def build(cls: type[T], mapping: Mapping[str, Any] | None, where: str = "") -> T:
    """An instance of the dataclass ``cls`` from a plain mapping; keys that are left out take the dataclass's default.

    Lists are taken for tuples, integral floats for ints, and None for whatever setting has a default of its own (the
    default then stands). Raises ConfigError, naming ``where.key``, for an unknown key (with the nearest valid one), a
    wrong type, a missing value, or a ValueError from ``__post_init__``.
    """
    given = {} if mapping is None else mapping
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}={given!r} must be a mapping of settings", where)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    check_keys(given, fields, where)
    hints = field_hints(cls)
    values = {}
    for name, field in fields.items():
        setting = join(where, name)
        if name not in given:
            if not _has_default(field):
                raise ConfigError(f"{setting} is missing: it has no default, so give a value", setting)
        elif given[name] is not None or allows_none(hints[name]):
            values[name] = coerce(given[name], hints[name], setting)
        elif not _has_default(field):
            raise ConfigError(f"{setting} is null; expected {describe(hints[name])}", setting)
    return _construct(cls, values, list(fields), where)


def check_keys(given: Iterable[str], valid: Iterable[str], where: str, owner: str = "") -> None:
    """Raise ConfigError for the first key that is not valid, with the nearest one that is."""
    valid = list(valid)
    for key in given:
        if key not in valid:
            setting = join(where, str(key))
            of = f" of {owner}" if owner else ""
            raise ConfigError(f"{setting} is not a setting{of}; {nearest(str(key), valid)}", setting)


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint for a name that does not exist: one that a slip of the hand makes of it, or that begins as it does."""
    valid = sorted(valid)
    shared = {
        known: sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(name, known, strict=False)))
        for known in valid
    }
    close = min(valid, key=lambda known: (edit_distance(name, known), -shared[known]), default="")
    if valid and edit_distance(name, close) > max(1, round(len(name) / 3)):
        close = max(valid, key=lambda known: shared[known])
        close = close if 3 * shared[close] >= 2 * max(len(name), 6) else ""
    if close:
        return f"did you mean {close!r}?"
    return f"known: {', '.join(valid)}" if valid else "there are none"


def edit_distance(a: str, b: str) -> int:
    """Letters to insert, to leave out, to replace, or to swap with the next, to make one name of the other."""
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        row = [i]
        for j, other in enumerate(b, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


def coerce(value: Any, hint: Any, setting: str) -> Any:
    """``value`` as the type ``hint``, converted where nothing is lost; ConfigError otherwise."""
    if hint is Any or isinstance(hint, TypeVar):
        return value
    if isinstance(value, str) and value == "???":
        raise ConfigError(f"{setting} is missing: give a value, {setting}=...", setting)
    if _is_scheduled(hint):
        return value if value is None and allows_none(hint) else _coerce_scheduled(value, setting)
    if hint is None or hint is type(None):
        return value if value is None else _refuse(value, hint, setting)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _coerce_union(value, hint, setting)
    if origin is Literal:
        return value if value in get_args(hint) else _refuse_choice(value, hint, setting)
    if origin is typing.Annotated:
        return coerce(value, get_args(hint)[0], setting)
    if origin is not None:
        return _coerce_container(value, origin, hint, setting)
    return _coerce_plain(value, hint, setting)


def describe(hint: Any) -> str:
    """A type in words."""
    if _is_scheduled(hint):
        return "a number or a schedule such as [start_step, v0, v1, end_step]"
    words = {
        int: "an integer",
        float: "a number",
        str: "text",
        bool: "true or false",
        type(None): "null",
        list: "a list",
        tuple: "a list",
        dict: "a mapping",
    }
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        choices = dict.fromkeys(str(c) for a in args if get_origin(a) is Literal for c in get_args(a))
        rest = [describe(a) for a in args if get_origin(a) is not Literal]
        return " or ".join(dict.fromkeys(([f"one of {', '.join(choices)}"] if choices else []) + rest))
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in args)
    if origin is tuple and args and args[-1] is not Ellipsis:
        return f"a list of {len(args)} ({', '.join(describe(a) for a in args)})"
    if origin in (list, tuple, Sequence, Iterable):
        return f"a list ({describe(args[0])} each)" if args else "a list"
    if origin in (dict, Mapping):
        return "a mapping"
    if dataclasses.is_dataclass(hint):
        return "a mapping"
    return words.get(hint, getattr(hint, "__name__", str(hint)))


def field_hints(cls: type) -> dict[str, Any]:
    """Resolved annotations of a dataclass's fields, or of a callable's parameters."""
    target = cls
    try:
        return typing.get_type_hints(target)
    except NameError:  # a name that only type checkers import: that field is checked by its own class
        return {f.name: Any for f in dataclasses.fields(cls)}  # type: ignore[arg-type]


def allows_none(hint: Any) -> bool:
    """Whether None is a value of this type."""
    if hint is Any or hint is None or hint is type(None):
        return True
    return get_origin(hint) in (Union, types.UnionType) and any(allows_none(a) for a in get_args(hint))


def join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _construct(cls: type[T], values: dict[str, Any], names: list[str], where: str) -> T:
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        message = str(error)
        own = [n for n in names if message.startswith(n) and not message[len(n) : len(n) + 1].isidentifier()]
        setting = join(where, max(own, key=len)) if own else where
        if own:
            message = join(where, message)
        elif where and not message.startswith(where):
            message = f"{where}: {message}"
        raise ConfigError(message, setting) from error


def _has_default(field: dataclasses.Field) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _is_scheduled(hint: Any) -> bool:
    """``Scheduled``, or a union that holds it (a union of unions is flat)."""
    return set(get_args(Scheduled)) <= set(get_args(hint))


def _coerce_scheduled(value: Any, setting: str) -> Any:
    value = list(value) if isinstance(value, (list, tuple)) else value
    try:
        check_schedule(value, setting)
    except ValueError as error:
        raise ConfigError(str(error), setting) from error
    return value


def _coerce_union(value: Any, hint: Any, setting: str) -> Any:
    members = get_args(hint)
    if value is None and type(None) in members:
        return None
    exact = [m for m in members if isinstance(m, type) and type(value) is m]
    if exact:
        return value
    for member in members:
        try:
            return coerce(value, member, setting)
        except ConfigError:
            continue
    return _refuse(value, hint, setting)


def _coerce_container(value: Any, origin: Any, hint: Any, setting: str) -> Any:
    args = get_args(hint)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            return _refuse(value, hint, setting)
        return {k: coerce(v, args[1], join(setting, str(k))) for k, v in value.items()}
    if origin is tuple and args and args[-1] is not Ellipsis:
        if not isinstance(value, (list, tuple)) or len(value) != len(args):
            return _refuse(value, hint, setting)
        return tuple(coerce(v, a, f"{setting}[{i}]") for i, (v, a) in enumerate(zip(value, args, strict=True)))
    if isinstance(origin, type) and issubclass(origin, Iterable):
        if not isinstance(value, (list, tuple)):
            return _refuse(value, hint, setting)
        made = [coerce(v, args[0], f"{setting}[{i}]") for i, v in enumerate(value)]
        return tuple(made) if origin is tuple else made
    return value  # a type that plain YAML cannot hold is checked by whoever takes it


def _coerce_plain(value: Any, hint: Any, setting: str) -> Any:
    """Plain classes; a bool is never a number, and text is never parsed."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else build(hint, value, setting)
    number = is_finite_number(value)
    if hint is float and number:
        return float(value)
    if hint is int and number and float(value).is_integer():
        return int(value)
    if hint is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    convert: dict[Any, Callable] = {tuple: tuple, list: list, Sequence: list}
    if hint in convert and isinstance(value, (list, tuple)):
        return convert[hint](value)
    if hint in (int, float) or not isinstance(hint, type) or not isinstance(value, hint):
        return _refuse(value, hint, setting)
    return value


def _refuse(value: Any, hint: Any, setting: str) -> Any:
    raise ConfigError(f"{setting}={value!r} has the wrong type; expected {describe(hint)}", setting)


def _refuse_choice(value: Any, hint: Any, setting: str) -> Any:
    choices = [str(a) for a in get_args(hint)]
    raise ConfigError(f"{setting}={value!r} is not a choice; {nearest(str(value), choices)}", setting)
