"""The loop: what it optimises, what it loads, what it leaves behind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import imageio_ffmpeg
import pytest
import torch
from closed_form import GaussianPrior
from PIL import Image
from system_doubles import LOADED, fit, make_trainer, tiny_data, tiny_system
from torch import nn

from distill3d.config.check import ConfigError
from distill3d.config.registry import register, registered
from distill3d.guidance.base import Guidance
from distill3d.guidance.sds import SDS
from distill3d.scenes.nerf.field import ImplicitVolume
from distill3d.systems.distillation import DistillationSystem
from distill3d.types import GuidanceInput, GuidanceOutput, Prompt, TextRequest


@register("guidance", "sds-with-parameters-for-tests")
class LearnedGuidance(Guidance, nn.Module):
    """SDS, and a parameter of its own that learns the mean of x; another one is made from the prior."""

    @dataclass
    class Config:
        guidance_scale: float = 1.0

    def __init__(self, cfg: Config) -> None:
        nn.Module.__init__(self)
        self.rule = SDS(SDS.Config(guidance_scale=cfg.guidance_scale))
        self.mean = nn.Parameter(torch.zeros(3))

    def texts(self, prompt) -> dict[str, TextRequest]:
        return self.rule.texts(prompt)

    def prepare(self, prior, texts) -> None:
        self.from_prior = nn.Parameter(torch.full((prior.spec.image_sizes[0],), 0.5))

    def __call__(self, prior, inputs: GuidanceInput) -> GuidanceOutput:
        guided = self.rule(prior, inputs)
        error = self.mean - inputs.x.detach().mean((0, 2, 3))
        return GuidanceOutput(guided.grad, error.square().sum() + self.from_prior.square().sum(), guided.diagnostics)


def test_sds_pulls_the_views_to_the_priors_mean(tmp_path):
    """Without guidance (w = 0) SDS is still only at the mean of the prompt's images, here flat red (.8, .3, .3)."""
    target = torch.tensor([0.8, 0.3, 0.3])
    settings = {
        "guidance": {"guidance_scale": 0.0},
        "material": {"ambient_only_steps": 100},
        "loss": {"lambda_orient": 0.0},
        "optimizer": {"args": {"lr": 0.02}},
    }
    start = tiny_system()
    views = tiny_data().evaluation_batch(4)
    system, _ = fit(tmp_path, 80, **settings)
    before, after = (s.renderer.render(views.cameras).rgb.mean((0, 2, 3)) for s in (start, system))
    assert float((after - target).norm()) < 0.3 * float((before - target).norm())


def test_texts_are_embedded_before_the_prior_is_loaded_and_only_to_train(tmp_path):
    LOADED.clear()
    system, trainer = fit(tmp_path, 1)
    assert LOADED == ["texts", "prior"]
    trainer.test(system, trainer.datamodule, verbose=False)
    trainer.validate(system, trainer.datamodule, verbose=False)
    other = tiny_system()
    other.attach(SimpleNamespace(root=tmp_path))
    make_trainer(tmp_path, 1).test(other, tiny_data(), ckpt_path=tmp_path / "ckpts/last.ckpt", verbose=False)
    assert LOADED == ["texts", "prior"]
    with pytest.raises(RuntimeError, match="loaded for training only"):
        _ = other.prior


@pytest.mark.parametrize(
    ("conditions", "views", "warned"),
    [
        ({"text"}, {"front": "a", "back": "a"}, True),
        ({"text"}, {"front": "a, front view", "back": "a, back view"}, False),
        ({"text", "camera"}, {"front": "a", "back": "a"}, False),
    ],
)
def test_a_prior_that_nothing_tells_the_side_is_warned_of(tmp_path, caplog, monkeypatch, conditions, views, warned):
    monkeypatch.setattr(GaussianPrior, "conditions", frozenset(conditions))
    system = tiny_system()
    monkeypatch.setattr(system.prompt_processor, "prompt", Prompt("a", views=views))
    make_trainer(tmp_path, 1).fit(system, tiny_data())
    assert ("nothing tells the model from which side it looks" in caplog.text) is warned


def test_the_prior_is_in_no_state_optimiser_or_checkpoint(tmp_path):
    system, trainer = fit(tmp_path, 1)
    checkpoint = torch.load(tmp_path / "ckpts/last.ckpt", weights_only=True)
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"scene"}
    trained = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert trained == {id(p) for p in system.renderer.parameters()}


def test_every_module_with_parameters_is_trained_whatever_the_optimiser_names(tmp_path, caplog):
    start = tiny_system()
    with caplog.at_level("INFO"):
        system, _ = fit(tmp_path, 2, optimizer={"params": {"geometry": {"lr": 0.05}}})
    assert "background is not in system.optimizer.params" in caplog.text
    for name, parameter in system.named_parameters():
        assert not torch.equal(parameter, start.get_parameter(name)), name


def test_no_tensor_stands_twice_in_a_checkpoint():
    state = tiny_system().state_dict()
    pointers = [tensor.data_ptr() for tensor in state.values()]
    assert len(set(pointers)) == len(pointers)


def test_views_per_shading_are_counted(tmp_path):
    fit(tmp_path, 6, data={"batch_size": 2}, material={"diffuse_prob": 1.0, "textureless_prob": 1.0})
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["views_per_shading"] == {"albedo": 4, "textureless": 8}  # albedo alone in the first two steps


def test_each_view_may_draw_its_own_shading(tmp_path):
    system, _ = fit(tmp_path, 1, data={"batch_size": 16}, material={"ambient_only_steps": 0}, shading_per_view=True)
    assert sum(system.views_per_shading.values()) == 16
    assert len(system.views_per_shading) == 3


def test_a_guidances_own_parameters_are_a_group_of_the_one_optimiser(tmp_path):
    system, trainer = fit(tmp_path, 30, guidance_type="sds-with-parameters-for-tests", optimizer={"args": {"lr": 0.05}})
    assert "guidance" in [group["name"] for group in trainer.optimizers[0].param_groups]
    assert float(system.guidance.mean.detach().norm()) > 0.1
    assert float(system.guidance.from_prior.detach().mean()) < 0.3
    state = torch.load(tmp_path / "ckpts/last.ckpt", weights_only=True)["state_dict"]
    assert {"guidance.mean", "guidance.from_prior"} <= state.keys()


def test_what_a_guidance_makes_from_the_prior_resumes_and_is_not_needed_to_test(tmp_path):
    settings = {"guidance_type": "sds-with-parameters-for-tests"}
    fit(tmp_path, 2, **settings)
    last = tmp_path / "ckpts/last.ckpt"
    resumed, _ = fit(tmp_path, 3, resume=last, **settings)
    whole, _ = fit(tmp_path / "whole", 3, **settings)
    assert torch.equal(resumed.guidance.from_prior, whole.guidance.from_prior)
    tested = tiny_system(**settings)
    make_trainer(tmp_path, 1).test(tested, tiny_data(), ckpt_path=last, verbose=False)
    assert not hasattr(tested.guidance, "from_prior")


def test_the_own_loss_never_reaches_the_scene(tmp_path):
    plain, _ = fit(tmp_path / "a", 3)
    learned, _ = fit(tmp_path / "b", 3, guidance_type="sds-with-parameters-for-tests")
    for name, tensor in plain.renderer.state_dict().items():
        assert torch.equal(tensor, learned.renderer.state_dict()[name]), name


def test_initial_weights_are_a_function_of_the_seed_alone():
    torch.manual_seed(123)
    first = tiny_system(3).state_dict()
    torch.rand(7)
    state = torch.get_rng_state()
    second = tiny_system(3).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(state, torch.get_rng_state())
    assert not all(torch.equal(first[name], tensor) for name, tensor in tiny_system(4).state_dict().items())


def test_pictures_and_the_turntable_have_the_sizes_asked_for(tmp_path):
    data = {"eval_width": 22, "eval_height": 18, "n_val_views": 3}
    system, trainer = fit(tmp_path, 2, trainer={"val_check_interval": 1}, data=data, contact_views=4)
    trainer.test(system, trainer.datamodule, verbose=False)
    save = tmp_path / "save"
    names = {f"it{step}-{view}.png" for step in (1, 2) for view in range(3)}
    assert {p.name for p in save.iterdir()} == names | {"it2-test.mp4", "it2-views.png"}
    assert Image.open(save / "it2-1.png").size == (3 * 22, 18)
    assert Image.open(save / "it2-views.png").size == (4 * 22, 3 * 18)
    frames = list(imageio_ffmpeg.read_frames(str(save / "it2-test.mp4")))
    assert frames[0]["size"] == (3 * 512, 32 + 418)  # three columns and their names
    assert len(frames) - 1 == 3
    files = json.loads((tmp_path / "metrics.json").read_text())["files"]
    assert {f"save/{p.name}" for p in save.iterdir()} == set(files)


def test_tensorboard_has_pictures_learning_rates_and_stage_times(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = {"val_check_interval": 2, "loggers": {"csv": {"enable": False}}}
    scheduler = {"name": "LinearLR", "args": {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 4}}
    optimizer = {"name": "Adam", "args": {"lr": 0.01}}
    fit(tmp_path, 4, trainer=settings, optimizer=optimizer, scheduler=scheduler)
    (events,) = tmp_path.rglob("events.out.*")
    told = EventAccumulator(str(events))
    told.Reload()
    assert {f"pictures/{side}" for side in range(4)} <= set(told.Tags()["images"])  # the default: four sides
    picture = told.Images("pictures/0")[-1]
    assert (picture.width, picture.height, picture.step) == (3 * 16, 16, 4)
    rates = {tag for tag in told.Tags()["scalars"] if tag.startswith("train/learning_rate_")}
    assert rates
    assert [s.value for s in told.Scalars(min(rates))] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    for stage in ("total", "render", "prior", "backward", "optimizer"):
        assert all(s.value > 0 for s in told.Scalars(f"train/seconds_{stage}")[1:]), stage


def test_metrics_have_every_field(tmp_path):
    fit(tmp_path, 4)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["prompt"], metrics["seed"], metrics["steps"]) == ("a red ball", 0, 4)
    stages = metrics["seconds_per_step"]
    assert stages.keys() == {"total", "render", "prior", "backward", "optimizer"}
    assert all(seconds > 0 for seconds in stages.values())
    assert sum(stages.values()) - stages["total"] <= stages["total"]
    assert metrics["iterations_per_second"] == pytest.approx(1 / stages["total"])
    assert metrics["seconds_total"] >= 4 * stages["total"]
    assert metrics["peak_memory_mb"] > 50
    assert (metrics["device"], metrics["precision"], metrics["threads"]) == ("cpu", "32-true", torch.get_num_threads())
    assert metrics["diverged"] is False
    assert 0 < metrics["opacity_mean"] < 1


def test_steps_with_gradients_that_are_not_finite_are_left_out_then_training_stops(tmp_path, caplog):
    start, _ = fit(tmp_path / "start", 4)
    system, trainer = fit(tmp_path, 50, prior={"poison_from": 4}, max_nonfinite_steps=3)
    assert trainer.global_step == 7  # four good ones, then three in a row
    for name, parameter in start.named_parameters():
        assert torch.equal(parameter, system.get_parameter(name)), name
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["diverged"], metrics["skipped_steps"]) == (True, 3)
    assert "system.optimizer.args.lr" in metrics["warnings"][0]
    assert "were not finite" in caplog.text


def test_gradients_are_limited_to_the_scheduled_norm(tmp_path):
    """Plain gradient descent shows the norm: one step moves by lr times it."""
    start = tiny_system()
    sgd = {"name": "SGD", "args": {"lr": 1.0}}
    system, _ = fit(tmp_path, 1, optimizer=sgd, gradient_norm_limit=[0, 1e-3, 1.0, 100])
    moved = [p - start.get_parameter(name) for name, p in system.named_parameters()]
    assert float(torch.nn.utils.get_total_norm(moved).detach()) == pytest.approx(1e-3, rel=1e-3)


def test_an_empty_scene_is_explained_once(tmp_path, caplog):
    geometry = {"density_bias": -20.0}
    fit(tmp_path, 80, geometry=geometry, data={"width": 4, "height": 4})
    warnings = json.loads((tmp_path / "metrics.json").read_text())["warnings"]
    assert len(warnings) == 1
    assert "nearly empty" in warnings[0]
    assert "lambda_sparsity" in warnings[0]


@pytest.mark.parametrize(
    ("settings", "warned"),
    [({"density_bias": 20.0}, True), ({"density_blob_std": 0.2, "density_blob_scale": 100.0}, False)],
    ids=["full", "object"],
)
def test_a_scene_that_fills_its_bounds_is_warned_of_and_one_that_does_not_is_not(tmp_path, settings, warned):
    view = {"eval_camera_distance": 1.8, "eval_fovy_deg": 50.0}  # the whole sphere, and around it nothing
    system, trainer = fit(tmp_path, 1, geometry=settings, data=view)
    trainer.test(system, trainer.datamodule, verbose=False)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["rim_opacity"] > 0.9) is warned
    assert any("fills its bounds" in text for text in metrics["warnings"]) is warned


def test_accumulated_batches_have_cameras_and_noise_of_their_own(tmp_path):
    seen = []

    def spy(self, x, cameras, *rest):
        seen.append((self.global_step, float(cameras.azimuth_deg[0])))
        return distil(self, x, cameras, *rest)

    distil = DistillationSystem.distil
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DistillationSystem, "distil", spy)
        fit(tmp_path, 2, trainer={"accumulate_grad_batches": 2})
    assert [step for step, _ in seen] == [0, 0, 1, 1]
    assert len({azimuth for _, azimuth in seen}) == 4


@pytest.mark.parametrize(
    ("orient", "ambient_only_steps"),
    [([1, 0.0, 1e-2, 3], 10), (0.0, 2)],  # a loss that begins at step 2, or shading that does
)
def test_normals_are_computed_where_the_shading_or_a_loss_of_this_step_reads_them(
    tmp_path, monkeypatch, orient, ambient_only_steps
):
    seen = []

    def spy(self, points, need_normal):
        seen.append(need_normal)
        return sample(self, points, need_normal)

    sample = ImplicitVolume.sample
    monkeypatch.setattr(ImplicitVolume, "sample", spy)
    material = {"ambient_only_steps": ambient_only_steps, "diffuse_prob": 1.0}
    fit(tmp_path, 4, loss={"lambda_orient": orient}, material=material)
    assert seen == [False, False, True, True]


def test_a_scheduler_changes_the_rate_each_step(tmp_path):
    _, trainer = fit(
        tmp_path, 3, scheduler={"name": "ExponentialLR", "args": {"gamma": 0.5}}, optimizer={"args": {"lr": 1e-3}}
    )
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3 * 0.5**3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": {"lambda_orinet": 1.0}}, r"system.loss.lambda_orinet.*lambda_orient"),
        ({"guidance_type": "sdss"}, r"system.guidance_type='sdss'.*did you mean 'sds'"),
        ({"geometry": {"raidus": 1.0}}, r"system.geometry.raidus.*radius"),
        ({"max_nonfinite_steps": 0}, "max_nonfinite_steps=0"),
        ({"contact_views": 0}, "contact_views=0"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        tiny_system(**settings)


def test_export_after_training_warns_where_there_is_no_surface(tmp_path):
    from distill3d.export.surface.isosurface import EmptySurfaceError

    system, _ = fit(tmp_path, 1, geometry={"density_bias": -20.0}, exporter={"resolution": 16, "view_size": 16})
    assert system.export(strict=False) == []
    assert "nothing was exported" in json.loads((tmp_path / "metrics.json").read_text())["warnings"][0]
    with pytest.raises(EmptySurfaceError):
        system.export()


def test_an_exported_mesh_carries_prompt_and_seed_and_stands_in_the_metrics(tmp_path):
    exporter = {"resolution": 16, "view_size": 16, "mode": "vertex", "viewer": False, "turntable_views": 0}
    import trimesh

    system, _ = fit(tmp_path, 1, exporter=exporter)
    files = system.export()
    assert [p.name for p in files if p.suffix == ".glb"] == ["model.glb"]
    assert b"a red ball" in files[0].read_bytes()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {str(Path(p).relative_to(tmp_path)) for p in files} <= set(metrics["files"])
    figures = metrics["export"]
    assert figures["faces"] == trimesh.load(files[0], force="mesh").faces.shape[0]
    assert 0.0 < figures["mesh_psnr"] < 99.0
    assert figures["threshold"] > 0.0
    assert 0.0 < figures["seconds_surface"] < metrics["seconds_total"]


@pytest.mark.parametrize("name", sorted(registered("guidance")))
def test_every_rule_drives_the_scene_or_says_what_it_needs(tmp_path, name):
    if name in ("dds", "pds"):
        with pytest.raises(ValueError, match="source"):
            fit(tmp_path, 1, guidance_type=name, guidance={})
        return
    start = tiny_system().renderer.state_dict()
    schedule = "flow" if name == "rfds" else "sd"
    system, _ = fit(tmp_path, 2, guidance_type=name, guidance={"guidance_scale": None}, prior={"schedule": schedule})
    moved = system.renderer.state_dict()
    assert not torch.equal(start["geometry.encoding.table"], moved["geometry.encoding.table"])
    assert system.gradients.skipped == 0


@pytest.mark.parametrize(("params", "rate"), [({}, 1e-4), ({"guidance": {"lr": 3e-4}}, 3e-4)])
def test_vsds_own_parameters_train_at_the_published_rate_or_the_users(tmp_path, params, rate):
    _, trainer = fit(tmp_path, 1, guidance_type="vsd", guidance={"guidance_scale": None}, optimizer={"params": params})
    rates = {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}
    assert rates == {"geometry": 0.01, "background": 0.01, "guidance": rate}


def test_half_precision_trains_with_gradients_in_full(tmp_path):
    start = tiny_system()
    system, _ = fit(tmp_path, 3, trainer={"precision": "bf16-mixed"})
    for name, parameter in system.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.isfinite(parameter).all()
        assert not torch.equal(parameter, start.get_parameter(name)), name
    assert json.loads((tmp_path / "metrics.json").read_text())["precision"] == "bf16-mixed"


def test_the_guidance_sees_full_precision_under_autocast(tmp_path):
    seen = []

    def spy(self, prior, inputs):
        seen.append((inputs.x.dtype, torch.is_autocast_enabled("cpu"), torch.is_grad_enabled()))
        return call(self, prior, inputs)

    call = SDS.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SDS, "__call__", spy)
        fit(tmp_path, 1, trainer={"precision": "bf16-mixed"})
    assert seen == [(torch.float32, False, True)]
