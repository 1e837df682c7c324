"""--view: a finished trial in the browser."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from distill3d.config.check import ConfigError
from distill3d.evaluation.loaded_trial import load_trial
from distill3d.viewer.settings import ViewerSettings, require
from distill3d.viewer.sight import preview_of
from distill3d.viewer.window import Window

log = logging.getLogger(__name__)

_BREATH = 0.02  # seconds between looks at what visitors want


def trial_folder(source: Path) -> Path:
    """The trial that a folder or a checkpoint names. Raises ConfigError."""
    if source.suffix == ".ckpt":
        source = source.absolute().parents[1]
    if not (source / "configs" / "parsed.yaml").is_file():
        raise ConfigError(f"--view {source}: neither a trial folder nor a checkpoint within one")
    return source


def view_trial(source: Path, settings: ViewerSettings, seconds: float | None = None) -> None:
    """Serve until Ctrl-C, or for so many seconds. Raises ConfigError or CheckpointError."""
    require("viser", "--view")
    checkpoint = source.absolute() if source.suffix == ".ckpt" else None
    trial = load_trial(trial_folder(source), checkpoint=checkpoint)
    preview = preview_of(trial.system)
    window = Window(settings, trial.prompt or trial.trial.name, (), trial.system.device)
    window.say({"trial": trial.trial.name, "steps": str(trial.system.steps_done)})
    log.info("viewer: %s (Ctrl-C ends it)", window.address)
    end = None if seconds is None else time.monotonic() + seconds
    try:
        while end is None or time.monotonic() < end:
            window.serve(preview, 0, share=1.0)
            time.sleep(_BREATH)
    except KeyboardInterrupt:
        log.info("viewer: closed")
    finally:
        window.close()
