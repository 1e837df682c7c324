"""The viewer beside training: a callback that shows the scene between two steps."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from distill3d.viewer.settings import ViewerSettings
from distill3d.viewer.sight import preview_of
from distill3d.viewer.window import Window

log = logging.getLogger(__name__)

PAUSE, SAVE, EXPORT, STOP = BUTTONS = ("pause or go on", "save a checkpoint", "export the mesh", "stop training")
_BREATH = 0.02  # seconds between looks at the panel while training pauses


class LiveViewer(Callback):
    """Renders between two steps, in training's own thread, so nothing that trains is read half-written.

    What is trained does not depend on it: previews draw no numbers and change no state.
    """

    def __init__(self, settings: ViewerSettings) -> None:
        self.settings = settings
        self.window: Window | None = None
        self.paused = False
        self.note = ""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        title = pl_module.record.metrics.prompt or type(pl_module).__name__
        self.window = Window(self.settings, title, BUTTONS, pl_module.device)
        log.info("viewer: %s", self.window.address)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Before the stopwatch of the step starts."""
        if self.window is None or not self.window.server.get_clients():
            return
        self._obey(trainer, pl_module)
        self._show(trainer, pl_module, self.settings.share)
        while self.paused and not trainer.should_stop and self.window.server.get_clients():
            self._obey(trainer, pl_module)
            self._show(trainer, pl_module, 1.0)
            time.sleep(_BREATH)

    def _show(self, trainer: pl.Trainer, system: Any, share: float) -> None:
        assert self.window is not None
        if self.window.serve(preview_of(system), trainer.global_step, share):
            self.window.say(
                {
                    "step": f"{trainer.global_step} of {trainer.max_steps}" + (", paused" if self.paused else ""),
                    "gradient norm": f"{system.record.gradient_norm:.2e}",
                    "note": self.note,
                }
            )

    def _obey(self, trainer: pl.Trainer, system: Any) -> None:
        assert self.window is not None
        while not self.window.commands.empty():
            command = self.window.commands.get()
            if command == PAUSE:
                self.paused = not self.paused
                self.note = "training waits" if self.paused else ""
            elif command == STOP:
                trainer.should_stop = True
                self.note = "training stops; what there is, is saved and exported"
            elif command == SAVE:
                path = f"{trainer.default_root_dir}/ckpts/it{trainer.global_step}.ckpt"
                trainer.save_checkpoint(path, weights_only=False)
                self.note = f"saved {path}"
            elif command == EXPORT:
                self.note = _export(system)
            log.info("viewer: %s", self.note or "training continues")

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self.window is not None:
            self.window.close()
            self.window = None


def _export(system: Any) -> str:
    system.eval()
    try:
        files = system.export(strict=False)
    finally:
        system.train()
    return f"exported {files[0]}" if files else "nothing was exported: the scene has no surface yet"
