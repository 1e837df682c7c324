"""PixArt-Sigma and Z-Image: text and prediction are those that diffusers' pipeline has from the same words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pipelines import TinyFolders
from tiny_priors import load

from distill3d.priors.loader import load_prompt_encoder
from distill3d.types import Pass

PROMPT = "A Small red cat"
CALLS = {
    "pixart-sigma": ("PixArtSigmaPipeline", {"use_resolution_binning": False, "clean_caption": False}, 12),
    "z-image": ("ZImagePipeline", {"sigmas": [1.0, 0.7, 0.3]}, 128),  # times that are whole thousandths
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> TinyFolders:
    return TinyFolders(tmp_path_factory.mktemp("tiny"))


def calls_of(pipeline: Any) -> list[tuple[tuple[Any, ...], dict[str, Any], Any]]:
    """What the pipeline's network is given and answers, filled as it runs."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []
    pipeline.transformer.register_forward_hook(
        lambda _, args, kwargs, output: calls.append((args, kwargs, output[0])), with_kwargs=True
    )
    return calls


def run(folders: TinyFolders, kind: str) -> list[tuple[tuple[Any, ...], dict[str, Any], Any]]:
    import diffusers

    name, options, length = CALLS[kind]
    pipeline = getattr(diffusers, name).from_pretrained(folders(kind))
    pipeline.set_progress_bar_config(disable=True)
    calls = calls_of(pipeline)
    common = {"height": 32, "width": 32, "num_inference_steps": 3, "guidance_scale": 4.0, "output_type": "latent"}
    generator = torch.Generator().manual_seed(0)
    pipeline(PROMPT, negative_prompt="", max_sequence_length=length, generator=generator, **common, **options)
    assert len(calls) == 3
    return calls


def test_pixart_sigma_is_its_pipelines(folders: TinyFolders) -> None:
    prior, text = load(folders, "pixart-sigma"), load_prompt_encoder(folders.config("pixart-sigma"))(["", PROMPT])
    for args, kwargs, output in run(folders, "pixart-sigma"):
        torch.testing.assert_close(kwargs["encoder_hidden_states"], text.tokens, atol=1e-5, rtol=0.0)
        assert torch.equal(kwargs["encoder_attention_mask"].bool(), text.mask)
        answer = prior.predict([Pass(args[0], kwargs["timestep"].long(), text)])[0]
        assert output.std() > 0.01
        torch.testing.assert_close(answer.noise, output[:, :4], atol=1e-5, rtol=0.0)


def test_z_image_is_its_pipelines(folders: TinyFolders) -> None:
    prior, text = load(folders, "z-image"), load_prompt_encoder(folders.config("z-image"))([PROMPT, ""])
    assert prior.spec.flow and text.mask is not None and text.mask.sum(1).min() < text.tokens.shape[1]
    for (images, time, captions), _, output in run(folders, "z-image"):
        for own, mask, theirs in zip(text.tokens, text.mask, captions, strict=True):
            torch.testing.assert_close(own[mask], theirs, atol=1e-5, rtol=0.0)
        z, s = torch.stack(list(images)).squeeze(2), 1.0 - time
        t = (1000.0 * s).round() - 1.0
        torch.testing.assert_close((t + 1.0) / 1000.0, s, atol=1e-5, rtol=0.0)
        answer = prior.predict([Pass(z, t.long(), text)])[0]
        velocity = -torch.stack(list(output)).squeeze(2)
        assert velocity.std() > 0.01
        torch.testing.assert_close(answer.noise - answer.x0, velocity, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", list(CALLS))
def test_what_pads_a_text_changes_nothing(folders: TinyFolders, kind: str) -> None:
    prior, text = load(folders, kind), load_prompt_encoder(folders.config(kind))(["a cat"])
    assert text.mask is not None and not text.mask.all()
    z = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    other = type(text)(torch.where(text.mask[..., None], text.tokens, torch.tensor(9.0)), text.mask)
    first, second = (prior.predict([Pass(z, torch.tensor([400]), one)])[0].noise for one in (text, other))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0.0)


def test_pixart_is_read_by_the_name_that_its_published_folder_gives_its_network(tmp_path: Path) -> None:
    from diffusers import PixArtTransformer2DModel

    folders = TinyFolders(tmp_path)
    index = folders("pixart-sigma") / "model_index.json"
    older = {**json.loads(index.read_text()), "transformer": ["diffusers", "Transformer2DModel"]}
    index.write_text(json.dumps(older))
    assert isinstance(load(folders, "pixart-sigma").network, PixArtTransformer2DModel)  # type: ignore[attr-defined]


def test_folders_are_read_as_their_kind(folders: TinyFolders, tmp_path: Path) -> None:
    from distill3d.priors.loader import PretrainedDiffusionModel

    assert [PretrainedDiffusionModel(folders.config(kind)).kind().name for kind in CALLS] == list(CALLS)
