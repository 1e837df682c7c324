"""What is told before anything is loaded or written: parts that Lightning and torch would refuse in training."""

from __future__ import annotations

import re

import pytest
import torch
from system_doubles import TINY_DATA, TINY_SYSTEM, merged

from distill3d import cli
from distill3d.config.check import ConfigError
from distill3d.config.registry import find
from distill3d.config.yaml_text import dump_yaml
from distill3d.optim import OptimizerSettings, SchedulerSettings
from distill3d.optim.rehearsal import rehearse

CONFIG = {
    "name": "tiny",
    "data": TINY_DATA,
    "system": merged(TINY_SYSTEM, {"prompt_processor": {"prompt": "a ball"}}),
    "trainer": {"max_steps": 2, "enable_progress_bar": False, "accelerator": "cpu"},
}
MISTAKES = {
    "checkpoint.save_top_k=3": "checkpoint: ",
    "checkpoint.mode=foo": "checkpoint: ",
    'checkpoint.filename="{"': "checkpoint: ",
    "checkpoint.filename=../x": "leads out of the trial",
    "checkpoint.monitor=nosuch": "checkpoint.monitor='nosuch' is nothing that is logged; give one of train/...",
    "trainer.precision=64": "trainer.precision=64",
    "trainer.max_time=60": "trainer.max_time=60 must be days:hours",
    "trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches=0",
    "trainer.limit_train_batches=0": "trainer.limit_train_batches=0",
    "system.optimizer.args.betas=[]": "system.optimizer",
    "system.optimizer.name=SparseAdam": "SparseAdam cannot work",
    "system.scheduler={name: CosineAnnealingLR, args: {T_max: 0}}": "CosineAnnealingLR cannot work",
    "system.gradient_norm_limit=-1": "gradient_norm_limit=-1",
    "system.gradient_norm_limit=[0, 1.0, 0.0, 100]": "gradient_norm_limit=[0, 1.0, 0.0, 100]",
    "system.guidance.guidance_scale=.inf": "system.guidance.guidance_scale=inf",
    "system.guidance_type=[sds]": "system.guidance_type=['sds']",
    "system.geometry.radius=1e-30": "system.geometry.radius=1e-30",
    "system.background={color: [2, 0, 0]}": "system.background.color",
    "data.eval_fovy_deg=0": "data.eval_fovy_deg=0",
    "data.eval_fovy_deg=-1": "data.eval_fovy_deg=-1",
    "data.eval_camera_distance=0": "data.eval_camera_distance=0",
    "data_type=image-datamodule": "data_type gives ImageDataModule; this system needs cameras",
    "trainer.val_check_interval=0": "trainer.val_check_interval=0",
    "trainer.gradient_clip_val=.nan": "trainer.gradient_clip_val=nan",
    "trainer.gradient_clip_val=-1": "trainer.gradient_clip_val=-1",
    "trainer.barebones=true": "trainer.barebones cannot be set",
    "trainer.check_val_every_n_epoch=0": "trainer.check_val_every_n_epoch=0 must be at least 1",
    "trainer.log_every_n_steps=-1": "trainer.log_every_n_steps=-1 must be at least 0",
    "system.loss.lambda_sds=-1": "system.loss.lambda_sds=-1 would raise its loss",
    "system.loss.lambda_orient=[0,1,-1,9]": "lambda_orient=[0, 1, -1, 9] would raise its loss",
    "seed=1:30": "seed='1:30' has the wrong type; expected an integer",
    "seed=010": "seed='010' has the wrong type; expected an integer",
    "system.loggers={csv: 3}": "system.loggers.csv=3 has the wrong type",
    "system.loggers={csv: {enable: maybe}}": "system.loggers.csv.enable='maybe' has the wrong type",
    "checkpoint.filename=" + "x" * 400: "too long for a file's name",
    "data.width=1000000": "data.width=1000000 must be at most",
    "data.batch_size=90000 data.width=4096": "rays a step",
    "data.n_test_views=1000000000000": "data.n_test_views=1000000000000 must be at most",
    "system.renderer.num_samples_per_ray=1000000000": "num_samples_per_ray=1000000000 must be at most",
    "system.prompt_processor.prompt=\udcff": "is not text in UTF-8",
    "tag=a\x00b": "holds a zero byte",
    "system.prompt_processor.prompt=@gone.txt": "a value that begins with @ names a file",
    "system.prior_type=9" + "0" * 400: "system.prior_type",
    "data.eval_fovy_deg=9" + "0" * 400: "data.eval_fovy_deg",
}


def test_a_model_that_is_not_there_is_not_laid_on_the_size_of_views(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL3D_TRIAL", raising=False)
    assert cli.main(["--config", "dreamfusion-sd", "system.prior.pretrained_model_name_or_path=./gone"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: system.prior.pretrained_model_name_or_path='./gone' is no folder here")


def test_each_mistake_is_one_line_and_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL3D_TRIAL", raising=False)
    (tmp_path / "tiny.yaml").write_text(dump_yaml(CONFIG))
    for argument, message in MISTAKES.items():
        solid = ["system.background_type=solid-color-background"] if "background" in argument else []
        assert cli.main(["--config", "tiny", *solid, *re.split(r" (?=data)", argument)]) == 2, argument
        told = capsys.readouterr().err.splitlines()
        assert message in told[-1] and "Traceback" not in "".join(told), argument
        assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"], argument


PAIRS = {  # data that do not belong to the system of a shipped config, and views that its prior cannot see
    "image-synthesis system_type=dreamfusion-system": "needs cameras around an object",
    "image-synthesis data_type=random-camera-datamodule": "needs image-datamodule",
    "gradient-picture data_type=random-camera-datamodule": "needs image-datamodule",
    "svg-edit data_type=image-datamodule": "needs svg-datamodule",
    "translation data_type=image-datamodule": "needs images with captions",
    "translation data_type=posed-images-datamodule": "needs images with captions",
    "lmc/corrective data_type=random-camera-datamodule": "needs images with captions",
    "prior/embedded data_type=random-camera-datamodule": "needs mesh-view-datamodule",
    "nerf-reconstruction tag=x data_type=random-camera-datamodule": "needs posed-images-datamodule",
    "dreamfusion data.width=[32,48] data.height=[32,64]": "from step 250 on views are 48x64; the prior 'embedded' sees",
    "svg-edit data.width=64 data.height=32": "is drawn 64:32; the prior 'embedded' sees squares alone",
    "dreamfusion system.prior.image_size=48": "system.prior.image_size=48 is no size of 'embedded'; choose 32 or 64",
}


@pytest.mark.parametrize("command", PAIRS)
def test_data_that_do_not_belong_to_a_system_or_a_prior_are_told_first(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL3D_TRIAL", raising=False)
    assert cli.main(["--config", *command.split(), "trainer.accelerator=cpu"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert PAIRS[command] in told[-1] and "Traceback" not in "".join(told)
    assert not list(tmp_path.iterdir())


def test_views_of_nearly_equal_sides_are_seen_as_squares():
    model = find("prior", "pretrained-diffusion-model")
    model = model(model.Config())  # type: ignore[attr-defined, call-arg]
    for size in ((64, 64), (129, 128), (1, 1)):
        model.check_size(*size)
    with pytest.raises(ValueError, match="squares alone"):
        model.check_size(64, 48)


def test_what_works_is_not_refused_and_draws_no_random_numbers():
    state = torch.get_rng_state()
    rehearse(OptimizerSettings(), None)
    rehearse(OptimizerSettings(params={"geometry": {"lr": 0}, "background": {"lr": 1e-3}}), SchedulerSettings())
    for name, args in (("Adan", {"lr": 0.01}), ("Shampoo", {"lr": 0.01}), ("LBFGS", {"lr": 0.1}), ("SGD", {"lr": 1.0})):
        rehearse(OptimizerSettings(name, args), SchedulerSettings("LinearLR", {"total_iters": 5}, warmup_steps=3))
    assert torch.equal(state, torch.get_rng_state())


def test_the_part_at_fault_is_named():
    with pytest.raises(ConfigError, match=r"system\.optimizer: SparseAdam .*dense gradients"):
        rehearse(OptimizerSettings("SparseAdam", {"lr": 0.01}), None)
    with pytest.raises(ConfigError, match=r"system\.scheduler: CosineAnnealingLR"):
        rehearse(OptimizerSettings(), SchedulerSettings("CosineAnnealingLR", {"T_max": 0}))
    with pytest.raises(ConfigError, match=r"system\.optimizer"):
        rehearse(OptimizerSettings(params={"geometry": {"betas": []}}), None)
