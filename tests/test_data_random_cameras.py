"""random-camera-datamodule: batches as a function of (seed, step, rank), settings, evaluation views."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from distill3d.camera import CameraRanges
from distill3d.config.check import ConfigError, build
from distill3d.config.registry import find
from distill3d.data.camera_settings import ViewDistribution, cameras_folder, view_distribution
from distill3d.data.random_cameras import (
    EvaluationViews,
    RandomCameraConfig,
    RandomCameraDataModule,
    evaluation_cameras,
    training_batch,
    widened,
)


def config(**settings) -> RandomCameraConfig:
    return build(RandomCameraConfig, settings, "data")


def batch(step=0, seed=0, rank=0, **settings):
    cfg = config(**settings)
    return training_batch(cfg, view_distribution(vars(cfg), None), seed, step, rank)


def same(a, b) -> bool:
    return torch.equal(a.cameras.c2w, b.cameras.c2w) and torch.equal(a.light.position, b.light.position)


def test_it_is_registered():
    assert find("data", "random-camera-datamodule") is RandomCameraDataModule


def test_a_batch_is_a_function_of_seed_step_and_rank():
    assert same(batch(7, 1, 2), batch(7, 1, 2))
    for other in (batch(8, 1, 2), batch(7, 2, 2), batch(7, 1, 3)):
        assert not same(batch(7, 1, 2), other)


def test_global_randomness_neither_matters_nor_is_used():
    torch.manual_seed(1)
    first, state = batch(), torch.get_rng_state()
    torch.manual_seed(2)
    assert same(first, batch())
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


def test_sizes_and_batch_size_change_at_the_milestones():
    settings = {"width": [32, 64], "height": [32, 48], "batch_size": [4, 1], "resolution_milestones": [100]}
    for step, expected in ((0, (4, 32, 32)), (99, (4, 32, 32)), (100, (1, 48, 64)), (5000, (1, 48, 64))):
        cameras = batch(step, **settings).cameras
        assert (len(cameras), cameras.height, cameras.width) == expected


def test_sets_of_views_differ_in_azimuth_alone_and_divide_its_range():
    settings = {"batch_size": 8, "n_view": 4, "light_sample_strategy": "magic3d"}
    views = batch(**settings)
    cameras, azimuth = views.cameras, views.cameras.azimuth_deg.view(2, 4)
    for name in ("elevation_deg", "distance", "fovy_rad"):
        drawn = getattr(cameras, name).view(2, 4)
        assert (drawn == drawn[:, :1]).all() and drawn[0, 0] != drawn[1, 0]
    torch.testing.assert_close((azimuth[:, 1:] - azimuth[:, :-1]) % 360.0, torch.full((2, 3), 90.0), atol=1e-3, rtol=0)
    distance = views.light.position.norm(dim=1).view(2, 4)
    torch.testing.assert_close(distance, distance[:, :1].expand(2, 4))
    target = cameras.c2w[:, :3, 2] * (cameras.position * cameras.c2w[:, :3, 2]).sum(1, keepdim=True)
    offset = (cameras.position - target).norm(dim=1)
    assert (offset > 1e-3).all()  # the perturbations are there, and are those of the set


def test_a_relative_radius_shows_the_object_as_large_through_every_lens():
    settings = {"batch_size": 16, "camera_distance_range": [0.9, 0.9], "fovy_range": [15, 60], "relative_radius": True}
    cameras = batch(**settings).cameras
    torch.testing.assert_close(cameras.distance * torch.tan(cameras.fovy_rad / 2), torch.full((16,), 0.9))
    assert cameras.distance.std() > 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": [32, 64]}, "data.width=.*one more than there are milestones"),
        ({"width": [32, 64, 128], "height": [1, 1, 1], "resolution_milestones": [9, 3]}, "must ascend"),
        ({"batch_size": 0}, "data.batch_size=0 must be positive"),
        ({"batch_size": [8, 6], "resolution_milestones": [9], "n_view": 4}, r"data.batch_size=\[8, 6\].*n_view=4"),
        ({"height": -3}, "data.height=-3 must be positive"),
        ({"eval_width": 0}, "data.eval_width=0 must be at least 1"),
        ({"n_test_views": 0}, "data.n_test_views=0 must be at least 1"),
        ({"elevation_rnage": [0, 1]}, "did you mean 'elevation_range'"),
        ({"light_sample_strategy": "sun"}, "data.light_sample_strategy"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        config(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fovy_range": [50, 40]}, "data.fovy_range"),
        ({"camera_distance_range": [0, 1]}, "data.camera_distance_range.*positive"),
        ({"elevation_range": [-100, 0]}, r"data.elevation_range.*\[-90, 90\]"),
        ({"camera_perturb": -0.1}, "data.camera_perturb=-0.1 must be at least 0"),
    ],
)
def test_impossible_ranges_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        RandomCameraDataModule(config(**settings))


def test_without_any_setting_the_distribution_is_dreamfusions():
    assert view_distribution({}, None) == ViewDistribution()


def test_null_settings_come_from_the_priors_own_cameras(tmp_path):
    learned = {"fovy_range": [35, 50], "elevation_range": [-10, 80], "up_perturb": None, "source": "a note"}
    (tmp_path / "cameras.json").write_text(json.dumps(learned))
    data = RandomCameraDataModule(config(cameras_like=str(tmp_path), elevation_range=[0, 5]))
    assert data.views.fovy_range == (35, 50)
    assert data.views.elevation_range == (0, 5)  # a setting stands above the prior's
    assert data.views.up_perturb == 0.02  # and DreamFusion's below it


def test_a_prior_without_cameras_leaves_dreamfusions(tmp_path):
    for name in (str(tmp_path), "org/model-on-the-hub", None):
        data = RandomCameraDataModule(config(cameras_like=name))
        assert data.views == ViewDistribution()


def test_the_embedded_prior_is_a_folder_of_the_package():
    folder = cameras_folder("embedded")
    assert folder is not None
    assert folder.parts[-2:] == ("embedded", "weights")
    assert Path(folder).parents[1].name == "distill3d"


@pytest.mark.parametrize("content", ["{", "[1]", '{"fovy_range": "wide"}'])
def test_damaged_cameras_are_named(tmp_path, content):
    (tmp_path / "cameras.json").write_text(content)
    with pytest.raises(ConfigError, match=r"cameras\.json"):
        RandomCameraDataModule(config(cameras_like=str(tmp_path)))


def test_views_widen_from_the_front():
    narrow = widened(CameraRanges(), 0.0, 15.0)
    assert narrow.elevation_range == (15.0, 15.0)
    assert narrow.azimuth_range == (0.0, 0.0)
    assert widened(CameraRanges(), 1.0, 15.0) == CameraRanges()
    settings = {"progressive_until": 100, "batch_size": 64}
    spread = [float(batch(step, **settings).cameras.azimuth_deg.abs().max()) for step in (0, 50, 100)]
    assert spread[0] == 0.0
    assert 45 < spread[1] <= 90
    assert spread[2] > 120


def test_evaluation_views_go_around_at_the_settings():
    cfg = config(eval_height=6, eval_width=4, eval_elevation_deg=20, camera_distance_range=[1, 3], fovy_range=[30, 50])
    cameras = evaluation_cameras(cfg, view_distribution(vars(cfg), None), 4)
    assert (cameras.height, cameras.width) == (6, 4)
    torch.testing.assert_close(cameras.azimuth_deg, torch.tensor([0.0, 90.0, -180.0, -90.0]))
    torch.testing.assert_close(cameras.distance, torch.full((4,), 2.0))  # the middle of the range
    torch.testing.assert_close(torch.rad2deg(cameras.fovy_rad), torch.full((4,), 40.0))
    own = config(eval_camera_distance=5.0, eval_fovy_deg=10.0)
    cameras = evaluation_cameras(own, view_distribution(vars(own), None), 1)
    assert (float(cameras.distance), float(torch.rad2deg(cameras.fovy_rad))) == (5.0, 10.0)


def test_evaluation_batches_hold_every_view_once_in_order():
    cfg = config(eval_height=2, eval_width=2)
    cameras = evaluation_cameras(cfg, view_distribution(vars(cfg), None), 5)
    views = list(EvaluationViews(cameras, 2))
    assert [v.index for v in views] == [0, 2, 4]
    assert torch.equal(torch.cat([v.cameras.c2w for v in views]), cameras.c2w)
    assert torch.equal(views[1].light.position, views[1].cameras.position)


def test_moving_a_batch_keeps_everything():
    first = batch()
    assert same(first, first.to("cpu"))
    assert str(first.to("meta").light.position.device) == "meta"
