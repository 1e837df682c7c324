"""transforms.json, as Blender's synthetic scenes and nerfstudio write it: files, poses and lenses, checked.

Poses are camera-to-world matrices with OpenGL axes (x right, y up, looking along -z), which are the project's own.
Blender gives one ``camera_angle_x`` (radians), nerfstudio ``fl_x``, ``fl_y``, ``cx``, ``cy`` (pixels) and OpenCV's
distortion, for all frames or for each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
OWN_WORLD = "distill3d"  # the value of "world" in files whose poses are in the project's world already
ROTATION_TOLERANCE = 1e-3
MAX_NAMED = 3  # missing files that an error lists


@dataclass(frozen=True)
class Lens:
    """Intrinsics as a file gives them, in pixels of a ``width`` x ``height`` image; None where it says nothing."""

    camera_angle_x: float | None = None  # radians
    fl_x: float | None = None
    fl_y: float | None = None
    cx: float | None = None
    cy: float | None = None
    width: int | None = None
    height: int | None = None
    distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)  # OpenCV's k1, k2, p1, p2, k3

    def focal_lengths(self, width: int) -> tuple[float, float]:
        """fl_x and fl_y in pixels, for an image of this width where only the angle is known."""
        x = self.fl_x
        if x is None:
            assert self.camera_angle_x is not None  # `_lens` sees to it
            x = 0.5 * width / math.tan(0.5 * self.camera_angle_x)
        return x, x if self.fl_y is None else self.fl_y


@dataclass(frozen=True)
class Frame:
    """One image of a data set."""

    path: Path
    c2w: Float[ndarray, "4 4"]
    lens: Lens


@dataclass(frozen=True)
class FrameSets:
    """The frames to fit and those to test, and the root of both; ``own_world``: poses need no fitting to the scene."""

    train: list[Frame]
    test: list[Frame]
    root: Path
    own_world: bool


def read_frame_sets(root: Path, test_every: int, setting: str = "data.root") -> FrameSets:
    """Blender's transforms_train.json with its test (or val) file, or one transforms.json.

    The latter is split as its own train_filenames and test_filenames say, else every ``test_every``-th frame is a test.
    Raises ValueError, naming the setting or the file and frame, for whatever cannot be used.
    """
    folder, train_file, test_file = _find_files(root, setting)
    content = _read_json(train_file)
    frames = _frames(content, train_file)
    if test_file is not None:
        train, test = frames, _frames(_read_json(test_file), test_file)
    else:
        train, test = _split(frames, content, folder, test_every)
    _check_files(train + test, folder)
    if len(train) < 2 or not test:
        raise ValueError(
            f"{setting}={str(root)!r} holds {len(train)} images to fit and {len(test)} to test; a scene needs 2 and 1 "
            "at the least: add views, or render a set with --render-views"
        )
    return FrameSets(train, test, folder, content.get("world") == OWN_WORLD)


def _find_files(root: Path, setting: str) -> tuple[Path, Path, Path | None]:
    if root.is_file():
        return root.parent, root, None
    if (root / "transforms_train.json").is_file():
        tests = (root / f"transforms_{name}.json" for name in ("test", "val"))
        return root, root / "transforms_train.json", next((path for path in tests if path.is_file()), None)
    if (root / "transforms.json").is_file():
        return root, root / "transforms.json", None
    raise ValueError(
        f"{setting}={str(root)!r} holds no transforms.json and no transforms_train.json; give a folder of posed images "
        "in the form of nerfstudio or Blender, or make one: launch.py --render-views MESH_OR_TRIAL OUT"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list) or not content["frames"]:
        raise ValueError(f"{path} has no list of frames; each frame needs a file_path and a transform_matrix")
    return content


def _frames(content: Mapping[str, Any], path: Path) -> list[Frame]:
    return [_frame(content, frame, path, i) for i, frame in enumerate(content["frames"])]


def _frame(content: Mapping[str, Any], frame: Any, path: Path, number: int) -> Frame:
    where = f"{path}, frame {number}"
    if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str) or "transform_matrix" not in frame:
        raise ValueError(f"{where} must be a mapping with a file_path and a transform_matrix")
    where = f"{where} ({frame['file_path']})"
    pose = checked_pose(frame["transform_matrix"], where)
    return Frame(_image_path(path.parent, frame["file_path"]), pose, _lens({**content, **frame}, where))


def checked_pose(matrix: Any, where: str) -> Float[ndarray, "4 4"]:
    """A camera-to-world matrix. Raises ValueError unless it is a finite 4x4 of a rotation and a translation."""
    remedy = "expected a camera-to-world matrix [R t; 0 0 0 1] with R a rotation"
    try:
        pose = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: its transform_matrix is no matrix of numbers; {remedy}") from error
    if pose.shape != (4, 4):
        shape = "x".join(map(str, pose.shape))
        raise ValueError(f"{where}: its transform_matrix is {shape or 'a number'}, not 4x4; {remedy}")
    if not np.isfinite(pose).all():
        raise ValueError(f"{where}: its transform_matrix holds NaN or infinity; {remedy}")
    rotation = pose[:3, :3]
    error = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if error > ROTATION_TOLERANCE or np.linalg.det(rotation) < 0 or np.abs(pose[3] - (0, 0, 0, 1)).max() > 1e-6:
        raise ValueError(
            f"{where}: its transform_matrix is not a rotation and a translation (R^T R is off by {error:.2g}, det R is "
            f"{np.linalg.det(rotation):.3g}, its last row {pose[3].tolist()}); {remedy}"
        )
    return pose


def _image_path(folder: Path, name: str) -> Path:
    """The file, with whatever suffix it has where ``name`` has none; the plain path where there is no such file."""
    path = folder / name
    candidates = (path, *(path.with_name(path.name + suffix) for suffix in SUFFIXES))
    return next((candidate for candidate in candidates if candidate.is_file()), path)


def _lens(given: Mapping[str, Any], where: str) -> Lens:
    number = lambda name: _number(given, name, where)  # noqa: E731
    model = str(given.get("camera_model", ""))
    if any(word in model.upper() for word in ("FISHEYE", "EQUIRECT")):
        raise ValueError(f"{where}: camera_model={model!r} is no perspective camera; undistort the images")
    lens = Lens(
        camera_angle_x=number("camera_angle_x"),
        fl_x=number("fl_x"),
        fl_y=number("fl_y"),
        cx=number("cx"),
        cy=number("cy"),
        width=int(number("w") or 0) or None,
        height=int(number("h") or 0) or None,
        distortion=tuple(number(name) or 0.0 for name in ("k1", "k2", "p1", "p2", "k3")),  # type: ignore[arg-type]
    )
    if lens.fl_x is None and lens.camera_angle_x is None:
        raise ValueError(f"{where} has no lens; give camera_angle_x (radians) or fl_x (pixels), for it or for the file")
    angle = lens.camera_angle_x
    if (lens.fl_x is None and angle is not None and not 0.0 < angle < math.pi) or (lens.fl_x or 1.0) <= 0:
        raise ValueError(
            f"{where}: camera_angle_x={angle}, fl_x={lens.fl_x}; expected an angle in 0 .. pi, a positive length"
        )
    return lens


def _number(given: Mapping[str, Any], name: str, where: str) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{where}: {name}={value!r} must be a finite number")
    return float(value)


def _split(
    frames: list[Frame], content: Mapping[str, Any], folder: Path, test_every: int
) -> tuple[list[Frame], list[Frame]]:
    named = [content.get(f"{split}_filenames") for split in ("train", "test")]
    if all(named):
        wanted = [{_image_path(folder, str(name)) for name in names or ()} for names in named]
        train, test = ([frame for frame in frames if frame.path in paths] for paths in wanted)
        return train, test
    return (
        [frame for i, frame in enumerate(frames) if i % test_every],
        [frame for i, frame in enumerate(frames) if not i % test_every],
    )


def _check_files(frames: list[Frame], folder: Path) -> None:
    missing = [frame.path for frame in frames if not frame.path.is_file()]
    if missing:
        names = ", ".join(str(path) for path in missing[:MAX_NAMED])
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        raise ValueError(f"images are missing in {folder}: {names}{more}; restore them, or remove their frames")
