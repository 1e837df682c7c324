"""MVDream: its network against plain formulas on the authors' tensors, its three layouts, its cameras, its loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from guidance_inputs import make
from ldm_checkpoints import SD2, LdmUNet, checkpoint, component, unet_state
from safetensors.torch import save_file
from tiny_pipelines import TinyFolders, mvdream
from tiny_priors import TEXTS

from distill3d.camera import make_cameras
from distill3d.guidance.reconstruction_sds import rescaled
from distill3d.priors.hub import PriorError
from distill3d.priors.loader import PretrainedDiffusionModel, PriorConfig, load_prior, load_prompt_encoder
from distill3d.priors.mvdream import camera_matrices
from distill3d.runtime.rng import rng
from distill3d.types import Cameras, GuidanceInput, Pass, PromptEmbedding

HEADS = {32: 2, 64: 4}  # of attentions of so many channels
TIMES = torch.tensor([100] * 4 + [700] * 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mvdream(tmp_path_factory.mktemp("tiny") / "mvdream")


def config(path: Path, **settings: Any) -> PriorConfig:
    return PriorConfig(str(path), **settings)


def cameras(rows: int = 8) -> Cameras:
    azimuth, full = torch.arange(rows) * 90.0 + 30.0, torch.ones(rows)
    return make_cameras(20 * full, azimuth, (1.5 + torch.arange(rows)) * full, 40 * full, 32, 32)


def prompt(path: Path, rows: int = 8) -> PromptEmbedding:
    both = load_prompt_encoder(config(path))(TEXTS)
    return both[[i % 2 for i in range(rows)]]


def images(prior: Any, rows: int = 8) -> torch.Tensor:
    return torch.randn(rows, *prior.spec.x_shape(32), generator=torch.Generator().manual_seed(3))


def twin(path: Path, n_view: int = 4) -> LdmUNet:
    return LdmUNet(unet_state(component(path, "unet")), 32, HEADS, n_view)


def matrices(seen: Cameras) -> torch.Tensor:
    """Row by row, at distance one."""
    rows = []
    for matrix in seen.c2w.double():
        matrix = matrix.clone()
        matrix[:3, 3] /= matrix[:3, 3].pow(2).sum().sqrt()
        rows.append(matrix.reshape(16))
    return torch.stack(rows).float()


def test_the_prediction_is_that_of_the_formulas(folder: Path) -> None:
    """The attention over four views and the embedding of the camera, on the tensors of the checkpoint."""
    prior, text = load_prior(config(folder)), prompt(folder)
    z, seen = images(prior), cameras()
    answer = prior.predict([Pass(z, TIMES, text, cameras=seen)])[0]
    expected = twin(folder)(z, TIMES, text.tokens, matrices(seen))
    assert expected.std() > 0.01
    torch.testing.assert_close(answer.noise, expected, atol=1e-5, rtol=1e-5)


def test_views_of_a_set_see_each_other_and_their_cameras_and_no_other_set(folder: Path) -> None:
    prior, text, z = load_prior(config(folder)), prompt(folder), None
    z, seen = images(prior), cameras()
    first = prior.predict([Pass(z, TIMES, text, cameras=seen)])[0].noise
    other = z.clone()
    other[1] += 1.0
    changed = (prior.predict([Pass(other, TIMES, text, cameras=seen)])[0].noise - first).flatten(1).abs().amax(1)
    assert (changed[:4] > 1e-6).all() and (changed[4:] == 0.0).all()
    turned = seen[[0, 1, 2, 3, 4, 5, 7, 6]]
    changed = (prior.predict([Pass(z, TIMES, text, cameras=turned)])[0].noise - first).flatten(1).abs().amax(1)
    assert (changed[:4] == 0.0).all() and (changed[6:] > 1e-4).all()


def test_the_sds_gradient_is_that_of_the_formulas(folder: Path) -> None:
    """As the authors write it: x0 by dividing the guided noise out, its deviation over four views, half the rescale."""
    prior, text, seen = load_prior(config(folder)), prompt(folder, 2), cameras()
    rule, w = make("reconstruction-sds"), 49.0
    texts = {"conditional": text[[0] * 8], "negative": text[[1] * 8]}
    inputs = GuidanceInput(0.3 * images(prior), texts, 4000, 10000, rng("noise", 5), seen)
    draw = rule.draw(prior, inputs)
    assert (draw.t[:4] == draw.t[0]).all() and (draw.t[4:] == draw.t[4]).all() and draw.t[0] != draw.t[4]
    assert draw.t.min() >= 500 and draw.t.max() <= 740  # half way down
    network, matrix = twin(folder), matrices(seen)
    y, base = (network(draw.z, draw.t, texts[role].tokens, matrix) for role in ("conditional", "negative"))
    guided = base + (w + 1.0) * (y - base)
    x0, plain = ((draw.z - draw.sigma * noise) / draw.alpha for noise in (guided, y))
    factor = torch.cat([(plain[i : i + 4].std() / x0[i : i + 4].std()).repeat(4) for i in (0, 4)])[:, None, None, None]
    target = 0.5 * x0 * factor + 0.5 * x0
    grad = rule(prior, GuidanceInput(**{**vars(inputs), "generator": rng("noise", 5)})).grad
    expected = inputs.x - target
    torch.testing.assert_close(grad, expected, atol=5e-5 * float(expected.abs().max()), rtol=0.0)


def test_rescaling_gives_the_deviation_over_a_set_and_none_leaves_it() -> None:
    x0, like = torch.randn(8, 4, 2, 2), 3.0 * torch.randn(8, 4, 2, 2)
    full = rescaled(x0, like, 1.0, 4)
    torch.testing.assert_close(full[:4].std(), like[:4].std())
    torch.testing.assert_close(full[4:].std(), like[4:].std())
    assert torch.equal(rescaled(x0, like, 0.0, 4), x0)


def test_cameras_are_the_authors(folder: Path) -> None:
    """Their get_camera at azimuth a: y-up OpenGL, turned z-up; their 90 degrees are our front."""
    elevation, ours = torch.tensor(15.0), torch.tensor([0.0, 45.0, 200.0])
    for angle in ours:
        e, a = torch.deg2rad(elevation), torch.deg2rad(angle + 90.0)
        position = torch.stack([e.cos() * a.sin(), e.sin(), e.cos() * a.cos()])
        right = torch.nn.functional.normalize(torch.linalg.cross(-position, torch.tensor([0.0, 1.0, 0.0])), dim=0)
        up = torch.linalg.cross(right, -position)
        c2w = torch.eye(4)
        c2w[:3, :4] = torch.stack([right, up, position, position], 1)
        turn = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
        full = torch.ones(1)
        seen = make_cameras(elevation * full, angle * full, 3.7 * full, 40 * full, 8, 8)
        torch.testing.assert_close(camera_matrices(seen.c2w)[0], (turn @ c2w).reshape(16), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("layout", ["pt", "safetensors", "authors' folder"])
def test_every_layout_is_the_same_model(folder: Path, tmp_path: Path, layout: str) -> None:
    if layout == "authors' folder":
        cfg = config(_as_multi_view_unet(folder, tmp_path / "model"))
    else:
        cfg = config(_as_file(folder, tmp_path / f"sd-v2.1-base-4view.{layout}"), single_file_config=str(folder))
    assert (
        PretrainedDiffusionModel(cfg).kind().name == "mvdream"
        and PretrainedDiffusionModel(cfg).text_parameters() > 1000
    )
    expected, prior, text = load_prior(config(folder)), load_prior(cfg), prompt(folder)
    torch.testing.assert_close(load_prompt_encoder(cfg)(TEXTS).tokens, text.tokens[:2], atol=1e-6, rtol=1e-6)
    item = Pass(images(prior), TIMES, text, cameras=cameras())
    torch.testing.assert_close(prior.predict([item])[0].noise, expected.predict([item])[0].noise, atol=1e-6, rtol=1e-6)
    rgb = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(prior.codec.encode(rgb), expected.codec.encode(rgb), atol=1e-6, rtol=1e-6)  # type: ignore[attr-defined]
    assert prior.spec.n_view == 4 and "camera" in prior.spec.conditions


def _as_file(folder: Path, file: Path) -> Path:
    if file.suffix == ".pt":
        torch.save(checkpoint(folder, SD2), file)
    else:
        save_file(checkpoint(folder, SD2), file)
    return file


def _as_multi_view_unet(folder: Path, copy: Path) -> Path:
    """The folder of the first port to diffusers: LDM's names in the U-Net's file and config, diffusers' elsewhere."""
    import shutil

    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "unet")
    (copy / "unet").mkdir()
    settings = {
        "_class_name": "MultiViewUNetModel",
        "image_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 32,
        "num_res_blocks": 1,
        "attention_resolutions": [2],
        "channel_mult": [1, 2],
        "num_head_channels": 16,
        "transformer_depth": 1,
        "context_dim": 32,
        "camera_dim": 16,
    }
    (copy / "unet/config.json").write_text(json.dumps(settings))
    save_file(unet_state(component(folder, "unet"), ""), copy / "unet/diffusion_pytorch_model.safetensors")
    index = json.loads((copy / "model_index.json").read_text()) | {"unet": ["mv_unet", "MultiViewUNetModel"]}
    (copy / "model_index.json").write_text(json.dumps(index))
    return copy


def test_without_its_cameras_it_is_stable_diffusion(folder: Path) -> None:
    prior, text = load_prior(config(folder, camera_conditioning="none")), prompt(folder, 3)
    z = images(prior, 3)
    network = twin(folder, n_view=1)
    network.w["camera_embed.2.weight"] = torch.zeros_like(network.w["camera_embed.2.weight"])
    network.w["camera_embed.2.bias"] = torch.zeros_like(network.w["camera_embed.2.bias"])
    answer = prior.predict([Pass(z, TIMES[:3], text, cameras=cameras(3))])[0]
    expected = network(z, TIMES[:3], text.tokens, torch.zeros(3, 16))
    torch.testing.assert_close(answer.noise, expected, atol=1e-5, rtol=1e-5)
    assert prior.spec.n_view == 1 and "camera" not in prior.spec.conditions


@pytest.mark.parametrize(("rows", "seen"), [(3, True), (4, False)])
def test_what_is_no_set_of_views_is_told(folder: Path, rows: int, seen: bool) -> None:
    prior, text = load_prior(config(folder)), prompt(folder, rows)
    item = Pass(images(prior, rows), TIMES[:rows], text, cameras=cameras(rows) if seen else None)
    with pytest.raises(PriorError, match=r"sees sets of 4 views.*data\.n_view=4.*camera_conditioning=none"):
        prior.predict([item])


def test_a_network_without_a_camera_is_told(folder: Path, tmp_path: Path) -> None:
    import shutil

    plain = TinyFolders(tmp_path)("stable-diffusion")
    copy = tmp_path / "mvdream"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "unet")
    shutil.copytree(plain / "unet", copy / "unet")
    with pytest.raises(PriorError, match=r"class_embed_type.*None, None; MVDream's are projection, 16"):
        load_prior(config(copy))


def test_a_lora_trains_through_the_attention_over_views(folder: Path) -> None:
    """As VSD needs it: gradients reach the adapter."""
    prior, text = load_prior(config(folder)), prompt(folder)
    adapter = prior.make_adapter(2)
    item = Pass(images(prior), TIMES, text, adapter, cameras())
    prior.predict([item], grad=True)[0].noise.square().sum().backward()
    ups = [p for name, p in adapter.named_parameters() if "attn1" in name and name.endswith("up.weight")]
    assert ups and all(p.grad is not None and p.grad.abs().sum() > 0 for p in ups)
