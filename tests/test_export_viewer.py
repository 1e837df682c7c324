"""The page is one file that needs nothing else, and a browser shows the mesh in it."""

import base64
import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from export_assets import letter
from PIL import Image

from distill3d.camera import look_at
from distill3d.export.formats.glb import glb_bytes
from distill3d.export.formats.viewer import PARTS, viewer_html
from distill3d.scenes.splats.draw import draw
from distill3d.scenes.splats.files import splat_bytes
from distill3d.scenes.splats.gaussians import Gaussians, ball
from distill3d.types import Cameras

FLAGS = (
    *("--headless", "--no-sandbox", "--no-first-run", "--disable-quic", "--disable-sync", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--window-size=480,360"),
)
BUDGETS_MS = (1500, 6000, 24000)  # virtual time; textures are decoded in real time, which a busy machine has less of
BACKGROUND = (236, 239, 241)


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.fail("the page is tested in Chromium: apt-get install -y chromium")
    return found


def run(chromium: str, tmp_path, *arguments: str, budget_ms: int = BUDGETS_MS[1]) -> str:
    profile, budget = f"--user-data-dir={tmp_path / 'profile'}", f"--virtual-time-budget={budget_ms}"
    command = [chromium, *FLAGS, profile, budget, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def dom_of(chromium: str, tmp_path, page) -> str:
    """The page's DOM once it has said whether the mesh could be read."""
    dom = ""
    for budget_ms in BUDGETS_MS:
        dom = run(chromium, tmp_path, "--dump-dom", page.as_uri(), budget_ms=budget_ms)
        if 'data-state="ready"' in dom or 'data-state="failed"' in dom:
            break
    return dom


def picture(chromium: str, tmp_path, page, look: str) -> np.ndarray:
    shot = tmp_path / "shot.png"
    run(chromium, tmp_path, f"--screenshot={shot}", f"{page.as_uri()}#{look}")
    return np.asarray(Image.open(shot).convert("RGB")).astype(int)[70:300]  # without title and buttons


def test_the_page_needs_no_other_file_and_no_network():
    page = viewer_html(glb_bytes(letter(True)), {"prompt": "an F"})
    ours = page.replace((PARTS / "three.min.js").read_text(), "")
    assert not re.search(r'(src|href)\s*=\s*"', ours) and "http" not in ours.replace("http-equiv", "")
    assert "default-src 'none'" in ours and not re.search(r"\{\{\w+\}\}", ours)
    assert base64.b64decode(re.search(r'id="model">([^<]*)<', page)[1]) == glb_bytes(letter(True))


def test_any_prompt_is_text_and_never_markup():
    prompt = '</script><script>alert(1)</script> {{model}} & "quotes" 한 🍔'
    page = viewer_html(b"glb", {"prompt": prompt, "seed": "0"})
    assert "<script>alert" not in page and "&lt;/script&gt;" in page
    assert json.loads(re.search(r'id="metadata">([^<]*)<', page)[1]) == {"prompt": prompt, "seed": "0"}
    assert page.count(base64.b64encode(b"glb").decode()) == 1


def test_the_licence_of_three_js_travels_with_it():
    assert "MIT" in (PARTS / "LICENSE.three.txt").read_text()
    assert (PARTS / "three.min.js").read_text().startswith("/*! three.js 0.180.0")


@pytest.mark.parametrize("textured", [True, False])
def test_a_browser_shows_the_mesh(chromium, tmp_path, textured):
    page = tmp_path / "viewer.html"
    page.write_text(viewer_html(glb_bytes(letter(textured)), {"prompt": "a letter", "seed": "7"}), encoding="utf-8")
    unlit = picture(chromium, tmp_path, page, "unlit,turntable")
    covered = np.abs(unlit - BACKGROUND).max(axis=-1) > 12
    assert 0.04 < covered.mean() < 0.6
    colors = unlit[covered]
    assert (colors.max(axis=1) - colors.min(axis=1)).mean() > 30  # the field's colours, not grey
    grey = picture(chromium, tmp_path, page, "textureless,turntable")
    shaded = grey[np.abs(grey - BACKGROUND).max(axis=-1) > 12]
    assert (shaded.max(axis=1) - shaded.min(axis=1)).mean() < 20 and shaded.std() > 5  # grey, and lit


def test_the_page_says_what_it_shows(chromium, tmp_path):
    page = tmp_path / "viewer.html"
    page.write_text(viewer_html(glb_bytes(letter(True)), {"prompt": "a <b> letter", "seed": "7"}), encoding="utf-8")
    dom = dom_of(chromium, tmp_path, page)
    assert 'data-state="ready"' in dom and "<title>a &lt;b&gt; letter</title>" in dom
    assert f"{len(letter(True).faces):,} triangles · seed 7" in dom


def test_a_broken_mesh_is_reported_on_the_page(chromium, tmp_path):
    page = tmp_path / "viewer.html"
    page.write_text(viewer_html(b"not a mesh", {"prompt": "x"}), encoding="utf-8")
    assert "The mesh cannot be read" in dom_of(chromium, tmp_path, page).split("<script")[0]


# -- Gaussians -------------------------------------------------------------------------------------------------------


def dots(count=400) -> Gaussians:
    """Of all colours, faint and opaque ones: their order is to be seen."""
    generator = torch.Generator().manual_seed(0)
    first = ball(count, 0.35, 0.03, 0.3, 0.8, generator)
    opacities = first.opacities + torch.randn(count, generator=generator)
    colors = 3.0 * torch.randn(count, 3, generator=generator)
    return Gaussians(first.means, first.scales, first.quaternions, opacities, colors)


def first_camera(height: int, width: int) -> Cameras:
    """From where the page looks at first: 3.6 radii in front of the mesh, to the right and above."""
    low, high = (torch.from_numpy(corner(letter(False).vertices, axis=0)).float() for corner in (np.min, np.max))
    middle, radius = 0.5 * (low + high), 0.5 * (high - low).norm()
    position = middle + 3.6 * radius * torch.tensor([0.89, 0.35, 0.3])
    zero = torch.zeros(1)
    c2w = look_at(position[None], middle[None], torch.tensor([[0.0, 0.0, 1.0]]))
    return Cameras(c2w, torch.tensor([math.radians(35.0)]), zero, zero, zero, height, width)


def test_a_browser_draws_gaussians_as_the_trainer_does(chromium, tmp_path):
    cloud, page = dots(), tmp_path / "viewer.html"
    made = viewer_html(glb_bytes(letter(False)), {"prompt": "dots"}, gaussians=splat_bytes(cloud))
    page.write_text(made, encoding="utf-8")
    shown = picture(chromium, tmp_path, page, "turntable")[:185]  # above the buttons
    drawn = draw(cloud, cloud.colors.sigmoid()[None], first_camera(360, 480))
    image = 255.0 * drawn.values + drawn.passed * torch.tensor(BACKGROUND).view(1, 3, 1, 1)
    error = np.abs(shown - image[0].permute(1, 2, 0).numpy()[70:255])
    assert error.mean() < 0.5 and np.quantile(error, 0.999) < 8.0  # the file has 8 bits for colours and turns
    mesh = picture(chromium, tmp_path, page, "turntable,splats,unlit")[:185]
    assert np.abs(shown - mesh).mean() > 5.0


def test_a_page_of_gaussians_says_how_many(chromium, tmp_path):
    page, triangles = tmp_path / "viewer.html", f"{len(letter(False).faces):,} triangles"
    for gaussians, told in ((splat_bytes(dots(1200)), f"1,200 Gaussians · {triangles}"), (None, triangles)):
        page.write_text(viewer_html(glb_bytes(letter(False)), {}, gaussians=gaussians), encoding="utf-8")
        dom = dom_of(chromium, tmp_path, page)
        assert f'<p id="facts">{told}</p>' in dom
        button = re.search(r'<button id="splats"[^>]*>', dom)[0]
        assert ("hidden" in button) == (gaussians is None)
