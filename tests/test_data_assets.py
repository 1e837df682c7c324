"""The index of a mesh folder, and the way its meshes are turned into the world frame."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from tiny_assets import make_assets

from distill3d.data import assets as assets_module
from distill3d.data.assets import first_variants, load_mesh, read_index, y_up_to_world


def test_the_index_is_read_in_order(tmp_path):
    assets = read_index(make_assets(tmp_path))
    assert [asset.noun for asset in assets] == ["apple", "fox", "crown", "van"]
    assert [asset.core for asset in assets] == [True, True, True, False]
    assert [asset.has_front for asset in assets] == [False, True, False, True]


def test_the_first_variants_are_kept_of_every_noun(tmp_path):
    apple, fox, *_ = read_index(make_assets(tmp_path))
    several = [replace(apple, variant=3), fox, replace(apple, variant=1), replace(apple, variant=0)]
    assert [asset.variant for asset in first_variants(several, 2)] == [0, 1, 0]
    assert first_variants(several, None) == several


def test_y_is_up_and_the_front_looks_along_x():
    up, front, right = np.eye(3, dtype=np.float32)[[1, 2, 0]]
    turned = y_up_to_world(np.stack([up, front, right]))
    assert turned.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(("turn", "axis"), [(-90.0, (1, 0, 0)), (90.0, (-1, 0, 0)), (180.0, (0, 0, -1))])
def test_a_turn_brings_the_named_axis_to_the_front(turn, axis):
    assert y_up_to_world(np.asarray([axis], np.float32), turn)[0] == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)


def test_turning_is_a_rotation():
    points = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    assert np.linalg.det(y_up_to_world(points, 37.0)) == pytest.approx(float(np.linalg.det(points)), rel=1e-4)


def test_meshes_keep_their_colours_and_are_normalised(tmp_path):
    fox = load_mesh(read_index(make_assets(tmp_path))[1])
    assert np.allclose(fox.colors, np.asarray([220, 120, 40]) / 255.0)
    assert np.linalg.norm(fox.vertices, axis=1).max() == pytest.approx(0.5, abs=1e-5)
    extent = np.ptp(fox.vertices, axis=0)
    assert extent.argmax() == 0  # its long side was +X in the file, and is the world's front now


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.assets="):
        read_index(tmp_path)
    folder = make_assets(tmp_path)
    (folder / "meshes/fox/v0.ply").unlink()
    with pytest.raises(ValueError, match="line 3"):
        read_index(folder)


def test_a_correction_of_a_front_holds_for_the_very_file_alone(tmp_path, monkeypatch):
    folder = make_assets(tmp_path)
    fox = folder / "meshes/fox/v0.ply"
    table = tmp_path / "corrections.csv"
    monkeypatch.setattr(assets_module, "_CORRECTIONS", table)

    def front(digest):
        table.write_text(f"sha256,front,file\n{digest},-Z,meshes/fox/v0.ply\n")
        assets_module._corrections.cache_clear()
        return read_index(folder)[1].front

    assert front("0" * 64) == "+X"
    assert front(hashlib.sha256(fox.read_bytes()).hexdigest()) == "-Z"
    assets_module._corrections.cache_clear()


def test_the_shipped_corrections_are_valid():
    assets_module._corrections.cache_clear()
    shipped = assets_module._corrections()
    assert len(shipped) == 13
    for entries in shipped.values():
        assert all(len(digest) == 64 and front in assets_module._TURN_TO_FRONT for digest, front in entries)
