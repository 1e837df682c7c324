"""A name for weights: what keys the embedding cache and binds a corrective to the prior that it corrects."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from distill3d.priors.hub import component_patterns, config_patterns

_WHOLE_BYTES = 64 << 20  # files up to this size are read in full
_SAMPLES = 64
_SAMPLE_BYTES = 1 << 16


def folder_identity(
    folder: Path, components: Iterable[str], variant: str | None, extra: str = "", weights: bool = True
) -> str:
    """A hash of the files that some components are read from (32 hex digits): their names and bytes, never the path.

    Of a file above 64 MB it reads the size, the head (a safetensors file lists its tensors there) and 64 samples
    at equal distances, so that a model of 24 GB takes milliseconds. Without ``weights`` it reads the configs alone.
    """
    digest = hashlib.blake2b(extra.encode(), digest_size=16)
    for component in sorted(components):
        patterns = component_patterns(component, variant) if weights else config_patterns(component)
        for file in sorted(path for path in (folder / component).glob("*") if path.is_file()):
            name = f"{component}/{file.name}"
            # a variant that is not used may be downloaded later, and a note may be added
            if any(fnmatch(name, pattern) for pattern in patterns):
                digest.update(f"{name}:{file_identity(file)};".encode())
    return digest.hexdigest()


def file_identity(file: Path) -> str:
    """A hash of one file, remembered for as long as its size and time of change stay."""
    stat = file.stat()
    return _file_identity(str(file), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _file_identity(path: str, size: int, _mtime_ns: int) -> str:
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with open(path, "rb") as stream:
        if size <= _WHOLE_BYTES:
            digest.update(stream.read())
            return digest.hexdigest()
        for i in range(_SAMPLES):
            stream.seek((size - _SAMPLE_BYTES) * i // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()
