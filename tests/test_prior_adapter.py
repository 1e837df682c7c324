"""LoRA adapters that come with a pass, and LoRA weights that a user brings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from ldm_checkpoints import component, unet_name
from safetensors.torch import load_file, save_file
from tiny_pipelines import TINY, TinyFolders
from torch import nn

from distill3d.priors.adapter import LoraAdapter, attention_projections
from distill3d.priors.base import DiffusionPrior
from distill3d.priors.hub import PriorError
from distill3d.priors.loader import load_prior, load_prompt_encoder, text_identity
from distill3d.priors.lora import fuse_lora, fuse_text_lora, lora_file
from distill3d.types import Pass


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> TinyFolders:
    return TinyFolders(tmp_path_factory.mktemp("tiny"))


def loaded(folders: TinyFolders, kind: str, **settings: object) -> tuple[DiffusionPrior, Pass]:
    cfg = folders.config(kind, **settings)
    prior = load_prior(cfg, "cpu")
    size = prior.spec.image_sizes[0]
    z = torch.randn(prior.encode(torch.zeros(2, 3, size, size)).shape, generator=torch.Generator().manual_seed(0))
    return prior, Pass(z, torch.tensor([100, 900]), load_prompt_encoder(cfg, "cpu")(["a cat", ""]))


def with_adapter(item: Pass, adapter: nn.Module) -> Pass:
    return Pass(item.z, item.t, item.text, adapter)


@pytest.mark.parametrize("kind", list(TINY))
def test_an_untrained_adapter_changes_nothing_and_a_trained_one_only_its_own_pass(
    folders: TinyFolders, kind: str
) -> None:
    prior, item = loaded(folders, kind)
    plain = prior.predict([item])[0].noise
    adapter = prior.make_adapter(2)  # type: ignore[attr-defined]
    torch.testing.assert_close(prior.predict([with_adapter(item, adapter)])[0].noise, plain)
    for layer in adapter.layers.values():
        nn.init.normal_(layer.up.weight)
    adapted, after = prior.predict([with_adapter(item, adapter), item])
    assert (adapted.noise - plain).abs().max() > 1e-4
    assert torch.equal(after.noise, plain)


def test_gradients_reach_the_adapter_and_not_the_network(folders: TinyFolders) -> None:
    prior, item = loaded(folders, "stable-diffusion")
    adapter = prior.make_adapter(2)  # type: ignore[attr-defined]
    prior.predict([with_adapter(item, adapter)], grad=True)[0].noise.square().sum().backward()
    assert all(layer.up.weight.grad.abs().sum() > 0 for layer in adapter.layers.values())
    assert all(parameter.grad is None for parameter in prior.network.parameters())  # type: ignore[attr-defined]


def test_an_adapter_learns_what_another_does(folders: TinyFolders) -> None:
    prior, item = loaded(folders, "embedded")
    torch.manual_seed(0)
    teacher, pupil = prior.make_adapter(2), prior.make_adapter(2)  # type: ignore[attr-defined]
    for layer in teacher.layers.values():
        nn.init.normal_(layer.up.weight)
    target = prior.predict([with_adapter(item, teacher)])[0].noise
    optimizer = torch.optim.Adam(pupil.parameters(), 3e-2)
    errors = []
    for _ in range(15):
        error = (prior.predict([with_adapter(item, pupil)], grad=True)[0].noise - target).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.5 * errors[0]


def test_an_adapter_leaves_no_hooks_even_after_an_error(folders: TinyFolders) -> None:
    prior, _ = loaded(folders, "embedded")
    network = prior.network  # type: ignore[attr-defined]
    adapter = prior.make_adapter(2)  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError), adapter.applied_to(network):
        raise ZeroDivisionError
    assert not any(module._forward_hooks for module in network.modules())


def test_an_adapter_holds_only_its_own_small_weights(folders: TinyFolders) -> None:
    prior, _ = loaded(folders, "embedded")
    network = prior.network  # type: ignore[attr-defined]
    adapter = prior.make_adapter(2)  # type: ignore[attr-defined]
    assert len(adapter.state_dict()) == 2 * len(attention_projections(network))
    count = sum(parameter.numel() for parameter in adapter.parameters())
    assert count < 0.5 * sum(parameter.numel() for parameter in network.parameters())


def test_wrong_adapters_are_refused() -> None:
    with pytest.raises(ValueError, match="rank=0"):
        LoraAdapter(nn.Linear(2, 2), 0)
    with pytest.raises(ValueError, match="no attention projections"):
        LoraAdapter(nn.Linear(2, 2), 4)


# weights that a user brings


@pytest.mark.parametrize("names", [("lora_A", "lora_B"), ("lora.down", "lora.up")])
def test_lora_weights_are_fused_with_scale_and_alpha(tmp_path: Path, names: tuple[str, str]) -> None:
    layer = nn.ModuleDict({"to_q": nn.Linear(4, 6, bias=False)})
    a, b, before = torch.randn(2, 4), torch.randn(6, 2), layer["to_q"].weight.detach().clone()
    tensors = {f"unet.to_q.{names[0]}.weight": a, f"unet.to_q.{names[1]}.weight": b}
    save_file(tensors | {"unet.to_q.alpha": torch.tensor(1.0)}, str(tmp_path / "lora.safetensors"))
    assert fuse_lora(layer, lora_file(str(tmp_path)), 3.0, "unet") == 1
    torch.testing.assert_close(layer["to_q"].weight, before + 3.0 * 0.5 * b @ a)


def test_lora_weights_change_prediction_and_identity(folders: TinyFolders, tmp_path: Path) -> None:
    prior, item = loaded(folders, "stable-diffusion")
    projections = attention_projections(prior.network)  # type: ignore[attr-defined]
    tensors = {}
    for name, module in projections.items():
        tensors[f"unet.{name}.lora_A.weight"] = torch.randn(2, module.in_features)
        tensors[f"unet.{name}.lora_B.weight"] = torch.randn(module.out_features, 2)
    save_file(tensors, str(tmp_path / "style.safetensors"))
    styled, _ = loaded(folders, "stable-diffusion", lora_weights=str(tmp_path / "style.safetensors"))
    assert (styled.predict([item])[0].noise - prior.predict([item])[0].noise).abs().max() > 1e-4
    assert styled.identity != prior.identity
    weaker, _ = loaded(folders, "stable-diffusion", lora_weights=str(tmp_path), lora_scale=0.5)
    assert weaker.identity not in (styled.identity, prior.identity)


def test_lora_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    network, file = nn.ModuleDict({"to_q": nn.Linear(4, 6)}), tmp_path / "lora.safetensors"
    with pytest.raises(PriorError, match=r"lora_weights=.* is no safetensors file"):
        lora_file(str(tmp_path / "absent.safetensors"))
    save_file({"unet.to_k.lora_A.weight": torch.ones(2, 4), "unet.to_k.lora_B.weight": torch.ones(6, 2)}, str(file))
    with pytest.raises(PriorError, match="its layer to_k does not fit"):
        fuse_lora(network, file, 1.0, "unet")
    save_file({"something.else": torch.ones(1)}, str(file))
    with pytest.raises(PriorError, match="has no layers of the form unet"):
        fuse_lora(network, file, 1.0, "unet")


def kohya(folder: Path, file: Path, ldm_blocks: bool = False) -> dict[str, torch.Tensor]:
    """A LoRA of kohya's trainer for the layers of every attention, rank 2 and alpha 1; returns its changes by layer."""
    generator, tensors, changes = torch.Generator().manual_seed(0), {}, {}
    towers = {"unet": "lora_unet_", "text_encoder": "lora_te1_" if ldm_blocks else "lora_te_"}
    towers |= {"text_encoder_2": "lora_te2_"} if (folder / "text_encoder_2").is_dir() else {}
    for part, prefix in towers.items():
        model = component(folder, part)
        for name, module in model.named_modules():
            if not (isinstance(module, nn.Linear) and re.search(r"attn[12]?\.(to_[qkv]|to_out\.0|[qkv]_proj)$", name)):
                continue
            written = name if part == "unet" else f"text_model.{name.removeprefix('text_model.')}"
            if part == "unet" and ldm_blocks:
                written = unet_name(f"{name}.weight", model).removesuffix(".weight")
            down, up = torch.randn(2, module.in_features, generator=generator), torch.randn(module.out_features, 2)
            key = prefix + written.replace(".", "_")
            tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(1.0)}
            changes[f"{part}.{name}"] = 0.5 * up @ down
    save_file(tensors, str(file))
    return changes


@pytest.mark.parametrize("kind", ["stable-diffusion", "sdxl"])
def test_a_lora_of_kohyas_trainer_changes_network_and_text_encoders(
    folders: TinyFolders, tmp_path: Path, kind: str
) -> None:
    """By ``scale alpha / rank B A`` in each layer; SDXL's blocks are named as LDM counts them."""
    file = tmp_path / "style.safetensors"
    changes = kohya(folders(kind), file, ldm_blocks=kind == "sdxl")
    cfg = folders.config(kind, lora_weights=str(file), lora_scale=0.7)
    towers = load_prompt_encoder(cfg).towers  # type: ignore[attr-defined]
    parts = {"unet": load_prior(cfg).network}  # type: ignore[attr-defined]
    parts |= dict(zip(["text_encoder", "text_encoder_2"], [tower.model for tower in towers], strict=False))
    assert {name.partition(".")[0] for name in changes} == set(parts)
    for part, model in parts.items():
        plain = component(folders(kind), part).state_dict()
        for name, value in model.state_dict().items():
            change = 0.7 * changes.get(f"{part}.{name.removesuffix('.weight')}", torch.zeros(()))
            torch.testing.assert_close(value, plain[name] + change, msg=f"{part}.{name}")


def test_the_text_half_of_a_lora_has_embeddings_of_its_own_in_the_cache(folders: TinyFolders, tmp_path: Path) -> None:
    file, plain = tmp_path / "style.safetensors", folders.config("stable-diffusion")
    kohya(folders("stable-diffusion"), file)
    half, full = (folders.config("stable-diffusion", lora_weights=str(file), lora_scale=scale) for scale in (0.5, 1.0))
    assert len({text_identity(cfg) for cfg in (plain, half, full)}) == 3
    kept = {name: value for name, value in load_file(str(file)).items() if name.startswith("lora_unet_")}
    save_file(kept, str(file))
    assert text_identity(folders.config("stable-diffusion", lora_weights=str(file))) == text_identity(plain)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["lora_unet_to_q.hada_w1_a"], "LoHa, LoKr and DoRA are not read"),
        (["lora_unet_to_q.lora_down.weight"], "its layer lora_unet_to_q does not fit .*no upper half"),
        (["lora_unet_to_k.lora_down.weight", "lora_unet_to_k.lora_up.weight"], "layer lora_unet_to_k does not fit"),
        (["lora_te_to_q.lora_down.weight", "lora_te_to_q.lora_up.weight"], "layer lora_te_to_q does not fit"),
    ],
)
def test_other_adapters_and_layers_of_another_model_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    network, file = nn.ModuleDict({"to_q": nn.Linear(4, 4)}), tmp_path / "lora.safetensors"
    save_file({name: torch.ones(4, 4) for name in names}, str(file))
    with pytest.raises(PriorError, match=message):
        fuse_lora(network, file, 1.0, "unet")
        fuse_text_lora(network, file, 1.0, "text_encoder")
