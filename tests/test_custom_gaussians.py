"""The worked scene in custom/: it trains, grows, resumes and exports like a scene of the package."""

from __future__ import annotations

import pytest
import torch
from system_doubles import check_resumed_run, fit, tiny_data, tiny_system

from distill3d.config.experiment import load
from distill3d.config.files import PROJECT
from distill3d.config.registry import find, registered
from distill3d.runtime.extensions import import_extensions

CONFIG = PROJECT / "custom" / "gaussians" / "gaussians.yaml"
EXPORT = {
    "threshold": 2.0,
    "resolution": 24,
    "faces": 300,
    "view_count": 1,
    "view_size": 24,
    "turntable_views": 0,
    "mode": "vertex",
    "viewer": False,
}
SETTINGS = {
    "scene_type": "gaussians",
    "scene": {"count": 40, "max_count": 60, "size": 0.12, "opacity": 0.6, "densify_every": 3, "densify_until": 9},
    "loss": {"lambda_orient": 0.0},
    "optimizer": {"params": {"scene.means": {"lr": 0.01}}},
    "exporter": EXPORT,
}


@pytest.fixture(autouse=True)
def extension():
    assert "gaussians" in import_extensions([PROJECT / "custom"])


def test_it_learns_the_priors_colour_while_it_grows(tmp_path):
    system, trainer = fit(tmp_path, 30, **SETTINGS)
    scene = system.scene
    assert 40 < len(scene.means) <= 60 and len(scene.pull) == len(scene.means)
    cameras = tiny_data().evaluation_batch(3).cameras
    before, after = (s.preview(cameras).rgb.mean((0, 2, 3)) for s in (tiny_system(**SETTINGS).scene, scene))
    assert float(after[0] - before[0]) > 0.05  # the prior's images are red
    assert system.record.gradient_norm > 0.0
    rates = {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}
    assert rates == {"scene.means": 0.01, "scene.sizes": 0.02, "scene.opacities": 0.05, "scene.colours": 0.02}


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path):
    resumed = check_resumed_run(tmp_path, 8, 5, **SETTINGS)  # stopped after the first growth, before the second
    assert len(resumed.scene.means) > 40


def test_faint_gaussians_are_pruned_and_the_others_stay(tmp_path):
    system, trainer = fit(tmp_path, 1, **SETTINGS)
    with torch.no_grad():
        system.scene.opacities[:10] = -10.0
    rest = system.scene.means[10:].detach().clone()
    system.scene._densify(trainer.optimizers[0], torch.Generator().manual_seed(0))
    kept = (system.scene.means.detach()[:, None] == rest).all(-1).any(0)
    assert int(kept.sum()) == 30 - 4  # a tenth of 40 was split
    assert float(system.scene.opacities.min()) > -9.0


def test_it_exports_a_mesh_and_a_file_of_gaussians(tmp_path):
    system, _ = fit(tmp_path, 2, **SETTINGS)
    names = {path.name for path in system.export()}
    assert {"gaussians.ply", "model.glb", "preview.png"} <= names
    ply = next((tmp_path / "save").rglob("gaussians.ply")).read_bytes()
    header, _, body = ply.partition(b"end_header\n")
    assert f"element vertex {len(system.scene.means)}".encode() in header
    rows = torch.frombuffer(bytearray(body), dtype=torch.float32).view(len(system.scene.means), 14)
    assert torch.equal(rows[:, :3], system.scene.means.detach())
    assert torch.equal(rows[:, 7], system.scene.sizes.detach())


def test_a_ray_through_one_gaussian_sees_its_opacity():
    cls = find("scene", "gaussians")
    scene = cls(cls.Config(count=1))  # type: ignore[call-arg]
    with torch.no_grad():
        scene.means.zero_()
    points = torch.linspace(-0.5, 0.5, 2001)[:, None] * torch.tensor([1.0, 0.0, 0.0])
    depth = float(scene.density(points).sum()) / 2000
    assert 1.0 - torch.tensor(-depth).exp() == pytest.approx(0.3, abs=1e-4)


def test_its_yaml_loads_and_it_is_listed():
    experiment = load(CONFIG, ["system.prompt_processor.prompt=a fox"]).experiment
    assert experiment.system["scene_type"] == "gaussians"
    assert "gaussians" in registered("scene")
