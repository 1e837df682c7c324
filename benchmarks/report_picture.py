"""A picture of a report for a README, by headless Chromium: python benchmarks/report_picture.py SWEEP OUT.jpg [look].

``look`` is what stands behind # in the address of the page when it looks as wanted, such as sort=r_precision.
"""

from __future__ import annotations

import argparse
import io
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from distill3d.runtime.files import write_atomically

log = logging.getLogger(__name__)

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
MAX_BYTES = 150_000
FLAGS = (
    *("--headless", "--no-sandbox", "--no-first-run", "--disable-gpu", "--disable-sync", "--disable-quic"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--hide-scrollbars", "--virtual-time-budget=2000"),
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="a trial or a sweep that was evaluated")
    parser.add_argument("out", type=Path, help="JPEG")
    parser.add_argument("look", nargs="?", default="")
    parser.add_argument("--size", default="1200,900", help="of the window: width,height")
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    page = given.folder / "evaluation" / "report.html"
    if not page.is_file():
        parser.error(f"{page} is missing: python launch.py --evaluate {given.folder}")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        parser.error("no browser: apt-get install -y chromium")
    content = smallest(screenshot(browser, page, given.look, given.size))
    write_atomically(given.out, content)
    log.info("%s: %d kB", given.out, len(content) // 1000)


def screenshot(browser: str, page: Path, look: str, size: str) -> bytes:
    """The page as PNG. Raises RuntimeError with the browser's words if it drew nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        picture = Path(scratch) / "page.png"
        own = [f"--user-data-dir={scratch}/profile", f"--window-size={size}", f"--screenshot={picture}"]
        command = [browser, *FLAGS, *own, f"{page.resolve().as_uri()}#{look}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        if not picture.is_file():
            raise RuntimeError(f"{browser} drew nothing: {done.stderr[-1000:]}")
        return picture.read_bytes()


def smallest(png: bytes, max_bytes: int = MAX_BYTES) -> bytes:
    """As JPEG, in the best quality that fits."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    for quality in (88, 80, 70, 60, 50, 40):
        out = io.BytesIO()
        image.save(out, format="JPEG", quality=quality, optimize=True)
        if len(out.getvalue()) <= max_bytes:
            break
    return out.getvalue()


if __name__ == "__main__":
    main()
