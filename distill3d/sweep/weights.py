"""The frozen weights that a run reads: other weights make another run, whatever their folder is called."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from distill3d.config.experiment import ConfigError, Experiment, build
from distill3d.config.registry import find, make
from distill3d.guidance.corrective.files import SHIPPED_DIR
from distill3d.priors.hub import PriorError
from distill3d.priors.identity import file_identity
from distill3d.priors.model import PriorModel

Weights = dict[str, str]  # what they are of -> their hash


def frozen_weights(experiment: Experiment) -> Weights:
    """Identities of the prior, of its text encoders, and of b_psi where the guidance is corrected by one.

    Only of files on this machine: a model of the Hub is told by its name and revision, and a plan fetches nothing.
    Raises ConfigError if what a setting names is not there.
    """
    system: Any = build(_config("system", experiment.system_type), experiment.system, "system")
    prior_type, guidance_type = (getattr(system, name, None) for name in ("prior_type", "guidance_type"))
    found: Weights = {}
    if prior_type is not None:
        found |= prior_weights(make("prior", prior_type, system.prior, "system.prior"))
    if guidance_type is not None and "corrective" in _fields(_config("guidance", guidance_type)):
        guidance: Any = build(_config("guidance", guidance_type), system.guidance, "system.guidance")
        found |= corrective_weights(guidance.corrective, found.get("prior"))
    return found


def prior_weights(model: PriorModel) -> Weights:
    """Of a prior's image networks and of its text encoders; empty for a model of the Hub. Raises ConfigError."""
    try:
        return model.frozen_weights()
    except PriorError as error:
        raise ConfigError(str(error), "system.prior.pretrained_model_name_or_path") from error


def corrective_weights(corrective: str, prior: str | None) -> Weights:
    """Of b_psi by its setting; a spectral fit has no weights but the prior's. Raises ConfigError.

    prior: identity of the prior, for which ``auto`` takes what is shipped.
    """
    if corrective in ("spectral", "none"):
        return {}
    files = _shipped_for(prior) if corrective == "auto" else _files(Path(corrective))
    try:
        return {f"corrective {i}": file_identity(file) for i, file in enumerate(files)}
    except OSError as error:
        message = f"system.guidance.corrective={corrective!r} cannot be read: {error.strerror}; give a file, or auto"
        raise ConfigError(message, "system.guidance.corrective") from error


def _files(path: Path) -> list[Path]:
    """A file, or a folder's, one for each image size."""
    return sorted(path.glob("corrective-*.safetensors")) if path.is_dir() else [path]


def _shipped_for(prior: str | None) -> list[Path]:
    from safetensors import safe_open

    files = []
    for path in sorted(SHIPPED_DIR.glob("corrective-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if prior is not None and (file.metadata() or {}).get("prior_identity") == prior:
                files.append(path)
    return files


def _config(kind: Any, name: str) -> type:
    return find(kind, name, f"system.{kind}_type").Config  # type: ignore[attr-defined]


def _fields(config: type) -> set[str]:
    return {field.name for field in dataclasses.fields(config)}
