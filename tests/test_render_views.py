"""--render-views: what is written is what was rendered, and nothing is overwritten by accident."""

import json
import math

import numpy as np
import pytest
import torch
from posed_scenes import colored_box
from system_doubles import TINY_DATA, TINY_SYSTEM, fit, merged

from distill3d import cli
from distill3d.config.check import ConfigError
from distill3d.config.files import settings_of
from distill3d.config.yaml_text import dump_yaml
from distill3d.data.posed.module import PosedImageDataModule
from distill3d.data.posed.write import write_posed_images
from distill3d.evaluation.render_views import (
    RenderViewsSettings,
    mesh_views,
    render_data_set,
    view_cameras,
)

SMALL = ("train_views=4", "test_views=2", "size=16")


@pytest.fixture(scope="module")
def mesh_file(tmp_path_factory):
    import trimesh

    path = tmp_path_factory.mktemp("mesh") / "box.ply"
    box = colored_box()
    colors = (255 * box.colors).astype(np.uint8)
    trimesh.Trimesh(box.vertices, box.faces, vertex_colors=colors, process=False).export(path)
    return path


def launch(*arguments):
    return cli.main(["--render-views", *map(str, arguments)])


def opened(folder, **settings):
    return PosedImageDataModule(PosedImageDataModule.Config(root=str(folder), **settings))


def test_the_files_hold_the_views_to_a_byte(mesh_file, tmp_path):
    assert launch(mesh_file, tmp_path / "out", *SMALL) == 0
    names = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    pictures = [*(f"test/r_00{i}.png" for i in range(2)), *(f"train/r_00{i}.png" for i in range(4))]
    assert names == [*pictures, "transforms_test.json", "transforms_train.json"]
    read = opened(tmp_path / "out", background="black").train_views
    settings = RenderViewsSettings(4, 2, 16)
    seen = mesh_views(colored_box().normalized(), view_cameras(settings, 4, 0), "albedo")
    assert torch.equal(read.cameras.c2w, seen.cameras.c2w)
    assert read.cameras.fovy_rad.tolist() == pytest.approx(seen.cameras.fovy_rad.tolist())
    assert read.alpha is not None and (read.alpha - seen.alpha).abs().max() <= 0.5 / 255 + 1e-6
    assert (read.images - seen.rgb).abs().max() <= 1.5 / 255


def test_training_and_test_views_differ_and_follow_the_seed():
    settings = RenderViewsSettings(12, 12)
    train, test = view_cameras(settings, 12, 0), view_cameras(settings, 12, 1)
    assert torch.equal(train.c2w, view_cameras(settings, 12, 0).c2w)
    assert not torch.isclose(train.azimuth_deg[:, None], test.azimuth_deg[None]).any()
    assert (train.elevation_deg >= -10).all() and (train.elevation_deg <= 60).all()
    assert torch.allclose(train.position.norm(dim=1), torch.full((12,), 1.6))
    sectors = ((train.azimuth_deg + 180) // 30).long()
    assert sorted(sectors.tolist()) == list(range(12))


def test_lit_views_are_darker_where_the_light_does_not_reach():
    cameras = view_cameras(RenderViewsSettings(6, 1, 16), 6, 0)
    flat, lit = (mesh_views(colored_box(), cameras, shading) for shading in ("albedo", "lambertian"))
    assert torch.equal(flat.alpha, lit.alpha)
    assert (lit.rgb <= flat.rgb + 1e-6).all()
    ratio = (lit.rgb.sum(1) / flat.rgb.sum(1))[flat.alpha[:, 0] == 1]
    assert float(ratio.min()) == pytest.approx(0.4, abs=1e-3) and float(ratio.max()) > 0.6


def test_a_trial_or_its_checkpoint_gives_its_own_renders(tmp_path):
    system, _ = fit(tmp_path / "trial", 2)
    (tmp_path / "trial/configs").mkdir()
    settings = merged(TINY_SYSTEM, {"prompt_processor": {"prompt": "a red ball"}})
    (tmp_path / "trial/configs/parsed.yaml").write_text(dump_yaml({"data": TINY_DATA, "system": settings}))
    for i, source in enumerate((tmp_path / "trial", tmp_path / "trial/ckpts/last.ckpt")):
        assert launch(source, tmp_path / f"out{i}", *SMALL) == 0
        read = opened(tmp_path / f"out{i}", background="black").test_views
        cameras = view_cameras(RenderViewsSettings(4, 2, 16), 2, 1)
        own = system.renderer.render(cameras, None, "albedo", torch.zeros(3))
        assert (read.images - own.rgb.clamp(0, 1)).abs().max() <= 1.5 / 255


def test_a_folder_in_use_is_kept_unless_it_is_a_data_set_to_replace(mesh_file, tmp_path, caplog):
    out = tmp_path / "out"
    assert launch(mesh_file, out, *SMALL) == 0
    before = (out / "transforms_train.json").read_bytes()
    assert launch(mesh_file, out, *SMALL, "seed=1") == 2
    assert "overwrite=true" in caplog.text
    assert (out / "transforms_train.json").read_bytes() == before
    assert launch(mesh_file, out, *SMALL, "seed=1", "overwrite=true") == 0
    assert (out / "transforms_train.json").read_bytes() != before
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    assert launch(mesh_file, other, *SMALL, "overwrite=true") == 2
    assert (other / "thesis.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_a_failure_leaves_no_half_written_set(tmp_path, monkeypatch):
    views = mesh_views(colored_box(), view_cameras(RenderViewsSettings(3, 1, 8), 3, 0), "albedo")
    monkeypatch.setattr(json, "dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_posed_images(tmp_path / "out", {"train": views}, "box")
    assert list(tmp_path.iterdir()) == []


def test_pictures_wider_than_high_keep_their_angle(tmp_path):
    from dataclasses import replace

    wide = replace(view_cameras(RenderViewsSettings(3, 1, 8), 3, 0), width=14)
    views = mesh_views(colored_box(), wide, "albedo")
    write_posed_images(tmp_path / "out", {"train": views, "test": views}, "box")
    cameras = opened(tmp_path / "out").train_views.cameras
    assert (cameras.height, cameras.width) == (8, 14)
    assert cameras.fovy_rad.tolist() == pytest.approx([math.radians(40.0)] * 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train_views=1"], "train_views=1 must be at least 2"),
        (["size=4"], "size=4"),
        (["elevation_range=[20, 10]"], "elevation_range"),
        (["fovy=180"], "fovy=180"),
        (["trainviews=3"], "did you mean 'train_views'"),
        (["shading=normal"], "shading='normal' is not a choice"),
    ],
)
def test_a_wrong_setting_is_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        settings_of(RenderViewsSettings, arguments)


def test_a_source_that_is_nothing_to_render_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ConfigError, match=r"notes.txt is not a mesh .*a trial folder or a checkpoint"):
        render_data_set(tmp_path / "notes.txt", tmp_path / "out", RenderViewsSettings())
    with pytest.raises(ConfigError, match="is incomplete"):
        render_data_set(tmp_path, tmp_path / "out", RenderViewsSettings())
    assert not (tmp_path / "out").exists()


def test_the_verb_asks_for_both_of_its_arguments(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.parse(["--render-views", "mesh.ply"])
    assert caught.value.code == 2
    assert "expected 2 arguments" in capsys.readouterr().err
    request, _ = cli.parse(["--render-views", "mesh.ply", "out", "size=32"])
    assert (request.verb, request.arguments, request.overrides) == ("render-views", ("mesh.ply", "out"), ("size=32",))
