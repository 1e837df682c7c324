"""The report's files, and the page in a browser."""

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image

from distill3d.evaluation.collect import Entry
from distill3d.evaluation.report import Report, ReportedRun, csv_text, page, write_report
from distill3d.evaluation.samples import write_strip
from distill3d.evaluation.settings import EvaluateSettings

FLAGS = (
    *("--headless", "--no-sandbox", "--no-first-run", "--disable-quic", "--disable-sync", "--disable-gpu"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--virtual-time-budget=1500", "--dump-dom"),
)
SCORES = {("a fox", "sds"): 0.2, ("a fox", "lmc"): 0.6, ("a hat", "sds"): 0.9, ("a hat", "lmc"): 0.5}
NASTY = 'an </script><script>alert(1)</script> "ant" 한 🍔 {{data}}'


@pytest.fixture
def report(tmp_path):
    strip = tmp_path / "strip.png"
    write_strip(strip, torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    runs = [
        ReportedRun(
            Entry(f"{i}", tmp_path, prompt, 0, {"system.guidance_type": kind}, "done"),
            {"score": score, "janus": 1 - score, "seconds_total": 100.0},
            "a judge",
            "",
            {"color": strip, "textureless": strip},
        )
        for i, ((prompt, kind), score) in enumerate(SCORES.items())
    ]
    failed = Entry("4", tmp_path, NASTY, 1, {"system.guidance_type": "sds"}, "failed", "the last\nlines")
    return Report("a sweep", EvaluateSettings(views=4), [*runs, ReportedRun(failed, {})])


def test_all_files_are_written_and_say_the_same(report, tmp_path):
    write_report(report, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"evaluation.json", "evaluation.csv", "report.html", "grid.png"}
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert list(content["figures"]) == ["score", "janus", "seconds_total"]
    assert content["runs"][4]["error"] == "the last\nlines"
    assert content["judges"] == ["a judge"]
    side = 7 * len("guidance_type=lmc")  # wide enough for the head of its column
    grid = Image.open(tmp_path / "out" / "grid.png")
    assert grid.size == (7 * len("a fox") + 2 + 2 * (side + 2), 16 + 2 * (side + 2))  # gaps of 2
    assert csv_text(report).splitlines()[0] == (
        "id,prompt,seed,system.guidance_type,status,judge,score,janus,seconds_total,error"
    )


@pytest.mark.parametrize("formula", ['=HYPERLINK("x")', "+1+cmd", "-1+1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_table_holds_no_formula_whoever_wrote_the_prompt(formula):
    entry = Entry("=id", Path("x"), formula, -3, {"system.guidance_type": formula}, "failed", formula)
    report = Report("x", EvaluateSettings(), [ReportedRun(entry, {"score": -1.5})])
    row = next(csv.DictReader(io.StringIO(csv_text(report), newline="")))
    for column in ("id", "prompt", "system.guidance_type", "error"):
        assert row[column][0] == "'" and row[column][1:] in (formula.replace("\r", "\n"), "=id")
    assert (row["seed"], row["score"]) == ("-3", "-1.5")  # numbers stay numbers


def test_the_page_needs_no_other_file_and_a_prompt_is_never_markup(report):
    text = page(report, report.as_dict())
    assert not re.search(r'(src|href)\s*=\s*"', text)
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    assert "<script>alert" not in text
    assert text.count("data:image/jpeg;base64,") == 8
    data = json.loads(re.search(r'id="data" type="application/json">([^<]*)<', text)[1])
    assert data["runs"][4]["prompt"] == NASTY


def test_the_title_says_what_was_made_and_what_differs(report):
    assert report.title == "5 runs of 3 prompts: guidance_type (sds, lmc)"
    one = Report("x", EvaluateSettings(), report.runs[:1])
    assert one.title == "a fox" and "<title>a fox</title>" in page(one, one.as_dict())
    same = [ReportedRun(Entry(str(seed), Path("x"), "a fox", seed), {}) for seed in range(2)]
    assert Report("x", EvaluateSettings(), same).title == "2 runs of a fox"


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.fail("the report is tested in Chromium: apt-get install -y chromium")
    return found


def seen(chromium: str, path: Path, profile: Path, look: str) -> str:
    command = [chromium, *FLAGS, f"--user-data-dir={profile}", f"{path.as_uri()}#{look}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.partition('id="data"')[0]


def rows(dom: str) -> list[str]:
    return [re.search(r"<th>(.*?)</th>", row)[1] for row in re.findall(r"<tbody>.*?</tbody>", dom)[0].split("<tr>")[1:]]


def test_a_browser_draws_sorts_and_filters_the_grid(report, tmp_path, chromium):
    path = tmp_path / "report.html"
    path.write_text(page(report, report.as_dict()), encoding="utf-8")
    dom = seen(chromium, path, tmp_path / "profile", "")
    assert rows(dom)[:2] == ["a fox", "a hat"]
    assert "alert(1)" in rows(dom)[2]
    assert dom.count('class="view"') == 4
    assert "Paired differences" in dom
    assert "too few to average" in dom  # two prompts are no sample
    assert "the last\nlines" in dom
    assert "5 of 5 runs" in dom
    assert "judged by: a judge" in dom
    dom = seen(chromium, path, tmp_path / "profile", "sort=score&columns=janus&filter=a&mode=textureless&figures=score")
    assert rows(dom)[:2] == ["a hat", "a fox"]
    dom = seen(chromium, path, tmp_path / "profile", "filter=fox+lmc")
    assert rows(dom) == ["a fox"]
    assert "1 of 5 runs" in dom
    assert "guidance_type=sds</th>" not in dom
