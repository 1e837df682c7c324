"""``system.weights``: a training that begins with the scene of another one, at step 0 and with a new optimiser."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from distill3d.config.check import ConfigError, nearest
from distill3d.runtime.checkpoint import CheckpointError, read_checkpoint
from distill3d.scenes.base import Scene

log = logging.getLogger(__name__)
SETTING = "system.weights"
IGNORED = "system.weights_ignore_modules"


def start_from(scene: Scene, kind: str | None, path: str, ignored: Sequence[str] = ()) -> None:
    """Give a scene the tensors that it has in common with a checkpoint's, and say which only one of the two has.

    kind: the registered name of the scene. ignored: modules or parameters that stay new, such as ``background`` or
    ``geometry.encoding``. Raises CheckpointError for a file that is missing, damaged, not finite, or of a scene of
    another kind or with other sizes, and ConfigError for an ignored name that neither has.
    """
    checkpoint = read_checkpoint(path, SETTING)
    found = checkpoint["distill3d"]["identity"].get("scene", "model")
    if found != kind:
        raise CheckpointError(f"{SETTING}={path} is a checkpoint of a {found}, and this scene is a {kind}")
    own, theirs = scene.state_dict(), _of_scene(checkpoint["state_dict"])
    _check_names(ignored, [*scene.parameter_groups(), *map(_short, [*own, *theirs])])
    taken = {name: value for name, value in theirs.items() if name in own and not _is_within(name, ignored)}
    scene.state_for(taken)
    sizes = {name: value.shape for name, value in scene.state_dict().items()}
    resized = any(sizes[name] != value.shape for name, value in own.items())  # then what is left out must fit, too
    for name in sorted(sizes.keys() & theirs.keys()):
        if (name in taken or resized) and sizes[name] != theirs[name].shape:
            raise CheckpointError(
                f"{SETTING}={path}: {_short(name)} is {tuple(theirs[name].shape)} there and {tuple(own[name].shape)} "
                f"here; take the settings of its trial, configs/parsed.yaml, or leave parts new by {IGNORED}"
            )
    scene.load_state_dict(taken, strict=False)
    left = own.keys() - theirs.keys(), theirs.keys() - own.keys()
    if any(left):
        new, lost = (", ".join(sorted(map(_short, names))) or "nothing" for names in left)
        log.warning("%s=%s: new, as the checkpoint has none of it: %s; not taken: %s", SETTING, path, new, lost)


def _of_scene(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("scene."): value for name, value in state.items() if name.startswith("scene.")}


def _short(name: str) -> str:
    """As people and ``optimizer.params`` name it."""
    return name.removeprefix("renderer.")


def _is_within(name: str, modules: Iterable[str]) -> bool:
    return any(f"{_short(name)}.".startswith(f"{module}.") for module in modules)


def _check_names(ignored: Iterable[str], known: Sequence[str]) -> None:
    for module in ignored:
        if not any(_is_within(name, [module]) for name in known):
            modules = sorted({name.partition(".")[0] for name in known})
            raise ConfigError(f"{IGNORED} has {module!r}, which is no part of the scene; {nearest(module, modules)}")
