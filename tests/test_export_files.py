"""Files are whole or absent."""

import os

import pytest

from distill3d.runtime.files import write_atomically


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
