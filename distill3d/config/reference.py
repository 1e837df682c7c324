"""The reference of all settings and configs as Markdown, read from the Config classes: docs/ is built from it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from distill3d.config.experiment import Experiment
from distill3d.config.files import SHIPPED_CONFIGS
from distill3d.config.listing import described, first_line, setting_of
from distill3d.config.registry import KINDS, registered


@dataclass(frozen=True)
class Setting:
    """One field of a Config: as it is written in the source, with the comment beside or above it."""

    name: str
    type: str
    default: str
    comment: str


def settings_page() -> str:
    """Every setting of every registered type, as a page."""
    parts = [
        "# Settings",
        "Generated from the Config classes. A setting is given as `key=value` behind `--config`, or in a YAML. An "
        "unknown key is an error that names the nearest one. `null` leaves the value to the rule, the model or the "
        "part that the setting belongs to.",
        "## Every experiment",
        _table(fields_of(Experiment)),
        "`trainer` takes the keywords of Lightning's Trainer, `checkpoint` those of its ModelCheckpoint.",
    ]
    for kind in KINDS:
        types = registered(kind)
        if types:
            parts += [f"## `{setting_of(kind)}`", *(part for item in types.items() for part in _type(*item))]
    return "\n\n".join(parts) + "\n"


def configs_page() -> str:
    """Every shipped config with its description, as a page."""
    rows = [f"| `{name}` | {text or 'a part of other configs'} |" for name, text in described(SHIPPED_CONFIGS)]
    head = "# Configs\n\nGenerated from the YAMLs. `--config NAME` takes any of them, in every folder."
    return "\n".join([head, "", "| name | what it does |", "|---|---|", *rows]) + "\n"


def guidances_page() -> str:
    """Every guidance with its equation and paper, as a page: the docstrings."""
    head = (
        "# Guidances\n\nGenerated from the docstrings. `system.guidance_type=NAME` chooses one. x is the rendered view "
        "(or its latent), z_t the view with noise eps at time t, eps_y, eps_0 and eps_neg the model's noise for the "
        "prompt, the empty text and the negative prompt, and eps^w = eps_0 + (w + 1) (eps_y - eps_0): w is "
        "`guidance_scale` as the papers write it, one less than diffusers'. c(t) is the weighting over time."
    )
    parts = [f"## {name}\n\n{_paragraphs(cls)}" for name, cls in registered("guidance").items()]
    return "\n\n".join([head, *parts]) + "\n"


def fields_of(config: type) -> list[Setting]:
    """The settings of a Config, those of a nested one by their dotted names."""
    found: list[Setting] = []
    for field in dataclasses.fields(config):
        if not field.init:
            continue
        nested = field.default_factory if inspect.isclass(field.default_factory) else None
        if nested is not None and dataclasses.is_dataclass(nested):
            inner = fields_of(nested)
            found += [dataclasses.replace(setting, name=f"{field.name}.{setting.name}") for setting in inner]
        else:
            found.append(_setting(config, field))
    return found


def _setting(config: type, field: dataclasses.Field) -> Setting:
    written = next((_written(cls)[field.name] for cls in config.__mro__ if field.name in _written(cls)), None)
    if written is not None:
        return written
    return Setting(field.name, str(field.type), _value(field), "")


def _value(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    return "" if field.default_factory is dataclasses.MISSING else repr(field.default_factory())


@cache
def _written(cls: type) -> dict[str, Setting]:
    """The fields that this very class annotates, by name; empty for a class without source or fields."""
    if not dataclasses.is_dataclass(cls):
        return {}
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):
        return {}
    comments = dict(_comments(source))
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    values = {field.name: _value(field) for field in dataclasses.fields(cls)}
    lines = source.splitlines()
    found = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id in values:
            name = node.target.id
            comment = _comment(node, comments, lines)
            found[name] = Setting(name, ast.unparse(node.annotation), values[name], comment)
    return found


def _comment(node: ast.AnnAssign, comments: dict[int, str], lines: list[str]) -> str:
    """The comments within a field's lines, else those on the lines of their own above it."""
    end = node.end_lineno or node.lineno
    beside = [comments[line] for line in range(node.lineno, end + 1) if line in comments]
    if beside:
        return " ".join(beside)
    above: list[str] = []
    line = node.lineno - 1
    while line in comments and lines[line - 1].lstrip().startswith("#"):
        above.insert(0, comments[line])
        line -= 1
    return " ".join(above)


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith("# type:"):
            yield token.start[0], token.string.lstrip("# ")


def _type(name: str, cls: type) -> list[str]:
    table = _table(fields_of(cls.Config)) if fields_of(cls.Config) else "No settings."  # type: ignore[attr-defined]
    return [f"### {name}", prose(first_line(cls)), table]


def _table(settings: list[Setting]) -> str:
    rows = [f"| `{s.name}` | `{s.type}` | `{s.default or '-'}` | {prose(s.comment)} |" for s in settings]
    return "\n".join(["| setting | type | default | |", "|---|---|---|---|", *rows])


def _paragraphs(cls: type) -> str:
    return "\n\n".join(prose(" ".join(part.split())) for part in (inspect.getdoc(cls) or "").split("\n\n"))


def prose(text: str) -> str:
    """Prose in which Markdown sees no emphasis, links or cells: equations are full of its characters. Code stays."""
    parts = text.replace("``", "`").split("`")
    for i in range(0, len(parts), 2):
        parts[i] = parts[i].replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")
        for character in "\\*_[]":
            parts[i] = parts[i].replace(character, f"\\{character}")
    return "`".join(parts)
