"""Files and folders are whole or absent."""

import json
import os

import pytest

from distill3d.runtime.files import replacing, replacing_folder, write_atomically, write_json


def test_writing_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "model.glb"
    assert write_atomically(path, b"one") == path
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["model.glb"]
    assert path.stat().st_mode & 0o444 == 0o444


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_an_interruption_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step, error):
    path = write_atomically(tmp_path / "model.glb", b"old")

    def interrupt(*_):
        raise error

    monkeypatch.setattr(os, step, interrupt)
    with pytest.raises(type(error)):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.glb"]


def test_a_file_that_a_library_writes_keeps_its_suffix(tmp_path):
    with replacing(tmp_path / "film.mp4") as path:
        assert path.suffix == ".mp4" and path.parent == tmp_path and path.name != "film.mp4"
        path.write_bytes(b"film")
    assert (tmp_path / "film.mp4").read_bytes() == b"film"
    assert [p.name for p in tmp_path.iterdir()] == ["film.mp4"]


def test_a_folder_replaces_the_old_one_only_when_it_is_complete(tmp_path):
    target = tmp_path / "views"
    for name in ("old", "new"):
        with replacing_folder(target) as folder:
            (folder / name).write_text(name)
    with pytest.raises(KeyboardInterrupt), replacing_folder(target) as folder:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["views"]
    assert [p.name for p in target.iterdir()] == ["new"]


def test_json_is_strict_on_demand_and_keeps_its_letters(tmp_path):
    path = write_json(tmp_path / "a.json", {"prompt": "Bär", "loss": float("inf")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"prompt": "Bär", "loss": float("inf")}
    assert "Bär" in path.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("inf"), allow_nan=False)
    assert json.loads(path.read_text(encoding="utf-8"))["prompt"] == "Bär"
