"""--list: what is registered, and the configs."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import TextIO

import yaml

from distill3d.config.files import EMBEDDED_WEIGHTS, SHIPPED_CONFIGS
from distill3d.config.registry import KINDS, Kind, registered
from distill3d.config.yaml_text import parse_yaml
from distill3d.runtime.foreign import ForeignFileError, read_text, reason
from distill3d.runtime.word_list import taught_nouns


def print_types(out: TextIO) -> None:
    """One line for each registered type, by kind, one for each config, and the nouns of the embedded prior."""
    for kind in KINDS:
        types = registered(kind)
        if types:
            out.write(f"{setting_of(kind)}\n")
            out.writelines(f"  {name:36} {first_line(cls)}\n" for name, cls in types.items())
    configs = {**dict(described(SHIPPED_CONFIGS)), **dict(described(Path("configs")))}
    if configs:
        out.write("--config\n")
        out.writelines(f"  {name:36} {text}\n" for name, text in sorted(configs.items()))
    nouns = taught_nouns(EMBEDDED_WEIGHTS)
    out.write("system.prompt_processor.prompt\n")
    out.writelines(f"  {line}\n" for line in textwrap.wrap(f"{len(nouns)} nouns: {', '.join(nouns)}", 100))


def setting_of(kind: Kind) -> str:
    """The setting that names a type of this kind."""
    if kind == "encoding":
        return "system.geometry.pos_encoding_config.otype"
    return f"{kind}_type" if kind in ("data", "system") else f"system.{kind}_type"


def first_line(cls: type) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def described(folder: Path) -> list[tuple[str, str]]:
    """The configs of a folder by name, with the first lines of their descriptions."""
    return [(path.relative_to(folder).as_posix(), _description(path)) for path in sorted(folder.rglob("*.yaml"))]


def _description(path: Path) -> str:
    try:
        content = parse_yaml(read_text(path, "YAML"))
    except (ForeignFileError, yaml.YAMLError) as error:
        return f"cannot be read: {reason(error)}"
    return str(content.get("description") or "").partition("\n")[0] if isinstance(content, dict) else ""
