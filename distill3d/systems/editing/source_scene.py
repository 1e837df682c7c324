"""The scene that an edit starts from: read from the checkpoint of another trial, built as it was there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from distill3d.config.check import ConfigError
from distill3d.config.registry import Kind, find
from distill3d.runtime.checkpoint import CheckpointError, check_same_experiment, read_checkpoint
from distill3d.scenes.nerf.scene import PARTS, NeRFScene, build_renderer
from distill3d.systems.editing.held_field import HeldField

SETTING = "system.source_checkpoint"
PREFIX = "scene.renderer."  # of the tensors of a NeRF in a checkpoint


@dataclass(frozen=True)
class SourceScene:
    """A renderer with the weights of a checkpoint, and the types and settings of its four parts."""

    renderer: Any
    settings: dict[str, Any]  # geometry_type, geometry, material_type, ...


@dataclass(frozen=True)
class OtherScene:
    """Settings of a scene that is no NeRF (scene, material_type, ...), and its tensors by the scene's own names."""

    settings: dict[str, Any]
    state: dict[str, Any]


def read_scene(path: str, own: Mapping[str, Any]) -> SourceScene:
    """The scene of a checkpoint of nerf-reconstruction, text to 3D or another edit.

    ``own`` may have types and settings of parts; where a type is None, both are those of the checkpoint's own trial.
    An edit that held a part of its scene is built upon the scene that it started from.
    Raises CheckpointError for a file that is missing, damaged, of another kind of model or of another field type, and
    ConfigError where a type is not given and the checkpoint lies in no trial.
    """
    if not path:
        raise ConfigError(
            f"{SETTING} is not set: give the checkpoint of the scene to edit, outputs/.../ckpts/last.ckpt", SETTING
        )
    checkpoint = read_checkpoint(path, SETTING)
    state = _scene_state(path, checkpoint)
    trial = _trial_settings(Path(path))
    upon = _scene_beneath(trial) if trial else None
    settings = _settings(path, own, trial, upon)
    renderer = build_renderer(settings) if upon is None else upon.renderer
    names = {kind: settings[f"{kind}_type"] for kind in PARTS}
    check_same_experiment({**checkpoint, "state_dict": state}, names, renderer.state_dict(), SETTING)
    renderer.load_state_dict(state)
    return SourceScene(renderer, settings)


def read_other_scene(path: str, scene_type: str, own: Mapping[str, Any]) -> OtherScene:
    """A scene that is no NeRF, of a trial of the same ``scene_type``; ``own`` are the settings of the edit.

    What these leave open is that of the checkpoint's trial, and of the trial that it edited itself; but the number of
    Gaussians does not change, unless ``own`` says how. Raises CheckpointError or ConfigError.
    """
    state = read_checkpoint(path, SETTING)["state_dict"] if path else {}
    trial = _trial_settings(Path(path)) if path else None
    if trial is None:
        raise ConfigError(f"{SETTING}={path} lies in no trial; give outputs/.../ckpts/last.ckpt of one", SETTING)
    kind = trial.get("scene_type") or "nerf"
    if kind != scene_type:
        raise ConfigError(f"{SETTING}={path} is a scene of the kind {kind}; set system.scene_type={kind}", SETTING)
    beneath = trial.get("source_checkpoint")
    kept = trial if not beneath else {**trial, **read_other_scene(beneath, scene_type, trial).settings}
    shared = {}
    for part in find("scene", scene_type).shared_settings:  # type: ignore[attr-defined]
        if part.endswith("_type") and own.get(part) is None:
            name = part.removesuffix("_type")
            shared |= dict(zip((part, name), _of_trial(path, cast(Kind, name), kept), strict=True))
    shared = {name: {} if value is None else value for name, value in shared.items()}
    scene = {"density": {"strategy": "none"}, **own.get("scene", {})}
    scene = {**(kept.get("scene") or {}), **scene, "init": "ball"}  # the checkpoint's values replace it
    tensors = {name.removeprefix("scene."): value for name, value in state.items() if name.startswith("scene.")}
    return OtherScene({**shared, "scene": scene}, tensors)


def _scene_state(path: str, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of the scene by the renderer's own names."""
    state = checkpoint["state_dict"]
    scene = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    if not scene:
        system = checkpoint["distill3d"]["identity"].get("system", "another system")
        raise CheckpointError(
            f"{SETTING}={path} is a checkpoint of {system}, which has no scene of a NeRF; give one of "
            "nerf-reconstruction, text to 3D or another edit, and for Gaussian splats set system.scene_type=splats"
        )
    return scene


def _settings(
    path: str, own: Mapping[str, Any], trial: Mapping[str, Any] | None, upon: SourceScene | None
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in PARTS:
        name, values = own.get(f"{kind}_type"), own.get(kind)
        if name is None:
            name, values = _of_trial(path, kind, trial if upon is None else upon.settings)
        found |= {f"{kind}_type": name, kind: dict(values or {})}
    return found


def _of_trial(path: str, kind: Kind, trial: Mapping[str, Any] | None) -> tuple[str, Any]:
    if trial is None:
        raise ConfigError(
            f"{SETTING}={path} lies in no trial (there is no configs/parsed.yaml beside its folder), so its settings "
            f"are not known: give system.{kind}_type and system.{kind}, or the file in its trial",
            SETTING,
        )
    return trial.get(f"{kind}_type") or _usual(kind), trial.get(kind)


def _usual(kind: Kind) -> str:
    """The type of a part where a trial's configuration names none."""
    return getattr(NeRFScene.Config, f"{kind}_type")


def _trial_settings(path: Path) -> dict[str, Any] | None:
    """``system`` of the trial that a checkpoint lies in, or None."""
    from distill3d.config.experiment import load
    from distill3d.runtime.trial import trial_of

    trial = trial_of(path)
    return None if trial is None else load(trial / "configs" / "parsed.yaml", check=False).experiment.system


def _scene_beneath(trial: Mapping[str, Any]) -> SourceScene | None:
    """For a trial that was an edit itself: its scene as it was built, with the weights that it started from."""
    beneath = trial.get("source_checkpoint")
    if not beneath:
        return None
    scene = read_scene(beneath, trial)
    hold(scene.renderer, bool(trial.get("keep_geometry")), trial.get("edit_box"))
    return scene


def hold(renderer: Any, keep_geometry: bool, edit_box: Any) -> None:
    """Let only the colour, or only what lies in a box, change from now on; the scene as it is stays beneath."""
    if not keep_geometry and edit_box is None:
        return
    from copy import deepcopy

    box = None if edit_box is None else (tuple(edit_box[0]), tuple(edit_box[1]))
    renderer.geometry = HeldField(renderer.geometry, deepcopy(renderer.geometry), keep_geometry, box)  # type: ignore[arg-type]
    if box is not None:  # what lies behind everything lies outside every box
        renderer.background.requires_grad_(False)
