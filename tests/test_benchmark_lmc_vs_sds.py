"""The benchmark does each cell once, survives a kill, and reports from its ledger alone."""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path

import pytest
from tiny_pipelines import embedded_own

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import lmc_report
import lmc_vs_sds
from lmc_cells import PROMPTS, RULES, SCALES, SUITES, Cell


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Arguments of a tiny benchmark, and its folder."""
    root = tmp_path_factory.mktemp("bench")
    prior = embedded_own(root / "prior")
    arguments = ["--judge", "none", "--work", str(root / "work"), "--results", str(root / "results")]
    settings = [f"system.prior.pretrained_model_name_or_path={prior}", "trainer.max_steps=2"]
    settings.append(f"system.prompt_processor.cache_dir={root / 'cache'}")
    return root, arguments, settings


def ledger(root) -> list[dict]:
    return [json.loads(line) for line in (root / "results/lmc_vs_sds.jsonl").read_text().splitlines()]


def test_each_cell_is_run_once_and_the_report_needs_the_ledger_alone(bench, monkeypatch, capsys):
    root, arguments, settings = bench
    monkeypatch.setattr(os, "environ", dict(os.environ))
    (root / "results").mkdir()
    (root / "results/lmc_vs_sds.jsonl").write_text('{"key": "cut by a ki')
    lmc_vs_sds.main([*arguments, "--suite", "2d", "--cells", "1", *settings])
    lines = (root / "results/lmc_vs_sds.jsonl").read_text().splitlines()
    assert len(lines) == 2
    line = json.loads(lines[1])
    assert (line["rule"], line["scale"], line["diverged"]) == (RULES[0], SCALES[0], False)
    assert {"saturation_ratio", "high_frequency_ratio", "clipped"} <= line["figures"].keys()
    lmc_vs_sds.main([*arguments, "--suite", "2d", "--cells", "1", *settings])
    assert "1 of 1 cells are done" in capsys.readouterr().out
    assert len((root / "results/lmc_vs_sds.jsonl").read_text().splitlines()) == 2
    lmc_vs_sds.main([*arguments, "--suite", "2d", "--report", *settings])
    report = (root / "results/lmc_vs_sds.md").read_text()
    assert "| sds | 1 | 1 |" in report and "lmc_vs_sds-2d.png" in report
    assert (root / "results/lmc_vs_sds-2d.png").is_file()


def test_a_scene_is_measured_from_all_sides(bench, monkeypatch):
    root, arguments, settings = bench
    monkeypatch.setattr(os, "environ", dict(os.environ))
    small = ["data.cameras_like=null", "system.geometry.pos_encoding_config.log2_hashmap_size=8"]
    lmc_vs_sds.main([*arguments, "--suite", "3d", "--cells", "1", *settings, *small])
    line = ledger_lines(root)[-1]
    assert line["suite"] == "3d" and 0 < line["figures"]["opacity"] < 1


def ledger_lines(root) -> list[dict]:
    text = (root / "results/lmc_vs_sds.jsonl").read_text().splitlines()
    return [json.loads(line) for line in text if line.endswith("}")]


def test_no_two_cells_share_a_key():
    cells = [cell for suite in SUITES.values() for cell in suite()]
    assert len({cell.key("prior") for cell in cells}) == len(cells)
    assert cells[0].key("prior") != cells[0].key("another prior")


def test_the_3d_grid_begins_with_every_rule_and_scale_of_three_prompts():
    first = list(SUITES["3d"]())[: 3 * len(RULES) * len(SCALES)]
    assert {(c.rule, c.scale, c.prompt) for c in first} == set(itertools.product(RULES, SCALES, PROMPTS[:3]))
    assert {c.seed for c in first} == {0}


def line_of(rule: str, prompt: str, seed: int, value: float) -> lmc_report.Line:
    cell = Cell("3d", "x.yaml", rule, 3.0, prompt, seed, 32)
    return cell, {"key": cell.key(""), "diverged": False, "seconds": 2.0, "figures": {"r_precision": value}}


def test_differences_are_paired_by_prompt_and_seed():
    lines = [line_of("sds", p, s, i / 10) for i, p in enumerate("abcd") for s in (0, 1)]
    lines += [line_of("lmc-sds", p, s, i / 10 + 0.25) for i, p in enumerate("abcd") for s in (0, 1)]
    lines.append(line_of("lmc-sds", "alone", 0, 100.0))
    table = lmc_report.paired_table(lines, "sds", "lmc-sds")
    assert table.splitlines()[-1] == "| 3 | +0.25 [0.25, 0.25] |"


def test_means_do_not_count_a_prompt_twice_that_has_two_seeds():
    lines = [line_of("sds", "a", 0, 0.0), line_of("sds", "a", 1, 0.0), line_of("sds", "b", 0, 1.0)]
    assert "| sds | 3 | 3 | 0.50 |" in lmc_report.rule_table(lines)
