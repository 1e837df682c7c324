"""Changing a ``*_type``: settings of the other types are ignored with a warning; unknown settings are errors."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from distill3d.config.check import build, check_keys, coerce
from distill3d.config.registry import KINDS, Kind, find, registered
from distill3d.config.yaml_text import MISSING

log = logging.getLogger(__name__)


def slots(owner: type) -> Iterator[tuple[str, Kind]]:
    """The settings of a Config that hold another type's settings: ``X`` where there is an ``X_type``, with its kind."""
    names = {field.name for field in dataclasses.fields(owner)}
    for kind in KINDS:
        if f"{kind}_type" in names and kind in names:
            yield kind, kind


def prune(content: dict[str, Any]) -> dict[str, Any]:
    """Content without the settings that belong to types which are not selected; one warning lists them.

    Raises UnknownTypeError for a type that is not registered. Settings that no type knows stay: the check names them.
    """
    dropped: list[str] = []
    content = dict(content)
    for kind in ("data", "system"):
        content[kind] = _prune_slot(content, kind, kind, kind, dropped)
    system = find("system", content["system_type"], "system_type")
    for name, kind in slots(system.Config):  # type: ignore[attr-defined]
        owner = content["system"]
        if name in owner:
            type_name = owner.get(f"{name}_type") or default_type(system.Config, name)  # type: ignore[attr-defined]
            owner[name] = _prune_slot({**owner, f"{name}_type": type_name}, name, kind, f"system.{name}", dropped)
            _prune_encoding(owner[name], f"system.{name}", dropped)
    if dropped:
        log.warning("ignored settings that do not apply to the selected types: %s", ", ".join(dropped))
    return content


def _prune_encoding(mapping: Any, where: str, dropped: list[str]) -> None:
    """A grid encoding is a type within a type: its name is called otype."""
    encoding = mapping.get("pos_encoding_config") if isinstance(mapping, dict) else None
    if isinstance(encoding, dict):
        otype, rest = _encoding_type(encoding)
        setting = f"{where}.pos_encoding_config"
        owner = {"encoding": rest, "encoding_type": otype}
        kept = _prune_slot(owner, "encoding", "encoding", setting, dropped, f"{setting}.otype")
        mapping["pos_encoding_config"] = {key: encoding[key] for key in encoding if key == "otype" or key in kept}


def _encoding_type(encoding: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The registered name behind ``otype``, and the other settings."""
    from distill3d.scenes.nerf.field import OTYPES

    otype = str(encoding.get("otype", "HashGrid"))
    return OTYPES.get(otype, otype), {key: value for key, value in encoding.items() if key != "otype"}


def check_parts(system: Mapping[str, Any]) -> None:
    """Names of the types within one of our systems, and of their settings: those that no type of the kind has.

    `prune` and `check_slots` find them, too, but need the system's class, and with it Lightning. Raises
    UnknownTypeError or ConfigError.
    """
    for kind in KINDS:
        name, mapping = system.get(f"{kind}_type"), system.get(kind)
        if isinstance(mapping, Mapping):
            known = set().union(*map(_settings, registered(kind).values()))
            own = known
            if isinstance(name, str) and not name.startswith(("$", MISSING)):
                own = _settings(find(kind, name, f"system.{kind}_type"))
            check_keys([key for key in mapping if key not in known], own, f"system.{kind}")


def default_type(owner: type, name: str) -> str | None:
    """The type that a Config takes for a slot where none is given."""
    return next(f.default for f in dataclasses.fields(owner) if f.name == f"{name}_type")  # type: ignore[return-value]


def check_slots(system: Any, where: str = "system") -> None:
    """Build the settings of every chosen type, so that a mistake in any of them is found before anything is made."""
    for name, kind in slots(type(system)):
        type_name = getattr(system, f"{name}_type")
        if type_name is None:
            check_keys(getattr(system, name) or {}, (), f"{where}.{name}")
        else:
            setting = f"{where}.{name}"
            made = build(find(kind, type_name, f"{setting}_type").Config, getattr(system, name), setting)  # type: ignore[attr-defined]
            _check_encoding(made, setting)


def _check_encoding(made: Any, where: str) -> None:
    encoding = getattr(made, "pos_encoding_config", None)
    if isinstance(encoding, dict):
        setting = f"{where}.pos_encoding_config"
        otype, rest = _encoding_type(encoding)
        build(find("encoding", otype, f"{setting}.otype").Config, rest, setting)  # type: ignore[attr-defined]


def _prune_slot(
    owner: dict[str, Any], name: str, kind: Kind, where: str, dropped: list[str], type_setting: str | None = None
) -> Any:
    """The mapping of one slot without what is known to other types alone."""
    mapping, type_name = owner.get(name), owner.get(f"{name}_type")
    if mapping is None or type_name is None:
        return mapping
    mapping = coerce(mapping, dict[str, Any], where)
    own = _settings(find(kind, type_name, type_setting or f"{where}_type"))
    others = set().union(*(_settings(cls) for cls in registered(kind).values())) - own
    dropped += [f"{where}.{key}" for key, value in mapping.items() if key in others and value is not None]
    return {key: value for key, value in mapping.items() if key not in others}


def _settings(cls: type) -> set[str]:
    return {field.name for field in dataclasses.fields(cls.Config) if field.init}  # type: ignore[attr-defined]
