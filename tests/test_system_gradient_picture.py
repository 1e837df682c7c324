"""The picture of gradients: its terms add up, its noise is shared, and its files are there."""

from __future__ import annotations

import json

import pytest
import torch
from picture_doubles import fit, make_data, picture_file
from PIL import Image

from distill3d.config.check import ConfigError
from distill3d.systems.gradient_picture import gradient_image

NAME = "gradient-picture-system"
LMC = {"guidance_type": "lmc-sds", "guidance": {"guidance_scale": 3.0, "corrective": "none"}}


@pytest.fixture
def trained(tmp_path):
    data = make_data(image=str(picture_file(tmp_path / "picture.png")))
    system = fit(NAME, tmp_path, 2, data, draws=2, times=[0.5, 0.9], **LMC)
    system._frozen["prior"] = system.prior_to_decode()
    return system


def test_the_terms_add_up_and_share_one_noise(trained):
    g = trained.row(0.4).gradients
    torch.testing.assert_close(g["SDS"], 3 * g["L_cond"] + g["L_proj"])
    torch.testing.assert_close(g["LMC-SDS"], 3 * g["L_cond"] + g["L_lmc"])
    # with b_psi = x LMC-SDS is SDS, but only if both are given the same noise
    torch.testing.assert_close(g["L_lmc"], g["L_proj"])


def test_the_projection_is_the_picture_minus_its_prediction(tmp_path):
    """``L_proj = (alpha/sigma) (x - x_hat)``."""
    data = make_data(image=str(picture_file(tmp_path / "picture.png")))
    system = fit(NAME, tmp_path, 1, data, **LMC)
    prior = system.prior_to_decode()
    row = system.row(0.4)
    alpha, sigma = prior.alpha_sigma(torch.tensor([400]))
    torch.testing.assert_close(row.gradients["L_proj"], alpha / sigma * (system.x - row.x_hat), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(row.b_psi, system.x)


def test_the_rules_settings_are_what_they_were(trained):
    before = vars(trained.lmc.cfg).copy()
    trained.row(0.4)
    assert vars(trained.lmc.cfg) == before


def test_a_sheet_a_video_and_numbers_are_left(trained, tmp_path):
    files = {file.name for file in trained.export()}
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert files == {"it2-progress.mp4"}
    assert set(metrics["files"]) == {"save/it2-progress.mp4", "save/it2-gradients.png", "save/gradients.json"}
    assert (metrics["steps"], metrics["warnings"]) == (2, [])
    width, height = Image.open(tmp_path / "save/it2-gradients.png").size
    assert width > 8 * 128 and height > 2 * 128
    rows = json.loads((tmp_path / "save/gradients.json").read_text())
    assert [row["t"] for row in rows] == [0.5, 0.9]
    assert rows[0]["cosine with L_cond"]["L_cond"] == pytest.approx(1.0)


def test_without_a_file_a_sample_of_the_prompt_is_looked_at(tmp_path):
    first, second = (fit(NAME, tmp_path / str(seed), 1, seed=seed, **LMC) for seed in (0, 1))
    assert first.x.shape == (1, 3, 8, 8) and not torch.equal(first.x, second.x)


def test_a_gradient_is_drawn_as_where_the_picture_would_go():
    from closed_form import GaussianPrior

    grad = torch.zeros(1, 3, 8, 8)
    grad[:, 0, :4] = 1.0
    image = gradient_image(GaussianPrior(), torch.zeros(1, 3, 8, 8), grad)
    assert (image[:, 0, :4] == 0).all() and (image[:, 0, 4:] == 0.5).all() and (image[:, 1:] == 0.5).all()


def test_other_rules_are_refused():
    from picture_doubles import make_system

    with pytest.raises(ConfigError, match=r"guidance_type='sds'.*lmc-sds"):
        make_system(NAME, guidance_type="sds")
