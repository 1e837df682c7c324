"""Headless Chromium, steered over its DevTools: what a person would see, click and read."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

FLAGS = (
    *("--headless", "--no-sandbox", "--no-first-run", "--disable-quic", "--disable-sync", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--window-size=900,600", "--remote-debugging-port=0"),
)
PATIENCE = 120.0  # seconds; a busy machine takes long to start a browser


class Page:
    """One tab."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.number = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer; asked again while the tab moves from one page to the next and is attached to none."""
        end = time.monotonic() + PATIENCE
        while True:
            answer = self._ask(method, parameters)
            if "Not attached" not in answer.get("error", {}).get("message", "") or time.monotonic() > end:
                break
            time.sleep(0.1)
        assert "error" not in answer, answer
        return answer["result"]

    def _ask(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv(timeout=PATIENCE))
            if answer.get("id") == self.number:
                return answer

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self) -> str:
        return self.run("document.body ? document.body.innerText : ''")

    def picture(self) -> np.ndarray:
        """(H, W, 3) bytes of what is seen."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def click(self, label: str) -> None:
        """Press the button of this label."""
        script = "[...document.querySelectorAll('button')].find(b => b.innerText.trim() === %s).click()"
        self.run(script % json.dumps(label))


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A tab of a browser that has its profile in a folder."""
    from websockets.sync.client import connect

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.fail("pages are tested in Chromium: apt-get install -y chromium")
    command = [found, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port_file = folder / "profile" / "DevToolsActivePort"
        wait(lambda: port_file.is_file() and port_file.read_text().count("\n") >= 1, "the browser to start")
        port = port_file.read_text().split("\n")[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=PATIENCE) as answer:
            tab = next(tab for tab in json.load(answer) if tab["type"] == "page")
        with connect(tab["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def wait(condition: Callable[[], Any], what: str, pause: float = 0.1) -> Any:
    """The first true value of a condition."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(pause)
    raise AssertionError(f"waited {PATIENCE:.0f} s for {what}")
