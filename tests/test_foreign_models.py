"""Model folders of any origin: nothing in them runs, and whatever is wrong in them is told."""

import json
import re

import pytest
from tiny_pipelines import stable_diffusion

from distill3d.cli import is_for_the_user
from distill3d.config.check import ConfigError
from distill3d.config.yaml_text import parse_yaml
from distill3d.priors.component_class import component_class
from distill3d.priors.hub import PriorError, check_weights
from distill3d.priors.loader import load_prior, load_prompt_encoder
from distill3d.priors.model_folder import open_folder
from distill3d.priors.settings import PriorConfig
from distill3d.runtime.extensions import import_extensions
from distill3d.runtime.foreign import ForeignFileError
from distill3d.runtime.word_list import taught_words


@pytest.mark.parametrize(
    ("component", "entry"),
    [
        ("scheduler", ["diffusers", "DiffusionPipeline"]),  # runs a .py of the folder
        ("scheduler", ["diffusers", "UNet2DConditionModel"]),
        ("unet", ["diffusers", "StableDiffusionPipeline"]),
        ("unet", ["diffusers", "utils"]),
        ("vae", ["diffusers", "DDPMScheduler"]),
        ("tokenizer", ["transformers", "AutoModel"]),
        ("tokenizer", ["transformers", "AutoTokenizer"]),
        ("text_encoder", ["transformers", "pipeline"]),
        ("text_encoder", ["transformers", "CLIPTokenizer"]),
        ("unet", ["distill3d", "nn"]),
        ("unet", ["os", "system"]),
        ("unet", ["diffusers", "__loader__"]),
        ("unet", ["diffusers"]),
        ("unet", {"a": 1}),
        ("unet", None),
    ],
)
def test_classes_of_another_kind_are_not_loaded(component, entry):
    with pytest.raises(ValueError, match=f"^{component} is "):
        component_class(component, entry)


@pytest.mark.parametrize(
    ("component", "entry"),
    [
        ("scheduler", ["diffusers", "DDPMScheduler"]),
        ("scheduler", ["diffusers", "FlowMatchEulerDiscreteScheduler"]),
        ("unet", ["diffusers", "UNet2DConditionModel"]),
        ("transformer", ["diffusers", "SD3Transformer2DModel"]),
        ("vae", ["diffusers", "AutoencoderKL"]),
        ("tokenizer_2", ["transformers", "CLIPTokenizer"]),
        ("text_encoder_2", ["transformers", "CLIPTextModelWithProjection"]),
    ],
)
def test_classes_of_the_components_kind_are(component, entry):
    assert component_class(component, entry).__name__ == entry[1]


def test_a_folder_that_names_a_pipeline_as_its_scheduler_runs_nothing(tmp_path):
    """The file would say so if it ran."""
    model = tmp_path / "model"
    (model / "scheduler").mkdir(parents=True)
    (model / "model_index.json").write_text(
        json.dumps({"_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "DiffusionPipeline"]})
    )
    witness = f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass P: pass\n"
    (model / "scheduler" / "pipeline.py").write_text(witness)
    (model / "scheduler" / "model_index.json").write_text(json.dumps({"_class_name": ["pipeline", "P"]}))
    with pytest.raises(PriorError, match="no class of a scheduler and is not loaded"):
        open_folder(str(model)).load_plain("scheduler")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "must hold a JSON mapping, not a list"),
        ("[" * 100_000, "nested too deep"),
        ('{"_class_name": ["a", "b"]}', "not supported"),
        ('{"_class_name": {"a": 1}}', "not supported"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_an_index_of_any_damage_is_told(content, message, tmp_path):
    (tmp_path / "model_index.json").write_text(content)
    with pytest.raises(PriorError, match=message):
        open_folder(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("vae/config.json", {"scaling_factor": {"a": 1}}, "scaling_factor=.* must be a finite number"),
        ("vae/config.json", {"scaling_factor": 0}, "scaling_factor=0.0 must be positive"),
        ("scheduler/scheduler_config.json", {"prediction_type": []}, "no .* can be made as the configs in .* describe"),
        ("unet/config.json", {"layers_per_block": 10**40}, "layers_per_block=10+, more than 1000"),
        ("unet/config.json", {"layers_per_block": [2, [10**9]]}, "more than 1000"),
    ],
)
def test_a_value_that_makes_no_network_is_told(file, changes, message, tmp_path):
    folder = stable_diffusion(tmp_path / "model")
    (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **changes}))
    with pytest.raises(ValueError, match=message) as caught:
        load_prior(PriorConfig(pretrained_model_name_or_path=str(folder)))
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("file", "change", "load"),
    [
        ("tokenizer/tokenizer.json", lambda data: b"{}", load_prompt_encoder),
        ("tokenizer/tokenizer.json", lambda data: b"[" * 100_000, load_prompt_encoder),
        ("text_encoder/model.safetensors", lambda data: data[: len(data) // 2], load_prompt_encoder),
        ("text_encoder/model.safetensors", lambda data: b"\xff" * 8 + data[8:], load_prompt_encoder),
        ("text_encoder/config.json", lambda data: b"[]", load_prompt_encoder),
        ("unet/diffusion_pytorch_model.safetensors", lambda data: data[:100], load_prior),
        ("scheduler/scheduler_config.json", lambda data: data.replace(b"scaled_linear", b"unheard_of"), load_prior),
    ],
)
def test_a_part_of_any_damage_is_told_in_one_line(file, change, load, tmp_path):
    folder = stable_diffusion(tmp_path / "model")
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(change(whole))
    assert (folder / file).read_bytes() != whole
    with pytest.raises(ValueError, match=re.escape(str(folder))) as caught:
        load(PriorConfig(pretrained_model_name_or_path=str(folder)))
    assert is_for_the_user(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": [1]}', '{"weight_map": {"a": 3}}'])
def test_an_index_of_shards_without_a_map_is_told(content, tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(content)
    with pytest.raises(PriorError, match="has no weight_map"):
        check_weights(tmp_path, "unet", None, "model")


@pytest.mark.parametrize("content", ["[]", "{}", '{"words": {"a": 1}}', '{"words": [1]}', '{"words": "cat"}', "{"])
def test_words_of_a_wrong_shape_are_told(content, tmp_path):
    (tmp_path / "words.json").write_text(content)
    with pytest.raises(ForeignFileError, match="is no word list"):
        taught_words(tmp_path)


BOMB = "a0: &a0 {x: 1, y: 2}\n" + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(9))


@pytest.mark.parametrize(
    "text",
    ["a: !!int abc", "a: !!float x", "[" * 2000, "a: " * 2000, BOMB, "a: &a [*a]", "a: !!binary x", "a: !!bool 3"],
)
def test_yaml_of_any_damage_is_a_yaml_error(text):
    import yaml

    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)


def test_aliases_of_an_ordinary_size_are_read():
    assert parse_yaml("a: &x {n: 1}\nb: *x\nc: [*x, *x]") == {"a": {"n": 1}, "b": {"n": 1}, "c": [{"n": 1}] * 2}


def test_an_extension_that_leaves_is_an_error(tmp_path):
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(ConfigError, match=r"leaves\.py cannot be imported: SystemExit"):
        import_extensions([tmp_path])
