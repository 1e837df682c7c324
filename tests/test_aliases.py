"""threestudio's own YAMLs load unchanged."""

import logging
from pathlib import Path

import pytest

from distill3d.config.experiment import build, load
from distill3d.config.registry import find
from distill3d.config.schedule import scheduled
from distill3d.guidance.perp_neg import ViewDecays

DATA = Path(__file__).parent / "data"
PROMPT = "system.prompt_processor.prompt=a fox"
MODELS = {"sd": "stabilityai/stable-diffusion-2-1-base", "if": "DeepFloyd/IF-I-XL-v1.0"}


def system(kind, *arguments):
    return load(DATA / f"threestudio-dreamfusion-{kind}.yaml", [PROMPT, *arguments]).experiment.system


@pytest.mark.parametrize("kind", ["sd", "if"])
def test_a_guidance_there_is_a_prior_and_a_rule_here(kind):
    made = system(kind)
    assert made["prior"]["pretrained_model_name_or_path"] == MODELS[kind]
    assert (made["guidance_type"], made["prompt_processor_type"]) == ("sds", "prompt-processor")
    assert made["guidance"]["guidance_scale"] == {"sd": 100.0, "if": 20.0}[kind]
    assert made["renderer"]["radius"] == 2.0
    assert made["loss"]["orient_reduction"] == "ray_mean"


@pytest.mark.parametrize("kind", ["sd", "if"])
def test_nothing_of_them_is_lost(kind, caplog):
    with caplog.at_level(logging.WARNING, "distill3d"):
        experiment = load(DATA / f"threestudio-dreamfusion-{kind}.yaml", [PROMPT]).experiment
    assert caplog.text == ""
    assert experiment.tag == "a_fox"
    assert experiment.checkpoint == {"save_last": True, "save_top_k": -1, "every_n_train_steps": 10000}


def test_settings_without_counterpart_are_named_in_one_warning(caplog):
    with caplog.at_level(logging.WARNING, "distill3d"):
        made = system("sd", "system.prompt_processor.spawn=false", "system.guidance.token_merging=true", "n_gpus=1")
    assert [record.getMessage() for record in caplog.records] == [
        "ignored settings of threestudio that have no counterpart here: "
        "n_gpus, system.prompt_processor.spawn, system.guidance.token_merging"
    ]
    assert "spawn" not in made["prompt_processor"]


def test_misspelt_settings_stay_errors():
    with pytest.raises(ValueError, match=r"system\.guidance\.weighting_stratgy is not a setting"):
        system("sd", "system.guidance.weighting_stratgy=sds")


def test_settings_move_to_where_they_belong():
    made = system(
        "sd",
        "system.guidance.half_precision_weights=false",
        "system.guidance.enable_sequential_cpu_offload=true",
        "system.guidance.view_dependent_prompting=false",
        "system.prompt_processor.use_perp_neg=true",
    )
    assert made["prior"]["precision"] == "float32"
    assert made["prior"]["cpu_offload"] is True
    assert made["prompt_processor"]["view_dependent_prompting"] is False
    assert made["guidance"]["use_perp_neg"] is True


def test_perp_neg_means_here_what_it_means_there():
    made = system(
        "if",
        "system.prompt_processor.use_perp_neg=true",
        "system.guidance.use_perp_neg=true",  # threestudio's own YAML names it twice
        "system.prompt_processor.perp_neg_f_sb=[2, 0.5, -0.6]",
        "system.prompt_processor.perp_neg_f_fsb=[1, 0.25, 0.9]",
        "system.prompt_processor.perp_neg_f_fs=[3, 0.5, -2]",
        "system.prompt_processor.perp_neg_f_sf=[5, 0.5, -2]",
        "system.prompt_processor.overhead_threshold=50",
    )
    rule = build(find("guidance", "sds").Config, made["guidance"], "system.guidance")
    assert rule.use_perp_neg
    assert rule.perp_neg_decays == ViewDecays((2, 0.5, -0.6), (1, 0.25, 0.9), (3, 0.5, -2), (5, 0.5, -2))
    assert rule.perp_neg_overhead_threshold == made["prompt_processor"]["overhead_threshold"] == 50
    assert rule.guidance_scale == 19.0  # uncond + s (...) there


@pytest.mark.parametrize(
    ("scale", "w"), [("[0, 100, 20, 500]", [0, 99, 19, 500]), ("[100, 20, 500]", [99, 19, 500]), ("7.5", 6.5)]
)
def test_scheduled_scales_of_perp_neg_are_one_less(scale, w):
    made = system("sd", "system.prompt_processor.use_perp_neg=true", f"system.guidance.guidance_scale={scale}")
    assert made["guidance"]["guidance_scale"] == w


def test_a_vsd_guidance_there_is_vsd_here(caplog):
    with caplog.at_level(logging.WARNING, "distill3d"):
        made = system(
            "sd",
            "system.guidance_type=stable-diffusion-vsd-guidance",
            "system.guidance={guidance_scale: 7.5, min_step_percent: 0.02, max_step_percent: 0.98, "
            "lora_cfg_training: true, max_step_percent_annealed: 0.5, anneal_start_step: 5000}",
            "system.loss={lambda_vsd: 1, lambda_lora: 1}",
            "system.optimizer.params.guidance.lr=1e-4",
        )
    assert made["guidance_type"] == "vsd"
    assert made["guidance"]["guidance_scale"] == 6.5
    assert [scheduled(made["guidance"]["max_step_percent"], step) for step in (0, 4999, 5001)] == [0.98, 0.98, 0.5]
    assert made["loss"]["lambda_sds"] == 1
    assert made["optimizer"]["params"]["guidance"]["lr"] == 1e-4
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "system.guidance.lora_cfg_training"
    ]


def test_our_own_prior_setting_wins():
    made = system("sd", "system.prior.pretrained_model_name_or_path=embedded")
    assert made["prior"]["pretrained_model_name_or_path"] == "embedded"


def test_another_rule_can_be_chosen_under_its_model():
    made = system("if", "system.guidance_type=lmc-sds")
    assert made["guidance_type"] == "lmc-sds"
    assert made["prior"]["pretrained_model_name_or_path"] == MODELS["if"]


def test_a_guidance_without_a_model_takes_threestudios_default(tmp_path):
    (tmp_path / "a.yaml").write_text("system: {guidance_type: deep-floyd-guidance}")
    made = load(tmp_path / "a.yaml", [PROMPT]).experiment.system
    assert made["prior"]["pretrained_model_name_or_path"] == "DeepFloyd/IF-I-XL-v1.0"


def test_our_own_configs_are_left_alone(tmp_path):
    (tmp_path / "a.yaml").write_text("system: {guidance_type: sds, loss: {lambda_orient: 1}}")
    made = load(tmp_path / "a.yaml", [PROMPT]).experiment.system
    assert "orient_reduction" not in made["loss"]
