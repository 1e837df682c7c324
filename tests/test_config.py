"""Experiments as users write them: what is accepted arrives, what is wrong is one line, and nothing is touched."""

import logging
import socket
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from distill3d.config.experiment import ConfigError, load
from distill3d.config.files import PROJECT
from distill3d.config.yaml_text import dump_yaml
from distill3d.runtime.trial import parsed_settings

PROMPTS = [
    "a cat: sitting",
    "2077",
    "null",
    "[a red] cat",
    '"quoted" cat',
    "a cat # hat",
    "a/b/../c",
    "x" * 300,
    "🍔",
    "버거 하나",
    "${x} costs $5",
    "\\${x}",
    "a = b",
    "-5 degrees",
    "None",
    "{a}",
]
BASE = """
tag: "${rmspace:${system.prompt_processor.prompt},_}"
data: {batch_size: 2, width: 16, height: 16}
system:
  prompt_processor: {prompt: a cat}
  geometry: {radius: 0.7, pos_encoding_config: {otype: hash-grid, n_levels: 4}}
  renderer: {radius: "${system.geometry.radius}"}
  loss: {lambda_orient: [0, 1.0e-4, 1.0e-2, 500]}
  optimizer: {name: Adam, args: {lr: 0.01}, params: {geometry: {lr: 0.02}}}
trainer: {max_steps: 10}
checkpoint: {every_n_train_steps: "${trainer.max_steps}"}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)
    return tmp_path


def experiment(*arguments, config="base.yaml"):
    return load(config, arguments).experiment


def refusal(*arguments, config="base.yaml"):
    with pytest.raises(ConfigError) as caught:
        load(config, arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- prompts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", PROMPTS)
def test_any_prompt_from_the_command_line_and_from_yaml(prompt):
    Path("other.yaml").write_text(f"base: base.yaml\nsystem:\n  prompt_processor:\n    prompt: {prompt}\n")
    for made in (experiment(f"system.prompt_processor.prompt={prompt}"), experiment(config="other.yaml")):
        assert made.prompt == prompt
        assert made.tag
        assert Path(made.tag).name == made.tag
        assert len(made.tag) < 100


@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_goes_through_load_and_snapshot(text):
    if text == "???" or not text.strip():
        return
    made = load("base.yaml", [f"system.prompt_processor.prompt={text}"], check=False).experiment
    assert made.prompt == text
    Path("parsed.yaml").write_text(dump_yaml(parsed_settings(made)), encoding="utf-8", newline="")
    assert load("parsed.yaml", check=False).experiment == made


@pytest.mark.parametrize("extra", [[], ["tag=t"]])
def test_a_missing_prompt_is_reported_as_a_missing_prompt(extra):
    assert refusal("system.prompt_processor.prompt=???", *extra).startswith(
        'the prompt is missing: give system.prompt_processor.prompt="a hamburger"'
    )


@pytest.mark.parametrize("blank", ["", "  "])
def test_an_empty_prompt_is_an_error(blank):
    assert "system.prompt_processor.prompt is empty" in refusal(f"system.prompt_processor.prompt={blank}")


def test_other_missing_settings_are_named():
    assert refusal("data.width=???").startswith("data.width: missing, give a value")


# -- what arrives ----------------------------------------------------------------------------------------------------


def test_interpolations_and_defaults():
    made = experiment()
    assert made.name == "base"
    assert made.tag == "a_cat"
    assert made.checkpoint["every_n_train_steps"] == 10
    assert made.system["renderer"]["radius"] == 0.7
    assert made.system["loss"]["lambda_orient"] == [0, 1e-4, 1e-2, 500]
    assert experiment("trainer.max_steps=20").checkpoint["every_n_train_steps"] == 20


@pytest.mark.parametrize("nothing", ["None", "null", "", "~"])
def test_no_folder_is_ever_called_none(nothing):
    Path("other.yaml").write_text(f"base: base.yaml\nname: {nothing}\ntag: {nothing}\n")
    made = experiment(config="other.yaml")
    assert (made.name, made.tag) == ("other", "a_cat")


def test_names_are_single_path_components():
    made = experiment("name=a/../b", "tag=/etc/passwd")
    assert (made.name, made.tag) == ("a_.._b", "etc_passwd")


def test_a_parsed_experiment_loads_as_itself():
    made = experiment("system.guidance.guidance_scale=[0, 10, 20, 100]", "description=a: b \\${c}")
    Path("parsed.yaml").write_text(dump_yaml(parsed_settings(made)))
    assert experiment(config="parsed.yaml") == made


def test_reading_a_config_writes_nothing_and_needs_no_network(folder, monkeypatch):
    def refuse(*arguments, **keywords):
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    before = sorted(folder.rglob("*"))
    experiment("system.prior.pretrained_model_name_or_path=someone/some-model")
    assert sorted(folder.rglob("*")) == before


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("loss.lambda_orinet=1", "loss is not a setting; did you mean 'system.loss'?"),
        ("system.loss.lambda_orinet=1", "system.loss.lambda_orinet is not a setting; did you mean 'lambda_orient'?"),
        ("prompt=a", "prompt is not a setting; did you mean 'system.prompt_processor.prompt'?"),
        ("sytem.geometry.radius=1", "sytem is not a setting; did you mean 'system'?"),
        ("system.geometri.radius=1", "system.geometri is not a setting; did you mean 'geometry'?"),
        ("system.geometry.radios=1", "system.geometry.radios is not a setting; did you mean 'radius'?"),
        ("system.geometry.pos_encoding_config.n_level=1", "pos_encoding_config.n_level is not a setting"),
        ("system.geometry.pos_encoding_config.otype=hashgrid", "otype='hashgrid' is not a registered encoding"),
        ("system.guidance.guidence_scale=1", "did you mean 'guidance_scale'?"),
        ("system.prior.pretrained_model=x", "did you mean 'pretrained_model_name_or_path'?"),
        ("data.batchsize=1", "data.batchsize is not a setting; did you mean 'batch_size'?"),
        ("trainer.max_step=1", "trainer.max_step is not a setting of Lightning's Trainer; did you mean 'max_steps'?"),
        ("checkpoint.save_topk=1", "checkpoint.save_topk is not a setting of Lightning's ModelCheckpoint"),
        ("system.optimizer.args.learning_rate=1", "system.optimizer.args.learning_rate is not a setting of Adam"),
        ("system.optimizer.params.geometry.lrr=1", "system.optimizer.params.geometry.lrr is not a setting of Adam"),
        ("system.optimizer.name=Adm", "system.optimizer.name='Adm' is not an optimizer; did you mean 'Adam'?"),
        ("system.loggers.csvv.enable=true", "system.loggers.csvv is not a setting"),
        ("system.guidance_type=sdss", "system.guidance_type='sdss' is not a registered guidance; did you mean 'sds'?"),
        ("system.guidance_type=sds,lmc-sds", "is not a registered guidance; a list needs --sweep"),
        ("system_type=dreamfusion", "system_type='dreamfusion' is not a registered system"),
        ("data_type=random-camera", "data_type='random-camera' is not a registered data"),
        ("data.batch_size=0", "data.batch_size=0 must be positive"),
        ("data.width=-3", "data.width=-3 must be positive"),
        ("data.width=abc", "data.width='abc' has the wrong type"),
        ("system.geometry.radius=0", "system.geometry.radius=0.0 must be positive"),
        ("system.loss.lambda_orient=[1, 2]", "system.loss.lambda_orient=[1, 2] has 2 entries"),
        ("trainer.max_steps=0", "trainer.max_steps=0 must be at least 1"),
        ("trainer.max_steps=many", "trainer.max_steps='many' has the wrong type; expected an integer"),
        ("trainer.precision=17", "trainer.precision=17 has the wrong type; expected one of 64"),
        ("trainer.callbacks=[]", "trainer.callbacks cannot be set: the system brings its own"),
        ("checkpoint.dirpath=x", "checkpoint.dirpath cannot be set"),
        ("seed=-1", "seed=-1 must be between 0 and"),
        ("seed=x", "seed='x' has the wrong type"),
        ("data=3", "data=3 has the wrong type; expected a mapping"),
        ("system.geometry=3", "system.geometry=3 has the wrong type; expected a mapping"),
        ("system_type=[a]", "system_type=['a'] has the wrong type; expected text"),
        ("exp_root_dir= ", "exp_root_dir is empty"),
        ("system.renderer.radius=${system.geometry.radios}", "system.renderer.radius cannot be evaluated"),
    ],
)
def test_each_mistake_is_named_with_the_argument_it_came_from(argument, message):
    text = refusal(argument)
    assert message in text
    assert f"[argument {argument.split('=')[0]}=...]" in text


def test_a_mistake_in_a_file_names_the_file():
    Path("other.yaml").write_text("base: base.yaml\nsystem: {loss: {lambda_orinet: 1}}\n")
    assert refusal(config="other.yaml").endswith("[other.yaml]")
    Path("base.yaml").write_text(BASE + "sead: 1\n")
    assert refusal(config="other.yaml") == "sead is not a setting; did you mean 'seed'? [base.yaml]"


# -- changing types --------------------------------------------------------------------------------------------------


def test_settings_that_only_another_type_knows_are_dropped_in_one_line(caplog):
    Path("other.yaml").write_text(
        "base: base.yaml\nsystem:\n  guidance: {jacobian: false, guidance_scale: 3, k: null}\n"
        "  background: {color_activation: sigmoid}\n"
    )
    with caplog.at_level(logging.WARNING, "distill3d"):
        made = experiment(
            "system.guidance_type=lmc-sds", "system.background_type=solid-color-background", config="other.yaml"
        )
    assert made.system["guidance"] == {"guidance_scale": 3, "k": None}
    assert made.system["background"] == {}
    dropped = [record.getMessage() for record in caplog.records]
    assert dropped == [
        "ignored settings that do not apply to the selected types: "
        "system.background.color_activation, system.guidance.jacobian"
    ]


def test_an_encodings_type_can_be_changed_too(caplog):
    made = experiment("system.geometry.pos_encoding_config.log2_hashmap_size=12")
    assert made.system["geometry"]["pos_encoding_config"]["log2_hashmap_size"] == 12
    made = experiment(
        "system.geometry.pos_encoding_config.log2_hashmap_size=12",
        "system.geometry.pos_encoding_config.otype=dense-grid",
    )
    assert made.system["geometry"]["pos_encoding_config"] == {"otype": "dense-grid", "n_levels": 4}
    assert "system.geometry.pos_encoding_config.log2_hashmap_size" in caplog.text


def test_settings_that_no_type_knows_stay_errors_when_the_type_changes():
    assert "system.guidance.jacobien is not a setting" in refusal(
        "system.guidance_type=lmc-sds", "system.guidance.jacobien=true"
    )


@pytest.mark.parametrize("name", ["sds", "lmc-sds"])
def test_a_setting_left_null_takes_the_types_published_value(name):
    from distill3d.config.experiment import build
    from distill3d.config.registry import find

    made = experiment(
        f"system.guidance_type={name}", "system.guidance={guidance_scale: null, weighting_strategy: null}"
    )
    config = build(find("guidance", name).Config, made.system["guidance"])  # type: ignore[attr-defined]
    assert config.guidance_scale == {"sds": 100.0, "lmc-sds": 20.0}[name]
    assert config.weighting_strategy == "sds"


# -- what ships ------------------------------------------------------------------------------------------------------


# what these experiments start from has no default: a scene, its images, both texts
GIVEN = {
    "nerf-reconstruction": ["data.root=views"],
    "splats-reconstruction": ["data.root=views"],
    "image-to-3d": ["data.image=photo.png"],
    "zero123": ["data.image=photo.png"],
    "dreamfusion-exact": ["system.prior.views=views"],
    "dreamfusion-lmc-exact": ["system.prior.views=views"],
    "nerf-edit": [
        "data.root=views",
        "system.source_checkpoint=last.ckpt",
        "system.prompt_processor.prompt=a fox",
        "system.prompt_processor.source_prompt=a dog",
    ],
}
GIVEN["nerf-edit-idu"] = GIVEN["nerf-edit"]


@pytest.mark.parametrize("path", sorted((PROJECT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_loads_and_says_what_it_is(path):
    made = load(path, GIVEN.get(path.stem, [])).experiment
    assert made.name
    assert made.description
