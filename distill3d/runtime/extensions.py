"""Users' extensions: every module in custom/ is imported at launch, and registers its types."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path

from distill3d.config.check import ConfigError
from distill3d.config.files import IN_CHECKOUT, PROJECT

log = logging.getLogger(__name__)


def import_extensions(folders: list[Path] | None = None) -> list[str]:
    """Import ``custom/<name>/__init__.py`` and ``custom/<name>.py`` of the current folder, then of a checkout.

    Names that end in ``_disabled`` or begin with a dot or an underscore are left out. Returns what was imported.
    Raises ConfigError, naming the file, if one cannot be imported.
    """
    shipped = [PROJECT / "custom"] if IN_CHECKOUT else []  # beside an installed package lie other people's folders
    places = [Path("custom"), *shipped] if folders is None else folders
    found: dict[Path, None] = {}
    for folder in places:
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            path = entry / "__init__.py" if entry.is_dir() else entry
            if path.suffix == ".py" and path.is_file() and not _is_skipped(entry.stem):
                found[path.resolve()] = None
    return [_import_file(path) for path in found]


def _is_skipped(name: str) -> bool:
    return name.endswith("_disabled") or name.startswith((".", "_"))


def _import_file(path: Path) -> str:
    is_package = path.name == "__init__.py"
    stem = path.parent.name if is_package else path.stem
    name = f"distill3d_custom.{stem}"
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) == str(path):
        return stem
    search = [str(path.parent)] if is_package else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=search)
    if spec is None or spec.loader is None:
        raise ConfigError(f"extension {path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # relative imports inside a package need it there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # an extension has no say in whether the program goes on
        del sys.modules[name]
        raise ConfigError(
            f"extension {path} cannot be imported: {type(error).__name__}: {error}; "
            f"correct it, or rename it to {stem}_disabled to leave it out"
        ) from error
    log.debug("extension %s", stem)
    return stem
