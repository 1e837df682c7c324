"""Which weights, config and commit made a result: ``python benchmarks/fingerprint.py FILES --config CONFIG``.

Without files it prints the hash of the present weights. Entries are kept in benchmarks/results/fingerprints.json,
by the path of the picture or table in the checkout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from distill3d.config.files import EMBEDDED_WEIGHTS
from distill3d.runtime.files import write_json

PROJECT = Path(__file__).resolve().parent.parent
MADE = ("benchmarks/results", "docs/pictures")  # what benchmarks write
FINGERPRINTS = PROJECT / "benchmarks" / "results" / "fingerprints.json"


@dataclass(frozen=True)
class Fingerprint:
    """What made a result. ``weights`` is None for one that no weights have a part in."""

    weights: str | None
    config: str
    commit: str


def weights_hash(folder: Path = EMBEDDED_WEIGHTS) -> str:
    """12 hex digits over the names and bytes of all safetensors of a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(f"{path.relative_to(folder).as_posix()}:{path.stat().st_size};".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def read_fingerprints(path: Path = FINGERPRINTS) -> dict[str, Fingerprint]:
    """Entries by path; none where there is no file."""
    if not path.is_file():
        return {}
    return {name: Fingerprint(**entry) for name, entry in json.loads(path.read_text(encoding="utf-8")).items()}


def record(names: Sequence[str], fingerprint: Fingerprint, path: Path = FINGERPRINTS) -> None:
    """Write the same entry for some results, in the place of earlier ones; the others stay."""
    entries = {**read_fingerprints(path), **dict.fromkeys(names, fingerprint)}
    write_json(path, {name: asdict(entry) for name, entry in sorted(entries.items())})


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/fingerprint.py", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="pictures and tables that were made just now")
    parser.add_argument("--config", default="", help="the config, or the command, that made them")
    parser.add_argument("--no-weights", action="store_true", help="no weights have a part in them")
    given = parser.parse_args(argv)
    if not given.files:
        sys.stdout.write(f"{weights_hash()}\n")
        return 0
    missing = [str(path) for path in given.files if not path.is_file()]
    if missing or not given.config:
        parser.error(f"no such file: {', '.join(missing)}" if missing else "--config is missing: say what made them")
    weights = None if given.no_weights else weights_hash()
    names = [path.resolve().relative_to(PROJECT).as_posix() for path in given.files]
    record(names, Fingerprint(weights, given.config, commit()))
    return 0


def commit() -> str:
    """What git calls the present commit, and ``-dirty`` where files differ from it that are no results."""
    name = _git("describe", "--always", "--exclude=*").strip()
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *(f":!{folder}" for folder in MADE))
    return f"{name}-dirty" if changed else name


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(PROJECT), *words], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
