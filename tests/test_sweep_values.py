"""The syntax of many values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill3d.config.check import ConfigError
from distill3d.sweep.values import split_values

PROMPT = "system.prompt_processor.prompt"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1", ["1"]),
        ("10,20, 50", ["10", "20", "50"]),
        ("[0,100,10,5000],20", ["[0,100,10,5000]", "20"]),
        ("{a: 1, b: [2, 3]},null", ["{a: 1, b: [2, 3]}", "null"]),
        ('"a,b",c', ['"a,b"', "c"]),
        ("don't,do", ["don't", "do"]),
        ("${add:1,2},3", ["${add:1,2}", "3"]),
        ("0:4:2", ["0", "2", "4"]),
        ("0:5:2", ["0", "2", "4"]),
        ("0:1:0.25", ["0", "0.25", "0.5", "0.75", "1"]),
        ("3:1:-1,9", ["3", "2", "1", "9"]),
        ("100:300:100", ["100", "200", "300"]),
        ("1e-3:3e-3:1e-3", ["0.001", "0.002", "0.003"]),
        ("", [""]),
    ],
)
def test_commas_and_ranges(text, values):
    assert split_values("a.b", text) == values


def test_prompts_are_split_at_semicolons_alone():
    assert split_values(PROMPT, "a fox, red; a hat (1,2)") == ["a fox, red", "a hat (1,2)"]
    assert split_values(PROMPT, "0:4:2, [a cat") == ["0:4:2, [a cat"]


def test_a_file_gives_a_value_a_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("# of animals\na fox; red\n\n  a hat, blue \n  # end", encoding="utf-8")
    assert split_values(PROMPT, f"@{path}") == ["a fox; red", "a hat, blue"]


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("seed", "0,", "value 2 of 2 is empty"),
        ("seed", "0,,1", "value 2 of 3 is empty"),
        (PROMPT, "a fox;", "value 2 of 2 is empty"),
        ("a", "[1,2", "] is missing"),
        ("a", '"x,y', '" is missing'),
        ("seed", "0:3:0", "must not be 0"),
        ("seed", "3:0:1", "is empty"),
        ("seed", "0:1e9:1", "has 1000000001 values"),
        ("seed", "@nowhere.txt", "does not exist"),
    ],
)
def test_mistakes_name_the_setting(key, text, message):
    with pytest.raises(ConfigError) as caught:
        split_values(key, text)
    assert message in str(caught.value)
    assert caught.value.setting == key


def test_an_empty_file_is_a_mistake(tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(ConfigError, match="holds no value"):
        split_values("seed", f"@{tmp_path / 'empty.txt'}")


@given(st.lists(st.integers(-99, 99).map(str) | st.lists(st.integers(0, 9), min_size=1).map(str), min_size=1))
def test_what_is_joined_is_split_again(values):
    assert split_values("a", ",".join(values)) == values
