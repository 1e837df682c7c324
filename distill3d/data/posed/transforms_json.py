"""transforms.json, as Blender's synthetic scenes and nerfstudio write it: files, poses and lenses, checked.

Poses are camera-to-world matrices with OpenGL axes (x right, y up, looking along -z), which are the project's own.
Blender gives one ``camera_angle_x`` (radians), nerfstudio ``fl_x``, ``fl_y``, ``cx``, ``cy`` (pixels) and OpenCV's
distortion, for all frames or for each.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from distill3d.runtime.foreign import ForeignFileError, finite, read_json

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
OWN_WORLD = "distill3d"  # the value of "world" in files whose poses are in the project's world already
ROTATION_TOLERANCE = 1e-3
MAX_NAMED = 3  # missing files that an error lists
MAX_SIDE = 100_000  # pixels
_LENS = ("camera_angle_x", "fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "k2", "p1", "p2", "k3", "camera_model")
_SPLITS = ("train_filenames", "val_filenames", "test_filenames")
_USED = (*_LENS, *_SPLITS, "frames", "world", "file_path", "transform_matrix", "mask_path")
# what says the same again, or how the file was made
_OF_NO_CONSEQUENCE = ("camera_angle_y", "rotation", "source", "colmap_im_id", "sharpness", "applied_transform")


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
    mask: Path | None = None  # a picture that is black where pixels do not count


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
    Raises ForeignFileError, naming the setting or the file and frame, for whatever cannot be used.
    """
    folder, train_file, test_file = _find_files(root, setting)
    content = _read_json(train_file)
    frames = _frames(content, train_file)
    if test_file is not None:
        train, test = frames, _frames(_read_json(test_file), test_file)
    else:
        train, test = _split(frames, content, train_file, test_every)
    _check_files(train + test, folder)
    if len(train) < 2 or not test:
        raise ForeignFileError(
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
    raise ForeignFileError(
        f"{setting}={str(root)!r} holds no transforms.json and no transforms_train.json; give a folder of posed images "
        "in the form of nerfstudio or Blender, or make one: launch.py --render-views MESH_OR_TRIAL OUT"
    )


def _read_json(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list) or not content["frames"]:
        raise ForeignFileError(f"{path} has no list of frames; each frame needs a file_path and a transform_matrix")
    return content


def _frames(content: Mapping[str, Any], path: Path) -> list[Frame]:
    frames = [_frame(content, frame, path, i) for i, frame in enumerate(content["frames"])]
    given = {str(key) for mapping in (content, *content["frames"]) for key in mapping}
    unused = sorted(given.difference(_USED, _OF_NO_CONSEQUENCE))
    if unused:
        log.warning("%s: not used: %s", path, ", ".join(unused))
    return frames


def _frame(content: Mapping[str, Any], frame: Any, path: Path, number: int) -> Frame:
    where = f"{path}, frame {number}"
    if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str) or "transform_matrix" not in frame:
        raise ForeignFileError(f"{where} must be a mapping with a file_path and a transform_matrix")
    where = f"{where} ({frame['file_path']})"
    pose = checked_pose(frame["transform_matrix"], where)
    mask = frame.get("mask_path")
    if mask is not None and not isinstance(mask, str):
        raise ForeignFileError(f"{where}: mask_path={mask!r} must be the name of an image")
    lens = _lens({**content, **frame}, where)
    mask = _image_path(path.parent, mask) if mask else None
    return Frame(_image_path(path.parent, frame["file_path"]), pose, lens, mask)


def checked_pose(matrix: Any, where: str) -> Float[ndarray, "4 4"]:
    """A camera-to-world matrix. Raises ForeignFileError unless it is a finite 4x4 of a rotation and a translation."""
    remedy = "expected a camera-to-world matrix [R t; 0 0 0 1] with R a rotation"
    try:
        pose = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ForeignFileError(f"{where}: its transform_matrix is no matrix of numbers; {remedy}") from error
    if pose.shape != (4, 4):
        shape = "x".join(map(str, pose.shape))
        raise ForeignFileError(f"{where}: its transform_matrix is {shape or 'a number'}, not 4x4; {remedy}")
    if not np.isfinite(pose).all():
        raise ForeignFileError(f"{where}: its transform_matrix holds NaN or infinity; {remedy}")
    rotation = pose[:3, :3]
    error = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if error > ROTATION_TOLERANCE or np.linalg.det(rotation) < 0 or np.abs(pose[3] - (0, 0, 0, 1)).max() > 1e-6:
        raise ForeignFileError(
            f"{where}: its transform_matrix is not a rotation and a translation (R^T R is off by {error:.2g}, det R is "
            f"{np.linalg.det(rotation):.3g}, its last row {pose[3].tolist()}); {remedy}"
        )
    return pose


def _image_path(folder: Path, name: str) -> Path:
    """The file, with whatever suffix it has where ``name`` has none; the plain path where there is no such file."""
    suffixes = ("", *SUFFIXES, *(suffix.upper() for suffix in SUFFIXES))
    names = dict.fromkeys((name, name.replace("\\", "/")))  # as written on Windows
    candidates = [folder / f"{stem}{suffix}" for stem in names for suffix in suffixes]
    return next((candidate for candidate in candidates if _is_file(candidate)), folder / name)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return False


def _lens(given: Mapping[str, Any], where: str) -> Lens:
    number = lambda name: _number(given, name, where)  # noqa: E731
    model = str(given.get("camera_model", ""))
    if any(word in model.upper() for word in ("FISHEYE", "EQUIRECT")):
        raise ForeignFileError(f"{where}: camera_model={model!r} is no perspective camera; undistort the images")
    lens = Lens(
        camera_angle_x=number("camera_angle_x"),
        fl_x=number("fl_x"),
        fl_y=number("fl_y"),
        cx=number("cx"),
        cy=number("cy"),
        width=_side(given, "w", where),
        height=_side(given, "h", where),
        distortion=tuple(number(name) or 0.0 for name in ("k1", "k2", "p1", "p2", "k3")),  # type: ignore[arg-type]
    )
    if lens.fl_x is None and lens.camera_angle_x is None:
        raise ForeignFileError(
            f"{where} has no lens; give camera_angle_x (radians) or fl_x (pixels), for it or for the file"
        )
    angle = lens.camera_angle_x
    if (lens.fl_x is None and angle is not None and not 0.0 < angle < math.pi) or any(
        length is not None and length <= 0.0 for length in (lens.fl_x, lens.fl_y)
    ):
        raise ForeignFileError(
            f"{where}: camera_angle_x={angle}, fl_x={lens.fl_x}, fl_y={lens.fl_y}; expected an angle in 0 .. pi, a "
            "positive length"
        )
    return lens


def _number(given: Mapping[str, Any], name: str, where: str) -> float | None:
    value = given.get(name)
    return None if value is None else finite(value, f"{where}: {name}")


def _side(given: Mapping[str, Any], name: str, where: str) -> int | None:
    side = _number(given, name, where)
    if not side:
        return None
    if not 1 <= side <= MAX_SIDE or side != int(side):
        raise ForeignFileError(f"{where}: {name}={side:g} must be a whole number of pixels from 1 to {MAX_SIDE}")
    return int(side)


def _split(
    frames: list[Frame], content: Mapping[str, Any], path: Path, test_every: int
) -> tuple[list[Frame], list[Frame]]:
    train, val, test = (_listed(content, name, path) for name in _SPLITS)
    unknown = sorted(str(name) for name in (train | val | test) - {frame.path for frame in frames})
    if unknown:
        log.warning("%s: %d listed images have no frame: %s", path, len(unknown), ", ".join(unknown[:MAX_NAMED]))
    held_out = test or val  # as of Blender's files: val where there is no test
    if train or held_out:
        chosen = [frame for frame in frames if (frame.path in train if train else frame.path not in val | test)]
        rest = held_out or {frame.path for frame in frames} - train
        return chosen, [frame for frame in frames if frame.path in rest]
    return (
        [frame for i, frame in enumerate(frames) if i % test_every],
        [frame for i, frame in enumerate(frames) if not i % test_every],
    )


def _listed(content: Mapping[str, Any], name: str, path: Path) -> set[Path]:
    names = content.get(name)
    if names is not None and not (isinstance(names, list) and all(isinstance(item, str) for item in names)):
        raise ForeignFileError(f"{path}: {name} must be a list of file names")
    return {_image_path(path.parent, item) for item in names or ()}


def _check_files(frames: list[Frame], folder: Path) -> None:
    paths = [path for frame in frames for path in (frame.path, frame.mask) if path is not None]
    missing = [path for path in paths if not _is_file(path)]
    if missing:
        names = ", ".join(str(path) for path in missing[:MAX_NAMED])
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        raise ForeignFileError(f"images are missing in {folder}: {names}{more}; restore them, or remove their frames")
