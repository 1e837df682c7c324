"""Splats in a whole run: they learn, grow, resume to the same bits, are fitted to pictures, and leave their files."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from edit_doubles import OTHER, SAME, RenderedViews, Source, edit, make_edit
from plyfile import PlyData
from posed_scenes import make_data_set
from system_doubles import TINY_SYSTEM, check_resumed_run, fit, make_trainer, merged, tiny_data, tiny_system

from distill3d.cli import main
from distill3d.config.check import ConfigError, build
from distill3d.config.experiment import load
from distill3d.config.registry import find
from distill3d.config.yaml_text import dump_yaml
from distill3d.data.posed.module import PosedImageDataModule
from distill3d.evaluation.metrics import psnr_db
from distill3d.runtime.checkpoint import CheckpointError
from distill3d.runtime.foreign import ForeignFileError
from distill3d.scenes.splats.files import ply_bytes, read_gaussians, splat_bytes
from distill3d.scenes.splats.gaussians import ball, shortest_axes
from distill3d.systems.health import rim_opacity

EXPORT = {"threshold": 2.0, "resolution": 24, "faces": 300, "view_count": 1, "view_size": 24, "mode": "vertex"}
EXPORT["turntable_views"] = 0
GROWING = {"every": 3, "start": 3, "until": 9, "max_count": 90, "split_size": 0.05}
SETTINGS = {
    "scene_type": "splats",
    "scene": {"count": 60, "size": 0.1, "opacity": 0.5, "density": GROWING},
    "optimizer": {"params": {"scene.means": {"lr": 0.01}, "geometry": {"lr": 0.03}}},  # the second is a NeRF's
    "exporter": {**EXPORT, "viewer": False, "fit_count": 0},
}
MCMC = {**SETTINGS, "scene": {**SETTINGS["scene"], "density": {**GROWING, "strategy": "mcmc"}}}

# the names by which viewers of Gaussians ask
ATTRIBUTES = [*"xyz", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), "opacity"]
ATTRIBUTES += [*(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]


def begun(init: Path | str, **settings):
    cls = find("scene", "splats")
    scene = cls(build(cls.Config, {"init": str(init), "count": 200, **settings}, "system.scene"))  # type: ignore[attr-defined]
    scene.check()
    scene.prepare(0)
    return scene


# -- text to 3D ------------------------------------------------------------------------------------------------------


def test_they_learn_the_priors_colour_while_they_grow(tmp_path):
    system, trainer = fit(tmp_path, 25, **SETTINGS)
    scene = system.scene
    assert 60 < len(scene.means) <= 90 and len(scene.pull) == len(scene.means)
    cameras = tiny_data().evaluation_batch(3).cameras
    before, after = (s.preview(cameras).rgb.mean((0, 2, 3)) for s in (tiny_system(**SETTINGS).scene, scene))
    assert float((after[0] - after[1]) - (before[0] - before[1])) > 0.03  # the prior's images are red
    rates = {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}
    assert rates["scene.means"] == 0.01 and rates["scene.opacities"] == 0.05 and "geometry" not in rates
    assert set(system.views_per_shading) >= {"albedo"} and len(system.views_per_shading) > 1


@pytest.mark.parametrize("settings", [SETTINGS, MCMC], ids=["adaptive", "mcmc"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path, settings):
    resumed = check_resumed_run(tmp_path, 8, 5, **settings)  # stopped after the first growth, before the second
    assert len(resumed.scene.means) > 60


def test_one_word_makes_splats_of_the_nerfs_experiment():
    experiment = load("dreamfusion.yaml", ["system.scene_type=splats"]).experiment
    cls = find("system", "dreamfusion-system")
    system = cls(build(cls.Config, experiment.system, "system"))  # type: ignore[attr-defined]
    system.check_optimizer()
    assert system.scene.material.cfg.diffuse_prob == experiment.system["material"]["diffuse_prob"]
    assert system.scene.background.color.tolist() == [0.5, 0.5, 0.5]


def trained_a_little(root: Path, monkeypatch: pytest.MonkeyPatch, *settings: str) -> dict[str, Any]:
    """metrics.json of four steps of dreamfusion.yaml from the command line, with small pictures and a small mesh."""
    monkeypatch.setattr(os, "environ", dict(os.environ))  # a trial tells its children where it is
    exporter = (
        "resolution: 24, mode: vertex, view_size: 16, turntable_views: 0, viewer: false, sharpen: false, fit_count: 0"
    )
    small = [
        "trainer.max_steps=4",
        "data.batch_size=1",
        "data.eval_width=32",
        "data.eval_height=32",
        "data.n_val_views=1",
    ]
    small += [
        "data.n_test_views=2",
        "system.contact_views=2",
        f"system.exporter={{{exporter}}}",
        f"exp_root_dir={root}",
    ]
    assert main(["--config", "dreamfusion.yaml", "--train", *small, *settings]) == 0
    (path,) = root.rglob("metrics.json")
    return json.loads(path.read_text(encoding="utf-8"))


def test_one_word_on_the_command_line_trains_them_and_leaves_their_files(tmp_path, monkeypatch):
    metrics = trained_a_little(tmp_path, monkeypatch, "system.scene_type=splats", "trainer.accelerator=cpu")
    assert (metrics["steps"], metrics["diverged"], metrics["skipped_steps"]) == (4, False, 0)
    files = {Path(name).name for name in metrics["files"]}
    assert {"gaussians.ply", "gaussians.splat", "model.glb", "it4-test.mp4"} <= files
    (file,) = tmp_path.rglob("gaussians.ply")
    assert len(read_gaussians(file)) == 2000


# -- reconstruction --------------------------------------------------------------------------------------------------


def test_they_come_to_show_views_that_they_were_never_given(tmp_path):
    root = make_data_set(tmp_path / "box")
    data = PosedImageDataModule(build(PosedImageDataModule.Config, {"root": str(root), "n_test_views": 2}, "data"))
    cls = find("system", "nerf-reconstruction-system")
    scene = {"count": 400, "radius": 0.65, "density": {"every": 20, "start": 20, "until": 60, "max_count": 600}}
    settings = {"scene_type": "splats", "scene": scene, "background": {"color": [0.0, 0.0, 0.0]}}
    system = cls(build(cls.Config, settings, "system"))  # type: ignore[attr-defined]
    before, truth = system.rendered(data.test_views)
    system.attach(SimpleNamespace(root=tmp_path / "trial"))
    make_trainer(tmp_path / "trial", 80).fit(system, data)
    after, _ = system.rendered(data.test_views)
    assert psnr_db(after, truth).mean() > psnr_db(before, truth).mean() + 6.0


# -- edits -----------------------------------------------------------------------------------------------------------


def trained(root: Path, steps: int = 4, source: dict[str, Any] | None = None, **settings) -> Any:
    """The scene of a trial that others begin with; with a ``source`` the trial says that it was an edit of that."""
    system, _ = fit(root, steps, **settings)
    (root / "configs").mkdir(exist_ok=True)
    own = merged(TINY_SYSTEM, {"prompt_processor_type": "closed-form-prompts-for-tests", **settings, **(source or {})})
    kind = "dreamfusion-system" if source is None else "nerf-edit-system"
    (root / "configs/parsed.yaml").write_text(dump_yaml({"system_type": kind, "system": own}))
    return system.scene


def test_they_are_edited_and_stay_as_they_are_where_nothing_is_asked_for(tmp_path):
    scene = trained(tmp_path / "source", **SETTINGS)
    source = Source(tmp_path / "source", SimpleNamespace(render=scene.preview))
    given = {"scene_type": "splats", "exporter": SETTINGS["exporter"], "optimizer": SETTINGS["optimizer"]}
    away = {}
    for name, prompts in (("same", SAME), ("other", OTHER)):
        data = RenderedViews(source, source="renders")
        system = edit("nerf-edit-system", source, tmp_path / name, 6, data, prompt_processor=prompts, **given)
        original = system.original.means
        assert torch.equal(original, scene.means) and len(system.scene.means) == len(original) > 60
        away[name] = float((system.scene.colors - system.original.colors).detach().abs().max())
    assert away["same"] < 1e-3 < 0.1 < away["other"]


def test_an_edit_begins_with_what_another_edit_made(tmp_path):
    scene = trained(tmp_path / "source", 1, **SETTINGS)
    source = Source(tmp_path / "source", SimpleNamespace(render=scene.preview))
    given = {"scene_type": "splats", "scene": {"max_size": 0.07}}
    first = make_edit("nerf-edit-system", source, **given)
    trained(tmp_path / "edit", 1, {**given, "source_checkpoint": source.checkpoint}, **SETTINGS)
    second = make_edit("nerf-edit-system", Source(tmp_path / "edit", None), scene_type="splats")
    assert torch.equal(first.scene.means, scene.means) and first.scene.cfg.density.strategy == "none"
    assert second.scene.cfg.max_size == 0.07 and second.scene.cfg.count == 60 == len(second.original.means)


def test_an_edit_of_another_kind_of_scene_says_what_to_set(tmp_path):
    scene = trained(tmp_path, 1, **SETTINGS)
    source = Source(tmp_path, SimpleNamespace(render=scene.preview))
    with pytest.raises(CheckpointError, match=r"system\.scene_type=splats"):
        make_edit("nerf-edit-system", source)
    with pytest.raises(ConfigError, match=r"system\.keep_geometry holds a part of a NeRF"):
        make_edit("nerf-edit-system", source, scene_type="splats", keep_geometry=True)


# -- files -----------------------------------------------------------------------------------------------------------


def test_its_files_are_read_by_others(tmp_path):
    system, _ = fit(tmp_path, 2, **{**SETTINGS, "exporter": {**SETTINGS["exporter"], "viewer": True}})
    files = {path.name: path for path in system.export()}
    assert {"gaussians.ply", "gaussians.splat", "model.glb", "preview.png", "viewer.html"} <= set(files)
    assert base64.b64encode(files["gaussians.splat"].read_bytes()).decode() in files["viewer.html"].read_text("utf-8")
    scene, rows = system.scene, PlyData.read(str(files["gaussians.ply"]))["vertex"].data
    assert ",".join(rows.dtype.names) == ",".join(ATTRIBUTES)
    assert np.array_equal(rows["y"], scene.means[:, 1].detach().numpy())
    assert np.array_equal(rows["scale_2"], scene.scales[:, 2].detach().numpy())
    assert np.array_equal(rows["opacity"], scene.opacities.detach().numpy())
    red = 0.5 + 0.28209479 * rows["f_dc_0"]
    assert np.allclose(red, scene.colors[:, 0].detach().sigmoid().numpy(), atol=1e-6)
    splats = np.frombuffer(files["gaussians.splat"].read_bytes(), np.uint8).reshape(-1, 32)
    places = splats[:, :12].copy().view("<f4")
    assert {tuple(p) for p in places.tolist()} == {tuple(p) for p in scene.means.tolist()}


@pytest.mark.parametrize("kind", ["gaussians.ply", "gaussians.splat"])
def test_a_scene_begins_with_the_gaussians_of_a_file(tmp_path, kind):
    cloud = ball(50, 0.4, 0.05, 0.5, 0.3, torch.Generator().manual_seed(0))
    path = tmp_path / kind
    path.write_bytes(ply_bytes(cloud) if kind.endswith("ply") else splat_bytes(cloud))
    own = begun(path)
    assert len(own.means) == 50 == len(own.pull)
    order = own.means[:, 0].argsort(), cloud.means[:, 0].argsort()
    for name, limit in (("means", 0.0), ("scales", 1e-4), ("opacities", 0.03), ("colors", 0.03)):
        mine, theirs = getattr(own, name).detach()[order[0]], getattr(cloud, name)[order[1]]
        assert float((mine - theirs).abs().max()) <= (limit if kind.endswith("splat") else min(limit, 1e-4))


@pytest.mark.parametrize("suffix", ["ply", "obj"])
def test_a_scene_begins_on_a_mesh(tmp_path, suffix):
    trimesh.creation.icosphere(radius=0.3).export(tmp_path / f"ball.{suffix}")
    own = begun(tmp_path / f"ball.{suffix}")
    assert len(own.means) == 200
    assert torch.allclose(own.means.norm(dim=1), torch.tensor(0.5), atol=0.02)  # meshes are scaled to 0.5


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_a_scene_begins_with_points(tmp_path, encoding):
    points = np.random.default_rng(0).uniform(-0.3, 0.3, (300, 3)).astype("f4")
    colors = np.tile(np.array([[255, 0, 0, 255]], "u1"), (300, 1))
    trimesh.PointCloud(points, colors).export(tmp_path / "points.ply", encoding=encoding)
    own = begun(tmp_path / "points.ply")
    assert len(own.means) == 200 and float(own.colors.detach().sigmoid()[:, 0].min()) > 0.95
    apart = (own.means.detach()[:, None] - torch.from_numpy(points)).norm(dim=2).amin(dim=1)
    assert float(apart.max()) < 1e-6  # each stands on a point


def test_a_scene_begins_with_the_gaussians_of_a_trial(tmp_path):
    scene = trained(tmp_path, **SETTINGS)
    own = begun(tmp_path)
    assert len(own.means) == len(scene.means) > 60
    assert all(torch.equal(value, getattr(own, name)) for name, value in scene.parameters_by_row().items())


def test_a_scene_begins_on_the_volume_of_a_trial(tmp_path):
    """A blob around the origin: its normals point away from there."""
    trained(tmp_path, 1, geometry={"density_blob_scale": 20.0})
    own = begun(tmp_path, radius=0.65)
    away = own.means.detach().norm(dim=1)
    axes = shortest_axes(own.scales, own.quaternions).detach()
    outward = (axes * own.means.detach()).sum(dim=1) / away
    assert len(own.means) == 200 and float(away.max()) < 0.6 and float(outward.median()) > 0.7
    assert float(own.scales.detach().exp().max()) < 0.3 * float(away.mean())


def test_a_scene_that_is_tested_or_exported_needs_no_file():
    cls = find("scene", "splats")
    assert cls(build(cls.Config, {"init": "gone.ply"}, "system.scene")).gaussians is not None  # type: ignore[attr-defined]


def broken(tmp_path: Path, change) -> Path:
    cloud = ball(20, 0.4, 0.05, 0.5, 0.3, torch.Generator().manual_seed(0))
    path = tmp_path / "broken.ply"
    path.write_bytes(change(cloud))
    return path


def _not_a_number(cloud):
    cloud.scales[3, 1] = float("nan")
    return ply_bytes(cloud)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_not_a_number, "1 of 20 Gaussians whose scales are NaN"),
        (lambda c: ply_bytes(c).replace(b"rot_2", b"spin2"), "lacks rot_2"),
        (lambda c: ply_bytes(c)[:-40], "cannot be read"),
        (lambda c: b"not a ply", "cannot be read|no PLY|holds no"),
        (lambda c: ply_bytes(c).replace(b"vertex 20", b"vertex 0"), "empty"),
        (lambda c: ply_bytes(c).replace(b"vertex 20", b"vertex 9000000"), "9000000 points, more than"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_in_one_sentence(tmp_path, change, told):
    with pytest.raises(ForeignFileError, match=told) as caught:
        begun(broken(tmp_path, change))
    assert "broken.ply" in str(caught.value) and "system.scene.init" in str(caught.value)


def test_a_file_that_is_missing_cut_short_or_too_large_is_told(tmp_path):
    cloud = ball(20, 0.4, 0.05, 0.5, 0.3, torch.Generator().manual_seed(0))
    with pytest.raises(ForeignFileError, match="does not exist"):
        begun(tmp_path / "gone.ply")
    (tmp_path / "cut.splat").write_bytes(splat_bytes(cloud)[:-5])
    with pytest.raises(ForeignFileError, match="no multiple of 32"):
        begun(tmp_path / "cut.splat")
    (tmp_path / "whole.ply").write_bytes(ply_bytes(cloud))
    with pytest.raises(ForeignFileError, match=r"beyond system\.scene\.radius=0\.2"):
        begun(tmp_path / "whole.ply", radius=0.2)
    with pytest.raises(ConfigError, match="is no trial"):
        begun(tmp_path)
    assert len(read_gaussians(tmp_path / "whole.ply")) == 20


def test_what_many_gaussians_cost_is_told(tmp_path, caplog):
    path = tmp_path / "many.splat"
    path.write_bytes(splat_bytes(ball(60_000, 0.4, 0.01, 0.5, 0.3, torch.Generator().manual_seed(0))))
    assert len(begun(path).means) == 60_000
    assert "60000 Gaussians" in caplog.text and "0.01 GB" in caplog.text and "30 times" in caplog.text
    caplog.clear()
    begun("ball")
    assert caplog.text == ""


def test_a_scene_that_empties_or_fills_its_bounds_is_explained_in_its_own_settings():
    system, cameras = tiny_system(**SETTINGS), tiny_data().evaluation_batch(3).cameras
    scene, health = system.scene, system.health
    with torch.no_grad():
        scene.opacities.fill_(-9.0)
        empty = float(scene.preview(cameras).opacity.mean())
        scene.opacities.fill_(9.0)
        scene.scales.fill_(-2.3)
        scene.means *= 0.95 * scene.radius / scene.means.norm(dim=1, keepdim=True)
        rim = rim_opacity(scene.preview(cameras).opacity, cameras, scene.radius)
    told = list(filter(None, (health.observe(empty, step) for step in range(50, 100))))
    assert len(told) == 1 and "system.scene.density.min_opacity" in told[0]
    text = health.observe_rim(rim, 100)
    assert text is not None and "system.scene.init_radius" in text and health.observe_rim(rim, 101) is None
