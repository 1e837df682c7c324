import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distill3d.config.experiment import ConfigError, load
from distill3d.config.yaml_text import parse_yaml
from distill3d.runtime.trial import begin_trial, trial_of

ARGV = ("launch.py", "--config", "a.yaml", "system.prompt_processor.prompt=a 'red' cat")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL3D_TRIAL", raising=False)
    Path("a.yaml").write_text("system:\n  prompt_processor:\n    prompt: a/b: c ${x}\n")
    return tmp_path


def loaded(*arguments, config="a.yaml"):
    return load(config, arguments, check=False)


def checkpoint(trial):
    trial.ckpts.mkdir(exist_ok=True)
    (trial.ckpts / "last.ckpt").write_bytes(b"x")
    return f"resume={trial.ckpts / 'last.ckpt'}"


def test_a_trial_has_its_name_its_snapshots_and_its_command():
    trial = begin_trial(loaded("seed=3"), ARGV)
    assert trial.root.parent == Path("outputs/a")
    assert trial.root.name.startswith("a_b_c_x@2")
    assert (trial.root / "cmd.txt").read_text() == (
        """python launch.py --config a.yaml 'system.prompt_processor.prompt=a '"'"'red'"'"' cat'\n"""
    )
    raw, parsed = (parse_yaml((trial.configs / f"{name}.yaml").read_text()) for name in ("raw", "parsed"))
    assert raw == {"system": {"prompt_processor": {"prompt": "a/b: c ${x}"}}, "seed": 3}
    assert parsed["system"]["prompt_processor"]["prompt"] == "a/b: c ${x}"
    assert trial.root.name == parsed["tag"] + parsed["timestamp"]
    assert not list(trial.root.rglob(".*"))


def test_runs_of_one_second_never_share_a_folder():
    with ThreadPoolExecutor(8) as pool:
        roots = list(pool.map(lambda _: begin_trial(loaded(), ARGV).root, range(16)))
    assert len(set(roots)) == 16
    assert all((root / "configs" / "parsed.yaml").is_file() for root in roots)


def test_without_timestamp_an_earlier_trial_is_kept():
    first, second = (begin_trial(loaded("use_timestamp=false"), ARGV) for _ in range(2))
    assert (first.root.name, second.root.name) == ("a_b_c_x", "a_b_c_x-2")


def test_parsed_yaml_without_resume_starts_a_new_trial_and_with_it_goes_on_in_place():
    first = begin_trial(loaded(), ARGV)
    parsed = first.configs / "parsed.yaml"
    again = begin_trial(loaded(config=parsed), ARGV)
    assert again.root != first.root
    assert not again.resumed
    resumed = begin_trial(loaded(checkpoint(first), config=parsed), ARGV)
    assert resumed.root == first.root
    assert resumed.resumed
    assert "resume" not in parse_yaml(parsed.read_text())  # or the next run of this file would resume as well
    assert len((first.root / "cmd.txt").read_text().splitlines()) == 2


def test_a_resumed_trial_keeps_its_earlier_snapshots():
    first = begin_trial(loaded("seed=1"), ARGV)
    begin_trial(loaded("seed=1", checkpoint(first), config=first.configs / "parsed.yaml"), ARGV)
    assert sorted(os.listdir(first.configs)) == ["parsed.yaml", "raw-1.yaml", "raw.yaml"]
    begin_trial(loaded("trainer.max_steps=9", checkpoint(first), config=first.configs / "parsed.yaml"), ARGV)
    assert parse_yaml((first.configs / "parsed.yaml").read_text())["trainer"] == {"max_steps": 9}
    assert parse_yaml((first.configs / "parsed-1.yaml").read_text())["trainer"] == {}


def test_verbs_that_only_look_leave_the_snapshots_alone():
    first = begin_trial(loaded("seed=1"), ARGV)
    before = (first.configs / "parsed.yaml").read_text()
    begin_trial(loaded("seed=2", checkpoint(first)), ARGV, snapshots=False)
    assert (first.configs / "parsed.yaml").read_text() == before


def test_a_checkpoint_outside_a_trial_begins_a_new_one():
    Path("loose.ckpt").write_bytes(b"x")
    trial = begin_trial(loaded("resume=loose.ckpt"), ARGV)
    assert not trial.resumed
    assert trial.root.parent == Path("outputs/a")


def test_the_trial_of_a_checkpoint_or_a_snapshot():
    trial = begin_trial(loaded(), ARGV)
    assert trial_of(trial.configs / "parsed.yaml") == trial.root
    assert trial_of(trial.ckpts / "last.ckpt") == trial.root
    assert trial_of("a.yaml") is None


def test_an_unwritable_folder_is_an_error_that_names_the_setting(folder):
    (folder / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"exp_root_dir='file' cannot be written: .*; choose another folder"
    ) as caught:
        begin_trial(loaded("exp_root_dir=file"), ARGV)
    assert caught.value.setting == "exp_root_dir"


def test_a_trial_that_cannot_be_written_is_named_and_keeps_what_it_has():
    first = begin_trial(loaded(), ARGV)
    resume = checkpoint(first)
    (first.root / "cmd.txt").unlink()
    (first.root / "cmd.txt").mkdir()
    with pytest.raises(ConfigError, match=r"resume: .*cmd\.txt cannot be written: .*copy the checkpoint out of it"):
        begin_trial(loaded(resume, config=first.configs / "parsed.yaml"), ARGV)
    assert (first.ckpts / "last.ckpt").read_bytes() == b"x"


def test_a_full_disk_is_an_error_before_training(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1000))  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=os.strerror(errno.ENOSPC)):
        begin_trial(loaded(), ARGV)


def test_other_processes_of_a_distributed_run_join_the_trial_of_the_first(monkeypatch):
    first = begin_trial(loaded(), ARGV)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert begin_trial(loaded(), ARGV).root == first.root
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert begin_trial(loaded(), ARGV).root != first.root


def test_a_trial_is_of_one_process_at_a_time(tmp_path):
    """A second process is refused while the first is at work, and let in when it is done."""
    import subprocess
    import sys

    from distill3d.runtime.trial import Trial, _hold, release_trials

    _hold(Trial(tmp_path))
    _hold(Trial(tmp_path))  # the same process may: it trains, then it tests
    code = "from pathlib import Path; from distill3d.runtime.trial import Trial, _hold; "
    code += f"_hold(Trial(Path({str(tmp_path)!r})))"
    own = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    refused = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True, check=False)
    assert "another process is at work in" in refused.stderr
    release_trials()
    assert subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, check=False).returncode == 0
