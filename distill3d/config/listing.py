"""--list: what is registered, and the configs."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TextIO

from distill3d.config.files import SHIPPED_CONFIGS
from distill3d.config.registry import KINDS, registered
from distill3d.config.yaml_text import parse_yaml


def print_types(out: TextIO) -> None:
    """One line for each registered type, by kind, then one for each config."""
    for kind in KINDS:
        setting = f"{kind}_type" if kind in ("data", "system") else f"system.{kind}_type"
        types = registered(kind)
        if kind == "encoding":
            setting = "system.geometry.pos_encoding_config.otype"
        if types:
            out.write(f"{setting}\n")
            out.writelines(f"  {name:36} {first_line(cls)}\n" for name, cls in types.items())
    folders = (SHIPPED_CONFIGS, Path("configs"))
    paths = {path.relative_to(folder).as_posix(): path for folder in folders for path in folder.rglob("*.yaml")}
    if paths:
        out.write("--config\n")
        out.writelines(f"  {name:36} {_description(path)}\n" for name, path in sorted(paths.items()))


def first_line(cls: type) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def _description(path: Path) -> str:
    content = parse_yaml(path.read_text(encoding="utf-8"))
    return str(content.get("description") or "").partition("\n")[0] if isinstance(content, dict) else ""
