"""The ledger: appended, never rewritten, readable whatever was cut off."""

import json

from hypothesis import given
from hypothesis import strategies as st

from distill3d.sweep.ledger import Ledger


def test_records_come_back_in_their_order(tmp_path):
    ledger = Ledger(tmp_path / "folder" / "sweep.jsonl")
    ledger.append({"run": "a", "x": "ü\n"}, {"run": "b"})
    ledger.append({"run": "c"})
    assert list(ledger.records()) == [{"run": "a", "x": "ü\n"}, {"run": "b"}, {"run": "c"}]
    assert ledger.torn == 0


@given(cut=st.integers(1, 40))
def test_a_torn_last_line_costs_itself_alone(tmp_path_factory, cut):
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "sweep.jsonl")
    ledger.append({"run": "whole"}, {"run": "torn", "words": "a fox, and much more"})
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole[:-cut])
    ledger.append({"run": "after"})
    runs = [record["run"] for record in ledger.records()]
    assert runs[0] == "whole"
    assert runs[-1] == "after"
    assert runs[1:-1] == (["torn"] if cut == 1 else [])
    assert ledger.torn == (0 if cut == 1 else 1)
    assert ledger.path.read_bytes().startswith(whole[:-cut])


def test_lines_that_are_no_records_are_passed_over(tmp_path):
    ledger = Ledger(tmp_path / "sweep.jsonl")
    ledger.path.write_text('[1]\n{"run": "a", "event": "planned"}\nnonsense\n\n')
    assert [record["run"] for record in ledger.records()] == ["a"]
    assert ledger.torn == 2


def test_a_planned_run_is_found_by_its_id(tmp_path):
    ledger = Ledger(tmp_path / "sweep.jsonl")
    ledger.append({"event": "started", "run": "b"}, {"event": "planned", "run": "b", "overrides": ["x=a"]})
    assert ledger.planned("b") == {"event": "planned", "run": "b", "overrides": ["x=a"]}
    assert ledger.planned("a") is None
    assert json.loads(ledger.path.read_text().splitlines()[0])["event"] == "started"
