"""The benchmark does each cell once, survives a kill, and reports from its ledger alone."""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_pipelines import embedded_own

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import conditions
import lmc_bench
import lmc_claims
import lmc_report
import lmc_vs_sds
import torch
from lmc_cells import COMPARED_AT_64, PROMPTS, RULES, SCALES, SUITES, Cell

from distill3d.runtime.pictures import to_uint8, write_png


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Arguments of a tiny benchmark, and its folder."""
    root = tmp_path_factory.mktemp("bench")
    prior = embedded_own(root / "prior")
    arguments = ["--jobs", "1", "--judge", "none", "--work", str(root / "work"), "--results", str(root / "results")]
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
    assert "1 of 1 trainings are done" in capsys.readouterr().out
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


def test_only_equal_trainings_share_a_key():
    cells = [cell for suite in SUITES.values() for cell in suite()]
    assert len({cell.key("prior") for cell in cells}) == len({(cell.config, cell.overrides) for cell in cells})
    assert cells[0].key("prior") != cells[0].key("another prior")


def test_other_weights_of_the_prior_b_psi_or_the_judge_are_other_cells(tmp_path, monkeypatch):
    found = {"prior": "p", "b_psi": "b"}
    judge = SimpleNamespace(name="embedded judge", identity="j")
    monkeypatch.setattr("conditions.prior_weights", lambda cfg: {"prior": found["prior"]})
    monkeypatch.setattr("conditions.corrective_weights", lambda setting, prior: {"b_psi": found["b_psi"]})
    monkeypatch.setattr("lmc_bench.choose_judge", lambda *_: judge)
    cells = {rule: line_of(rule, "a fox", 0, 0.0)[0] for rule in RULES}

    def keys() -> dict[str, str]:
        bench = lmc_bench.Bench(tmp_path)
        return {rule: cell.key(bench.conditions(cell)) for rule, cell in cells.items()}

    def changed(before: dict[str, str]) -> set[str]:
        return {rule for rule, key in keys().items() if key != before[rule]}

    first = keys()
    assert changed(first) == set()
    found["b_psi"] = "another"
    assert changed(first) == {"lmc-sds"}
    found["prior"] = "another"
    assert changed(first) == set(RULES)
    second = keys()
    judge.identity = "another"
    assert changed(second) == set(RULES)


def test_settings_name_the_prior_and_the_corrective_whose_weights_count(monkeypatch):
    asked = []
    monkeypatch.setattr("conditions.prior_weights", lambda model: {"prior": model.name})
    monkeypatch.setattr("conditions.corrective_weights", lambda *given: asked.append(given) or {})
    settings = [f"{conditions.PRIOR}=a", f"{conditions.PRIOR}=b", f"{conditions.CORRECTIVE}=mine.safetensors"]
    assert "embedded" in conditions.weights_of([], corrected=False)
    assert conditions.weights_of(settings, corrected=False) == '{"prior": "b"}' and not asked
    conditions.weights_of(settings, corrected=True)
    conditions.weights_of([], corrected=True)
    assert asked == [("mine.safetensors", "b"), ("auto", "embedded")]


def test_fresh_noise_in_3d_is_the_grids_own_cell():
    grid, noise = list(SUITES["3d"]()), list(SUITES["noise"]())
    fresh = [cell for cell in noise if cell.suite == "noise-3d" and cell.variant == "fresh" and cell.seed == 0]
    assert len(fresh) == 3 and {cell.key("") for cell in fresh} <= {cell.key("") for cell in grid}


def test_trainings_that_are_shared_are_run_once_and_the_first_parts_come_first(tmp_path, monkeypatch):
    run = []

    class Recorder:
        def run(self, cell, key):
            run.append((cell, key))
            return {"figures": {}, "seconds": 1.0, "judging_seconds": 0.0}

    work = [(cell, cell.key("")) for name in ("3d", "noise") for cell in SUITES[name]()]
    lmc_vs_sds.run_cells(Recorder(), work, tmp_path / "ledger.jsonl", float("inf"), jobs=1)
    assert len(run) == len({key for _, key in work}) < len(work)
    stages = [cell.stage for cell, _ in run]
    assert stages == sorted(stages)


def test_the_first_part_has_six_prompts_and_two_seeds_in_3d_and_six_prompts_at_64():
    first = {name: [cell for cell in SUITES[name]() if not cell.stage] for name in ("3d", "64")}
    places = {(c.rule, c.scale, c.prompt, c.seed) for c in first["3d"]}
    assert places >= set(itertools.product(RULES[:2], SCALES, PROMPTS, (0, 1)))
    assert places >= set(itertools.product(RULES, SCALES, PROMPTS, (0,)))
    assert {(c.rule, c.scale, c.prompt) for c in first["64"]} == set(
        itertools.product(RULES[:2], COMPARED_AT_64, PROMPTS)
    )


def test_scales_that_are_called_low_middle_and_high_are_those_that_are_run():
    for suite, named in lmc_claims.SCALES_OF.items():
        run = {cell.scale for cell in SUITES[suite]()}
        assert sorted(scale for own in named.values() for scale in own) == sorted(run)
    assert lmc_report.scales_named("64") == " (low: w = 3, middle: w = 10, high: w = 50)"
    assert lmc_report.scales_named("noise-2d") == ""


def line_of(
    rule: str, prompt: str, seed: int, value: float, scale: float = 3.0, figure: str = "r_precision", suite: str = "3d"
) -> lmc_report.Line:
    cell = Cell(suite, "x.yaml", rule, scale, prompt, seed, 32)
    return cell, {"key": cell.key(""), "diverged": False, "seconds": 2.0, "figures": {figure: value}}


def test_differences_are_paired_by_prompt_and_seed():
    lines = [line_of("sds", p, s, i / 10) for i, p in enumerate("abcd") for s in (0, 1)]
    lines += [line_of("lmc-sds", p, s, i / 10 + 0.25) for i, p in enumerate("abcd") for s in (0, 1)]
    lines.append(line_of("lmc-sds", "alone", 0, 100.0))
    table = lmc_report.paired_table(lines, "sds", "lmc-sds")
    assert table.splitlines()[-1] == "| 3 | +0.25 [0.25, 0.25] |"


def test_means_do_not_count_a_prompt_twice_that_has_two_seeds():
    lines = [line_of("sds", "a", 0, 0.0), line_of("sds", "a", 1, 0.0), line_of("sds", "b", 0, 1.0)]
    assert "| sds | 3 | 3 | 0.50 |" in lmc_report.rule_table(lines)


def test_claims_are_judged_by_paired_differences_over_groups_of_scales():
    lines = [
        line_of("sds", prompt, 0, value + 0.01 * i, scale, "saturation_ratio")
        for i, prompt in enumerate("abcd")
        for scale, value in ((1.0, 0.5), (3.0, 0.7), (50.0, 1.5), (100.0, 1.7))
    ]
    found = {claim.text: claim for claim in lmc_claims.claims_of("3d", lines, Path)}
    claim = found["SDS saturates at a high scale"]
    assert claim.found is not None and claim.found.mean == pytest.approx(1.0) and claim.verdict == "confirmed"
    assert "SDS blurs at a low scale" not in found  # no such figure
    reverse = [line_of("sds", p, 0, 1.0, scale, "high_frequency_ratio") for p in "abcd" for scale in (1.0, 3.0)]
    reverse += [line_of("lmc-sds", p, 0, 0.8, scale, "high_frequency_ratio") for p in "abcd" for scale in (1.0, 3.0)]
    found = {claim.text: claim for claim in lmc_claims.claims_of("2d", reverse, Path)}
    assert found["LMC-SDS keeps detail at a low scale"].verdict == "contradicted"
    assert found["SDS blurs at a low scale"].verdict == "not confirmed"


def test_a_group_of_scales_counts_only_where_all_of_them_were_run():
    lines = [line_of("sds", "a", 0, 1.0, 1.0), line_of("sds", "b", 0, 1.0, 1.0), line_of("sds", "b", 0, 2.0, 3.0)]
    assert lmc_claims.of(lines, "r_precision", "sds", (1.0, 3.0)) == {("b", 0): 1.5}


def test_the_sheet_of_the_readme_is_small_and_has_both_rules(tmp_path):
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    lines = [
        line_of(rule, prompt, 0, 0.0, scale, suite="64")
        for rule in RULES[:2]
        for prompt in PROMPTS[:2]
        for scale in COMPARED_AT_64
    ]
    for _, line in lines:
        strip = 0.4 + 0.2 * torch.rand(3, 64, 8 * 64, generator=generator)  # much harder for JPEG than an object
        write_png(tmp_path / f"{line['key']}.png", to_uint8(strip[None])[0])
    assert lmc_report.draw_sheet(lines, lambda key: tmp_path / f"{key}.png", tmp_path / "sheet.jpg")
    assert (tmp_path / "sheet.jpg").stat().st_size < 250_000
    width, height = Image.open(tmp_path / "sheet.jpg").size
    assert width > 3 * 2 * 96 and height > 4 * 96
    assert not lmc_report.draw_sheet(lines[:1], lambda key: tmp_path / f"{key}.png", tmp_path / "none.jpg")
