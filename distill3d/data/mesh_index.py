"""An index.csv for a folder of meshes: what the embedded prior and its judge are trained on."""

from __future__ import annotations

import csv
import io
import logging
import re
from pathlib import Path

from distill3d.config.check import ConfigError
from distill3d.data.assets import read_rows
from distill3d.runtime.files import write_atomically

log = logging.getLogger(__name__)

COLUMNS = ("noun", "tier", "rank", "category", "variant", "file", "front", "author", "licence")
SUFFIXES = (".glb", ".gltf", ".ply", ".obj", ".stl")
_NO_NOUNS = ("meshes", "models", "glb", "gltf", "assets", "objects")  # folders that say nothing of what is in them


def index_meshes(folder: Path) -> list[dict[str, str]]:
    """Write ``folder/index.csv`` with a row for every mesh below it, and return the rows.

    Rows of an index that is there are kept with all their columns; those of files that are gone are left out. A new
    mesh is of the noun that `noun_of` reads from its path; new nouns come last. Raises ConfigError without a mesh.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise ConfigError(f"--index-meshes {folder}: there is no mesh below it ({', '.join(SUFFIXES)})")
    index = folder / "index.csv"
    known = {row["file"]: row for row in read_rows(index)} if index.is_file() else {}
    names = [path.relative_to(folder).as_posix() for path in paths]
    gone = sorted(set(known) - set(names))
    if gone:
        log.warning("%d of the index are gone and left out: %s", len(gone), ", ".join(gone[:5]))
    rows = [row for name, row in known.items() if name in set(names)]
    rows += _new_rows([name for name in names if name not in known], rows)
    columns = list(dict.fromkeys([*COLUMNS, *(key for row in rows for key in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(index, text.getvalue())
    return rows


def noun_of(name: str) -> str:
    """The noun that a path names: of its folder, or of its own stem where the folder says nothing; without numbers."""
    path = Path(name)
    parent = path.parent.name
    return _words(parent) if _words(parent) and parent.lower() not in _NO_NOUNS else _words(path.stem) or "object"


def _words(name: str) -> str:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.sub(r"[^a-z]+|\bv\d+\b", " ", re.sub(r"\bv?\d+", " ", apart.lower().replace("_", " "))).split())


def _new_rows(names: list[str], known: list[dict[str, str]]) -> list[dict[str, str]]:
    ranks = {row["noun"]: int(row["rank"]) for row in known}
    used: dict[str, int] = {}
    for row in known:
        used[row["noun"]] = max(used.get(row["noun"], -1), int(row["variant"]))
    rows = []
    for name in names:
        noun = noun_of(name)
        rank = ranks.setdefault(noun, max(ranks.values(), default=0) + 1)
        used[noun] = used.get(noun, -1) + 1
        row = {"noun": noun, "tier": "core", "rank": str(rank), "category": "object", "variant": str(used[noun])}
        rows.append({**row, "file": name})
    return rows
