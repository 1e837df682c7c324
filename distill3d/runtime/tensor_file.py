"""Tensors and metadata in one safetensors file: small networks that the program trains and reloads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from distill3d.runtime.files import replacing
from distill3d.runtime.foreign import reading


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and their description; folders are made."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary, metadata)


def read_tensors(path: Path, name: str, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and their description. ``name`` and ``remedy`` stand in the errors.

    Raises FileNotFoundError, or ForeignFileError for a file of another kind.
    """
    from safetensors import safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{name} does not exist; {remedy}")
    with reading(name, "a safetensors file", remedy), safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        return tensors, file.metadata() or {}
