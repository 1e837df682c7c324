"""LoRA weights that a user brings: fused into the frozen network, so that they cost nothing afterwards."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from distill3d.priors.hub import PriorError
from distill3d.runtime.foreign import reading

_PAIRS = ((".lora_A.weight", ".lora_B.weight"), (".lora.down.weight", ".lora.up.weight"))
_SETTING = "system.prior.lora_weights"


def lora_file(name: str) -> Path:
    """The safetensors file that the setting means; raises PriorError if there is none, or more than one."""
    path = Path(name).expanduser()
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if len(files) != 1 or not files[0].is_file() or files[0].suffix != ".safetensors":
        raise PriorError(f"{_SETTING}={name!r} is no safetensors file, and no folder with exactly one; give the file")
    return files[0]


def fuse_lora(network: nn.Module, file: Path, scale: float, component: str) -> int:
    """``W += scale (alpha / rank) B A`` for each layer that the file names; returns how many layers it changed.

    Reads diffusers' format (``unet.<layer>.lora_A.weight``). Raises PriorError if the file fits another network.
    """
    from safetensors.torch import load_file

    with reading(file, "a LoRA", "give a safetensors file", _SETTING):
        tensors = {key.removeprefix(f"{component}."): value for key, value in load_file(str(file)).items()}
    layers = [
        (key.removesuffix(down), tensors[key], tensors.get(key.removesuffix(down) + up))
        for down, up in _PAIRS
        for key in tensors
        if key.endswith(down) and not key.startswith("text_encoder")
    ]
    if not layers:
        raise PriorError(f"{_SETTING}={str(file)!r} has no layers of the form {component}.<layer>.lora_A.weight")
    for name, a, b in layers:
        _fuse(network, name, a, b, scale * _alpha(tensors, name, a.shape[0]), file)
    return len(layers)


def _alpha(tensors: dict[str, Tensor], name: str, rank: int) -> float:
    alpha = tensors.get(f"{name}.alpha")
    return 1.0 if alpha is None else float(alpha) / rank


def _fuse(network: nn.Module, name: str, a: Tensor, b: Tensor | None, scale: float, file: Path) -> None:
    layer = dict(network.named_modules()).get(name)
    weight = getattr(layer, "weight", None)
    if b is None or not isinstance(weight, Tensor) or weight.numel() != b.shape[0] * a[0].numel():
        raise PriorError(f"{_SETTING}={str(file)!r}: its layer {name} does not fit {type(network).__name__}")
    change = (b.flatten(1).float() @ a.flatten(1).float()).view_as(weight)
    with torch.no_grad():
        weight += (scale * change).to(weight)
