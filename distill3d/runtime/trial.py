"""The folder of one run: ``<exp_root_dir>/<name>/<tag>@<timestamp>/``, created when the run begins and not before."""

from __future__ import annotations

import dataclasses
import datetime
import errno
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill3d.config.experiment import ConfigError, Experiment, Loaded
from distill3d.config.yaml_text import dump_yaml, escape, is_text_key
from distill3d.runtime.files import write_atomically
from distill3d.runtime.lock import locked

MIN_FREE_BYTES = 64 * 2**20  # a checkpoint, pictures and a mesh of the smallest config
_held: dict[Path, ExitStack] = {}  # locks of the trials that this process is at work in
_SHARED = "DISTILL3D_TRIAL"  # tells the processes that a distributed run starts where the first one writes


@dataclass(frozen=True)
class Trial:
    """Where one run writes. The folders below ``root`` are made by whoever writes into them first."""

    root: Path
    resumed: bool = False

    @property
    def ckpts(self) -> Path:
        return self.root / "ckpts"

    @property
    def configs(self) -> Path:
        return self.root / "configs"

    @property
    def save(self) -> Path:
        return self.root / "save"


def begin_trial(loaded: Loaded, arguments: Sequence[str], snapshots: bool = True) -> Trial:
    """The trial of the checkpoint that is resumed, else a new folder that no other run shares.

    It gets the command, and snapshots of the configuration unless it has some and ``snapshots`` is off.
    Raises ConfigError, naming exp_root_dir, if the folder cannot be written or the disk is full.
    """
    experiment = loaded.experiment
    if _SHARED in os.environ and os.environ.get("LOCAL_RANK", "0") != "0":
        return Trial(Path(os.environ[_SHARED]), experiment.resume is not None)
    own = trial_of(experiment.resume) if experiment.resume else None
    try:
        trial = Trial(own, True) if own else Trial(_create(experiment), False)
        _hold(trial)
        _check_space(trial.root)
        if snapshots or not trial.resumed:
            _write_snapshots(trial, loaded)
        with (trial.root / "cmd.txt").open("a", encoding="utf-8") as file:
            file.write(f"python {shlex.join(arguments)}\n")
    except OSError as error:
        if own:
            raise ConfigError(
                f"resume: {error.filename or own} cannot be written: {os.strerror(error.errno or errno.EIO)}; make the "
                "trial's folder writable, or copy the checkpoint out of it, which begins a new trial",
                "resume",
            ) from error
        raise ConfigError(
            f"exp_root_dir={experiment.exp_root_dir!r} cannot be written: {os.strerror(error.errno or errno.EIO)}; "
            "choose another folder with exp_root_dir=...",
            "exp_root_dir",
        ) from error
    os.environ[_SHARED] = str(trial.root)
    return trial


def release_trials() -> None:
    """Let other processes go on in the trials of this one. They may as soon as it ends, however it ends."""
    while _held:
        _held.popitem()[1].close()


def _hold(trial: Trial) -> None:
    """Raise ConfigError if another process is at work in the trial: both would write the same files."""
    key = trial.root.resolve()
    if key in _held:
        return
    lock = ExitStack()
    if not lock.enter_context(locked(trial.root / "trial.lock", wait=False)):
        lock.close()
        raise ConfigError(f"resume: another process is at work in {trial.root}; wait for its end, or stop it", "resume")
    _held[key] = lock


def trial_of(path: str | Path) -> Path | None:
    """The trial folder that a checkpoint or a snapshot lies in, or None."""
    root = Path(path).absolute().parent.parent
    root = root.relative_to(Path.cwd()) if root.is_relative_to(Path.cwd()) else root
    return root if (root / "configs" / "parsed.yaml").is_file() else None


def parsed_settings(experiment: Experiment) -> dict[str, Any]:
    """Every top-level setting, resolved; reading it back gives the same experiment."""
    return _without_interpolation(dataclasses.asdict(experiment))


def _create(experiment: Experiment) -> Path:
    """A folder that did not exist: two runs of one second get different ones."""
    parent = Path(experiment.exp_root_dir) / experiment.name
    parent.mkdir(parents=True, exist_ok=True)
    stamp = datetime.datetime.now().strftime("@%Y%m%d-%H%M%S") if experiment.use_timestamp else ""
    stem = f"{experiment.tag}{stamp}" or "trial"
    number = 1
    while True:
        suffix = "" if number == 1 else f"-{number}"
        try:
            (parent / f"{stem}{suffix}").mkdir()
        except FileExistsError:
            number += 1
            continue
        experiment.timestamp = f"{stamp}{suffix}"
        return parent / f"{stem}{suffix}"


def _check_space(root: Path) -> None:
    if shutil.disk_usage(root).free < MIN_FREE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _write_snapshots(trial: Trial, loaded: Loaded) -> None:
    """configs/raw.yaml and parsed.yaml, both without ``resume``; earlier ones of a resumed trial are kept."""
    trial.configs.mkdir(exist_ok=True)
    for name, content in (("raw", loaded.raw), ("parsed", parsed_settings(loaded.experiment))):
        path = trial.configs / f"{name}.yaml"
        text = dump_yaml({key: value for key, value in content.items() if key != "resume"})
        if path.exists() and path.read_bytes() != text.encode("utf-8"):
            number = len(list(trial.configs.glob(f"{name}-*.yaml"))) + 1
            shutil.copyfile(path, trial.configs / f"{name}-{number}.yaml")
        write_atomically(path, text)


def _without_interpolation(content: Any, key: Any = None) -> Any:
    """Resolved text that holds ``${`` is text, and is written so; prompts are verbatim anyway."""
    if isinstance(content, Mapping):
        return {k: _without_interpolation(v, k) for k, v in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_interpolation(v) for v in content]
    return escape(content) if isinstance(content, str) and not is_text_key(key) else content
