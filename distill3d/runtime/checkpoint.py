"""Checkpoints that survive a kill at any moment, and that say what is wrong when they cannot be used."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from distill3d.runtime.files import replacing
from distill3d.runtime.foreign import ForeignFileError, user_path

# systems of before scenes were a kind: the type of the scene, and how the names of its tensors began where not by scene
SCENES_BEFORE = {
    "TextTo3D": ("nerf", "renderer."),
    "NeRFEdit": ("nerf", "renderer."),
    "NeRFEditByDatasetUpdate": ("nerf", "renderer."),
    "NeRFReconstruction": ("nerf", "renderer."),
    "Translation": ("translator", "network."),
    "ImageSynthesis": ("image", None),
    "ImageEdit": ("image", None),
    "SvgEdit": ("svg", None),
}


MOST_REPEATED = 2**28  # bytes of a view that repeats what it holds

# what Lightning goes on from, and what each is
RESUMED: Mapping[str, type] = {
    "state_dict": Mapping,
    "global_step": int,
    "epoch": int,
    "loops": Mapping,
    "callbacks": Mapping,
    "optimizer_states": list,
    "lr_schedulers": list,
    "pytorch-lightning_version": str,
}


class CheckpointError(ForeignFileError):
    """A checkpoint that does not exist, cannot be read, or belongs to another experiment."""


def read_checkpoint(path: str | Path, setting: str = "resume") -> dict[str, Any]:
    """Load a checkpoint onto the CPU with ``weights_only``, so that no file can run code.

    A folder stands for its last.ckpt. Raises CheckpointError, naming the setting, for a missing, damaged or foreign
    file, and for weights that are not finite; every byte is compared with the checksums that were written with it.
    """
    path = checkpoint_file(path)
    if not path.is_file():
        raise CheckpointError(f"{setting}={path} does not exist; give a file such as outputs/.../ckpts/last.ckpt")
    try:
        _check_sums(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage shows as errors of the unpickler, the archive, or the tensors it describes
        raise CheckpointError(
            f"{setting}={path} cannot be read: it is truncated, damaged or no checkpoint; take another of that folder"
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "distill3d" not in checkpoint:
        raise CheckpointError(
            f"{setting}={path} is not a checkpoint of distill3d; give one from a trial's ckpts folder"
        )
    try:
        _check_tensors(checkpoint["state_dict"])
        checkpoint = with_scene(checkpoint)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{setting}={path} lacks what a checkpoint of distill3d holds: {error}; take another of that folder"
        ) from error
    check_finite(checkpoint["state_dict"], f"{setting}={path}")
    # Lightning reads nothing without it
    checkpoint.setdefault("pytorch-lightning_version", version("pytorch-lightning"))
    return checkpoint


def checkpoint_file(path: str | Path) -> Path:
    """The file itself; of a trial's folder, or its ckpts, the last.ckpt."""
    path = user_path(path)
    if not path.is_dir():
        return path
    places = (path / "ckpts" / "last.ckpt", path / "last.ckpt")
    return next((place for place in places if place.is_file()), places[1])


def check_resumable(checkpoint: Mapping[str, Any], path: str | Path, setting: str = "resume") -> None:
    """Raise CheckpointError unless a training can go on from it: all its parts are there."""
    missing = [name for name in RESUMED if name not in checkpoint]
    if missing:
        raise CheckpointError(
            f"{setting}={path} lacks {', '.join(missing)}, so a training cannot go on from it; take another one"
        )
    wrong = [name for name, kind in RESUMED.items() if not _is(checkpoint[name], kind)]
    wrong += [] if wrong or "fit_loop" in checkpoint["loops"] else ["loops"]
    wrong += [] if wrong or all(map(_is_state, checkpoint["optimizer_states"])) else ["optimizer_states"]
    if wrong:
        raise CheckpointError(
            f"{setting}={path}: its {', '.join(wrong)} cannot be understood, so a training cannot go on from it; take "
            "another one"
        )


def _is(value: Any, kind: type) -> bool:
    """Of the kind; of numbers those that count."""
    return isinstance(value, kind) and not (kind is int and (isinstance(value, bool) or value < 0))


def _is_state(state: Any) -> bool:
    """What an optimiser's ``state_dict`` returns."""
    return (
        isinstance(state, Mapping)
        and isinstance(state.get("state"), Mapping)
        and all(isinstance(own, Mapping) for own in state["state"].values())
        and isinstance(state.get("param_groups"), list)
        and all(isinstance(group, Mapping) and "params" in group for group in state["param_groups"])
    )


def count(checkpoint: Mapping[str, Any], name: str) -> int:
    """A number of steps that the checkpoint holds. Raises ValueError for what is none."""
    value = checkpoint[name]
    if not _is(value, int):
        raise ValueError(f"its {name} is {str(value)[:40]!r}, no number of steps")
    return value


def _check_tensors(state: Any) -> None:
    """Raise ValueError for weights that are no tensors by their names."""
    if not isinstance(state, Mapping):
        raise ValueError("its state_dict is no mapping")
    for name, value in state.items():
        if not isinstance(name, str) or not _is_array(value):
            raise ValueError(f"its {str(name)[:60]} is no array")


def _is_array(value: Any) -> bool:
    """Whether it is a plain tensor on the CPU, and not a view that makes gigabytes of a few numbers."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        return False
    if value.is_quantized or value.is_nested or (value.is_floating_point() and value.element_size() < 2):
        return False
    return value.numel() * value.element_size() <= max(value.untyped_storage().nbytes(), MOST_REPEATED)


def check_finite(state: Mapping[str, Any], where: str) -> None:
    """Raise CheckpointError where an array is NaN or infinite: nothing can be trained from it, shown or exported."""
    for name, value in state.items():
        if isinstance(value, Tensor) and not value.isfinite().all():
            raise CheckpointError(
                f"{where}: its {name} holds NaN or infinity, so nothing can come of it; take an earlier one"
            )


def _check_sums(path: Path) -> None:
    """Raise BadZipFile for a file whose contents are not what was written; torch itself does not look."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} does not have its checksum")


def with_scene(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of before scenes were a kind of their own, under the names that they have now; others unchanged."""
    identity, state = checkpoint["distill3d"]["identity"], checkpoint["state_dict"]
    if "scene" in identity or identity.get("system") not in SCENES_BEFORE:
        return checkpoint
    identity["scene"], prefix = SCENES_BEFORE[identity["system"]]
    for name in [name for name in state if prefix is not None and name.startswith(prefix)]:
        state[f"scene.{name}"] = state.pop(name)
    return checkpoint


def write_checkpoint(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Write atomically: the old file stays until the new one is complete."""
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:  # given a path, torch stores its name too
        torch.save(checkpoint, file)


def check_same_experiment(
    checkpoint: Mapping[str, Any], identity: Mapping[str, str], state: Mapping[str, Tensor], setting: str = "resume"
) -> None:
    """Raise CheckpointError at the first difference in type, name or size between a checkpoint and a system."""
    if "distill3d" not in checkpoint:
        raise CheckpointError(f"{setting}: not a checkpoint of distill3d; give one from a trial's ckpts folder")
    saved = checkpoint["distill3d"]["identity"]
    for kind, name in identity.items():
        # another guidance may resume the same scene; trainable parameters of its own are compared below
        if kind != "guidance" and saved.get(kind) != name:
            raise CheckpointError(
                f"{setting}: the checkpoint belongs to another experiment: its {kind} is {saved.get(kind)!r}, not "
                f"{name!r}; use the configs/parsed.yaml of its own trial"
            )
    tensors = checkpoint["state_dict"]
    for name in sorted(tensors.keys() ^ state.keys()):
        where = "the checkpoint" if name in tensors else "this configuration"
        raise CheckpointError(
            f"{setting}: the checkpoint belongs to another experiment: only {where} has {name}; "
            "use the configs/parsed.yaml of its own trial"
        )
    for name, tensor in state.items():
        if tensors[name].shape != tensor.shape:
            raise CheckpointError(
                f"{setting}: the checkpoint belongs to another experiment: {name} is {tuple(tensors[name].shape)} "
                f"there and {tuple(tensor.shape)} here; use the configs/parsed.yaml of its own trial"
            )
        kinds = [(value.is_floating_point(), value.is_complex()) for value in (tensors[name], tensor)]
        if kinds[0] != kinds[1]:
            raise CheckpointError(
                f"{setting}: {name} is {tensors[name].dtype} there and {tensor.dtype} here; take another"
            )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's file access, with these functions."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if "distill3d" in checkpoint:  # sums over threads depend on how many there are, in the last bits
            checkpoint["distill3d"]["threads"] = torch.get_num_threads()
        write_checkpoint(checkpoint, path)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(path)
