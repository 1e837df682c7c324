"""The benchmark of edits does each cell once, from sources made once, and reports from its ledger and its pictures."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from tiny_assets import make_assets
from tiny_pipelines import embedded_own

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import edit
import edit_bench
import edit_cells
import edit_choice
import edit_claims
import edit_curve
import edit_toy
from edit_cells import SCALES, SUITES, Edit, EditCell, Method, at_scale


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Arguments of a tiny benchmark, and its folder."""
    root = tmp_path_factory.mktemp("bench")
    prior = embedded_own(root / "prior")
    (root / "assets").mkdir()
    assets = make_assets(root / "assets")
    places = ["--work", str(root / "work"), "--results", str(root / "results"), "--assets", str(assets)]
    settings = [f"system.prior.pretrained_model_name_or_path={prior}", "trainer.max_steps=2"]
    settings.append(f"system.prompt_processor.cache_dir={root / 'cache'}")
    return root, [*places, "--size", "16", "--jobs", "1", "--judge", "none"], settings


class ColourJudge:
    """The mean colour of a picture, and for a text that of what it names."""

    name = "colours"
    captions: list[str] = []  # noqa: RUF012

    def embed_images(self, images):
        return torch.nn.functional.normalize(images.mean((2, 3)) + 1e-3, dim=1)

    def embed_texts(self, texts):
        colors = [(0.1, 0.1, 0.9) if "blue" in text else (0.8, 0.1, 0.1) for text in texts]
        return torch.nn.functional.normalize(torch.tensor(colors), dim=1)

    def view_words(self, images, prompt):
        return None


RECOLOUR = Edit("recolour", "an apple", "a blue apple")


def few(size):
    """One edit of each kind of scene, by two methods."""
    yield EditCell("nerf", RECOLOUR, Method("pds", "nerf-edit.yaml"), size, 2)
    yield EditCell("nerf", RECOLOUR, Method("idu", "nerf-edit-idu.yaml"), size, 2)
    yield EditCell("image", RECOLOUR, Method("pds", "image-edit.yaml", ("system.guidance_type=pds",)), size, 2)
    yield EditCell("image", RECOLOUR, Method("sdedit", None, (), "strength 0.5"), size, 2)
    yield EditCell("svg", RECOLOUR, Method("dds", "svg-edit.yaml", ("system.guidance_type=dds",)), size, 2)


def ledger(root) -> list[dict]:
    return [json.loads(line) for line in (root / "results/edit.jsonl").read_text().splitlines()]


def test_each_cell_is_run_once_and_is_judged_when_a_judge_comes(bench, monkeypatch, capsys):
    root, arguments, settings = bench
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setitem(edit.SUITES, "image", few)
    edit.main([*arguments, "--suite", "image", *settings])
    lines = ledger(root)
    assert [(line["suite"], line["method"]) for line in lines] == [(c.suite, c.method.name) for c in few(16)]
    assert all("error" not in line and 0.0 < line["figures"]["ssim"] <= 1.0 for line in lines)
    assert all(("inconsistency_of_renders" in line["figures"]) == (line["suite"] == "nerf") for line in lines)
    assert len(list((root / "work").glob("sources/*/an-apple/fitted.done"))) == 1
    report = (root / "results/edit.md").read_text()
    assert "No judge" in report and "score |" not in report and "edit.jpg" in report
    monkeypatch.setattr("edit_bench.choose_judge", lambda *_: ColourJudge())
    edit.main([*arguments, "--suite", "image", *settings])
    assert "5 of 5 cells are done" in capsys.readouterr().out
    again = ledger(root)[len(lines) :]
    assert [line["key"] for line in again] == [line["key"] for line in lines]
    assert all({"score", "score_gain", "direction", "source_distance"} <= line["figures"].keys() for line in again)
    assert all(old["figures"].items() <= new["figures"].items() for old, new in zip(lines, again, strict=True))
    edit.main([*arguments, "--suite", "image", "--report", *settings])
    assert len(ledger(root)) == 10
    assert "Judge: colours." in (root / "results/edit.md").read_text()


def test_an_object_that_the_assets_lack_is_named_and_ends_no_other_cell(bench, monkeypatch, capsys):
    root, arguments, settings = bench
    monkeypatch.setattr(os, "environ", dict(os.environ))
    missing = EditCell(
        "image", Edit("exchange", "a unicorn", "a fox"), Method("sdedit", None, (), "strength 0.5"), 16, 2
    )
    monkeypatch.setitem(edit.SUITES, "psi", lambda size: [missing, list(few(size))[3]])
    edit.main([*arguments, "--results", str(root / "other"), "--suite", "psi", *settings])
    assert "no mesh of 'a unicorn'" in capsys.readouterr().out
    lines = [json.loads(line) for line in (root / "other/edit.jsonl").read_text().splitlines()]
    assert ["error" in line for line in lines] == [True, False]


def test_no_two_cells_share_a_key():
    cells = [cell for suite in SUITES.values() for cell in suite(32)]
    assert len({cell.key("prior/meshes") for cell in cells}) == len(cells)
    assert cells[0].key("prior/meshes") != cells[0].key("prior/text")


def test_other_weights_of_the_prior_or_b_psi_are_other_cells_and_other_scenes_of_the_prior(tmp_path, monkeypatch):
    found = {"prior": "p", "b_psi": "b"}
    monkeypatch.setattr("conditions.prior_weights", lambda cfg: {"prior": found["prior"]})
    monkeypatch.setattr("conditions.corrective_weights", lambda setting, prior: {"b_psi": found["b_psi"]})
    cells = {c.method.name: c for c in SUITES["image"](16) if c.edit == edit_cells.IMAGE_EDITS[0]}

    def seen(assets: Path | None = None) -> dict[str, object]:
        bench = edit_bench.EditBench(tmp_path, assets, 16, "none")
        return {name: c.key(bench.conditions(c)) for name, c in cells.items()} | {"scenes": bench.sources.folder}

    first, of_meshes = seen(), seen(tmp_path)
    found["b_psi"] = "another"
    assert {name for name, value in seen().items() if value != first[name]} == {"lmc-sds"}
    found["prior"] = "another"
    assert {name for name, value in seen().items() if value != first[name]} == {*cells, "scenes"}
    assert {name for name, value in seen(tmp_path).items() if value != of_meshes[name]} == set(cells)


def test_a_judge_of_other_weights_judges_again(tmp_path, monkeypatch):
    judge = ColourJudge()
    bench = edit_bench.EditBench(tmp_path, None, 16)
    monkeypatch.setattr("edit_bench.choose_judge", lambda *_: judge)
    monkeypatch.setattr(edit_bench.EditBench, "has_pictures", lambda *_: True)
    monkeypatch.setattr(edit_bench.EditBench, "measured", lambda *_: {"score": 0.5})
    cell, line = line_of("pds", "a blue apple", ssim=0.5)
    judged = bench.judge_again(cell, line)
    assert judged is not None and judged["figures"] == {"ssim": 0.5, "score": 0.5}
    assert bench.judge_again(cell, judged) is None
    monkeypatch.setattr(judge, "identity", "other weights under the same name", raising=False)
    assert bench.judge_again(cell, judged) is not None


def line_of(method: str, target: str, at: str = "", **figures: float):
    cell = EditCell("nerf", Edit("recolour", "x", target), Method(method, None, (), at), 32, 1)
    return cell, {"key": cell.key(""), "seconds": 2.0, "figures": figures}


def no_picture(key: str, name: str) -> Path:
    return Path("nowhere") / key


def test_claims_are_paired_over_edits_and_left_out_without_their_figures():
    lines = [line_of("pds", name, ssim=0.1 * i + 0.3) for i, name in enumerate("abc")]
    lines += [line_of("sds", name, ssim=0.1 * i) for i, name in enumerate("abc")]
    claims = edit_claims.claims_of("nerf", lines, no_picture)
    assert [(claim.text, claim.verdict) for claim in claims] == [("PDS keeps the source better than SDS", "confirmed")]
    assert claims[0].found is not None and claims[0].found.mean == pytest.approx(0.3)


def grid_of(method: str, points: dict[str, tuple[float, float]]):
    return [
        line_of(method, edit, at, score_gain=gain + 0.1 * i, ssim=kept)
        for at, (gain, kept) in points.items()
        for i, edit in enumerate("abc")
    ]


def test_each_method_is_compared_at_the_setting_where_gain_times_identity_is_largest():
    lines = grid_of("pds", {"w = 1": (0.1, 0.9), "w = 2": (0.4, 0.7), "w = 4": (0.5, 0.1)})
    lines += grid_of("dds", {"w = 1": (0.1, 0.9), "w = 2": (0.2, 0.3), "w = 4": (-0.5, 0.1)})
    best = {(cell.method.name, cell.method.at) for cell, _ in edit_choice.chosen(lines)}
    assert best == {("pds", "w = 2"), ("dds", "w = 1")}
    (changes,) = [c for c in edit_claims.claims_of("image", lines, no_picture) if "changes at least" in c.text]
    assert changes.found is not None and changes.found.mean == pytest.approx(0.3)
    unjudged = [line_of("pds", "a", f"w = {w}", ssim=1.0 / w) for w in (1, 2, 4)]
    assert [cell.method.at for cell, _ in edit_choice.chosen(unjudged)] == ["w = 2"]


def test_refinement_and_rest_are_compared_at_the_same_scale():
    middle, figures = (
        at_scale(SCALES["pds"][1]),
        {at_scale(w): s for w, s in zip(SCALES["pds"], (0.9, 0.5, 0.4), strict=True)},
    )
    lines = [line_of("pds", e, at, ssim=s, score=s, score_gain=s) for at, s in figures.items() for e in "abc"]
    lines += [line_of("pds, refined", e, middle, ssim=0.6, score=0.7, score_gain=0.7) for e in "abc"]
    lines += [line_of("pds, longer", e, middle, ssim=0.45) for e in "abc"]
    lines += [line_of("dds", e, "w = 6.5", ssim=0.8) for e in "abc"]
    lines += [line_of("dds, longer", e, "w = 6.5", ssim=0.5) for e in "abc"]
    found = {c.text: c for c in edit_claims.claims_of("nerf", lines, no_picture)}
    assert found["refinement raises fidelity"].found.mean == pytest.approx(0.2)
    assert found["going on, PDS comes to rest sooner than DDS"].found.mean == pytest.approx(0.05 - 0.3)
    assert found["going on, PDS comes to rest sooner than DDS"].verdict == "confirmed"


def test_each_method_with_a_grid_is_a_curve_over_it():
    lines = [line_of(kind, "a", f"w = {w}", ssim=1.0 / w, direction=0.1 * w) for kind in "ab" for w in (2, 4)]
    lines += [line_of("refined", "a", "w = 2", ssim=0.1, direction=0.1)]
    found = edit_curve.curves(lines, "direction")
    assert found == {kind: [(pytest.approx(0.2), 0.5, "2"), (pytest.approx(0.4), 0.25, "4")] for kind in "ab"}
    assert edit_curve.curves(lines, "score_gain") == {}


def test_the_toy_prior_is_the_mixtures_own_score():
    prior, z = edit_toy.TwoModes(), torch.tensor([[0.3, -0.4]])
    t = torch.tensor([300])
    alpha, sigma = (value.double().flatten() for value in prior.alpha_sigma(t))
    point = z.double().requires_grad_()
    variance = (alpha * edit_toy.DEVIATIONS.double()) ** 2 + sigma**2
    exponent = -0.5 * ((point - alpha * edit_toy.MEANS) ** 2 / variance + variance.log()).sum(-1)
    (score,) = torch.autograd.grad(exponent.logsumexp(0), point)
    query = edit_toy.Pass(z[..., None, None], t, prior.embed(None, 1))
    torch.testing.assert_close(prior.predict([query])[0].noise[:, :, 0, 0].double(), -sigma * score)


def test_in_the_toy_pds_ends_between_its_source_and_dds(monkeypatch):
    monkeypatch.setattr(edit_toy, "DRAWS", 16)
    edit_toy.import_rooms()
    found = [edit_toy.figures(p, edit_toy.path(p, edit_toy.STARTS, edit_toy.STEPS)) for p in edit_toy.PANELS[:3]]
    sds, dds, pds = found
    assert sds["identity"] < dds["identity"] < pds["identity"] <= 1.0 + 1e-3
    assert 0.5 < pds["change"] < dds["change"]
