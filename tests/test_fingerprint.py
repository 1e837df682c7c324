"""Results name the weights that made them, and pages say which of them are not the present ones."""

from __future__ import annotations

import re

import pytest

from benchmarks.fingerprint import Fingerprint, read_fingerprints, record, weights_hash
from distill3d.config.files import PROJECT

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
RESULT = re.compile(r"\]\(((?:docs/|\.\./)?(?:pictures|benchmarks/results)/[\w./-]+\.(?:md|jpg|png))\)")
SAID = ("earlier weights", "weights before")
NEAR = 1200  # characters after a picture or a link: its caption


def shown(text: str, page) -> dict[str, str]:
    """The results that a page shows, by their path in the checkout, each with the text around it."""
    found = {}
    for match in RESULT.finditer(text):
        path = (page.parent / match[1]).resolve().relative_to(PROJECT).as_posix()
        found[path] = text[max(0, match.start() - NEAR) : match.end() + NEAR]
    return found


def unsaid(text: str, page, present: str) -> list[str]:
    """Results of other weights of which the page does not say so."""
    known = read_fingerprints()
    return [
        path
        for path, around in shown(text, page).items()
        if known[path].weights not in (None, present) and not any(words in around for words in SAID)
    ]


def test_every_table_and_picture_has_a_fingerprint():
    kinds = (".md", ".jpg", ".png")
    folders = (PROJECT / "benchmarks/results", PROJECT / "docs/pictures")
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in kinds]
    names = {path.relative_to(PROJECT).as_posix() for path in files}
    assert names == set(read_fingerprints()), "run python benchmarks/fingerprint.py FILES --config CONFIG"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_say_which_results_are_of_other_weights(page):
    stale = unsaid(page.read_text(encoding="utf-8"), page, weights_hash())
    assert not stale, f"made by other weights: make them anew, or write of each: {SAID[0]}"


def test_what_a_page_shows_is_found_and_a_stale_result_is_named():
    text = "![a](pictures/text-to-3d.jpg) and [tables](../benchmarks/results/edit.md)"
    page = PROJECT / "docs" / "results.md"
    assert set(shown(text, page)) == {"docs/pictures/text-to-3d.jpg", "benchmarks/results/edit.md"}
    assert unsaid(text, page, "other") == ["docs/pictures/text-to-3d.jpg", "benchmarks/results/edit.md"]
    assert unsaid(text + " of earlier weights", page, "other") == []


def test_the_hash_sees_names_and_bytes_of_weights_alone(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet/a.safetensors").write_bytes(b"1")
    first = weights_hash(tmp_path)
    (tmp_path / "README.md").write_text("a card")
    assert weights_hash(tmp_path) == first
    (tmp_path / "unet/a.safetensors").rename(tmp_path / "unet/b.safetensors")
    renamed = weights_hash(tmp_path)
    (tmp_path / "unet/b.safetensors").write_bytes(b"2")
    assert len({first, renamed, weights_hash(tmp_path)}) == 3


@pytest.mark.parametrize("name", ["weights", "judge_weights"])
def test_the_card_of_shipped_weights_names_their_hash(name):
    folder = PROJECT / "distill3d" / "embedded" / name
    assert weights_hash(folder) in (folder / "README.md").read_text(encoding="utf-8")


def test_entries_are_kept_and_replaced(tmp_path):
    path = tmp_path / "fingerprints.json"
    record(["a.png", "b.md"], Fingerprint("1", "x.yaml", "c"), path)
    record(["b.md"], Fingerprint(None, "y.yaml", "d"), path)
    assert read_fingerprints(path) == {
        "a.png": Fingerprint("1", "x.yaml", "c"),
        "b.md": Fingerprint(None, "y.yaml", "d"),
    }
