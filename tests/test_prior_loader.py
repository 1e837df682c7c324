"""One loader for every kind: what it reads, what it refuses, and what its errors say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_pipelines import TINY, TinyFolders, embedded, tiny_settings

from distill3d.config.registry import find
from distill3d.priors.flow import FlowPrior, FluxPrior, ZImagePrior
from distill3d.priors.hub import EMBEDDED_WEIGHTS, PriorError
from distill3d.priors.latent import LatentPrior, PixArtPrior, SdxlPrior
from distill3d.priors.loader import (
    PretrainedDiffusionModel,
    PriorConfig,
    load_prior,
    load_prompt_encoder,
    model_identity,
    prior_folder,
    text_identity,
)
from distill3d.priors.pixel import PixelPrior
from distill3d.priors.settings import choose_dtype
from distill3d.priors.words import unknown_words
from distill3d.runtime.foreign import ForeignFileError

SETTING = r"system\.prior\.pretrained_model_name_or_path"
CLASSES = {
    "embedded": PixelPrior,
    "embedded-own": PixelPrior,
    "deepfloyd-if": PixelPrior,
    "stable-diffusion": LatentPrior,
    "stable-diffusion-2": LatentPrior,
    "sdxl": SdxlPrior,
    "sd3": FlowPrior,
    "flux": FluxPrior,
    "pixart-sigma": PixArtPrior,
    "z-image": ZImagePrior,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> TinyFolders:
    return TinyFolders(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def copy(folders: TinyFolders, tmp_path: Path) -> Path:
    """A folder of Stable Diffusion's kind that a test may damage."""
    return Path(shutil.copytree(folders("stable-diffusion"), tmp_path / "copy"))


def edit_index(folder: Path, **entries: object) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


# the kind


@pytest.mark.parametrize("kind", list(TINY))
def test_the_folder_says_the_kind(folders: TinyFolders, kind: str) -> None:
    assert type(load_prior(folders.config(kind), "cpu")) is CLASSES[kind]


def test_the_registered_prior_loads_the_same(folders: TinyFolders) -> None:
    cls = find("prior", "pretrained-diffusion-model")
    assert cls is PretrainedDiffusionModel
    cfg = folders.config("embedded")
    assert cls(cfg).load("cpu").identity == load_prior(cfg, "cpu").identity  # type: ignore[attr-defined]


def test_the_index_of_a_tiny_folder_is_what_diffusers_writes(folders: TinyFolders) -> None:
    """The tiny folders are honest: diffusers' own reader sees the same classes."""
    from diffusers import StableDiffusionPipeline

    own = json.loads((folders("stable-diffusion") / "model_index.json").read_text())
    pipeline = StableDiffusionPipeline.from_pretrained(folders("stable-diffusion"))
    for name, entry in own.items():
        if isinstance(entry, list) and entry[1] is not None:
            assert list(pipeline.config[name]) == entry


def test_importing_the_room_pulls_no_heavy_library() -> None:
    heavy = {"diffusers", "transformers", "huggingface_hub", "accelerate"}
    modules = "distill3d.priors.loader, distill3d.priors.prompt_processor"
    code = f"import sys, {modules}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_variant_picks_other_files(copy: Path) -> None:
    unet = copy / "unet"
    weights = load_file(unet / "diffusion_pytorch_model.safetensors")
    shifted = {name: value + 1 for name, value in weights.items()}
    save_file(shifted, unet / "diffusion_pytorch_model.fp16.safetensors", {"format": "pt"})
    shutil.copy(copy / "vae/diffusion_pytorch_model.safetensors", copy / "vae/diffusion_pytorch_model.fp16.safetensors")
    prior = load_prior(PriorConfig(str(copy), variant="fp16"), "cpu")
    name, value = next(iter(shifted.items()))
    assert torch.equal(prior.network.state_dict()[name], value)  # type: ignore[attr-defined]


def test_sharded_weights_are_read(copy: Path) -> None:
    unet, file = copy / "unet", "diffusion_pytorch_model.safetensors"
    weights = load_file(unet / file)
    names = sorted(weights)
    parts = {"diffusion_pytorch_model-00001-of-00002.safetensors": names[::2]}
    parts["diffusion_pytorch_model-00002-of-00002.safetensors"] = names[1::2]
    for part, members in parts.items():
        save_file({name: weights[name] for name in members}, unet / part, {"format": "pt"})
    weight_map = {name: part for part, members in parts.items() for name in members}
    (unet / f"{file}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (unet / file).unlink()
    prior = load_prior(PriorConfig(str(copy)), "cpu")
    assert torch.equal(prior.network.state_dict()[names[0]], weights[names[0]])  # type: ignore[attr-defined]
    (unet / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    with pytest.raises(PriorError, match=r"lacks diffusion_pytorch_model-00002-of-00002\.safetensors"):
        load_prior(PriorConfig(str(copy)), "cpu")


def test_sd3_may_leave_t5_out(tmp_path: Path) -> None:
    from tiny_pipelines import sd3

    cfg = PriorConfig(str(sd3(tmp_path, with_t5=False)), **tiny_settings("sd3"))
    embedding = load_prompt_encoder(cfg, "cpu")(["a cat"])
    assert embedding.tokens.shape == (1, 16 + 12, 64)
    assert (embedding.tokens[:, 16:] == 0).all() and (embedding.tokens[:, :16] != 0).any()


# identities


def test_identity_is_of_the_bytes_not_of_the_place(folders: TinyFolders, copy: Path) -> None:
    original, same = folders.config("stable-diffusion"), PriorConfig(str(copy))
    assert load_prior(same, "cpu").identity == model_identity(same) == model_identity(original)
    assert text_identity(same) == text_identity(original)


def test_identity_changes_with_what_it_names(folders: TinyFolders, copy: Path) -> None:
    original = folders.config("stable-diffusion")
    config = copy / "scheduler/scheduler_config.json"
    config.write_text(config.read_text().replace("epsilon", "v_prediction"))
    assert model_identity(PriorConfig(str(copy))) != model_identity(original)
    assert text_identity(PriorConfig(str(copy))) == text_identity(original)
    weights = copy / "text_encoder/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert text_identity(PriorConfig(str(copy))) != text_identity(original)


def test_identity_ignores_notes_and_correctives(copy: Path) -> None:
    before = model_identity(PriorConfig(str(copy)))
    (copy / "README.md").write_text("a note")
    (copy / "corrective-abc.safetensors").write_bytes(b"123")
    (copy / "unet/README.md").write_text("a note")
    (copy / "unet/diffusion_pytorch_model.fp16.safetensors").write_bytes(b"another variant")
    assert model_identity(PriorConfig(str(copy))) == before


def test_large_files_are_sampled_including_their_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distill3d.priors import identity

    monkeypatch.setattr(identity, "_WHOLE_BYTES", 1000)
    file, content = tmp_path / "weights.safetensors", bytearray(10_000_000)
    file.write_bytes(content)
    hashes = {identity.file_identity(file)}
    for position in (0, -1):
        changed = content.copy()
        changed[position] = 1
        file.write_bytes(changed)
        hashes.add(identity.file_identity(file))
    file.write_bytes(content[:-1])
    hashes.add(identity.file_identity(file))
    assert len(hashes) == 4


# words


def test_unknown_words_come_from_the_folders_list(folders: TinyFolders, tmp_path: Path) -> None:
    assert unknown_words("a zorb", PretrainedDiffusionModel(folders.config("embedded")).vocabulary()) == []
    folder = embedded(tmp_path)
    (folder / "words.json").write_text(json.dumps({"words": ["a", "red", "Fire Truck", "cherry", "bus", "of"]}))
    cfg = PriorConfig(str(folder))
    prompt = "A red fire-truck, two buses of cherries and a Zörb of zörb"
    expected = ["two", "and", "zörb"]
    assert (
        unknown_words(prompt, PretrainedDiffusionModel(cfg).vocabulary())
        == unknown_words(prompt, load_prior(cfg, "cpu").spec.vocabulary)
        == expected
    )
    (folder / "words.json").write_text("[1, 2")
    with pytest.raises(ForeignFileError, match="is no word list"):
        unknown_words(prompt, PretrainedDiffusionModel(cfg).vocabulary())


# settings


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=SETTING + " is empty"):
        PriorConfig("  ")
    with pytest.raises(ValueError, match=r"precision='int8': choose auto"):
        PriorConfig(precision="int8")
    with pytest.raises(ValueError, match=r"image_size=0 must be positive"):
        PriorConfig(image_size=0)


def test_precision_follows_the_device() -> None:
    assert choose_dtype("auto", torch.device("cpu")) is torch.float32
    assert choose_dtype("auto", torch.device("mps")) is torch.float16
    assert choose_dtype("bf16", torch.device("cpu")) is torch.bfloat16


def test_a_folder_is_told_from_a_hub_id(folders: TinyFolders) -> None:
    assert prior_folder(PriorConfig()) == EMBEDDED_WEIGHTS
    assert prior_folder(folders.config("embedded")) == folders("embedded")
    assert prior_folder(PriorConfig("owner/model")) is None


# refusals


@pytest.mark.parametrize("name", ["./absent", "/absent/model", "absent", "~/absent/x", "a/b/c"])
def test_a_path_that_is_not_there(name: str) -> None:
    with pytest.raises(PriorError, match=SETTING + r"='.*' is no folder here, and no Hub id"):
        load_prior(PriorConfig(name), "cpu")


def test_an_unknown_kind(copy: Path) -> None:
    edit_index(copy, _class_name="KandinskyPipeline")
    with pytest.raises(PriorError, match=r"is a KandinskyPipeline, which is not supported; supported: .*IFPipeline"):
        load_prior(PriorConfig(str(copy)), "cpu")


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    with pytest.raises(PriorError, match=SETTING + r".* has no model_index\.json"):
        load_prior(PriorConfig(str(tmp_path)), "cpu")


def test_an_index_that_is_cut(copy: Path) -> None:
    (copy / "model_index.json").write_text('{"_class_name": ')
    with pytest.raises(PriorError, match="is no valid JSON"):
        load_prior(PriorConfig(str(copy)), "cpu")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("unet/diffusion_pytorch_model.safetensors", "unet has no safetensors weights; the download or copy"),
        ("unet/config.json", r"has no unet/config\.json"),
        ("vae/diffusion_pytorch_model.safetensors", "vae has no safetensors weights"),
        ("scheduler", "has no folder scheduler"),
    ],
)
def test_a_partial_model(copy: Path, file: str, message: str) -> None:
    target = copy / file
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(PriorError, match=SETTING + ".*" + message):
        load_prior(PriorConfig(str(copy)), "cpu")


@pytest.mark.parametrize("file", ["text_encoder/model.safetensors", "tokenizer"])
def test_a_partial_text_side(copy: Path, file: str) -> None:
    target = copy / file
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    assert load_prior(PriorConfig(str(copy)), "cpu").identity
    with pytest.raises(PriorError, match=SETTING):
        load_prompt_encoder(PriorConfig(str(copy)), "cpu")


@pytest.mark.parametrize(
    ("kind", "suffix", "missing"),
    [
        ("stable-diffusion", "", "tokenizer and text_encoder"),
        ("sdxl", "_2", "tokenizer_2 and text_encoder_2"),
        ("flux", "_2", "tokenizer_2 and text_encoder_2"),
        ("sd3", "", "tokenizer and text_encoder"),
    ],
)
def test_a_model_that_was_saved_without_a_text_encoder(
    folders: TinyFolders, tmp_path: Path, kind: str, suffix: str, missing: str
) -> None:
    """Told before anything is loaded, and of models of which one encoder may be left out, too."""
    folder = Path(shutil.copytree(folders(kind), tmp_path / "copy"))
    edit_index(folder, **{f"{name}{suffix}": [None, None] for name in ("tokenizer", "text_encoder")})
    cfg = PriorConfig(str(folder), **tiny_settings(kind))
    message = SETTING + rf".*model_index\.json leaves out {missing}, by which"
    for read in (PretrainedDiffusionModel(cfg).check, lambda: load_prompt_encoder(cfg)):
        with pytest.raises(PriorError, match=message):
            read()


@pytest.mark.parametrize("component", ["vae", "scheduler", "unet"])
def test_a_model_that_was_saved_without_another_part(copy: Path, component: str) -> None:
    edit_index(copy, **{component: [None, None]})
    with pytest.raises(PriorError, match=SETTING + rf".*leaves out {component}, which Stable.* needs; name a"):
        load_prior(PriorConfig(str(copy)))


@pytest.mark.parametrize(
    ("kind", "kept", "missing"),
    [
        ("stable-diffusion", [], r"vocab\.json and merges\.txt"),
        ("stable-diffusion", ["vocab.json"], r"merges\.txt"),
        ("deepfloyd-if", [], r"spiece\.model"),
    ],
)
def test_a_tokenizer_without_its_words(
    folders: TinyFolders, tmp_path: Path, kind: str, kept: list[str], missing: str
) -> None:
    """transformers would make one that knows no word."""
    folder = Path(shutil.copytree(folders(kind), tmp_path / "copy"))
    (folder / "tokenizer/tokenizer.json").unlink()
    for name in kept:
        (folder / "tokenizer" / name).write_text("{}")
    with pytest.raises(PriorError, match=SETTING + f".*tokenizer lacks {missing}, so every word"):
        load_prompt_encoder(PriorConfig(str(folder), **tiny_settings(kind)))


def test_weights_that_are_cut(copy: Path) -> None:
    weights = copy / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(PriorError, match=r"unet cannot be loaded"):
        load_prior(PriorConfig(str(copy)), "cpu")


@pytest.mark.parametrize("without_accelerate", [False, True])
@pytest.mark.parametrize(
    ("component", "load"),
    [("unet", load_prior), ("vae", load_prior), ("text_encoder", load_prompt_encoder)],
)
def test_weights_that_lack_a_part_of_the_network(copy, monkeypatch, component, load, without_accelerate) -> None:
    if without_accelerate:
        monkeypatch.setattr("distill3d.priors.model_folder.importlib.util.find_spec", lambda name: None)
    file = next((copy / component).glob("*.safetensors"))
    tensors = load_file(file)
    renamed = sorted(name for name in tensors if name.endswith(".weight"))[:5]
    save_file({f"old.{n}" if n in renamed else n: t for n, t in tensors.items()}, file, metadata={"format": "pt"})
    with pytest.raises(PriorError) as caught:
        load(PriorConfig(str(copy)))
    message = str(caught.value)
    assert re.search(SETTING, message)
    assert str(copy / component) in message
    assert f"lack {', '.join(renamed[:3])} and 2 more" in message
    assert "old." in message
    assert "fetch both again" in message


def test_tensors_that_the_network_does_not_know_are_passed_over(copy: Path) -> None:
    file = next((copy / "unet").glob("*.safetensors"))
    save_file({**load_file(file), "ema.step": torch.zeros(1)}, file, metadata={"format": "pt"})
    assert load_prior(PriorConfig(str(copy))).num_train_timesteps == 1000


def test_pickled_weights_are_not_read(copy: Path) -> None:
    weights = copy / "unet/diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), copy / "unet/diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(PriorError, match=r"pickled \.bin files can run code"):
        load_prior(PriorConfig(str(copy)), "cpu")


def test_a_missing_variant_names_what_is_there(copy: Path) -> None:
    with pytest.raises(
        PriorError, match=r"files in full precision, .*variant=fp16 asks.*: set system\.prior\.variant=null$"
    ):
        load_prior(PriorConfig(str(copy), variant="fp16"), "cpu")


@pytest.mark.parametrize("entry", [["os", "system"], ["diffusers", "NoSuchModel"], ["custom_code", "Net"], None])
def test_classes_of_unknown_origin_are_not_run(copy: Path, entry: object) -> None:
    edit_index(copy, unet=entry)
    with pytest.raises(PriorError, match="which is not supported"):
        load_prior(PriorConfig(str(copy)), "cpu")


def test_a_scheduler_without_a_usable_schedule(copy: Path) -> None:
    config = copy / "scheduler/scheduler_config.json"
    config.write_text(config.read_text().replace("epsilon", "odd"))
    with pytest.raises(PriorError, match="prediction_type='odd'"):
        load_prior(PriorConfig(str(copy)), "cpu")


def test_a_revision_is_for_the_hub(copy: Path) -> None:
    with pytest.raises(PriorError, match=r"system\.prior\.revision='main' is for models of the Hub"):
        load_prior(PriorConfig(str(copy), revision="main"), "cpu")
