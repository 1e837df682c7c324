"""What launch.py can do: one module for each verb, with ``VERB`` and ``run(request) -> exit code``.

A verb's module is imported for ``--help``, so it imports what is heavy inside ``run``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

NAMES = (
    "train",
    "validate",
    "test",
    "export",
    "sweep",
    "evaluate",
    "render-views",
    "index-meshes",
    "view",
    "web",
)  # the order in --help; the first is the default


@dataclass(frozen=True)
class Verb:
    """A flag of launch.py. ``metavar`` names its own argument, or several, if it takes them instead of ``--config``."""

    name: str
    summary: str
    metavar: str | tuple[str, ...] | None = None
    needs_config: bool = True  # where it has no argument of its own
    accompanies: tuple[str, ...] = ()  # verbs that may be given beside this one, which then decides
    options: dict[str, str] = field(default_factory=dict)  # further options with a value: name -> help
    flags: dict[str, str] = field(default_factory=dict)  # further options without one


@dataclass(frozen=True)
class Request:
    """The command line, taken apart."""

    verb: str
    config: str | None
    overrides: tuple[str, ...]
    argument: str | None = None  # the verb's own
    arguments: tuple[str, ...] = ()  # the same of a verb that takes several
    options: dict[str, Any] = field(default_factory=dict)  # of all verbs: text or None, True or False for flags
    argv: tuple[str, ...] = ()


def verbs() -> dict[str, Verb]:
    """The table."""
    return {name: _module(name).VERB for name in NAMES}


def runner(name: str) -> Callable[[Request], int]:
    return _module(name).run


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
