"""8 and 4 bits by bitsandbytes: what from_pretrained is asked for, and what is refused before anything is loaded."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerator_double import GpuTensor, pretended_gpu
from ldm_checkpoints import SD1, checkpoint
from safetensors.torch import save_file
from tiny_pipelines import TinyFolders, zero123

from distill3d.config.check import ConfigError, build
from distill3d.config.registry import find
from distill3d.priors.loader import PretrainedDiffusionModel, PriorConfig, PriorError, load_prior, load_prompt_encoder

Asked = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> TinyFolders:
    return TinyFolders(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    with pretended_gpu(monkeypatch) as device:
        yield device


@pytest.fixture
def asked(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What each component was loaded with; the weights stay as they are, and go where bitsandbytes would put them."""
    _pretend_installed(monkeypatch, True)
    seen: Asked = {}
    for library, name in (("diffusers", "ModelMixin"), ("transformers", "PreTrainedModel")):
        cls: Any = getattr(importlib.import_module(library), name)
        original = cls.from_pretrained.__func__

        def from_pretrained(cls: Any, path: Path, original: Any = original, **options: Any) -> Any:
            if "output_loading_info" not in options:  # a test's own call
                return original(cls, path, **options)
            seen[Path(path).name] = dict(options)
            options.pop("quantization_config", None)
            placed = options.pop("device_map", {}).get("")
            model, loading = original(cls, path, **options)
            return (model if placed is None else model.to(placed)), loading

        monkeypatch.setattr(cls, "from_pretrained", classmethod(from_pretrained))
    return seen


def _pretend_installed(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    find_spec, version = importlib.util.find_spec, importlib.metadata.version
    spec = object() if installed else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: spec if n == "bitsandbytes" else find_spec(n, *a))
    monkeypatch.setattr(importlib.metadata, "version", lambda n: "0.50.2" if n == "bitsandbytes" else version(n))


def load_both(cfg: PriorConfig, device: torch.device) -> tuple[Any, Any]:
    return load_prompt_encoder(cfg, device), load_prior(cfg, device)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    ("setting", "chosen"), [("text_encoder_bits", {"text_encoder", "text_encoder_2"}), ("network_bits", {"unet"})]
)
def test_the_chosen_components_alone_are_quantised(
    setting: str, chosen: set[str], bits: int, folders: TinyFolders, asked: Asked, gpu: torch.device
) -> None:
    encoder, prior = load_both(folders.config("sdxl", precision="bfloat16", **{setting: bits}), gpu)
    assert set(asked) == {"text_encoder", "text_encoder_2", "unet", "vae"}
    assert {name for name, options in asked.items() if "quantization_config" in options} == chosen
    for name in chosen:
        config = asked[name]["quantization_config"]
        assert type(config).__module__.startswith("diffusers" if name == "unet" else "transformers")
        assert (config.load_in_8bit, config.load_in_4bit) == (bits == 8, bits == 4)
        assert config.bnb_4bit_quant_type == "nf4" and config.bnb_4bit_compute_dtype is torch.bfloat16
        assert asked[name]["device_map"] == {"": gpu}
    there = [all(isinstance(p, GpuTensor) for p in tower.model.parameters()) for tower in encoder.towers]
    assert there == [setting == "text_encoder_bits"] * 2  # others visit the GPU when they are called
    assert all(isinstance(parameter, GpuTensor) for parameter in prior.network.parameters())


def test_quantised_text_encoders_may_stay_on_the_cpu(folders: TinyFolders, asked: Asked, gpu: torch.device) -> None:
    encoder = load_prompt_encoder(folders.config("sd3", text_encoder_bits=8, text_encoder_device="cpu"), gpu)
    assert {options["device_map"][""] for options in asked.values()} == {torch.device("cpu")} and len(asked) == 3
    assert not any(isinstance(p, GpuTensor) for tower in encoder.towers for p in tower.model.parameters())  # type: ignore[attr-defined]


def test_embeddings_of_other_bits_are_others_in_the_cache(folders: TinyFolders) -> None:
    configs = [folders.config("sdxl", text_encoder_bits=bits) for bits in (None, 8, 4)]
    keys = [str(PretrainedDiffusionModel(cfg).text_cache_key("cpu")) for cfg in configs]
    assert keys == [keys[0], f"{keys[0]}-8bit", f"{keys[0]}-4bit"]


def _lora(folder: Path, name: str) -> str:
    save_file({f"{name}.lora_A.weight": torch.ones(1, 2), f"{name}.lora_B.weight": torch.ones(2, 1)}, folder / "lora")
    return str((folder / "lora").rename(folder / "lora.safetensors"))


def _single_file(folders: TinyFolders, folder: Path) -> PriorConfig:
    save_file(checkpoint(folders("stable-diffusion"), SD1), folder / "model.safetensors")
    configs = str(folders("stable-diffusion"))
    return PriorConfig(str(folder / "model.safetensors"), single_file_config=configs, text_encoder_bits=8)


def _authors_mvdream(folders: TinyFolders, folder: Path) -> PriorConfig:
    copy = Path(shutil.copytree(folders("mvdream"), folder / "mvdream"))
    index = json.loads((copy / "model_index.json").read_text()) | {"unet": ["mv_unet", "MultiViewUNetModel"]}
    (copy / "model_index.json").write_text(json.dumps(index))
    return PriorConfig(str(copy), network_bits=8)


def test_what_cannot_be_quantised_is_refused_before_it_is_loaded(
    folders: TinyFolders, tmp_path: Path, asked: Asked, gpu: torch.device
) -> None:
    own, text = tmp_path / "own", tmp_path / "text"
    own.mkdir()
    text.mkdir()
    network_lora, text_lora = _lora(own, "unet.mid"), _lora(text, "text_encoder.text_model.q")
    sd = "stable-diffusion"
    refused = [
        (PriorConfig(text_encoder_bits=8), "text_encoder_bits=8: the embedded model is small"),
        (folders.config("embedded-own", network_bits=4), "network_bits=4: the embedded model is small"),
        (PriorConfig(str(zero123(tmp_path / "zero123")), text_encoder_bits=4), "Zero123 has no text encoder"),
        (_single_file(folders, tmp_path), "a checkpoint of one file is not quantised"),
        (_authors_mvdream(folders, tmp_path), "MultiViewUNetModel is not quantised"),
        (folders.config(sd, network_bits=8, lora_weights=network_lora), "network_bits=8: a LoRA cannot be fused"),
        (folders.config(sd, text_encoder_bits=8, lora_weights=text_lora), "text_encoder_bits=8: a LoRA cannot be"),
        (folders.config(sd, network_bits=4, cpu_offload=True), "excludes system.prior.cpu_offload=true"),
    ]
    for cfg, message in refused:
        model = PretrainedDiffusionModel(cfg)
        for attempt in (model.check, lambda m=model: m.load(gpu), lambda m=model: m.text_encoder(gpu)):
            with pytest.raises(PriorError, match=message):
                attempt()
    with pytest.raises(PriorError, match=r"system\.prior\.network_bits=4 needs a GPU"):
        load_prior(folders.config(sd, network_bits=4), "cpu")
    assert asked == {}
    PretrainedDiffusionModel(folders.config(sd, text_encoder_bits=8, lora_weights=network_lora)).check()


def test_without_the_package_the_error_says_how_to_install_it(
    folders: TinyFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend_installed(monkeypatch, False)
    for setting in ("text_encoder_bits", "network_bits"):
        with pytest.raises(PriorError, match=rf"{setting}=8: .*bitsandbytes.*pip install -r requirements-quant\.txt"):
            PretrainedDiffusionModel(folders.config("sdxl", **{setting: 8})).check()
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert '\nquant = ["bitsandbytes>=' in project  # the extra that the error names
    assert (Path(__file__).parents[1] / "requirements-quant.txt").is_file()


def test_a_prior_without_a_network_has_no_such_settings() -> None:
    empirical = find("prior", "empirical-prior", "system.prior_type").Config
    with pytest.raises(ConfigError, match="network_bits"):
        build(empirical, {"views": "x", "network_bits": 8}, "system.prior")
    with pytest.raises(ConfigError, match="network_bits"):
        build(PriorConfig, {"network_bits": 5}, "system.prior")
    assert build(PriorConfig, {"network_bits": 4}, "system.prior").network_bits == 4
