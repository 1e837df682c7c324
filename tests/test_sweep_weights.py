"""Other weights are other runs; the same weights are the same runs, wherever they lie."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_pipelines import embedded_own

from distill3d.config.check import ConfigError
from distill3d.config.experiment import load
from distill3d.guidance.corrective import SpectralCorrective, files
from distill3d.priors.loader import PretrainedDiffusionModel, PriorConfig
from distill3d.sweep import weights
from distill3d.sweep.folder import SweepFolder
from distill3d.sweep.plan import make_plan, write_plan
from distill3d.sweep.weights import corrective_weights, frozen_weights, prior_weights

PRIOR = "system.prior.pretrained_model_name_or_path"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return embedded_own(tmp_path_factory.mktemp("prior") / "tiny")


@pytest.fixture
def prior(made, tmp_path, monkeypatch):
    """A prior's folder, and an empty one for what would be shipped with it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "tiny")
    monkeypatch.setattr(weights, "SHIPPED_DIR", tmp_path / "shipped")
    return tmp_path / "tiny"


def change(folder, component, name):
    """Add a little to one tensor, as training goes on."""
    path = folder / component / name
    tensors = load_file(path)
    first = min(tensors)
    save_file({**tensors, first: tensors[first] + 1e-3}, path, metadata={"format": "pt"})


def ship(size, identity, value=0.0):
    """A b_psi beside the prior that is shipped."""
    path = weights.SHIPPED_DIR / f"corrective-{size}.safetensors"
    made = SpectralCorrective(torch.full((2, 3, 4), value), torch.tensor([0.0, 999.0]))
    files.save_corrective(made, path, identity, size)
    return path


def ids(prior, *overrides):
    plan = make_plan("dreamfusion-quick.yaml", ["seed=0,1", f"{PRIOR}={prior}", *overrides])
    return [run.id for run in plan.runs]


@pytest.mark.parametrize(
    ("component", "name"),
    [("unet", "diffusion_pytorch_model.safetensors"), ("text_encoder", "model.safetensors")],
)
def test_other_weights_of_the_prior_make_every_run_new(prior, component, name):
    before = ids(prior)
    assert ids(prior) == before
    change(prior, component, name)
    assert not set(ids(prior)) & set(before)


def test_a_copy_of_the_weights_is_the_same_prior(prior, tmp_path):
    shutil.copytree(prior, tmp_path / "copy")
    names = [PretrainedDiffusionModel(PriorConfig(str(folder))) for folder in (prior, tmp_path / "copy")]
    assert prior_weights(names[0]) == prior_weights(names[1])
    assert set(prior_weights(names[0])) == {"prior", "text"}


def test_a_sweep_goes_on_after_a_change_that_is_none(prior):
    before = ids(prior)
    for file in prior.rglob("*"):
        file.touch()
    (prior / "README.md").write_text("a note")
    assert ids(prior) == before


def test_another_b_psi_is_another_run_of_lmc_sds_and_of_no_other_rule(prior):
    identity = prior_weights(PretrainedDiffusionModel(PriorConfig(str(prior))))["prior"]
    rules = ("system.guidance_type=lmc-sds", "system.guidance_type=sds")
    ship(32, identity)
    before = [ids(prior, rule) for rule in rules]
    ship(64, "of another prior")
    assert [ids(prior, rule) for rule in rules] == before
    ship(32, identity, value=1.0)
    lmc, sds = (ids(prior, rule) for rule in rules)
    assert sds == before[1] and not set(lmc) & set(before[0])
    assert ids(prior, rules[0], "system.guidance.corrective=spectral") != lmc


def test_a_corrective_of_ones_own_counts_by_its_content(prior, tmp_path):
    own = ship(16, "whatever")
    first = corrective_weights(str(own), None)
    assert corrective_weights(str(shutil.copy(own, tmp_path / "moved.safetensors")), None) == first
    in_folder = corrective_weights(str(own.parent), None)
    assert list(in_folder.values()) == list(first.values())
    ship(16, "whatever", value=2.0)
    assert corrective_weights(str(own), None) != first
    assert corrective_weights(str(own.parent), None) != in_folder
    with pytest.raises(ConfigError, match=r"system.guidance.corrective='gone' cannot be read: No such file"):
        corrective_weights("gone", None)


def test_auto_is_the_files_that_lmc_sds_takes(prior, monkeypatch):
    identity = prior_weights(PretrainedDiffusionModel(PriorConfig(str(prior))))["prior"]
    own, _ = ship(32, identity), ship(64, "of another prior")
    monkeypatch.setattr(files, "SHIPPED_DIR", weights.SHIPPED_DIR)
    model = SimpleNamespace(identity=identity)
    taken = {size: files._shipped(model, size) is not None for size in (32, 64)}
    assert taken == {32: True, 64: False}
    assert corrective_weights("auto", identity) == corrective_weights(str(own), None)
    assert corrective_weights("auto", None) == corrective_weights("spectral", identity) == {}


def test_a_model_of_the_hub_is_told_by_its_name_and_nothing_is_fetched(monkeypatch):
    monkeypatch.setattr("distill3d.priors.hub._from_hub", lambda *_: pytest.fail("fetched"))
    experiment = load("dreamfusion-sd.yaml", ["system.prompt_processor.prompt=a fox"]).experiment
    assert frozen_weights(experiment) == {}


def test_a_prior_that_is_not_there_is_told_before_the_first_run(prior):
    with pytest.raises(ConfigError, match="is no folder here"):
        ids(prior.with_name("no-such-folder"))


def test_a_system_without_a_prior_has_no_weights(tmp_path):
    experiment = load("nerf-reconstruction.yaml", [f"data.root={tmp_path}"]).experiment
    assert frozen_weights(experiment) == {}


def test_a_named_sweep_is_not_mixed_with_what_other_weights_have_made(prior):
    def plan():
        return make_plan("dreamfusion-quick.yaml", ["seed=0,1", f"{PRIOR}={prior}", "exp_root_dir=out"], "mine")

    write_plan(plan())
    write_plan(plan())
    change(prior, "unet", "diffusion_pytorch_model.safetensors")
    with pytest.raises(ConfigError, match="other weights of the prior or its corrective; choose another name"):
        write_plan(plan())
    assert SweepFolder(plan().folder.root).is_sweep()
