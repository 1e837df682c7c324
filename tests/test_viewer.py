"""The live viewer: its cameras and pictures, what it costs, and a browser that sees the scene change."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from browser import browser, wait
from system_doubles import TINY_DATA, TINY_SYSTEM, merged

from distill3d import cli
from distill3d.camera import look_at, make_cameras
from distill3d.config.check import ConfigError
from distill3d.config.yaml_text import dump_yaml
from distill3d.types import RenderOutput
from distill3d.viewer import live
from distill3d.viewer import trial as finished
from distill3d.viewer.settings import ViewerSettings, require
from distill3d.viewer.sight import View, picture, preview_of, rotation
from distill3d.viewer.window import Window

FRONT = View((0.5, -0.5, -0.5, 0.5), (2.0, 0.0, 0.0), 0.7, 1.0)


def flat(colour):
    """A preview of one colour everywhere."""

    def preview(cameras, light, shading, need_normal=True):
        size = (1, 1, cameras.height, cameras.width)
        rgb = torch.tensor(colour).reshape(1, 3, 1, 1).expand(-1, -1, *size[2:])
        normal = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1).expand(-1, -1, *size[2:]) if need_normal else None
        return RenderOutput(rgb, torch.full(size, 0.5), torch.ones(size), normal, shading)

    return preview


def test_a_quaternion_is_a_rotation_and_its_opposite_the_same():
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        q = tuple((3 * torch.randn(4, generator=generator)).tolist())
        matrix = rotation(q)
        assert torch.allclose(matrix @ matrix.T, torch.eye(3), atol=1e-5) and torch.det(matrix) > 0.99
        assert torch.allclose(matrix, rotation(tuple(-v for v in q)), atol=1e-6)
    assert torch.allclose(rotation((2.0**0.5, 0, 0, 2.0**0.5)) @ torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0]))


def test_a_browsers_camera_in_front_is_our_front_camera():
    ours = make_cameras(*(torch.tensor([v]) for v in (0.0, 0.0, 2.0, float(np.rad2deg(0.7)))), 48, 48)
    theirs = FRONT.cameras(48)
    assert torch.allclose(theirs.c2w, ours.c2w, atol=1e-5)
    for name in ("fovy_rad", "elevation_deg", "azimuth_deg", "distance"):
        assert torch.allclose(getattr(theirs, name), getattr(ours, name), atol=1e-4), name


@pytest.mark.parametrize(("aspect", "size"), [(2.0, (32, 64)), (0.5, (64, 32)), (1.0, (64, 64))])
def test_the_longer_side_is_what_was_asked_for(aspect, size):
    cameras = View(FRONT.wxyz, FRONT.position, 0.7, aspect).cameras(64)
    assert (cameras.height, cameras.width) == size


def test_looks_are_colour_normals_and_opacity():
    shown = {
        look: picture(flat([1.0, 0.0, 0.0]), View(*list(vars(FRONT).values())[:4], look), 8)[0, 0].tolist()
        for look in ("colour", "normals", "opacity")
    }
    assert shown == {"colour": [255, 0, 0], "normals": [64, 64, 191], "opacity": [128, 128, 128]}


def test_settings_are_checked():
    for wrong in ({"share": 0.0}, {"port": 0}, {"largest": 8}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ViewerSettings(**wrong)
    with pytest.raises(ConfigError, match="pip install"):
        require("no_such_package_at_all", "the viewer")
    with pytest.raises(ConfigError, match="no cameras"):
        preview_of(SimpleNamespace())


class Camera(SimpleNamespace):
    """A browser's camera that moves whenever it is looked at."""

    @property
    def position(self):
        self.x += 0.01
        return (self.x, 0.0, 0.0)


def visitor():
    camera = Camera(update_timestamp=1.0, wxyz=FRONT.wxyz, fov=0.7, aspect=1.0, x=2.0)
    seen: list = []
    scene = SimpleNamespace(set_background_image=lambda image, format: seen.append(image))
    return SimpleNamespace(client_id=1, camera=camera, scene=scene, seen=seen)


@pytest.fixture
def window():
    made = Window(ViewerSettings(port=8190), "a fox", ("stop",))
    yield made
    made.close()


def test_views_take_no_more_than_their_share_of_the_time(window, monkeypatch):
    client = visitor()
    monkeypatch.setattr(window.server, "get_clients", lambda: {1: client})
    spent = 0.0

    def slow(*args, **kwargs):
        nonlocal spent
        begun = time.perf_counter()
        time.sleep(0.01)
        result = flat([0.0, 1.0, 0.0])(*args, **kwargs)
        spent += time.perf_counter() - begun
        return result

    begun, step = time.perf_counter(), 0
    while time.perf_counter() - begun < 2.0:
        window.serve(slow, step)
        time.sleep(0.002)  # a step of training
        step += 1
    assert len(client.seen) >= 3
    assert spent / (time.perf_counter() - begun) < 0.1


def test_without_a_visitor_nothing_is_rendered_and_a_still_view_is_sent_once(window, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("nobody looks")

    assert not window.serve(never, 0)
    client = visitor()
    client.camera = SimpleNamespace(update_timestamp=1.0, wxyz=FRONT.wxyz, position=(2, 0, 0), fov=0.7, aspect=1.0)
    monkeypatch.setattr(window.server, "get_clients", lambda: {1: client})
    assert [window.serve(flat([0.0, 1.0, 0.0]), step, 1.0) for step in (0, 0, 1)] == [True, False, True]


def test_a_browser_sees_the_scene_change_and_its_buttons_arrive(window, tmp_path):
    with browser(tmp_path) as page:
        page.open(window.address)

        def centre(colour):
            window.serve(flat(colour), int(time.monotonic() * 10), 1.0)
            return page.picture()[250:350, 250:350].reshape(-1, 3).mean(axis=0)

        wait(lambda: (lambda c: c[0] > 200 and c[2] < 60)(centre([1.0, 0.0, 0.0])), "red")
        (client,) = window.server.get_clients().values()
        first = window._view(client).cameras(8)
        expected = look_at(torch.tensor([[1.6, 0.0, 0.5]]), torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]))
        assert torch.allclose(first.c2w, expected, atol=1e-3)
        wait(lambda: (lambda c: c[2] > 200 and c[0] < 60)(centre([0.0, 0.0, 1.0])), "blue")
        window.say({"step": "7 of 9"})
        wait(lambda: "a fox" in page.text() and "step: 7 of 9" in page.text(), "the panel")
        page.click("stop")
        assert wait(lambda: not window.commands.empty() and window.commands.get(), "the button") == "stop"


CONFIG = {
    "name": "tiny",
    "data": TINY_DATA,
    "system": merged(
        TINY_SYSTEM, {"prompt_processor": {"prompt": "a ball"}, "loggers": {"tensorboard": {"enable": False}}}
    ),
    "trainer": {"max_steps": 4, "enable_progress_bar": False, "accelerator": "cpu"},
    "viewer": {"port": 8191},
}


def weights(folder):
    (path,) = folder.rglob("last.ckpt")
    return torch.load(path, weights_only=True)["state_dict"]


def test_training_with_a_visitor_gives_the_same_weights_and_obeys_its_buttons(tmp_path, monkeypatch):
    """The visitor looks in every step, saves and exports; another one stops the training."""
    exporter = {"resolution": 16, "mode": "vertex", "faces": 200, "viewer": False, "preview": False, "threshold": 1.0}
    client = visitor()
    commands = [live.SAVE, live.EXPORT]

    class Watched(Window):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.server.get_clients = lambda: {1: client}
            for command in commands:
                self.commands.put(command)

    monkeypatch.setattr(live, "Window", Watched)
    for name, enable in (("alone", False), ("watched", True)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.delenv("DISTILL3D_TRIAL", raising=False)
        (tmp_path / name / "tiny.yaml").write_text(dump_yaml(merged(CONFIG, {"system": {"exporter": exporter}})))
        assert cli.main(["--config", "tiny", f"viewer.enable={str(enable).lower()}", "viewer.share=1.0"]) == 0
    alone, watched = weights(tmp_path / "alone"), weights(tmp_path / "watched")
    assert alone.keys() == watched.keys() and all(torch.equal(alone[key], watched[key]) for key in alone)
    assert len(client.seen) == 4
    assert list((tmp_path / "watched").rglob("it0.ckpt")) and list((tmp_path / "watched").rglob("it0-export/model.glb"))

    commands[:] = [live.STOP]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL3D_TRIAL", raising=False)
    (tmp_path / "tiny.yaml").write_text(dump_yaml(merged(CONFIG, {"system": {"exporter": exporter}})))
    assert cli.main(["--config", "tiny", "viewer.enable=true", "name=stopped"]) == 0
    assert list((tmp_path / "outputs/stopped").rglob("it1-export"))

    (checkpoint,) = (tmp_path / "watched").rglob("last.ckpt")
    commands.clear()
    client.seen.clear()
    monkeypatch.setattr(finished, "Window", Watched)
    finished.view_trial(checkpoint, ViewerSettings(port=8192), seconds=0.5)
    assert len(client.seen) > 1 and client.seen[0].shape == (96, 96, 3)


def test_what_is_no_trial_cannot_be_viewed(tmp_path, capsys):
    assert cli.main(["--view", str(tmp_path)]) == 2
    assert "neither a trial folder nor a checkpoint" in capsys.readouterr().err
