"""The embedded prior's parts: network, tokenizer, text encoder, folder, and a short training of the real config."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from tiny_assets import make_assets

from distill3d.camera import CameraRanges, make_cameras
from distill3d.embedded.folder import make_scheduler, save_folder
from distill3d.embedded.network import NetworkLayout, PixelUNet2DConditionModel, WordsTogether, sinusoidal
from distill3d.embedded.prior_training import draw_timesteps, loss_weight, min_snr_weight, v_target
from distill3d.embedded.text import POSITIONS, byte_pairs, make_text_encoder, make_tokenizer
from distill3d.priors.loader import PretrainedDiffusionModel, load_prior, load_prompt_encoder
from distill3d.priors.settings import PriorConfig
from distill3d.priors.words import unknown_words

NOUNS = ["apple", "fox", "crown"]
TINY = {
    "outer_channels": 16,
    "block_out_channels": (16, 32),
    "cross_attention_dim": 64,
    "pooled_dim": 64,
    "middle_layers": 1,
    "attention_head_dim": 16,
    "time_channels": 32,
    "layout_channels": 8,
    "scene_channels": 16,
    "light_hidden": 16,
    "light_layers": 2,
    "light_experts": 3,
}


def tiny_network() -> PixelUNet2DConditionModel:
    torch.manual_seed(0)
    network = PixelUNet2DConditionModel(**TINY)  # type: ignore[arg-type]
    for parameter in network.parameters():  # the zeros of a fresh network would hide what the text does
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network.eval().requires_grad_(False)


def inputs(size: int, rows: int = 2):
    torch.manual_seed(1)
    return (
        torch.randn(rows, 3, size, size),
        torch.tensor([10, 900])[:rows],
        torch.randn(rows, 8, 64),
        torch.randn(rows, 64),
    )


@pytest.mark.parametrize("size", [32, 64])
def test_the_network_answers_at_both_sizes_and_listens(size):
    network = tiny_network()
    x, t, tokens, pooled = inputs(size)
    out = network(x, t, tokens, {"text_embeds": pooled}).sample
    assert out.shape == x.shape
    for changed in (
        network(x, t + 50, tokens, {"text_embeds": pooled}).sample,
        network(x, t, tokens.flip(0), {"text_embeds": pooled}).sample,
        network(x, t, tokens, {"text_embeds": pooled.flip(0)}).sample,
    ):
        assert float((changed - out).abs().max()) > 1e-4


def cameras(*azimuths: float):
    made = make_cameras(*(torch.tensor(v) for v in ([20.0] * 2, list(azimuths), [1.5] * 2, [39.0] * 2)), 64, 64)
    return {"c2w": made.c2w, "fovy_rad": made.fovy_rad}


@pytest.mark.parametrize("size", [32, 64])
def test_the_network_hears_the_camera_unless_it_is_to_be_ignored(size):
    network = tiny_network()
    x, t, tokens, pooled = inputs(size)
    ask = lambda **more: network(x, t, tokens, {"text_embeds": pooled, **more}).sample  # noqa: E731
    front, back, none = ask(**cameras(0.0, 0.0)), ask(**cameras(180.0, 0.0)), ask()
    assert float((front - back)[0].abs().max()) > 1e-4
    torch.testing.assert_close(front[1], back[1])
    half_known = ask(**cameras(180.0, 180.0), known=torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(half_known[0], back[0])
    torch.testing.assert_close(half_known[1], none[1])
    assert float((none - front).abs().max()) > 1e-4


def test_what_the_light_field_saw_can_be_given_again():
    network = tiny_network()
    x, t, tokens, pooled = inputs(64)
    conditions = {"text_embeds": pooled, **cameras(0.0, 90.0)}
    seen = network.look(conditions)
    assert seen.guess.shape == (2, 4, 64, 64)
    given = network(x, t, tokens, {"text_embeds": pooled}, seen=seen).sample
    torch.testing.assert_close(given, network(x, t, tokens, conditions).sample)


def test_rows_of_a_batch_do_not_meet():
    network = tiny_network()
    x, t, tokens, pooled = inputs(64)
    both = network(x, t, tokens, {"text_embeds": pooled}).sample
    alone = network(x[1:], t[1:], tokens[1:], {"text_embeds": pooled[1:]}).sample
    assert torch.allclose(both[1:], alone, atol=1e-5)


def test_every_parameter_is_trained_by_the_two_sizes_together():
    network = tiny_network().requires_grad_(True)
    for size in (32, 64):
        x, t, tokens, pooled = inputs(size)
        known = torch.tensor([1.0, 0.0])
        conditions = {"text_embeds": pooled, "known": known, **cameras(0.0, 90.0)}
        network(x, t, tokens, conditions).sample.square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_wrong_size_and_missing_text_are_named():
    network = tiny_network()
    x, t, tokens, pooled = inputs(32)
    with pytest.raises(ValueError, match="48"):
        network(torch.zeros(2, 3, 48, 48), t, tokens, {"text_embeds": pooled})
    with pytest.raises(ValueError, match="text_embeds"):
        network(x, t, tokens)


def test_the_time_code_tells_times_apart():
    codes = sinusoidal(torch.arange(0, 1000, 100), 32)
    assert float((codes[:, None] - codes[None]).norm(dim=-1).fill_diagonal_(9.0).min()) > 0.1


@pytest.mark.parametrize("text", ["a blue fox", "한국어 🙂", "naïve café #1!", "", "x" * 500, "\n\t"])
def test_any_text_has_tokens_and_none_is_unknown(tmp_path, text):
    tokenizer = make_tokenizer(NOUNS, tmp_path)
    ids = tokenizer(text, truncation=True, max_length=POSITIONS).input_ids
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in ids[1:-1]
    if text == "a blue fox":
        assert len(ids) == 5  # a word that was counted is one token
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text


def test_byte_pairs_break_ties_by_the_alphabet_whatever_the_order_of_the_words():
    words = {"fox": 2, "cow": 2, "cob": 2}
    merges = byte_pairs(words, 3)
    assert merges == [("c", "o"), ("co", "b</w>"), ("co", "w</w>")]  # co is in four words, all others tie
    assert byte_pairs(dict(reversed(words.items())), 3) == merges
    assert byte_pairs(words, 99)[3:] == [("f", "o"), ("fo", "x</w>")]  # every word is one token: nothing left to merge


def test_a_training_that_goes_on_keeps_the_tokenizer_of_its_text_encoder(trained):
    from transformers import CLIPTokenizer

    from distill3d.embedded.prior_training import EmbeddedPriorSystem

    folder = trained / "save/prior"
    tokenizer = json.loads((folder / "tokenizer/tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    assert EmbeddedPriorSystem(EmbeddedPriorSystem.Config(), seed=0)._initial_tokenizer() is None
    system = EmbeddedPriorSystem(EmbeddedPriorSystem.Config(initial_folder=str(folder)), seed=0)
    found = system._initial_tokenizer()
    assert isinstance(found, CLIPTokenizer) and found.get_vocab() == vocabulary


def test_the_schedule_ends_in_noise_and_the_target_inverts():
    scheduler = make_scheduler()
    assert float(scheduler.alphas_cumprod[-1]) < 1e-6
    x, eps = torch.randn(4), torch.randn(4)
    alpha, sigma = torch.tensor(0.8), torch.tensor(0.6)
    z, v = alpha * x + sigma * eps, v_target(x, eps, alpha, sigma)
    assert torch.allclose(alpha * z - sigma * v, x, atol=1e-6)
    assert torch.allclose(sigma * z + alpha * v, eps, atol=1e-6)


def test_min_snr_weight_is_snr_over_snr_plus_one_up_to_gamma():
    alpha = torch.tensor([0.1, 0.5, 0.8])
    sigma = (1 - alpha**2).sqrt()
    assert torch.allclose(min_snr_weight(alpha, sigma), alpha**2)  # SNR / (SNR + 1) = alpha^2 below gamma
    assert float(min_snr_weight(torch.tensor(1.0), torch.tensor(0.0))) == pytest.approx(0.0, abs=1e-6)


def test_the_folder_loads_through_the_general_loader(tmp_path):
    tokenizer = make_tokenizer(NOUNS, tmp_path / "tokenizer")
    text_encoder = make_text_encoder(tokenizer, width=64, layers=1)
    folder = tmp_path / "prior"
    cameras = CameraRanges(fovy_range=(38.0, 40.0))
    extents = {"fox": {"low": [-0.5, -0.1, -0.2], "high": [0.5, 0.1, 0.2], "seat": 0.2}}
    save_folder(folder, tiny_network(), text_encoder, tokenizer, make_scheduler(), NOUNS, cameras, extents)
    assert all(file.stat().st_size < 16e6 for file in folder.rglob("*") if file.is_file())
    assert json.loads((folder / "cameras.json").read_text())["fovy_range"] == [38.0, 40.0]
    cfg = PriorConfig(pretrained_model_name_or_path=str(folder))
    prior, encoder = load_prior(cfg), load_prompt_encoder(cfg)
    assert prior.spec.image_sizes == (32, 64)
    assert len(encoder(["a fox", "an apple"])) == 2
    assert unknown_words("a blue quokka on top of an apple", PretrainedDiffusionModel(cfg).vocabulary()) == ["quokka"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """configs/prior/embedded.yaml for 100 steps with a tiny network, by the command line's own code."""
    from distill3d.cli import main

    folder = tmp_path_factory.mktemp("prior")
    settings = [
        f"data.assets={make_assets(folder)}",
        f"data.cache_dir={folder / 'cache'}",
        f"exp_root_dir={folder / 'outputs'}",
        "data.views_per_mesh=8",
        "data.pair_views=6",
        "data.batch_size=8",
        "data.image_sizes=[32]",
        "system.network={outer_channels: 16, block_out_channels: [16, 32], cross_attention_dim: 64, pooled_dim: 64, "
        "middle_layers: 1, attention_head_dim: 16, time_channels: 32, light_hidden: 16, light_layers: 2, "
        "light_experts: 2}",
        "system.text_width=64",
        "system.text_layers=1",
        "system.reading_steps=20",
        "system.high_noise_weight=0.0",  # at high noise most of the loss is what no network can know
        "system.high_noise_share=0",
        "system.learning_rate=2.0e-3",
        "system.save_every=50",
        "trainer.max_steps=100",
        "trainer.log_every_n_steps=1",
        "trainer.precision=32-true",
        "trainer.enable_progress_bar=false",
        "use_timestamp=false",
    ]
    assert main(["--config", "configs/prior/embedded.yaml", "--train", *settings]) == 0
    return next((folder / "outputs/prior").iterdir())


@pytest.mark.parametrize("t", [0.05, 0.5, 1.5])
def test_high_noise_is_weighed_more_and_low_noise_as_by_min_snr(t):
    alpha, sigma = torch.tensor(math.cos(t)), torch.tensor(math.sin(t))
    snr = (alpha / sigma) ** 2
    expected = min(snr, 5.0) / (snr + 1.0) + 0.7 * (1.0 - alpha**2)
    torch.testing.assert_close(loss_weight(alpha, sigma, 0.7), torch.as_tensor(expected))


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_a_share_of_the_timesteps_is_drawn_from_the_noisiest(share):
    t = draw_timesteps(20_000, 1000, share, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert t.min() < 20 and t.max() > 980 and t.max() < 1000
    assert float((t >= 850).float().mean()) == pytest.approx(share + (1.0 - share) * (1.0 - 0.85**2), abs=0.01)


def test_the_scene_hears_words_together_and_starts_silent():
    torch.manual_seed(0)
    scene = WordsTogether(8, 32, 4).requires_grad_(False)
    fox, cow, side, front = torch.randn(4, 8)
    assert not scene(fox + side).any()
    torch.nn.init.normal_(scene[2].weight)
    # what "side" adds to a fox is not what it adds to a cow: no sum of single words says that
    assert (
        float(((scene(fox + side) - scene(fox + front)) - (scene(cow + side) - scene(cow + front))).abs().max()) > 0.1
    )


def test_the_layout_sees_the_whole_image_and_owes_the_noise_little():
    """A cell's mean is its colour with noise of 1 / cell, scaled to the same at both sizes."""
    layout = NetworkLayout(32, 8, 8, (16, 32)).requires_grad_(False)
    torch.nn.init.normal_(layout.out.weight)
    torch.nn.init.normal_(layout.fine_out.weight)
    image, embedding = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.ones(1, 32)
    coarse = layout(image, embedding)[1]
    assert coarse.shape == (1, 32, 8, 8) and layout(image, embedding)[0].shape == (1, 16, 16, 16)
    corner = image.clone()
    corner[..., :4, :4] += 1.0
    assert ((layout(corner, embedding)[1] - coarse).abs().amax(dim=1) > 1e-4).all()  # every place hears of every other
    moved = image + torch.kron(torch.ones(8, 8), torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2))
    torch.testing.assert_close(layout(moved, embedding)[1], coarse, atol=1e-4, rtol=1e-4)


def test_a_hundred_steps_lower_the_loss(trained):
    import csv

    with next((trained / "csv_logs").rglob("metrics.csv")).open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row.get("loss")]
    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-20:]) / 20 < 0.6 * sum(losses[:4]) / 4


def test_the_trained_folder_is_a_prior(trained):
    cfg = PriorConfig(pretrained_model_name_or_path=str(trained / "save/prior"))
    assert load_prior(cfg).spec.image_sizes == (32, 64)
    assert json.loads((trained / "metrics.json").read_text())["steps"] == 100


def test_training_resumes_from_its_checkpoint(trained):
    from distill3d.cli import main

    arguments = ["--config", str(trained / "configs/parsed.yaml"), "--train", f"resume={trained / 'ckpts/last.ckpt'}"]
    assert main([*arguments, "trainer.max_steps=103"]) == 0
    assert json.loads((trained / "metrics.json").read_text())["steps"] == 103


def test_the_report_measures_a_folder_without_a_checkpoint(trained, tmp_path):
    from distill3d.cli import main

    arguments = ["--config", str(trained / "configs/parsed.yaml"), "--test", f"exp_root_dir={tmp_path}"]
    prior = [f"system.evaluate={trained / 'save/prior'}", "system.evaluate_per_noun=1", "use_timestamp=false"]
    assert main([*arguments, *prior]) == 0
    save = next((tmp_path / "prior").iterdir()) / "save"
    report = json.loads((save / "evaluation.json").read_text())
    effects = report["condition_effects"]
    assert {effect["image_size"] for effect in effects} == {32, 64}
    assert {effect["condition"] for effect in effects} == {"caption", "camera", "view word"}
    assert all(0.0 < effect["right"] < 4.0 for effect in effects)
    trained = [effect for effect in effects if effect["image_size"] == 32]
    camera = [effect for effect in trained if effect["condition"] == "camera"]
    assert all(len({effect["none"], effect["right"], effect["wrong"]}) == 3 for effect in camera)  # it is heard
    assert (save / "samples.png").is_file()
