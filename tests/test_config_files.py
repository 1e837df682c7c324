import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill3d.config.check import ConfigError
from distill3d.config.files import (
    SettingsLayer,
    find_config,
    leaves,
    merge,
    missing_settings,
    origin,
    parse_override,
    read_layers,
    settings,
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    return tmp_path


def merged(*arguments):
    return merge(read_layers(arguments[0], arguments[1:]))[0]


def test_a_config_is_a_path_else_in_configs_with_or_without_suffix(folder):
    (folder / "a.yaml").write_text("x: 1")
    (folder / "configs" / "b.yaml").write_text("x: 2")
    (folder / "configs" / "a.yaml").write_text("x: 3")
    assert merged("a.yaml") == merged("a") == merged(folder / "a.yaml") == {"x": 1}
    assert merged("b") == merged("b.yaml") == merged("configs/b.yaml") == {"x": 2}


def test_the_projects_own_configs_are_found_from_anywhere():
    assert find_config("dreamfusion.yaml").is_file()


def test_a_missing_config_names_the_nearest(folder):
    (folder / "configs" / "my-experiment.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"--config my-experimnet: no such file.*'my-experiment\.yaml'"):
        find_config("my-experimnet")


def test_bases_lie_beside_the_file_or_in_configs_and_later_settings_win(folder):
    (folder / "sub").mkdir()
    (folder / "configs" / "root.yaml").write_text("a: {x: 1, y: 1, z: 1}\nlist: [1, 2]\n")
    (folder / "sub" / "middle.yaml").write_text("base: root.yaml\na: {y: 2, z: 2}\n")
    (folder / "sub" / "leaf.yaml").write_text("base: middle\na: {z: 3}\nlist: [3]\n")
    assert merged("sub/leaf.yaml", "a.z=4", "b.c=5") == {"a": {"x": 1, "y": 2, "z": 4}, "list": [3], "b": {"c": 5}}


def test_a_circle_of_bases_is_an_error(folder):
    (folder / "a.yaml").write_text("base: b.yaml")
    (folder / "b.yaml").write_text("base: a.yaml")
    with pytest.raises(ConfigError, match=r"is circular: a\.yaml -> b\.yaml -> a\.yaml"):
        merged("a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: nowhere.yaml", r"base='nowhere\.yaml' in a\.yaml: no such file"),
        ("base: [x]", r"base=\['x'\] in a\.yaml must be the name of one YAML file"),
        ("a: b: c", r"a\.yaml is not valid YAML: line 1, column 5: mapping values are not allowed here"),
        ("a: 1\na: 2", r"a\.yaml is not valid YAML: line 2, column 1: 'a' is given twice"),
        ("- 1", r"a\.yaml must hold a mapping of settings, not list"),
        ("a: !!python/name:os.system", r"a\.yaml is not valid YAML: .*constructor"),
    ],
)
def test_malformed_files_are_named(folder, text, message):
    (folder / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        merged("a")


def test_a_file_that_is_no_text_is_named(folder):
    (folder / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"a\.yaml cannot be read"):
        merged("a")


@pytest.mark.parametrize(
    ("argument", "content"),
    [
        ("a=1", {"a": 1}),
        ("a.b.c=[1, x]", {"a": {"b": {"c": [1, "x"]}}}),
        ("a.b=1e-3", {"a": {"b": 1e-3}}),
        ("a.b=null", {"a": {"b": None}}),
        ("a.b=", {"a": {"b": None}}),
        ("a.b={c: 1}", {"a": {"b": {"c": 1}}}),
        ("a.b=${c}", {"a": {"b": "${c}"}}),
        ("a.b=c=d", {"a": {"b": "c=d"}}),
        ("a.prompt=a: [b] = c", {"a": {"prompt": "a: [b] = c"}}),
        ("a.prompt=", {"a": {"prompt": ""}}),
        ("tag=a: b # c", {"tag": "a: b # c"}),
        ("resume=x/2024: y.ckpt", {"resume": "x/2024: y.ckpt"}),
        ("name=null", {"name": None}),
        ("tag=2077", {"tag": "2077"}),
    ],
)
def test_arguments_are_nested_settings(argument, content):
    assert parse_override(argument).content == content


def test_a_file_gives_one_value_and_several_need_a_sweep(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("# one\n\n a cat: red \n", encoding="utf-8")
    assert parse_override(f"a.prompt=@{path}").content == {"a": {"prompt": "a cat: red"}}
    path.write_text("3\n4\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds 2 values; add --sweep"):
        parse_override(f"seed=@{path}")


@pytest.mark.parametrize("argument", ["a", "=1", "a b=1", "--a=1", ".a=1", "a.=1", "a..b=1", ""])
def test_malformed_arguments_are_refused(argument):
    with pytest.raises(ConfigError, match="is not a setting; write it as key=value"):
        parse_override(argument)


def test_a_value_that_is_no_yaml_names_its_setting():
    with pytest.raises(ConfigError, match=r"^data\.width='\[1' is not a YAML value: "):
        parse_override("data.width=[1")


trees = st.recursive(
    st.integers() | st.text(max_size=3) | st.none(),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
mappings = st.dictionaries(st.sampled_from("abc"), trees, max_size=3)


@given(mappings, mappings)
def test_merging_keeps_every_later_leaf_and_never_changes_its_sources(first, second):
    before = repr((first, second))
    content, origins = merge([SettingsLayer(first, "first"), SettingsLayer(second, "second")])
    assert repr((first, second)) == before
    after = dict(leaves(content))
    for setting, value in leaves(second):
        if value != {}:
            assert after[setting] == value
            assert origin(setting, origins) == "second"
    assert set(after) <= set(settings(content))


def test_the_origin_of_a_setting_is_its_own_or_that_of_what_holds_it():
    _, origins = merge(
        [SettingsLayer({"a": {"b": 1, "c": [1, 2]}}, "x.yaml"), SettingsLayer({"a": {"c": [3]}}, "argument")]
    )
    assert origin("a.b", origins) == "x.yaml"
    assert origin("a.c[0]", origins) == "argument"
    assert origin("a.b.deeper", origins) == "x.yaml"
    assert origin("elsewhere", origins) == ""


def test_missing_settings_are_found_anywhere():
    assert missing_settings({"a": "???", "b": {"c": "???", "d": "??"}}) == ["a", "b.c"]
