"""Axes and their product."""

import pytest

from distill3d.config.check import ConfigError
from distill3d.config.yaml_text import parse_value
from distill3d.sweep.cases import as_text, read_axes

PROMPT = "system.prompt_processor.prompt"


def test_arguments_multiply_and_the_last_varies_fastest():
    axes = read_axes(["a=1,2", "trainer.max_steps=5", f"{PROMPT}=a fox;a hat"])
    assert axes.fixed == ("trainer.max_steps=5",)
    assert list(axes.cases()) == [{"a": a, PROMPT: p} for a in "12" for p in ("a fox", "a hat")]
    assert len(axes) == 4


def test_a_block_has_a_grid_equally_long_lists_and_cases():
    block = {"grid": {"a": [1, 2]}, "zip": {"b": [3, 4], "c": ["x", "y"]}, "cases": [{"d": 5}, {"e": [6, 7]}]}
    cases = list(read_axes([], block).cases())
    assert len(cases) == 8
    assert cases[0] == {"a": "1", "b": "3", "c": '"x"', "d": "5"}
    assert cases[-1] == {"a": "2", "b": "4", "c": '"y"', "e": "[6, 7]"}


def test_an_argument_replaces_an_axis_of_the_grid():
    block = {"grid": {"a": [1, 2], "b": [3, 4]}}
    assert list(read_axes(["a=9"], block).cases()) == [{"b": "3"}, {"b": "4"}]
    assert list(read_axes(["a=7,8"], {"grid": {"a": [1, 2]}}).cases()) == [{"a": "7"}, {"a": "8"}]


@pytest.mark.parametrize("value", [1, 2.5, 1e-5, True, None, "sds", "a, b", [1, [2, 3]], {"x": "y: z"}])
def test_values_of_a_block_survive_the_command_line(value):
    assert parse_value("a", as_text("b.a", value)) == value
    assert as_text(PROMPT, 'a "red", fox; blue') == 'a "red", fox; blue'


@pytest.mark.parametrize(
    ("overrides", "block", "message"),
    [
        (["seed=0,0"], {}, "seed: 0 is listed twice"),
        ([], {"grid": {"seed": []}}, "must be a list with at least one value"),
        ([], {"grid": {"seed": 3}}, "must be a list"),
        ([], {"grid": [1]}, "must map settings"),
        ([], {"zip": {"a": [1, 2], "b": [1]}}, "equally long"),
        ([], {"cases": []}, "with at least one"),
        ([], {"gird": {}}, "did you mean 'grid'"),
        ([], {"grid": {"a": [1, 2]}, "cases": [{"a": 3}]}, "a is swept twice"),
        (["a=3"], {"zip": {"a": [1, 2]}}, "a is both an argument and in sweep.zip"),
        ([], {"grid": {"name": ["x", "y"]}}, "name cannot be swept"),
    ],
)
def test_mistakes(overrides, block, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        read_axes(overrides, block)


def test_names_and_folders_are_never_split():
    assert read_axes(["name=a,b", "exp_root_dir=x,y"]).fixed == ("name=a,b", "exp_root_dir=x,y")
