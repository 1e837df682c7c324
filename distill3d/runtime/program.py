"""How this program was called, so that help, examples and cmd.txt name a command that the user can repeat."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

MODULE = "python -m distill3d"


def command(called_as: str | None = None) -> str:
    """``distill3d`` for the installed script, ``python -m distill3d`` for the module, else ``python launch.py``.

    ``called_as`` is sys.argv[0].
    """
    name = Path(sys.argv[0] if called_as is None else called_as).stem
    return {"distill3d": "distill3d", "__main__": MODULE}.get(name, "python launch.py")


def python_arguments(arguments: Sequence[str]) -> tuple[str, ...]:
    """What follows ``python`` in a command line that repeats this one on any machine that has the package."""
    return ("launch.py", *arguments) if command().endswith("launch.py") else ("-m", "distill3d", *arguments)
