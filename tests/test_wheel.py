"""A wheel, installed where no checkout is: everything that a run needs is inside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import trimesh

from distill3d import __version__
from distill3d.config.files import PROJECT

PARTS = ("distill3d", "configs", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE")
UNBUILT = shutil.ignore_patterns("__pycache__", "*.pyc")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that the checkout gets no build folder."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        if (PROJECT / part).is_dir():
            shutil.copytree(PROJECT / part, source / part, ignore=UNBUILT)
        else:
            shutil.copyfile(PROJECT / part, source / part)
    options = ["-q", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", str(source), *options], check=True, cwd=out)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> dict[str, str]:
    """How a process starts in a fresh environment that holds the wheel; a .pth leads to our copies of what it needs.

    Our own package stays unseen: where it is installed in place, another .pth names it, and Python reads none of a
    folder that a .pth names.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    places = sysconfig.get_paths("venv", {"base": str(folder), "platbase": str(folder)})
    options = ["-q", "--no-deps", "--no-index"]
    pip = [sys.executable, "-m", "pip", "--python", str(folder), "install", *options, str(wheel)]
    subprocess.run(pip, check=True, cwd=folder)
    ours = dict.fromkeys(map(sysconfig.get_path, ("purelib", "platlib")))
    (Path(places["purelib"]) / "ours.pth").write_text("\n".join(ours))
    variables = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "DISTILL3D_TRIAL")}
    return {**variables, "PATH": f"{places['scripts']}{os.pathsep}{os.environ['PATH']}"}


def run(installed, folder, *command) -> subprocess.CompletedProcess[str]:
    program = shutil.which(command[0], path=installed["PATH"])
    assert program
    return subprocess.run(
        [program, *command[1:]], env=installed, cwd=folder, capture_output=True, text=True, check=False
    )


def test_every_file_of_the_package_and_every_config_is_in_the_wheel(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        path.relative_to(PROJECT).as_posix()
        for path in (PROJECT / "distill3d").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    configs = {f"distill3d/{path.relative_to(PROJECT).as_posix()}" for path in (PROJECT / "configs").rglob("*.yaml")}
    assert len(ours) > 100 and len(configs) > 10
    assert not (ours | configs) - inside
    tops = {name.split("/")[0] for name in inside}
    assert tops == {"distill3d", f"distill3d-{__version__}.dist-info"}


def test_the_installed_command_makes_an_object_in_an_empty_folder(installed, tmp_path):
    where = run(installed, tmp_path, "python", "-c", "import distill3d; print(distill3d.__file__)").stdout
    assert Path(where).is_relative_to(Path(installed["PATH"].partition(os.pathsep)[0]).parent)
    done = run(installed, tmp_path, "distill3d", "--config", "dreamfusion-lmc.yaml", "trainer.max_steps=4")
    assert done.returncode == 0, done.stderr
    (record,) = tmp_path.rglob("metrics.json")
    assert json.loads(record.read_text())["steps"] == 4
    assert record.is_relative_to(tmp_path / "outputs")
    assert (record.parent / "cmd.txt").read_text().startswith("python -m distill3d --config dreamfusion-lmc.yaml")
    assert {path.suffix for path in (record.parent / "save").rglob("*")} >= {".glb", ".html", ".png", ".mp4"}
    (mesh,) = (record.parent / "save").rglob("model.glb")
    assert len(trimesh.load(mesh, force="mesh").faces) > 0


def test_the_installed_command_names_itself_and_lists_its_configs(installed, tmp_path):
    out = run(installed, tmp_path, "distill3d", "--help").stdout
    assert out.startswith("usage: distill3d ") and "launch.py" not in out
    out = run(installed, tmp_path, "distill3d", "--list").stdout
    assert "  dreamfusion-lmc.yaml " in out and "  prior/embedded.yaml " in out
