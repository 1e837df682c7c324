"""What the Trainer is given, from the configuration's own words."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import pytest
from system_doubles import fit

from distill3d.config.check import ConfigError
from distill3d.systems.callbacks import Interruptible, TrialCheckpoint, trainer_callbacks, trainer_loggers
from distill3d.systems.progress import TrainingProgress, figures
from distill3d.systems.record import RunRecord


def experiment(checkpoint=None, trainer=None, loggers=None):
    return SimpleNamespace(checkpoint=checkpoint or {}, trainer=trainer or {}, system={"loggers": loggers or {}})


def kinds(root, **settings) -> list[type]:
    return [type(c) for c in trainer_callbacks(SimpleNamespace(root=root), experiment(**settings))]


def test_a_progress_bar_unless_it_is_switched_off(tmp_path):
    assert kinds(tmp_path) == [TrialCheckpoint, Interruptible, TrainingProgress]
    assert TrainingProgress not in kinds(tmp_path, trainer={"enable_progress_bar": False})


def test_csv_and_tensorboard_unless_they_are_switched_off(tmp_path):
    def names(loggers):
        made = trainer_loggers(SimpleNamespace(root=tmp_path), experiment(loggers=loggers))
        return [type(logger).__name__ for logger in made]

    assert names({}) == ["CSVLogger", "TensorBoardLogger"]
    assert names({"wandb": {"enable": False, "project": "threestudio", "name": "None"}}) == names({})
    assert names({"csv": {"enable": False}, "tensorboard": {"enable": False}}) == []
    with pytest.raises(ConfigError, match=r"system.loggers.wnadb.*did you mean 'wandb'"):
        names({"wnadb": {"enable": True}})


def test_checkpoints_by_lightnings_keywords_beside_last(tmp_path):
    """threestudio's own: save_last, save_top_k -1, every_n_train_steps."""
    fit(tmp_path, 4, trainer={"checkpoint": {"save_last": True, "save_top_k": -1, "every_n_train_steps": 2}})
    assert {p.name for p in (tmp_path / "ckpts").iterdir()} == {
        "last.ckpt",
        "epoch=0-step=2.ckpt",
        "epoch=0-step=4.ckpt",
    }


def test_resuming_writes_the_same_names_again(tmp_path):
    settings = {"trainer": {"checkpoint": {"save_top_k": -1, "every_n_train_steps": 2}}}
    fit(tmp_path, 2, **settings)
    early = (tmp_path / "ckpts/last.ckpt").rename(tmp_path / "early.ckpt")
    for _ in range(2):
        fit(tmp_path, 4, resume=early, **settings)
    assert {p.name for p in (tmp_path / "ckpts").iterdir()} == {
        "last.ckpt",
        "epoch=0-step=2.ckpt",
        "epoch=0-step=4.ckpt",
    }


def test_the_best_by_a_logged_figure_are_kept_over_a_move_of_the_trial(tmp_path):
    settings = {"trainer": {"checkpoint": {"save_top_k": 1, "monitor": "train/loss_sds", "every_n_train_steps": 1}}}
    fit(tmp_path / "a", 2, **settings)
    (tmp_path / "a").rename(tmp_path / "b")
    fit(tmp_path / "b", 8, resume=tmp_path / "b/ckpts/last.ckpt", **settings)
    assert len([p for p in (tmp_path / "b/ckpts").iterdir() if p.name != "last.ckpt"]) == 1
    assert not (tmp_path / "a").exists()


def test_last_is_left_out_on_demand(tmp_path):
    fit(tmp_path, 1, trainer={"checkpoint": {"save_last": False, "save_top_k": 0}})
    assert not (tmp_path / "ckpts").exists() or not list((tmp_path / "ckpts").iterdir())


def test_last_is_written_after_the_first_step_and_then_seldom(tmp_path, monkeypatch):
    import distill3d.systems.callbacks as module

    now = {"time": 0.0}
    saved = []
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now["time"]))

    def save(self, path, *rest, **more):
        saved.append(self.global_step)
        now["time"] += 0.025  # so that 2.5 s pass until the next

    monkeypatch.setattr("pytorch_lightning.Trainer.save_checkpoint", save)
    original = TrialCheckpoint.on_train_batch_end

    def second_long_steps(self, *args):
        now["time"] += 1.0
        original(self, *args)

    monkeypatch.setattr(TrialCheckpoint, "on_train_batch_end", second_long_steps)
    fit(tmp_path, 8)
    assert saved == [1, 4, 7, 8]


def test_all_devices_save_when_the_clock_of_one_says_so(tmp_path, monkeypatch):
    """Each device waits for the others while it saves: one that saved alone would wait for ever."""
    saved, asked = [], []
    callback = next(
        c for c in trainer_callbacks(SimpleNamespace(root=tmp_path), experiment()) if isinstance(c, TrialCheckpoint)
    )
    monkeypatch.setattr(callback, "save_last_checkpoint", saved.append)
    strategy = SimpleNamespace(reduce_boolean_decision=lambda mine, all: asked.append((mine, all)) or True)
    trainer = SimpleNamespace(strategy=strategy, should_stop=False, max_steps=9, global_step=5)
    callback._next_save = float("inf")  # not due by the clock here, but by another's
    monkeypatch.setattr("pytorch_lightning.callbacks.ModelCheckpoint.on_train_batch_end", lambda *_: None)
    callback.on_train_batch_end(trainer, None, None, None, 0)
    assert asked == [(False, False)]
    assert saved == [trainer]


def test_logs_hold_what_explains_a_run_and_resuming_keeps_the_old_ones(tmp_path):
    fit(tmp_path, 3)
    fit(tmp_path, 5, resume=tmp_path / "ckpts/last.ckpt")
    rows = []
    for version in ("version_0", "version_1"):
        with (tmp_path / "csv_logs" / version / "metrics.csv").open() as file:
            rows.append(list(csv.DictReader(file)))
    assert [len(part) for part in rows] == [3, 2]
    wanted = {"train/gradient_norm", "train/opacity_mean", "train/loss_sds", "train/loss_sparsity", "train/norm_cond"}
    assert wanted <= rows[0][0].keys()
    assert float(rows[0][0]["train/loss_sds"]) > 0


def test_only_the_steps_that_are_recorded_are_logged(tmp_path):
    fit(tmp_path, 6, trainer={"log_every_n_steps": 3})
    with (tmp_path / "csv_logs/version_0/metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "5"]


def test_the_bar_shows_steps_gradient_and_opacity(tmp_path, capsys):
    fit(tmp_path, 3, trainer={"enable_progress_bar": True})
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert "gradient=" in shown
    assert "opacity=" in shown


def test_figures_without_an_opacity():
    record = RunRecord("x", 0)
    record.gradient_norm = 0.0125
    assert figures(record) == {"gradient": "1.25e-02"}
