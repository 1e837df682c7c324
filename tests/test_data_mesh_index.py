"""An index for a folder of anybody's meshes."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import trimesh

from distill3d.cli import main
from distill3d.config.check import ConfigError
from distill3d.data.assets import load_mesh, read_index
from distill3d.data.mesh_index import index_meshes, noun_of


def write_box(path, extents=(1.0, 1.0, 1.0), color=(200, 30, 30, 255)):
    path.parent.mkdir(parents=True, exist_ok=True)
    box = trimesh.creation.box(extents)
    box.visual.vertex_colors = np.tile(np.asarray(color, np.uint8), (len(box.vertices), 1))
    box.export(path)


@pytest.mark.parametrize(
    ("path", "noun"),
    [
        ("fox/fox_01.glb", "fox"),
        ("fox_2.glb", "fox"),
        ("meshes/ice_cream_truck/v0.ply", "ice cream truck"),
        ("models/TreasureChest-03.glb", "treasure chest"),
        ("animals/1/7.glb", "object"),
    ],
)
def test_nouns_are_read_from_paths(path, noun):
    assert noun_of(path) == noun


def test_glbs_become_a_folder_that_can_be_trained_on(tmp_path):
    write_box(tmp_path / "fox/a.glb", (1.0, 1.0, 3.0))
    write_box(tmp_path / "fox/b.glb")
    write_box(tmp_path / "van.glb")
    assert main(["--index-meshes", str(tmp_path)]) == 0
    assets = read_index(tmp_path)
    assert [(a.noun, a.variant, a.rank) for a in assets] == [("fox", 0, 1), ("fox", 1, 1), ("van", 0, 2)]
    mesh = load_mesh(assets[0])
    assert np.ptp(mesh.vertices, axis=0).argmax() == 0  # its long side is z in the file, the world's x
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(0.5, abs=1e-4)
    linear = np.asarray([200, 30, 30]) / 255.0  # colours at a GLB's vertices are linear, ours are sRGB
    assert mesh.colors.mean(axis=0) == pytest.approx(1.055 * linear ** (1 / 2.4) - 0.055, abs=0.02)


def test_corrections_by_hand_and_other_columns_stay(tmp_path):
    for name in ("fox/a.glb", "van.glb"):
        write_box(tmp_path / name)
    index_meshes(tmp_path)
    rows = list(csv.DictReader((tmp_path / "index.csv").open()))
    rows[0].update(noun="red fox", front="-X", note="by hand")
    with (tmp_path / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([rows[0]])
    (tmp_path / "van.glb").rename(tmp_path / "bus.glb")
    kept, new = index_meshes(tmp_path)
    assert (kept["noun"], kept["front"], kept["note"]) == ("red fox", "-X", "by hand")
    assert (new["noun"], new["rank"]) == ("bus", "2")
    assert [asset.front for asset in read_index(tmp_path)] == ["-X", ""]


def test_meshes_that_are_gone_are_left_out(tmp_path):
    for name in ("fox.glb", "van.glb"):
        write_box(tmp_path / name)
    index_meshes(tmp_path)
    (tmp_path / "fox.glb").unlink()
    assert [row["file"] for row in index_meshes(tmp_path)] == ["van.glb"]


def test_a_folder_without_meshes_is_a_mistake(tmp_path):
    with pytest.raises(ConfigError, match="no mesh below it"):
        index_meshes(tmp_path)
    assert main(["--index-meshes", str(tmp_path / "nowhere")]) == 2
