"""Whole runs through the command line, on a closed-form prior and a scene that trains in no time."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from system_doubles import TINY_DATA, TINY_SYSTEM, merged

from distill3d import cli
from distill3d.config.yaml_text import dump_yaml, parse_yaml

EXPORTER = {"resolution": 24, "mode": "vertex", "faces": 500, "viewer": False, "preview": False, "threshold": 1.0}
CONFIG = {
    "name": "tiny",
    "data": TINY_DATA,
    "system": merged(
        TINY_SYSTEM, {"exporter": EXPORTER, "contact_views": 2, "loggers": {"tensorboard": {"enable": False}}}
    ),
    "trainer": {"max_steps": 2, "enable_progress_bar": False, "accelerator": "cpu"},
}

pytestmark = pytest.mark.usefixtures("restore_logging")


def launch(*arguments):
    return cli.main(["--config", *map(str, arguments)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trial of two steps; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.yaml").write_text(dump_yaml(CONFIG))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("DISTILL3D_TRIAL", raising=False)
        assert launch("tiny", "system.prompt_processor.prompt=a red: ball") == 0
    return folder


@pytest.fixture
def trial(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (root,) = Path("outputs/tiny").iterdir()
    return root


def test_training_leaves_a_whole_trial(trial):
    assert trial.name.startswith("a_red_ball@2")
    metrics = json.loads((trial / "metrics.json").read_text())
    assert metrics["steps"] == 2
    assert metrics["prompt"] == "a red: ball"
    for name in (
        "ckpts/last.ckpt",
        "configs/raw.yaml",
        "configs/parsed.yaml",
        "cmd.txt",
        "log.txt",
        "csv_logs",
        "save/it2-test.mp4",
    ):
        assert (trial / name).exists(), name
    assert (trial / "save" / "it2-export" / "model.glb").is_file()
    torch.load(trial / "ckpts" / "last.ckpt", weights_only=True)


def test_resuming_goes_on_in_place(trial):
    parsed, last = trial / "configs" / "parsed.yaml", trial / "ckpts" / "last.ckpt"
    assert launch(parsed, f"resume={last}", "trainer.max_steps=3") == 0
    assert list(Path("outputs/tiny").iterdir()) == [trial]
    assert json.loads((trial / "metrics.json").read_text())["steps"] == 3
    assert parse_yaml(parsed.read_text())["trainer"]["max_steps"] == 3


def test_the_other_verbs_work_on_the_checkpoint_and_load_no_prior(trial, monkeypatch):
    from system_doubles import LOADED

    shutil.rmtree(trial / "save")
    parsed, resume = trial / "configs" / "parsed.yaml", f"resume={trial / 'ckpts' / 'last.ckpt'}"
    LOADED.clear()
    assert launch(parsed, "--validate", resume) == 0
    assert (trial / "save" / "it2-0.png").is_file()
    assert launch(parsed, "--test", resume) == 0
    assert (trial / "save" / "it2-test.mp4").is_file()
    assert launch(parsed, "--export", resume, "system.exporter.fmt=ply") == 0
    assert (trial / "save" / "it2-export" / "model.ply").is_file()
    assert LOADED == []
    assert list(Path("outputs/tiny").iterdir()) == [trial]


def test_a_verb_without_its_checkpoint_says_where_it_is(trial, capsys):
    assert launch(trial / "configs" / "parsed.yaml", "--export") == 2
    assert f"error: --export needs a checkpoint: resume={trial / 'ckpts' / 'last.ckpt'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resume=nowhere.ckpt"], "resume=nowhere.ckpt does not exist"),
        (["resume=short.ckpt"], "resume=short.ckpt cannot be read: it is truncated"),
        (["resume=LAST", "system.background_type=solid-color-background"], "its background is 'neural-environment-map"),
        (
            ["resume=LAST", "system.geometry.pos_encoding_config.base_resolution=6"],
            "checkpoint belongs to another experiment",
        ),
        (["exp_root_dir=tiny.yaml"], "exp_root_dir='tiny.yaml' cannot be written"),
        (["trainer.devices=-3"], "trainer: "),
        (["trainer.accelerator=tpu"], "trainer: "),
        (["system.exporter.fmt=step"], "system.exporter.fmt='step'"),
        (["system.scheduler.name=LinearLRR"], "system.scheduler.name='LinearLRR' is not a learning-rate schedule"),
        (["system.scheduler={name: LinearLR, args: {totl_iters: 3}}"], "did you mean 'total_iters'?"),
        (["system.guidance.min_step_percent=0.9", "system.guidance.max_step_percent=0.5"], "set 0 <= min_step_percent"),
        (["system.guidance_type=pds"], "system.guidance_type=pds edits an original, and a TextTo3D has none"),
        (
            ["system.guidance_type=lmc-sds", "system.guidance.corrective=gone.safetensors"],
            "system.guidance.corrective='gone.safetensors' is not there",
        ),
        (
            [
                "system.prior_type=pretrained-diffusion-model",
                "system.prior={pretrained_model_name_or_path: ./gone}",
            ],
            "system.prior.pretrained_model_name_or_path='./gone' is no folder here",
        ),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(arguments, message, trial, capsys):
    last = trial / "ckpts" / "last.ckpt"
    Path("short.ckpt").write_bytes(last.read_bytes()[:3000])
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    assert launch(trial / "configs" / "parsed.yaml", *(a.replace("LAST", str(last)) for a in arguments)) == 2
    errors = capsys.readouterr().err.splitlines()
    assert message in errors[-1]
    assert "Traceback" not in "".join(errors)
    assert sorted(Path().rglob("*")) == before


def test_an_empty_surface_fails_export_alone(trial, capsys):
    resume = f"resume={trial / 'ckpts' / 'last.ckpt'}"
    assert launch(trial / "configs" / "parsed.yaml", "--export", resume, "system.exporter.threshold=1e6") == 2
    assert "threshold" in capsys.readouterr().err.splitlines()[-1]


def test_the_same_seed_trains_to_the_same_bits(trial, trained):
    parsed = trial / "configs" / "parsed.yaml"
    assert launch(parsed, "name=again") == 0
    (again,) = Path("outputs/again").iterdir()
    first, second = (
        torch.load(root / "ckpts" / "last.ckpt", weights_only=True)["state_dict"] for root in (trial, again)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_system_without_test_pictures_says_so():
    from types import SimpleNamespace

    import pytorch_lightning as pl

    from distill3d import run
    from distill3d.config.experiment import ConfigError

    training = SimpleNamespace(system=pl.LightningModule(), experiment=SimpleNamespace(system_type="corrective-system"))
    with pytest.raises(ConfigError, match="a corrective-system has no test pictures"):
        run.test(training)  # type: ignore[arg-type]


def new_run(tmp_path, monkeypatch, *arguments):
    """The exit code of a run of its own, and its metrics.json."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL3D_TRIAL", raising=False)
    Path("tiny.yaml").write_text(dump_yaml(CONFIG))
    code = launch("tiny", "system.prompt_processor.prompt=a ball", *arguments)
    (root,) = Path("outputs/tiny").iterdir()
    return code, json.loads((root / "metrics.json").read_text())


def test_metrics_hold_every_warning_that_the_terminal_showed(tmp_path, monkeypatch, capsys):
    import warnings

    from distill3d.systems.text_to_3d import TextTo3D

    export = TextTo3D.export

    def warning_export(self, strict=True):
        warnings.warn("python's own", UserWarning, stacklevel=1)
        return export(self, strict)

    monkeypatch.setattr(TextTo3D, "export", warning_export)
    code, metrics = new_run(tmp_path, monkeypatch, "system.background.color=[0,0,0]", "system.guidance.k=0.5")
    shown = [line.removeprefix("warning: ") for line in capsys.readouterr().err.splitlines() if "warning: " in line]
    assert code == 0 and metrics["warnings"] == shown
    assert any("ignored settings" in text for text in shown) and any("python's own" in text for text in shown)


def test_a_run_whose_every_step_was_skipped_ends_with_an_error(tmp_path, monkeypatch, capsys):
    code, metrics = new_run(tmp_path, monkeypatch, "system.prior.poison_from=0", "trainer.max_steps=3")
    assert code == 2 and "all 3 steps were skipped" in capsys.readouterr().err
    assert (metrics["skipped_steps"], metrics["diverged"], metrics["finished"]) == (3, True, True)


def test_a_run_that_trained_at_all_counts_the_steps_that_it_skipped(tmp_path, monkeypatch):
    code, metrics = new_run(tmp_path, monkeypatch, "system.prior.poison_from=1", "trainer.max_steps=3")
    assert (code, metrics["skipped_steps"], metrics["diverged"]) == (0, 2, False)
