"""What sources register, read without importing them, so that ``--list`` and a mistyped name do not wait for torch.

`registry` stays the authority: what is not certain from the source alone is None here, and then the imports decide.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from distill3d.config.check import check_keys, coerce
from distill3d.config.files import PACKAGE
from distill3d.config.registry import EMBEDDED, KINDS, ROOMS, Kind, registered_so_far, unknown_type


@dataclass(frozen=True)
class Declared:
    """A registered type, as its source declares it."""

    summary: str  # the first line of its docstring
    settings: dict[str, ast.expr | None] | None  # of its Config, with what stands behind "="; None: not certain


DeclaredTypes = dict[Kind, dict[str, Declared]]


@dataclass(frozen=True)
class _Source:
    """A parsed module: its classes, and what it imports from the package (name -> module, name there)."""

    classes: dict[str, ast.ClassDef]
    imports: dict[str, tuple[str, str]]


_Found = tuple[_Source, ast.ClassDef]


def declared_types(extensions: Sequence[Path]) -> DeclaredTypes | None:
    """Every type of the package and of ``extensions`` (files), or None if one registers in a way that is not read."""
    found: DeclaredTypes = {kind: {} for kind in KINDS}
    for path in [*_files_of_rooms(), *extensions]:
        try:
            text = path.read_text(encoding="utf-8")
            tree = ast.parse(text) if "register(" in text or path in extensions else None
        except (OSError, ValueError, SyntaxError):
            return None
        if tree is None:
            continue
        if path in extensions and any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree)):
            return None  # it may register what stands in another of its files
        source, registered = _read(tree), 0
        for cls in source.classes.values():
            for kind, name in _registered_as(cls):
                registered += 1
                found[kind][name] = Declared(_first_line(cls), _settings((source, cls)))
        if registered != sum(1 for node in ast.walk(tree) if _is_register(node)):
            return None
    return {kind: dict(sorted(types.items())) for kind, types in found.items()}


def check_names(content: dict[str, Any], found: DeclaredTypes) -> bool:
    """Whether every setting belongs to the selected types, as far as sources tell.

    Raises UnknownTypeError, or ConfigError for a setting that no type of its kind has. False where some belong to
    other types alone, or a source leaves a doubt: then the whole check decides.
    """
    own, certain = True, True
    system = found["system"].get(content["system_type"])
    slots: list[Kind] = [kind for kind in KINDS if system and {kind, f"{kind}_type"} <= (system.settings or {}).keys()]
    top: list[Kind] = ["data", "system"]
    for owner, where, kinds in ((content, "", top), (content["system"], "system.", slots)):
        for kind in kinds:
            type_name = owner.get(f"{kind}_type") or _default_type(system, kind)
            if not isinstance(type_name, str):
                continue
            if registered_so_far(kind) - found[kind].keys():  # a program that calls this one has types of its own
                certain = False
                continue
            setting = f"{where}{kind}"
            if type_name not in found[kind]:
                raise unknown_type(kind, type_name, found[kind], f"{setting}_type")
            settings = found[kind][type_name].settings
            known = [declared.settings for declared in found[kind].values()]
            if settings is None or None in known:
                certain = False
                continue
            given = coerce(owner.get(kind) or {}, dict[str, Any], setting)
            check_keys([key for key in given if not any(key in names or () for names in known)], settings, setting)
            own = own and given.keys() <= settings.keys()
    return own and certain


def _default_type(system: Declared | None, kind: Kind) -> str | None:
    """The type that a system takes for a slot where none is given."""
    value = (system.settings or {}).get(f"{kind}_type") if system else None
    return value.value if isinstance(value, ast.Constant) else None  # type: ignore[return-value]


def _files_of_rooms() -> Iterator[Path]:
    for room in ROOMS:
        yield from sorted(PACKAGE.joinpath(*room.split(".")).glob("*.py"))
    yield from (_path(f"distill3d.{module}") for module in EMBEDDED)


def _path(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _read(tree: ast.Module) -> _Source:
    imports = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("distill3d.")
        for alias in node.names
    }
    classes = _classes(tree.body)
    for node in tree.body:  # X = make_dataclass(..., get_type_hints(Y) ...) has the fields of Y
        match = re.fullmatch(r"(\w+) = make_dataclass\(.*\bget_type_hints\((\w+)\).*", ast.unparse(node))
        if match and match[2] in classes:
            classes[match[1]] = classes[match[2]]
    return _Source(classes, imports)  # type: ignore[arg-type]


@cache
def _module(name: str) -> _Source:
    return _read(ast.parse(_path(name).read_text(encoding="utf-8")))


def _classes(body: Iterable[ast.stmt]) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in body if isinstance(node, ast.ClassDef)}


def _is_register(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "register"


def _registered_as(cls: ast.ClassDef) -> Iterator[tuple[Kind, str]]:
    for node in cls.decorator_list:
        if isinstance(node, ast.Call) and _is_register(node) and len(node.args) == 2 and not node.keywords:
            kind, name = (arg.value if isinstance(arg, ast.Constant) else None for arg in node.args)
            if kind in KINDS and isinstance(name, str):
                yield kind, name


def _first_line(cls: ast.ClassDef) -> str:
    return (ast.get_docstring(cls) or "").partition("\n")[0]


def _settings(found: _Found) -> dict[str, ast.expr | None] | None:
    config = _attribute(found, "Config")
    return None if config is None else _fields(config)


def _fields(found: _Found) -> dict[str, ast.expr | None] | None:
    """The fields of a dataclass, bases first, in the way of `dataclasses.fields`; None if a base is not found."""
    source, cls = found
    fields: dict[str, ast.expr | None] = {}
    for base in reversed(cls.bases):
        resolved = _resolve(source, base)
        inherited = None if resolved is None else _fields(resolved)
        if inherited is None:
            return None
        fields |= inherited
    for node in cls.body:
        if not isinstance(node, ast.AnnAssign) or "ClassVar" in ast.unparse(node.annotation):
            continue
        if isinstance(node.target, ast.Name):
            fields[node.target.id] = node.value
    return fields


def _attribute(found: _Found, name: str) -> _Found | None:
    """A class within a class, or within one of its bases."""
    source, cls = found
    own = _classes(cls.body).get(name)
    if own is not None:
        return source, own
    for node in cls.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return _resolve(source, node.value)
    for base in cls.bases:
        resolved = _resolve(source, base)
        inherited = None if resolved is None else _attribute(resolved, name)
        if inherited is not None:
            return inherited
    return None


def _resolve(source: _Source, node: ast.expr) -> _Found | None:
    """The class that an expression names: of this module, imported from the package, or within one of these."""
    if isinstance(node, ast.Attribute):
        owner = _resolve(source, node.value)
        return None if owner is None else _attribute(owner, node.attr)
    name = ast.unparse(node)
    if name in source.classes:
        return source, source.classes[name]
    if name in source.imports:
        module, name = source.imports[name]
        return _resolve(_module(module), ast.Name(name)) if _path(module).is_file() else None
    return None
