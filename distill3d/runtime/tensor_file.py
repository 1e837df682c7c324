"""Tensors with their description in one safetensors file: small networks that the program trains and takes up again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write beside, then rename; folders are made."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part, metadata)
    os.replace(part, path)


def read_tensors(path: Path, name: str, remedy: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and their description. ``name`` and ``remedy`` stand in the errors.

    Raises FileNotFoundError, or ValueError for a file of another kind.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{name} does not exist; {remedy}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{name} is not a safetensors file: {error}") from error
