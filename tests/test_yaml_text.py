import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from distill3d.config.yaml_text import dump_yaml, escape, is_text_key, parse_value, parse_yaml

# the first six are what peers refuse or cut
PROMPTS = [
    "a cat: sitting",
    "2077",
    "null",
    "[a red] cat",
    '"quoted" cat',
    "a cat # hat",
    "x" * 400,
    "a/b\\c",
    "🍔 버거",
    "${x}",
    "$",
    "'single' cat",
    "- a",
    "{a",
    "}",
    "> x",
    "& x",
    "* x",
    "!x",
    "%x",
    "@x",
    "`x`",
    "a\\",
    "~",
    "yes",
    "1e5",
    "2024-01-01",
    "None",
    "'",
    '"',
    "a:",
    "# x",
    "? x",
    "??",
    "a cat, {b: c}",
]
# text with no line breaks and no white space around it can be written in a YAML as it is, unless it is YAML itself
plain_text = st.text(st.characters(exclude_categories=("C", "Zs", "Zl", "Zp"), include_characters=" "), min_size=1).map(
    str.strip
)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_are_taken_verbatim(prompt):
    text = f"a:\n  prompt_processor:\n    prompt: {prompt}\n    negative_prompt: {prompt}\n  b: 1\nc: [2]\n"
    processor = {"prompt": prompt, "negative_prompt": prompt}
    assert parse_yaml(text) == {"a": {"prompt_processor": processor, "b": 1}, "c": [2]}


@given(plain_text)
@example("a # b")
def test_any_text_on_one_line_is_a_prompt(prompt):
    if prompt and prompt != "???" and prompt[0] not in "\"'|>":
        assert parse_yaml(f"prompt: {prompt}\nb: 1") == {"prompt": prompt, "b": 1}


@given(st.text())
def test_any_text_survives_a_snapshot(text):
    content = {"a": {"prompt": text, "tag": text, "prompt_front": None, "list": [{"prompt": text}, text, None]}}
    assert parse_yaml(dump_yaml(content)) == content


@given(st.text())
def test_any_text_on_the_command_line_is_a_prompt(text):
    assert parse_value("prompt", text) == text


@given(st.text(alphabet="\\${}a:.'\" ", max_size=30))
def test_escaped_text_resolves_to_itself(text):
    if text != "???":
        config = OmegaConf.create({"a": {"prompt": escape(text)}, "tag": "<${a.prompt}>"})
        assert OmegaConf.to_container(config, resolve=True) == {"a": {"prompt": text}, "tag": f"<{text}>"}


def test_yaml_ways_of_writing_text_still_count():
    text = """
prompt: "a \\"cat\\""   # a comment after quotes
negative_prompt: 'it''s'
prompt_front: |
  a: b
  prompt: c
prompt_side: >-
  folded
  text
prompt_back: a cat
  on a mat: here
prompt_overhead:
source_prompt: ""
"""
    assert parse_yaml(text) == {
        "prompt": 'a "cat"',
        "negative_prompt": "it's",
        "prompt_front": "a: b\nprompt: c\n",
        "prompt_side": "folded text",
        "prompt_back": "a cat on a mat: here",
        "prompt_overhead": None,
        "source_prompt": "",
    }


def test_flow_mappings_keep_text_as_text():
    assert parse_yaml("processor: {prompt: 2077, use_cache: true}") == {
        "processor": {"prompt": "2077", "use_cache": True}
    }


def test_descriptions_are_no_prompts():
    assert parse_yaml("description: |\n  prompt: a\n    b # c\nx: 1") == {"description": "prompt: a\n  b # c\n", "x": 1}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("prompt", True),
        ("negative_prompt", True),
        ("prompt_front", True),
        ("prompt_processor", False),
        ("prompt_processor_type", False),
        ("view_dependent_prompting", False),
        ("use_prompt", False),
        (3, False),
    ],
)
def test_which_keys_hold_text(key, expected):
    assert is_text_key(key) is expected


def test_other_values_are_safe_yaml():
    text = "a: 1e-3\nb: None\nc: [1, .5, 1.e-15]\nd: 2024-01-01\ne: 16-mixed"
    assert parse_yaml(text) == {"a": 1e-3, "b": None, "c": [1, 0.5, 1e-15], "d": "2024-01-01", "e": "16-mixed"}
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        parse_yaml("a: !!python/object/apply:os.getcwd []")


def test_numbers_of_yaml_1_1_alone_are_text():
    """As numbers they would be 90, 8 and 41400, which nobody means who writes them as a seed or a count."""
    written = {"a": "1:30", "b": "010", "c": "11:30:00", "d": "-017"}
    assert parse_yaml("\n".join(f"{key}: {text}" for key, text in written.items())) == written
    assert parse_yaml(dump_yaml(written)) == written
    assert parse_yaml("[10, -3, +4, 0, 1_000, 0x1F, 0b11]") == [10, -3, 4, 0, 1000, 31, 3]


def test_a_key_given_twice_is_an_error():
    with pytest.raises(yaml.YAMLError, match=r"'lr' is given twice"):
        parse_yaml("args:\n  lr: 1\n  lr: 2")
