"""--index-meshes: make a folder of meshes one that the embedded prior can be trained on."""

from __future__ import annotations

import logging

from distill3d.runtime.foreign import user_path
from distill3d.verbs import Request, Verb

log = logging.getLogger(__name__)

VERB = Verb(
    "index-meshes",
    "write FOLDER/index.csv for the meshes below it, so that data.assets=FOLDER can train a prior",
    metavar="FOLDER",
)


def run(request: Request) -> int:
    """Write the index and say what is in it."""

    from distill3d.config.check import ConfigError
    from distill3d.data.mesh_index import index_meshes

    assert request.argument is not None  # the command line sees to it
    folder = user_path(request.argument)
    if not folder.is_dir():
        raise ConfigError(f"--index-meshes {folder}: no such folder")
    rows = index_meshes(folder)
    log.info("%d meshes of %d nouns: %s", len(rows), len({row["noun"] for row in rows}), folder / "index.csv")
    log.info("check the nouns, and write where each front looks into the column front: +Z, -Z, +X, -X, or nothing")
    return 0
