"""All results anew: steps are done once under the same weights, and the papers' claims stand in one table."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import claims
import exact_claims
import exact_report
import fingerprint
import paper_claims
import results
from fingerprint import Fingerprint

from distill3d.evaluation import confidence

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
        Fingerprint("first", "benchmarks/paper_claims.py", "abc1234"),
    ]
    assert recorded[-1][0] == ["benchmarks/results/claims.md"]
    assert results.main(["--only", "edit", "edit-toy", *done]) == 0
    assert len(commands) == 2  # all is done
    monkeypatch.setattr(results, "weights_hash", lambda: "second")
    assert results.main(["--only", "edit", "edit-toy", *done]) == 0
    assert [command[0] for command in commands[2:]] == ["benchmarks/edit.py"]  # the toy has no weights


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (subprocess.CalledProcessError(3, ["x"]), 3, "edit-toy failed"),
        (KeyboardInterrupt(), 130, "edit-toy was stopped"),
    ],
)
def test_a_step_that_fails_or_is_stopped_is_not_done(error, status, said, tmp_path, monkeypatch, ran, capsys):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(results.subprocess, "run", fail)
    assert results.main(["--only", "edit-toy", "--done", str(tmp_path / "done.json")]) == status
    assert not (tmp_path / "done.json").exists()
    assert f"{said}; the same command resumes with it" in capsys.readouterr().out


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
    assert "Not run: `dreamfusion_ablation.json`, `exact.json`, `exact-scales.json`, `edit.json`." in text
    assert "- LMC-SDS (arXiv 2401.05293): 1 confirmed, 1 not tested: too few prompts" in text
    assert (tmp_path / "claims.md").read_text() == text


def test_claims_about_the_exact_prior_stand_with_the_paper_that_made_them(tmp_path):
    row = lambda name, condition, rule, detail, iou: exact_report.Row(  # noqa: E731
        "shipped", name, condition, rule, iou, 1.0, 20.0, 0.5 - iou / 2, 30.0, "key", None, None, detail, 1.0
    )
    rows = [row(name, "text", "sds", 0.4, 0.6) for name in "abc"]
    rows += [row(name, "view-words", "sds", 0.5, 0.8) for name in "abc"]
    rows += [row(name, "camera", "sds", 0.6, 0.9) for name in "abc"]
    rows += [row(name, "camera", "lmc-sds", 0.7, 0.9) for name in "ab"]
    parts = exact_claims.claims_of(rows)
    assert list(parts) == [exact_claims.TOLD, exact_claims.BLUR]  # no scales were run
    verdicts = {(claim.text, claim.figure): claim.verdict for own in parts.values() for claim in own}
    assert verdicts["view words over the text alone, SDS", "IoU"] == "confirmed"
    assert verdicts["view words over the text alone, SDS", "Janus"] == "confirmed"
    assert verdicts["a model without error leaves SDS no blur", "high frequencies / truth - 1"] == "contradicted"
    assert verdicts["LMC-SDS is more detailed than SDS", "high frequencies / truth"] == "not tested: too few prompts"
    records = {part: claims.claim_records(own) for part, own in parts.items()}
    (tmp_path / "exact.json").write_text(json.dumps({"claims": records}))
    lines = paper_claims.write_claims(tmp_path).splitlines()
    papers = {line.split(" | ")[1]: line.split(" | ")[0] for line in lines if "exact.md" in line}
    assert papers["view words over the text alone, SDS"].startswith("| DreamFusion")
    assert papers["a model without error leaves SDS no blur"].startswith("| LMC-SDS")


def test_a_group_of_scales_of_the_exact_prior_counts_only_where_all_were_run():
    at = lambda name, scale: exact_report.Row(  # noqa: E731
        "scales", name, "camera", "sds", 0.9, 1.0, 20.0, 0.0, 30.0, "key", scale, None, scale / 10, 1.0
    )
    rows = [at("a", 1.0), at("a", 3.0), at("b", 1.0)]
    assert exact_claims.of(rows, "detail", "sds", exact_claims.LOW) == {("a", 0): pytest.approx(0.2)}


def test_seeds_of_the_exact_prior_are_pairs_of_their_own():
    at = lambda seed, rule, detail: exact_report.Row(  # noqa: E731
        "s", "a", "camera", rule, 0.9, 1.0, 20.0, 0.0, 30.0, "key", None, None, detail, 1.0, seed
    )
    rows = [at(0, "sds", 0.5), at(1, "sds", 0.7)]
    assert exact_claims.of(rows, "detail", "sds", exact_claims.SHIPPED) == {("a", 0): 0.5, ("a", 1): 0.7}
    assert "| a, seed 1 |" in exact_report.report(rows, "command", [], {})


def test_what_could_not_be_decided_says_why(tmp_path):
    found = lambda mean, low, high: asdict(confidence.Interval(mean, low, high, 6, 12))  # noqa: E731
    claim = lambda text, sign, interval: {  # noqa: E731
        "text": text, "figure": "detail", "sign": sign, "verdict": "not confirmed", "found": interval
    }  # fmt: skip
    records = [
        claim("near", +1, found(0.1, -0.1, 0.3)),
        claim("away", -1, found(0.1, -0.1, 0.3)),
        claim("same", +1, found(0.0, 0.0, 0.0)),
    ]
    (tmp_path / "exact.json").write_text(json.dumps({"claims": {exact_claims.BLUR: records}}))
    text = paper_claims.write_claims(tmp_path)
    assert "| near | not confirmed (around zero: 6 prompts, 12 pairs) |" in text
    assert "| away | not confirmed (around zero, the mean on the other side: 6 prompts, 12 pairs) |" in text
    assert "| same | not confirmed (alike in all: 6 prompts, 12 pairs) |" in text


def test_the_committed_table_of_claims_is_that_of_the_committed_reports(tmp_path):
    for file in results.RESULTS.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert paper_claims.write_claims(tmp_path) == (results.RESULTS / "claims.md").read_text(encoding="utf-8")


def test_results_that_were_just_written_make_no_checkout_dirty(monkeypatch):
    asked = []

    def git(*words):
        asked.append(words)
        return "abc1234\n" if words[0] == "describe" else ""

    monkeypatch.setattr(fingerprint, "_git", git)
    assert fingerprint.commit() == "abc1234"
    assert ":!benchmarks/results" in asked[1] and ":!docs/pictures" in asked[1]
    monkeypatch.setattr(fingerprint, "_git", lambda *words: "abc1234\n" if words[0] == "describe" else " M x.py\n")
    assert fingerprint.commit() == "abc1234-dirty"
