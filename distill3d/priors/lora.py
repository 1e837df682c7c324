"""LoRA weights that a user brings: fused into the frozen networks, so that they cost nothing afterwards.

Files name layers as diffusers and peft do (``unet.<layer>.lora_A.weight``) or as kohya's trainer does, which most of
civitai's have (``lora_unet_<layer>.lora_down.weight``, ``lora_te_`` for the text encoder, LDM's blocks for SDXL).
peft keeps a LoRA as layers beside those of the network, which each step would pay for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill3d.priors.hub import PriorError
from distill3d.runtime.foreign import reading, user_path

_PAIRS = (
    (".lora_A.weight", ".lora_B.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    (".lora_down.weight", ".lora_up.weight"),
)
_SETTING = "system.prior.lora_weights"
_TEXT = {"text_encoder": ("text_encoder.", "lora_te_", "lora_te1_"), "text_encoder_2": ("text_encoder_2.", "lora_te2_")}
_OF_TEXT = (*(prefix for prefixes in _TEXT.values() for prefix in prefixes), "text_encoder_3.", "lora_te3_")
_OTHER_KINDS = re.compile(r"\.(hada_|lokr_|oft_|dora_scale|lora_mid|diff$|diff_b$)")
_LDM_LAYERS = {
    "input_blocks": "down_blocks",
    "middle_block": "mid_block",
    "output_blocks": "up_blocks",
    "in_layers_2": "conv1",
    "out_layers_3": "conv2",
    "emb_layers_1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
    "downsamplers_0_op": "downsamplers_0_conv",
}


@dataclass(frozen=True)
class LowRankPair:
    """``change = scale (alpha / rank) up down`` of one layer; an absent alpha is the rank."""

    down: Tensor
    up: Tensor | None
    alpha: float | None

    def change(self, scale: float) -> Tensor:
        if self.up is None:
            raise ValueError("it has no upper half")
        scale *= 1.0 if self.alpha is None else self.alpha / self.down.shape[0]
        return scale * (self.up.flatten(1).float() @ self.down.flatten(1).float())


def lora_file(name: str) -> Path:
    """The safetensors file that the setting means; raises PriorError if there is none, or more than one."""
    path = user_path(name)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if len(files) != 1 or not files[0].is_file() or files[0].suffix != ".safetensors":
        raise PriorError(f"{_SETTING}={name!r} is no safetensors file, and no folder with exactly one; give the file")
    return files[0]


def changes_text(file: Path) -> bool:
    """Whether a LoRA has layers of a text encoder."""
    from safetensors import safe_open

    with _reading(file), safe_open(str(file), framework="pt") as opened:
        return any(name.startswith(_OF_TEXT) for name in opened.keys())  # noqa: SIM118


def fuse_lora(network: nn.Module, file: Path, scale: float, component: str) -> int:
    """Add a file's change to each layer of the image network that it names; returns how many layers it changed.

    Raises PriorError if the file fits another network, is no LoRA, or is one of another kind (LoHa, LoKr, DoRA).
    """
    pairs = _read(file)
    own = {name.removeprefix(f"{component}."): pair for name, pair in pairs.items() if not name.startswith(_OF_TEXT)}
    if not pairs:
        raise PriorError(
            f"{_SETTING}={str(file)!r} has no layers of the form {component}.<layer>.lora_A.weight or "
            f"lora_{component}_<layer>.lora_down.weight"
        )
    prefix = "lora_unet_"  # kohya's, whatever the network is
    known = {prefix + name.replace(".", "_"): name for name, _ in network.named_modules()}
    return _fuse_all(network, own, known | _ldm_names(network, own, known), scale, file)


def fuse_text_lora(encoder: nn.Module, file: Path, scale: float, component: str) -> int:
    """The same for a text encoder, of which a file may have no layers. Raises as `fuse_lora`."""
    dotted, *flat = prefixes = _TEXT.get(component, (f"{component}.",))
    own = {name: pair for name, pair in _read(file).items() if name.startswith(prefixes)}
    names = {_within_text_model(name): name for name, _ in encoder.named_modules()}
    known = {dotted + written: name for written, name in names.items()}
    for prefix in flat:
        known |= {prefix + written.replace(".", "_"): name for written, name in names.items()}
    return _fuse_all(encoder, own, known, scale, file)


def _within_text_model(name: str) -> str:
    """The name that files have for a module of a text encoder, which newer transformers lack the outer part of."""
    return name if name.startswith("text_") else f"text_model.{name}"


def _ldm_names(network: Any, own: Iterable[str], known: dict[str, str]) -> dict[str, str]:
    """Modules by kohya's names for SDXL, whose blocks are counted as LDM counts them."""
    if not any("_blocks_" in name and name.startswith(("lora_unet_input", "lora_unet_output")) for name in own):
        return {}
    from diffusers.loaders.lora_conversion_utils import _maybe_map_sgm_blocks_to_diffusers

    written = {name: name for name in own if name.startswith("lora_unet_")}
    names = {}
    for mapped, name in _maybe_map_sgm_blocks_to_diffusers(written, network.config).items():
        for theirs, diffusers in _LDM_LAYERS.items():
            mapped = mapped.replace(theirs, diffusers)
        if mapped in known:
            names[name] = known[mapped]
    return names


def _read(file: Path) -> dict[str, LowRankPair]:
    """Layers as the file names them."""
    from safetensors.torch import load_file

    with _reading(file):
        tensors = load_file(str(file))
    other = next((name for name in tensors if _OTHER_KINDS.search(name)), None)
    if other is not None:
        raise PriorError(f"{_SETTING}={str(file)!r} is no plain LoRA ({other}): LoHa, LoKr and DoRA are not read")
    pairs = {}
    for key, down in tensors.items():
        for end, other_end in _PAIRS:
            if key.endswith(end):
                name = key.removesuffix(end)
                alpha = tensors.get(f"{name}.alpha")
                pairs[name] = LowRankPair(down, tensors.get(name + other_end), None if alpha is None else float(alpha))
    return pairs


def _reading(file: Path) -> AbstractContextManager[None]:
    return reading(file, "a LoRA", "give a safetensors file", _SETTING)


def _fuse_all(module: nn.Module, pairs: dict[str, LowRankPair], known: dict[str, str], scale: float, file: Path) -> int:
    layers = dict(module.named_modules())
    for name, pair in pairs.items():
        weight = getattr(layers.get(known.get(name, name)), "weight", None)
        try:
            if not isinstance(weight, Tensor):
                raise ValueError("there is no such layer")
            change = pair.change(scale).view_as(weight)
        except (RuntimeError, ValueError) as error:
            raise PriorError(
                f"{_SETTING}={str(file)!r}: its layer {name} does not fit {type(module).__name__} "
                f"({str(error).splitlines()[0]}); it is of another model"
            ) from error
        with torch.no_grad():
            weight += change.to(weight)
    return len(pairs)
