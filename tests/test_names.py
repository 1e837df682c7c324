import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from distill3d.runtime.names import safe_name


@given(st.text())
def test_a_name_is_one_short_path_component(tmp_path_factory, text):
    name = safe_name(text)
    assert not set(name) & set('/\\:*?"<>|\0\n\r\t ')
    assert not name.startswith(".")
    assert not name.endswith(".")
    assert len(name.encode()) <= 120
    assert bool(name) == bool(text.strip())
    if name:
        folder = tmp_path_factory.getbasetemp() / name
        folder.mkdir(exist_ok=True)
        assert folder.parent == tmp_path_factory.getbasetemp()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a_hamburger", "a_hamburger"),
        ("a/b\\c", "a_b_c"),
        ("../../etc", "etc"),
        ("a cat: sitting # hat", "a_cat_sitting_hat"),
        ("버거 둘", "버거_둘"),
        ("  ", ""),
    ],
)
def test_examples(text, name):
    assert safe_name(text) == name


def test_long_names_are_cut_and_stay_different():
    first, second = safe_name("x" * 300 + "a"), safe_name("x" * 300 + "b")
    assert first != second
    assert len(first) < 80


def test_names_of_which_nothing_is_left_stay_different():
    assert safe_name("🍔") != safe_name("🍕")


@given(st.text())
@example("x" * 300)
@example("00000" + "\U0001d400" * 40)
def test_a_safe_name_stays_as_it_is(text):
    assert safe_name(safe_name(text)) == safe_name(text)
