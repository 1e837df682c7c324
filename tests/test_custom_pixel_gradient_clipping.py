"""The worked extension in custom/: found at launch, checked, and doing what it says."""

import pytest
import torch
from closed_form import GaussianPrior
from guidance_inputs import inputs_for, make

from distill3d.config.experiment import ConfigError, load
from distill3d.config.files import PROJECT
from distill3d.config.registry import registered
from distill3d.runtime.extensions import import_extensions

CONFIG = PROJECT / "custom" / "pixel_gradient_clipping" / "sds-pixel-clip.yaml"


@pytest.fixture(autouse=True)
def extension():
    assert "pixel_gradient_clipping" in import_extensions([PROJECT / "custom"])


def gradient(name, **settings):
    prior = GaussianPrior((3, 8, 8))
    rule = make(name, **settings)
    return rule(prior, inputs_for(rule, prior)).grad


def test_no_pixel_is_longer_than_the_limit_and_directions_stay():
    plain, clipped = gradient("sds"), gradient("sds-pixel-clip", pixel_clip=0.1)
    assert plain.norm(dim=1).max() > 0.1
    assert clipped.norm(dim=1).max() <= 0.1 + 1e-6
    cosine = torch.nn.functional.cosine_similarity(plain, clipped, dim=1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_short_pixels_are_left_as_they_are():
    torch.testing.assert_close(gradient("sds-pixel-clip", pixel_clip=1e9), gradient("sds"), rtol=0, atol=0)


def test_its_yaml_loads_on_the_shipped_base():
    experiment = load(CONFIG, ["system.prompt_processor.prompt=a fox"]).experiment
    assert experiment.system["guidance_type"] == "sds-pixel-clip"
    assert experiment.name == "sds-pixel-clip"


def test_its_settings_are_checked():
    with pytest.raises(ConfigError, match=r"system\.guidance\.pixel_clip=\[1, 2\] has 2 entries"):
        load(CONFIG, ["system.guidance.pixel_clip=[1, 2]"])
    with pytest.raises(ConfigError, match="did you mean 'pixel_clip'"):
        load(CONFIG, ["system.guidance.pixel_clp=1"])


def test_it_is_listed():
    assert "sds-pixel-clip" in registered("guidance")
