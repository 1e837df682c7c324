"""Same seed, same bits; and a run that was stopped, interrupted or killed goes on as if it had not been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from system_doubles import fit, make_trainer, tiny_data, tiny_system

STEPS = 12
ENCODING = {"otype": "HashGrid", "n_levels": 3, "log2_hashmap_size": 8, "start_level": 1, "start_step": 2}
STATEFUL = {
    "optimizer": {"name": "Adan", "args": {"lr": 0.02}},
    "scheduler": {"name": "CosineAnnealingLR", "args": {"T_max": STEPS}, "warmup_steps": 3},
    "geometry": {"pos_encoding_config": {**ENCODING, "update_steps": 3}},
    "background": {"random_aug": True},
    "data": {"width": [6, 8], "height": [6, 8], "batch_size": [2, 1], "resolution_milestones": [7]},
}


def checkpoint(root: Path) -> dict:
    return torch.load(root / "ckpts" / "last.ckpt", weights_only=True)


def differences(a, b, where="") -> list[str]:
    """Where two nested containers differ, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return [] if isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b) else [where]
    if isinstance(a, dict):
        if not isinstance(b, dict) or a.keys() != b.keys():
            return [where]
        return [d for key in a for d in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return [where]
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{where}[{i}]")]
    return [] if a == b else [where]


def learned(state: dict) -> dict:
    """All that training reads again."""
    return {
        key: state[key]
        for key in ("global_step", "epoch", "state_dict", "optimizer_states", "lr_schedulers", "distill3d")
    }


@pytest.mark.parametrize("settings", [{}, STATEFUL], ids=["plain", "stateful"])
def test_the_same_seed_gives_the_same_checkpoint_file(tmp_path, settings):
    files = []
    for name in ("a", "b"):
        torch.manual_seed(hash(name) % 1000)  # nothing depends on the global generator
        fit(tmp_path / name, 5, **settings)
        files.append((tmp_path / name / "ckpts" / "last.ckpt").read_bytes())
    assert files[0] == files[1]


def test_another_seed_gives_another_result(tmp_path):
    fit(tmp_path / "a", 1)
    fit(tmp_path / "b", 1, seed=1)
    assert differences(checkpoint(tmp_path / "a")["state_dict"], checkpoint(tmp_path / "b")["state_dict"])


@pytest.mark.parametrize("stop", [1, 6, 7, 11])
@pytest.mark.parametrize("settings", [{}, STATEFUL], ids=["plain", "stateful"])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, stop, settings):
    fit(tmp_path / "whole", STEPS, **settings)
    fit(tmp_path / "parts", stop, **settings)
    _, trainer = fit(tmp_path / "parts", STEPS, resume=tmp_path / "parts/ckpts/last.ckpt", **settings)
    assert trainer.global_step == STEPS
    whole, parts = (learned(checkpoint(tmp_path / name)) for name in ("whole", "parts"))
    assert differences(whole, parts) == []


@pytest.mark.parametrize("stop", [3, 4])
def test_validation_does_not_change_what_is_trained_nor_does_resuming_on_it(tmp_path, stop):
    """Also where the checkpoint was written in the very step after which validation is due."""
    fit(tmp_path / "whole", 8)
    often = {"trainer": {"val_check_interval": 4}}
    fit(tmp_path / "parts", stop, **often)
    fit(tmp_path / "parts", 8, resume=tmp_path / "parts/ckpts/last.ckpt", **often)
    whole, parts = (learned(checkpoint(tmp_path / name)) for name in ("whole", "parts"))
    assert differences(whole, parts) == []
    assert (tmp_path / "parts/save/it8-0.png").is_file()


def test_accumulated_batches_resume_too(tmp_path):
    settings = {"trainer": {"accumulate_grad_batches": 2}}
    fit(tmp_path / "whole", 6, **settings)
    fit(tmp_path / "parts", 3, **settings)
    fit(tmp_path / "parts", 6, resume=tmp_path / "parts/ckpts/last.ckpt", **settings)
    assert differences(*(learned(checkpoint(tmp_path / name)) for name in ("whole", "parts"))) == []


def test_metrics_add_up_over_sessions(tmp_path):
    fit(tmp_path, 3)
    before = json.loads((tmp_path / "metrics.json").read_text())
    fit(tmp_path, 5, resume=tmp_path / "ckpts/last.ckpt")
    after = json.loads((tmp_path / "metrics.json").read_text())
    assert after["steps"] == 5
    assert sum(after["views_per_shading"].values()) == 5
    assert after["seconds_total"] > before["seconds_total"]
    total = {
        name: 5 * after["seconds_per_step"][name] - 3 * before["seconds_per_step"][name] for name in ("total", "render")
    }
    assert 0 < total["render"] < total["total"]


def test_metrics_of_an_earlier_checkpoint_count_its_steps_only(tmp_path):
    fit(tmp_path, 3)
    early = (tmp_path / "ckpts/last.ckpt").rename(tmp_path / "ckpts/early.ckpt")
    fit(tmp_path, 9, resume=early)
    fit(tmp_path, 4, resume=early)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["steps"] == 4
    assert sum(metrics["views_per_shading"].values()) == 4


class SignalAt(Callback):
    """Sends signals to this process in the middle of steps."""

    def __init__(self, at: dict[int, signal.Signals]) -> None:
        self.at = at

    def on_before_backward(self, trainer, pl_module, loss) -> None:
        if trainer.global_step in self.at:
            os.kill(os.getpid(), self.at[trainer.global_step])


def signalled(root: Path, at: dict[int, signal.Signals]):
    system, trainer = tiny_system(), make_trainer(root, 50)
    system.record.attach(root)
    trainer.callbacks.append(SignalAt(at))
    return system, trainer


def test_ctrl_c_once_stops_after_the_step_and_saves(tmp_path, caplog):
    before = signal.getsignal(signal.SIGINT)
    system, trainer = signalled(tmp_path, {2: signal.SIGINT})
    trainer.fit(system, tiny_data())
    assert trainer.global_step == 3
    assert checkpoint(tmp_path)["global_step"] == 3
    assert "interrupted" in caplog.text
    assert signal.getsignal(signal.SIGINT) is before
    trainer.test(system, tiny_data(), verbose=False)  # what comes after training still works
    assert (tmp_path / "save/it3-test.mp4").is_file()
    fit(tmp_path, 5, resume=tmp_path / "ckpts/last.ckpt")
    fit(tmp_path / "whole", 5)
    assert differences(checkpoint(tmp_path)["state_dict"], checkpoint(tmp_path / "whole")["state_dict"]) == []


def test_ctrl_c_twice_leaves(tmp_path):
    class Twice(SignalAt):
        def on_before_backward(self, trainer, pl_module, loss) -> None:
            super().on_before_backward(trainer, pl_module, loss)
            super().on_before_backward(trainer, pl_module, loss)

    before = signal.getsignal(signal.SIGINT)
    system, trainer = signalled(tmp_path, {})
    trainer.callbacks.append(Twice({2: signal.SIGINT}))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer.fit(system, tiny_data())
    signal.signal(signal.SIGINT, before)
    assert trainer.global_step == 2


def test_sigterm_saves_and_leaves(tmp_path):
    system, trainer = signalled(tmp_path, {2: signal.SIGTERM})
    with pytest.raises(SystemExit) as exit_info:
        trainer.fit(system, tiny_data())
    assert exit_info.value.code == 128 + 15
    assert checkpoint(tmp_path)["global_step"] == 3
    assert json.loads((tmp_path / "metrics.json").read_text())["steps"] == 3


def test_kill_minus_9_leaves_a_checkpoint_that_goes_on_like_an_uninterrupted_run(tmp_path):
    """Killed amid almost constant saving: whatever file stands, it is whole."""
    script = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[2:]\n"
        "import distill3d.systems.callbacks as callbacks; callbacks.SAVING_SHARE = 1e9\n"
        "from system_doubles import fit; fit(Path(sys.argv[1]), 1_000_000)\n"
    )
    tests = Path(__file__).parent
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(tests), str(tests.parent)])
    last = tmp_path / "ckpts" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.kill()
    process.wait()
    done = checkpoint(tmp_path)["global_step"]
    assert done >= 1
    fit(tmp_path, done + 2, resume=last)
    fit(tmp_path / "whole", done + 2)
    assert differences(*(learned(checkpoint(root)) for root in (tmp_path, tmp_path / "whole"))) == []
