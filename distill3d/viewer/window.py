"""A page in the browser: orbit around a scene, with a panel of what happens and what can be done (viser)."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distill3d.viewer.settings import ViewerSettings, require
from distill3d.viewer.sight import LOOKS, Preview, View, picture

log = logging.getLogger(__name__)

FIRST_SIDE = 96  # pixels of the first view, which tells how long one takes
QUICK_SECONDS = 0.25  # a view in training should take no longer


@dataclass
class _Visitor:
    """One browser, as the window last served it."""

    shown: tuple[View, int] | None = None  # the view and the step that it sees now


class Window:
    """Serves browsers from the caller's thread: viser's threads only note what visitors want.

    ``commands`` receives the names of the buttons that were pressed. Without a visitor `serve` does nothing.
    """

    def __init__(self, settings: ViewerSettings, title: str, buttons: tuple[str, ...], device: Any = "cpu") -> None:
        require("viser", "the viewer")
        import viser

        self.settings = settings
        self.device = device
        self.commands: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.server = viser.ViserServer(settings.host, settings.port, label="distill3d", verbose=False)
        self._visitors: dict[int, _Visitor] = {}
        self._next = 0.0
        self._side = FIRST_SIDE
        self._build(title, buttons)

    @property
    def address(self) -> str:
        return f"http://{self.settings.host}:{self.server.get_port()}"

    def _build(self, title: str, buttons: tuple[str, ...]) -> None:
        server = self.server
        server.scene.set_up_direction("+z")
        server.initial_camera.position = (1.6, 0.0, 0.5)
        server.initial_camera.look_at = (0.0, 0.0, 0.0)
        server.initial_camera.fov = 0.7
        server.gui.add_markdown(f"**{title}**")
        self._text = server.gui.add_markdown("")
        self._look = server.gui.add_dropdown("show", LOOKS, initial_value=LOOKS[0])
        for name in buttons:
            button = server.gui.add_button(name)
            button.on_click(lambda _, name=name: self.commands.put(name))

    def say(self, lines: Mapping[str, str]) -> None:
        """What the panel tells: names and values."""
        self._text.content = "\n\n".join(f"{name}: {value}" for name, value in lines.items() if value)

    def serve(self, preview: Preview, step: int, share: float | None = None) -> bool:
        """Send each visitor whose view or scene has changed a new picture; whether one was rendered.

        After a picture that took c seconds none is made for ``c (1 / share - 1)``: of the time, views take ``share``.
        """
        clients = self.server.get_clients()
        if not clients or time.perf_counter() < self._next:
            return False
        begun = time.perf_counter()
        rendered = [self._show(client, preview, step) for client in clients.values()]
        self._visitors = {key: seen for key, seen in self._visitors.items() if key in clients}
        seconds = time.perf_counter() - begun
        if any(rendered):
            self._adapt(seconds / sum(rendered))
            self._next = time.perf_counter() + seconds * (1.0 / (share or self.settings.share) - 1.0)
        return any(rendered)

    def _show(self, client: Any, preview: Preview, step: int) -> bool:
        view = self._view(client)
        visitor = self._visitors.setdefault(client.client_id, _Visitor())
        if view is None or visitor.shown == (view, step):
            return False
        client.scene.set_background_image(picture(preview, view, self._side, self.device), format="jpeg")
        visitor.shown = (view, step)
        return True

    def _view(self, client: Any) -> View | None:
        camera = client.camera
        if camera.update_timestamp == 0.0:
            return None  # connected, but it has not told yet from where it looks
        place = tuple(float(v) for v in camera.wxyz), tuple(float(v) for v in camera.position)
        return View(*place, float(camera.fov), float(camera.aspect), self._look.value)  # type: ignore[arg-type]

    def _adapt(self, seconds: float) -> None:
        """The largest side whose view takes `QUICK_SECONDS`, in steps of 32: time is proportional to pixels."""
        side = self._side * (QUICK_SECONDS / max(seconds, 1e-4)) ** 0.5
        self._side = int(min(max(side // 32 * 32, 64), self.settings.largest))

    def close(self) -> None:
        self.server.stop()
