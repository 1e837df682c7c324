"""Names to classes, by kind. A new type is one file in its room (or in custom/) with ``@register(kind, name)``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, get_args

from distill3d.config.check import ConfigError, build, nearest

Kind = Literal[
    "data",
    "system",
    "scene",
    "geometry",
    "encoding",
    "material",
    "background",
    "renderer",
    "prompt_processor",
    "prior",
    "guidance",
    "exporter",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
_SCENES = ("scenes", "scenes.nerf", "scenes.splats", "scenes.svg")
# what registers the types of each kind: whole rooms, and of embedded/, whose network needs diffusers, single modules.
# Lightning is imported by data and systems alone.
ROOMS: Mapping[Kind, tuple[str, ...]] = {
    "data": ("data", "data.posed", "embedded.mesh_view_module"),
    "system": ("systems", "embedded.prior_training", "embedded.judge_training"),
    "scene": _SCENES,
    "geometry": _SCENES,
    "encoding": _SCENES,
    "material": _SCENES,
    "background": _SCENES,
    "renderer": _SCENES,
    "prompt_processor": ("priors",),
    "prior": ("priors",),
    "guidance": ("guidance",),
    "exporter": ("export",),
}

T = TypeVar("T", bound=type)
_types: dict[Kind, dict[str, type]] = {kind: {} for kind in KINDS}
_imported: set[str] = set()


class UnknownTypeError(ConfigError):
    """A registered name that does not exist."""


def register(kind: Kind, name: str) -> Callable[[T], T]:
    """Register a class that has a nested dataclass ``Config``; its constructor takes an instance of it first."""
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is unknown; choose one of {', '.join(KINDS)}")

    def decorator(cls: T) -> T:
        other = _types[kind].get(name)
        if other is not None and f"{other.__module__}.{other.__qualname__}" != f"{cls.__module__}.{cls.__qualname__}":
            raise ValueError(f"{kind} {name!r} is registered twice: {other.__module__} and {cls.__module__}")
        _types[kind][name] = cls
        return cls

    return decorator


def find(kind: Kind, name: str, setting: str | None = None) -> type:
    """The class registered as ``name``; raises UnknownTypeError with the setting and the nearest name."""
    if not isinstance(name, str):
        setting = setting or f"{kind}_type"
        raise UnknownTypeError(
            f"{setting}={name!r} must be one name, such as {next(iter(_types[kind]), 'sds')}", setting
        )
    if name not in _types[kind]:
        import_rooms([kind])
    if name not in _types[kind]:
        setting = setting or f"{kind}_type"
        hint = "a list needs --sweep" if "," in name else nearest(name, _types[kind])
        message = f"{setting}={name!r} is not a registered {kind}; {hint}"
        raise UnknownTypeError(message, setting)
    return _types[kind][name]


def is_imported(kind: Kind, name: str) -> bool:
    """Whether a type can be found without importing anything, as those of extensions can."""
    return name in _types[kind]


def make(kind: Kind, name: str, settings: Any, where: str, *parts: Any, **options: Any) -> Any:
    """A part of a registered type from its settings, which stand at ``where`` in the configuration.

    Raises UnknownTypeError for the name and ConfigError for a setting.
    """
    cls: Any = find(kind, name, f"{where}_type")
    return cls(build(cls.Config, settings, where), *parts, **options)


def registered(kind: Kind) -> dict[str, type]:
    """All names of a kind, sorted."""
    import_rooms([kind])
    return dict(sorted(_types[kind].items()))


def import_rooms(kinds: Iterable[Kind] = KINDS) -> None:
    """Import once what registers the types of these kinds. Heavy libraries stay unimported."""
    for room in dict.fromkeys(room for kind in kinds for room in ROOMS[kind]):
        if room in _imported:
            continue
        _imported.add(room)
        package = importlib.import_module(f"distill3d.{room}")
        for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
            importlib.import_module(f"distill3d.{room}.{module.name}")
