"""Looking at a guidance costs pictures, and changes nothing else."""

import pytest
import torch
from closed_form import GaussianPrior
from guidance_inputs import inputs_for, make
from system_doubles import fit

from distill3d.config.check import ConfigError
from distill3d.systems.guidance_pictures import ask_looking, guidance_sheet

LMC = {"guidance_type": "lmc-sds", "guidance": {"guidance_scale": 1.0, "corrective": "none"}}


def test_a_sheet_has_a_row_for_the_views_for_x_hat_and_for_b_psi():
    prior = GaussianPrior()
    rule = make("lmc-sds", corrective="none")
    inputs = inputs_for(rule, prior, batch=2)
    sheet = guidance_sheet(prior, inputs.x, ask_looking(rule, prior, inputs))
    height, width = inputs.x.shape[-2:]
    assert sheet is not None and sheet.shape == (3, 3 * height, 2 * width)
    views, b_psi = sheet[:, :height], sheet[:, 2 * height :]
    assert torch.equal(views, b_psi)  # corrective=none is the identity
    assert not torch.equal(views, sheet[:, height : 2 * height])
    assert rule.look is False


def test_a_rule_without_pictures_has_no_sheet():
    prior = GaussianPrior()
    rule = make("csd")
    inputs = inputs_for(rule, prior)
    assert guidance_sheet(prior, inputs.x, ask_looking(rule, prior, inputs)) is None


def test_pictures_come_every_so_many_steps_and_training_is_the_same(tmp_path):
    seen, _ = fit(tmp_path / "seen", 3, guidance_pictures_every=2, **LMC)
    plain, _ = fit(tmp_path / "plain", 3, **LMC)
    names = sorted(path.name for path in (tmp_path / "seen/save").glob("*-guidance.png"))
    assert names == ["it0-guidance.png", "it2-guidance.png"]
    assert {f"save/{name}" for name in names} <= set(seen.record.metrics.files)
    assert not list((tmp_path / "plain").rglob("*-guidance.png"))
    for (name, a), b in zip(seen.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_negative_interval_is_named():
    from system_doubles import tiny_system

    with pytest.raises(ConfigError, match=r"system\.guidance_pictures_every=-1 must be 0"):
        tiny_system(guidance_pictures_every=-1)
