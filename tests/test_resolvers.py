import pytest

from distill3d.config.check import ConfigError
from distill3d.config.resolvers import resolve


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("${add:1,2}", 3),
        ("${sub:1,2}", -1),
        ("${mul:3,2}", 6),
        ("${div:3,2}", 1.5),
        ("${idiv:3,2}", 1),
        ("${calc_exp_lr_decay_rate:0.1,2}", 0.1**0.5),
        ("${basename:a/b.yaml}", "b.yaml"),
        ("${rmspace:${text},_}", "a_red_cat"),
        ("${tuple2:3}", [3.0, 3.0]),
        ("${gt0:1}", True),
        ("${gt0:0}", False),
        ("${not:true}", False),
        ("${cmaxgt0:0.0}", False),
        ("${cmaxgt0:[0, 0.0, 1.0, 100]}", True),
        ("${cmaxgt0:[0, -1.0, 0.0, 100]}", False),
        ("${cmaxgt0orcmaxgt0:0.0,[0.0, 2.0, 5]}", True),
        ("${cmaxgt0orcmaxgt0:0.0,0.0}", False),
        ("${add:${number},1}", 8),
    ],
)
def test_each_resolver(expression, expected):
    content = {"text": "a red cat", "number": 7, "value": expression}
    assert resolve(content)["value"] == expected


def test_plain_content_stays_as_it_is():
    content = {"a": [1, 2.5, None, "x"], "b": {"c": True, "d": {}}, "e": "???"}
    assert resolve(content) == content


@pytest.mark.parametrize("expression", ["${nowhere}", "${nofunction:1}", "${div:1,0}", "${add:1}"])
def test_what_cannot_be_evaluated_is_named(expression):
    with pytest.raises(ConfigError, match=r"^a\.b cannot be evaluated: .") as caught:
        resolve({"a": {"b": expression}})
    assert caught.value.setting == "a.b"
