from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill3d.config.check import ConfigError, allows_none, build, coerce, describe
from distill3d.config.schedule import Scheduled


@dataclass
class Inner:
    depth: int = 1

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"depth={self.depth} must be at least 1")


@dataclass
class Settings:
    count: int = 1
    rate: float = 0.5
    text: str = "a"
    flag: bool = False
    weight: Scheduled = 1.0
    limit: Scheduled | None = None
    span: tuple[float, float] = (0.0, 1.0)
    sizes: int | list[int] = 3
    many: tuple[int, ...] = ()
    choice: Literal["sds", "uniform"] = "sds"
    maybe: float | None = None
    where: Path | None = None
    inner: Inner = field(default_factory=Inner)
    loose: dict[str, Any] = field(default_factory=dict)
    anything: Any = None
    general: ClassVar[dict] = {}

    def __post_init__(self) -> None:
        if self.count <= 0:
            raise ValueError(f"count={self.count} must be positive")
        if self.rate < 0:
            raise ValueError("the rate cannot fall below 0")


@dataclass
class Required:
    needed: int


def refusal(mapping: Any, cls: type = Settings, where: str = "system.part") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        build(cls, mapping, where)
    return caught.value


numbers = st.floats(allow_nan=False, allow_infinity=False)
settings = st.fixed_dictionaries(
    {},
    optional={
        "count": st.integers(1, 10**6),
        "rate": st.floats(0, 1e6),
        "text": st.text().filter(lambda t: t != "???"),
        "flag": st.booleans(),
        "weight": numbers | st.just([0, 1.0, 2.0, 10]),
        "limit": st.none() | numbers,
        "span": st.lists(numbers, min_size=2, max_size=2),
        "sizes": st.integers() | st.lists(st.integers()),
        "many": st.lists(st.integers()),
        "choice": st.sampled_from(["sds", "uniform"]),
        "maybe": st.none() | numbers,
        "inner": st.fixed_dictionaries({}, optional={"depth": st.integers(1, 9)}),
    },
)


@given(settings)
def test_what_is_given_arrives_and_the_rest_is_default(mapping):
    built = dataclasses.asdict(build(Settings, mapping))
    defaults = dataclasses.asdict(Settings())
    for name in defaults:
        expected = mapping.get(name, defaults[name])
        expected = tuple(expected) if name in ("span", "many") else expected
        expected = {**defaults["inner"], **expected} if name == "inner" else expected
        assert built[name] == expected
    assert isinstance(build(Settings, mapping).rate, float)


@given(settings)
def test_building_from_what_was_built_changes_nothing(mapping):
    built = build(Settings, mapping)
    assert build(Settings, dataclasses.asdict(built)) == built


def test_null_takes_the_default_where_null_is_no_value():
    assert build(Settings, {"count": None, "weight": None, "inner": None, "maybe": None}) == Settings()
    assert build(Settings, None) == Settings()


def test_integral_floats_are_ints_and_ints_are_floats():
    built = build(Settings, {"count": 1e3, "rate": 2})
    assert (built.count, type(built.count), built.rate, type(built.rate)) == (1000, int, 2.0, float)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"cuont": 1}, r"^system\.part\.cuont is not a setting; did you mean 'count'\?$"),
        ({"general": {}}, r"^system\.part\.general is not a setting"),
        ({"inner": {"dept": 1}}, r"^system\.part\.inner\.dept is not a setting; did you mean 'depth'\?$"),
        ({"count": "3"}, r"^system\.part\.count='3' has the wrong type; expected an integer$"),
        ({"count": 1.5}, r"^system\.part\.count=1\.5 has the wrong type; expected an integer$"),
        ({"count": True}, r"count=True has the wrong type"),
        ({"rate": True}, r"rate=True has the wrong type; expected a number"),
        ({"rate": float("nan")}, r"rate=nan has the wrong type"),
        ({"flag": 1}, r"flag=1 has the wrong type; expected true or false"),
        ({"flag": "yes"}, r"flag='yes' has the wrong type"),
        ({"text": 1.5}, r"text=1\.5 has the wrong type; expected text"),
        ({"text": ["a"]}, r"text=\['a'\] has the wrong type"),
        ({"weight": [1, 2]}, r"^system\.part\.weight=\[1, 2\] has 2 entries"),
        ({"limit": "x"}, r"^system\.part\.limit='x' is neither a number nor a schedule"),
        ({"span": [1]}, r"span=\[1\] has the wrong type; expected a list of 2 \(a number, a number\)"),
        ({"span": [1, "a"]}, r"span\[1\]='a' has the wrong type; expected a number"),
        (
            {"sizes": [1, "a"]},
            r"sizes=\[1, 'a'\] has the wrong type; expected an integer or a list \(an integer each\)",
        ),
        ({"choice": "sd"}, r"choice='sd' is not a choice; did you mean 'sds'\?"),
        ({"inner": 3}, r"inner=3 must be a mapping"),
        ({"loose": [1]}, r"loose=\[1\] has the wrong type; expected a mapping"),
        ({"count": 0}, r"^system\.part\.count=0 must be positive$"),
        ({"rate": -1.0}, r"^system\.part: the rate cannot fall below 0$"),
        ({"inner": {"depth": 0}}, r"^system\.part\.inner\.depth=0 must be at least 1$"),
        ({"text": "???"}, r"^system\.part\.text is missing"),
        (3, r"^system\.part=3 must be a mapping"),
    ],
)
def test_each_mistake_is_one_line_that_names_the_setting(mapping, message):
    error = refusal(mapping)
    assert re.search(message, str(error)), str(error)
    assert "\n" not in str(error)
    assert error.setting.startswith("system.part")


def test_a_setting_without_default_must_be_given():
    assert "system.part.needed is missing" in str(refusal({}, Required))
    assert "system.part.needed is null; expected an integer" in str(refusal({"needed": None}, Required))
    assert build(Required, {"needed": 3}).needed == 3


def test_every_unknown_key_is_refused_whatever_it_is():
    for name in ("", "Count", "count ", "_count", "__init__", "cls"):
        assert "is not a setting" in str(refusal({name: 1}))


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int | None, "an integer or null"),
        (Literal["a", "b"] | None, "one of a, b or null"),
        (list[str], "a list (text each)"),
        (Scheduled, "a number or a schedule such as [start_step, v0, v1, end_step]"),
        (Inner, "a mapping"),
    ],
)
def test_types_in_words(hint, words):
    assert describe(hint) == words


def test_null_is_a_value_of_optional_types_only():
    assert allows_none(Any)
    assert allows_none(int | None)
    assert not allows_none(int)
    assert coerce(None, int | None, "x") is None
