"""What may know what: the rooms below the systems do not import them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import distill3d

PACKAGE = Path(distill3d.__file__).parent
ABOVE = ("distill3d.systems", "distill3d.cli", "distill3d.verbs", "distill3d.run")
BELOW = ("config", "data", "evaluation", "export", "guidance", "optim", "priors", "runtime", "scenes")


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", BELOW)
def test_nothing_below_imports_a_system_or_the_command_line(room):
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert files
    upwards = {
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in files
        for name in imported(path)
        if any(name == above or name.startswith(f"{above}.") for above in ABOVE)
    }
    assert upwards == set()
