"""Damaged files of every kind: no traceback, no hang, no silent nonsense. `fuzzing` says how to run more of them."""

import pytest
from fuzz_kinds import kinds
from fuzzing import attempt, mutated, run

SAMPLE = 150
MANY = 1000


def test_a_sample_of_mutations_is_told_in_words():
    assert run(range(SAMPLE)) == []


@pytest.mark.slow
def test_a_thousand_mutations_are_told_in_words():
    assert run(range(SAMPLE, SAMPLE + MANY)) == []


def test_the_whole_files_are_read(tmp_path):
    """Else the mutations would show only that nothing is."""
    for number, kind in enumerate(kind for kind in kinds() if kind.name != "model_index.json"):
        (folder := tmp_path / str(number)).mkdir()
        (folder / kind.name).write_bytes(kind.whole)
        kind.read(folder / kind.name)


def test_a_mutation_is_a_function_of_its_number_and_a_defect_is_seen(tmp_path, monkeypatch):
    import random

    assert mutated(b"abcdef" * 9, random.Random(3)) == mutated(b"abcdef" * 9, random.Random(3)) != b"abcdef" * 9
    broken = kinds()[:1]

    def defect(path):
        raise KeyError("a")

    from dataclasses import replace

    assert "KeyError" in (attempt(0, [replace(broken[0], read=defect)], tmp_path) or "")
