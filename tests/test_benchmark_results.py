"""All results anew: steps are done once under the same weights, and the papers' claims stand in one table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import paper_claims
import results
from fingerprint import Fingerprint

FOUND = {"mean": 0.4, "low": 0.1, "high": 0.7, "prompts": 6, "pairs": 6}


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """The commands that were run, and the fingerprints, in place of benchmarks."""
    commands, recorded = [], []
    monkeypatch.setattr(results.subprocess, "run", lambda command, **_: commands.append(command[1:]))
    monkeypatch.setattr(results, "record", lambda names, made: recorded.append((names, made)))
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    return commands, recorded


def test_a_step_is_run_once_under_the_same_weights(tmp_path, monkeypatch, ran):
    commands, recorded = ran
    done = ["--done", str(tmp_path / "done.json"), "--assets", "MESHES"]
    monkeypatch.setattr(results, "weights_hash", lambda: "first")
    assert results.main(["--only", "edit", "edit-toy", *done]) == 0
    assert [command[0] for command in commands] == ["benchmarks/edit.py", "benchmarks/edit_toy.py"]
    assert "MESHES" in commands[0]
    assert [made for _, made in recorded] == [
        Fingerprint("first", "benchmarks/edit.py", "abc1234"),
        Fingerprint(None, "benchmarks/edit_toy.py", "abc1234"),
    ]
    assert results.main(["--only", "edit", "edit-toy", *done]) == 0
    assert len(commands) == 2  # all is done
    monkeypatch.setattr(results, "weights_hash", lambda: "second")
    assert results.main(["--only", "edit", "edit-toy", *done]) == 0
    assert [command[0] for command in commands[2:]] == ["benchmarks/edit.py"]  # the toy has no weights


def test_a_step_that_fails_is_not_done(tmp_path, monkeypatch, ran):
    def fail(command, **_):
        raise results.subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(results.subprocess, "run", fail)
    with pytest.raises(results.subprocess.CalledProcessError):
        results.main(["--only", "edit-toy", "--done", str(tmp_path / "done.json")])
    assert not (tmp_path / "done.json").exists()


def test_meshes_are_asked_for_before_anything_runs(ran, capsys):
    with pytest.raises(SystemExit):
        results.main(["--only", "edit-toy", "edit", "--again"])
    assert "--assets is missing" in capsys.readouterr().err and ran[0] == []


def test_every_step_is_a_benchmark_that_is_there_and_names_what_it_writes():
    for step in results.STEPS:
        assert (results.PROJECT / step.command[0]).is_file(), step.name
        assert step.files and all(name.startswith(("benchmarks/results/", "docs/pictures/")) for name in step.files)


def test_claims_of_all_papers_stand_in_one_table(tmp_path):
    claim = {"text": "SDS blurs", "figure": "high freq.", "sign": 1, "found": FOUND, "verdict": "confirmed"}
    undecided = claim | {"text": "SDS saturates", "found": None, "verdict": "not tested: too few prompts"}
    content = {"claims": {"in 3D": [claim, undecided]}}
    (tmp_path / "lmc_vs_sds.json").write_text(json.dumps(content))
    text = paper_claims.write_claims(tmp_path)
    assert "| SDS blurs | confirmed | high freq. +0.400 [+0.100, +0.700] | [in 3D](lmc_vs_sds.md) |" in text
    assert "| SDS saturates | not tested: too few prompts | high freq. |" in text
    assert "Not run: `dreamfusion_ablation.json`, `edit.json`." in text
    assert (tmp_path / "claims.md").read_text() == text
