"""threestudio's names: its YAMLs run unchanged, and what has no counterpart here is named in one warning.

There, a guidance mixes a diffusion model with a rule for the gradient. Here ``system.prior`` is the model and
``system.guidance`` the rule, so the old guidance names stand for a pair. Its ``guidance_scale`` in
``text + s (text - uncond)`` is the papers' w, as here, but for VSD, MVDream, the unified
guidance and with Perp-Neg it is diffusers' w + 1. Its orientation loss is divided by the number of rays that hit.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from distill3d.config.check import ConfigError
from distill3d.config.registry import Kind, find
from distill3d.config.threestudio_types import COUNTERPARTS, Counterpart, counterpart

log = logging.getLogger(__name__)

_MODEL = "pretrained_model_name_or_path"
# what their density has where a file is silent, and ours has otherwise
_GEOMETRY = {"normal_type": "finite_difference", "mlp_network_config": {"n_neurons": 64}}
_DIFFUSERS_SCALE = ("vsd", "reconstruction-sds")  # rules whose guidance_scale is w + 1 there

# (where it is there, where it is here), below ``system``
_MOVES = [
    (("guidance", "ckpt_path"), ("prior", _MODEL)),
    (("guidance", _MODEL), ("prior", _MODEL)),
    (("prompt_processor", _MODEL), ("prior", _MODEL)),
    (("guidance", "enable_channels_last_format"), ("prior", "channels_last")),
    (("guidance", "enable_sequential_cpu_offload"), ("prior", "cpu_offload")),
    (("guidance", "view_dependent_prompting"), ("prompt_processor", "view_dependent_prompting")),
    *(
        (("prompt_processor", name), ("guidance", name))
        for name in ("use_perp_neg", "perp_neg_f_sb", "perp_neg_f_fsb", "perp_neg_f_fs", "perp_neg_f_sf")
    ),
]

# settings of threestudio's types for these experiments; those that ours lack are named in the warning
_SETTINGS: dict[str, tuple[str, ...]] = {
    "": ("n_gpus", "exp_dir", "trial_name", "trial_dir"),
    "data": ("rays_d_normalize", "zoom_range"),
    "system": (
        *("cleanup_after_validation_step", "cleanup_after_test_step"),
        *("geometry_convert_override", "geometry_convert_inherit_texture", "visualize_samples", "freq"),
    ),
    "geometry": (
        *("n_input_dims", "n_feature_dims", "shape_init", "shape_init_params", "isosurface", "isosurface_method"),
        *("isosurface_resolution", "isosurface_threshold", "isosurface_chunk", "isosurface_coarse_to_fine"),
        *("isosurface_deformable_grid", "isosurface_remove_outliers", "isosurface_outlier_n_faces_threshold"),
        *("anneal_density_blob_std_config", "detach_blob_points", "pred_normal"),
    ),
    "material": ("use_bump", "diffuse_light_color", "ambient_light_color", "n_output_dims"),
    "background": ("n_output_dims", "random_aug", "random_aug_prob", "share_aug_bg", "eval_color"),
    "renderer": (
        *("estimator", "prune_alpha_threshold", "return_comp_normal", "return_normal_perturb", "randomized"),
        *("num_samples_per_ray_importance", "num_samples_per_ray_proposal", "proposal_network_config"),
        *("prop_optimizer_config", "prop_scheduler_config", "grid_prune", "near_plane", "far_plane"),
        *("base_renderer_type", "base_renderer", "patch_size", "global_detach", "global_downsample"),
    ),
    "prompt_processor": (
        *("spawn", "use_cache", "use_prompt_debiasing", "pretrained_model_name_or_path_prompt_debiasing"),
        *("prompt_debiasing_mask_ids", "view_dependent_prompt_front"),
    ),
    "guidance": (
        *("enable_memory_efficient_attention", "enable_attention_slicing", "token_merging", "token_merging_params"),
        *("trainer_max_steps", "use_img_loss", "use_sjc", "var_red", "max_items_eval", "grad_clip"),
        *("guidance_type", "cache_dir", "local_files_only", "vram_O", "vsd_phi_model_name_or_path"),
        *("vsd_guidance_scale_phi", "vsd_use_lora", "vsd_lora_cfg_training", "vsd_lora_n_timestamp_samples"),
        *(
            "vsd_use_camera_condition",
            "vsd_camera_condition_type",
            "return_rgb_1step_orig",
            "return_rgb_multistep_orig",
        ),
        *("model_name", "n_view", "image_size", "recon_loss", "n_ddim_steps", "sdi_guidance_scale"),
        *("pretrained_model_name_or_path_lora", "guidance_scale_lora", "lora_cfg_training", "lora_n_timestamp_samples"),
        "camera_condition_type",
    ),
    "exporter": (
        *("save_name", "save_normal", "save_uv", "save_texture", "texture_size", "texture_format"),
        *("xatlas_chart_options", "xatlas_pack_options", "context_type"),
    ),
}


_SLOTS: tuple[Kind, ...] = (
    *("geometry", "material", "background", "renderer", "prompt_processor", "guidance", "exporter"),
)


def translate(content: dict[str, Any]) -> dict[str, Any]:
    """Settings in threestudio's names as settings in ours; settings in ours are returned as they are.

    Raises ConfigError, with the reason, for what has no counterpart and without which the experiment is another one.
    """
    if not is_foreign(content):
        return content
    content = {key: dict(value) if isinstance(value, dict) else value for key, value in content.items()}
    system = {key: dict(value) if isinstance(value, dict) else value for key, value in content["system"].items()}
    content["system"] = system
    _rename_types(content)
    _of_stages(content)
    lost = _rename(system) + _without_counterpart(content)
    if lost:
        log.warning("ignored settings of threestudio that have no counterpart here: %s", ", ".join(lost))
    return content


def is_foreign(content: dict[str, Any]) -> bool:
    """Whether a type or a setting has threestudio's name."""
    system = content["system"]
    guidance = system.get("guidance")
    named = [counterpart(kind, content.get(f"{kind}_type")) for kind in ("data", "system")]
    named += [counterpart(kind, system.get(f"{kind}_type")) for kind in _SLOTS if kind in COUNTERPARTS]
    return any(named) or (isinstance(guidance, dict) and _MODEL in guidance)


def _rename_types(content: dict[str, Any]) -> None:
    """Their types as ours, in place, with what theirs have by themselves. Raises ConfigError where we have none."""
    system = content["system"]
    system.setdefault("guidance", {})
    for owner, where, kinds in ((content, "", ("system", "data")), (system, "system.", _SLOTS)):
        for kind in kinds:
            name = owner.get(f"{kind}_type")
            found = counterpart(kind, name) if kind in COUNTERPARTS else None
            if found is None:
                continue
            setting = f"{where}{kind}_type"
            if found.reason:
                raise ConfigError(f"{setting}={name!r} is threestudio's, and not here: {found.reason}", setting)
            owner[f"{kind}_type"] = found.ours
            _adopt(owner, kind, str(name), found)


def _adopt(owner: dict[str, Any], kind: str, name: str, found: Counterpart) -> None:
    """The settings of one of their types, in place, before they are renamed."""
    if kind == "system" or not isinstance(owner.get(kind) or {}, dict):
        return  # what is no mapping is refused later, by its name
    own = owner[kind] = {**found.settings, **(owner.get(kind) or {})}
    if found.model is not None:
        prior = owner["prior"] = dict(owner.get("prior") or {})
        prior.setdefault("_default", found.model)
    if name == "no-material":
        _refuse_latents(own.get("n_output_dims", 3), "system.material.n_output_dims")
        if own.get("color_activation") is not None:
            own.setdefault("albedo_activation", own["color_activation"])
        own.pop("n_output_dims", None)  # three, as here
        for key in ("color_activation", "input_encoding_config", "mlp_network_config", "requires_normal"):
            own.pop(key, None)
    elif name == "stable-diffusion-unified-guidance":
        own["_from_unconditional"] = True
        owner["guidance_type"] = "vsd" if own.pop("guidance_type", "sds") == "vsd" else "sds"
        if owner["guidance_type"] == "vsd":  # its time does not fall at a step
            own.setdefault("max_step_percent_annealed", own.get("max_step_percent", 0.98))
    elif name == "stable-diffusion-sdi-guidance":
        if own.pop("t_anneal", True) is False:
            own.setdefault("timestep_sampling", "uniform")
        if own.pop("enable_sdi", True) is False:
            owner["guidance_type"] = "sds"
    elif kind == "guidance" and found.ours == "reconstruction-sds" and own.get("recon_loss") is False:
        owner["guidance_type"] = "sds"


def _refuse_latents(channels: Any, setting: str) -> None:
    if channels not in (3, None):
        raise ConfigError(
            f"{setting}={channels} is threestudio's, and not here: scenes hold three colours, no latents", setting
        )


def _of_stages(content: dict[str, Any]) -> None:
    """What their stages hand on, in place. Raises ConfigError for a stage of signed distances."""
    system = content["system"]
    devices = content.get("n_gpus")
    if isinstance(devices, int) and devices > 1:
        del content["n_gpus"]
        content["trainer"] = {"devices": devices, **(content.get("trainer") or {})}
    stage, source = system.pop("stage", "coarse"), system.pop("geometry_convert_from", None)
    refined = system.pop("refinement", False)
    if stage != "coarse" or refined:
        name = "stage" if stage != "coarse" else "refinement"
        raise ConfigError(
            f"system.{name} is threestudio's, and not here: its later stages turn a density into tetrahedra. An export "
            "makes the mesh, texture-mesh.yaml paints one, and resume=TRIAL/ckpts/last.ckpt trains on",
            f"system.{name}",
        )
    for name in ("weights", "weights_ignore_modules"):
        if system.get(name) is None:
            system.pop(name, None)
    if source and "weights" not in system:  # of a density and its colours: a copy
        system |= {"weights": source, "weights_ignore_modules": ["material", "background", "occupancy"]}


def _rename(system: dict[str, Any]) -> list[str]:
    """Move settings, in place; returns settings that contradict others."""
    lost = []
    default_model = (system.get("prior") or {}).pop("_default", None)
    for (old, key), (new, name) in _MOVES:
        if not isinstance(system.get(old), dict) or key not in system[old]:
            continue
        value = system[old].pop(key)
        if value is not None and system.setdefault(new, {}).setdefault(name, value) != value:
            lost.append(f"system.{old}.{key}")
    _rename_guidance(system)
    if system.get("geometry_type", "implicit-volume") == "implicit-volume":
        system["geometry"] = {**_GEOMETRY, **(system.get("geometry") or {})}
    if system.get("renderer_type", "nerf-volume-renderer") == "nerf-volume-renderer":
        renderer = system["renderer"] = {"max_samples_per_ray": None, **(system.get("renderer") or {})}  # no cap there
        if renderer.get("estimator", "occgrid") != "occgrid":  # a few samples, placed by a first look, are too few here
            renderer["num_samples_per_ray"] = 512
    half = (system.get("guidance") or {}).pop("half_precision_weights", True)
    if not half:
        system.setdefault("prior", {}).setdefault("precision", "float32")
    if default_model:
        system.setdefault("prior", {}).setdefault(_MODEL, default_model)
    return lost + _rename_losses(system.get("loss")) + _rename_modules(system.get("optimizer"))


def _rename_losses(loss: Any) -> list[str]:
    """Each guidance's own name of its loss; terms of weight 0 are left out."""
    if not isinstance(loss, dict):
        return []
    lost = []
    if "lambda_orient" in loss:
        loss.setdefault("orient_reduction", "ray_mean")
    for name in ("lambda_vsd", "lambda_sdi", "lambda_sd"):
        if name in loss:
            loss["lambda_sds"] = loss.pop(name)
    for name in ("lambda_lora", "lambda_train_phi"):
        if loss.pop(name, 1.0) != 1.0:  # Adam's step does not depend on it, so here it has weight 1
            lost.append(f"system.loss.{name}")
    for name in ("lambda_sds_img", "lambda_sd_img", "lambda_convex", "lambda_guidance"):
        if loss.pop(name, 0.0) != 0.0:
            lost.append(f"system.loss.{name}")
    return lost


def _rename_modules(optimizer: Any) -> list[str]:
    """Density and colour come of one small network here, ``geometry.weights``, so it has one rate."""
    params = optimizer.get("params") if isinstance(optimizer, dict) else None
    if not isinstance(params, dict):
        return []
    params = optimizer["params"] = dict(params)
    lost = []
    for name in ("geometry.density_network", "geometry.feature_network"):
        options = params.pop(name, None)
        if options is not None and params.setdefault("geometry.weights", options) != options:
            lost.append(f"system.optimizer.params.{name}")
    return lost


def _rename_guidance(system: dict[str, Any]) -> None:
    """The settings of VSD and Perp-Neg that have another form here, in place."""
    guidance, prompts = system.get("guidance"), system.get("prompt_processor")
    if not isinstance(guidance, dict):
        return
    rule, is_perp_neg = system.get("guidance_type"), guidance.get("use_perp_neg")
    is_vsd = rule == "vsd"
    is_diffusers = guidance.pop("_from_unconditional", False) or rule in _DIFFUSERS_SCALE or is_perp_neg
    for name in ("guidance_scale", "inversion_guidance_scale"):
        if is_diffusers and name in guidance:
            guidance[name] = _one_less(guidance[name])
    if is_perp_neg and isinstance(prompts, dict) and "overhead_threshold" in prompts:
        guidance.setdefault("perp_neg_overhead_threshold", prompts["overhead_threshold"])
    if guidance.get("weighting_strategy") == "dreamfusion":
        guidance["weighting_strategy"] = "sds"
    if guidance.pop("sqrt_anneal", False):
        guidance.setdefault("timestep_sampling", "hifa-sqrt")
    if is_vsd:  # the upper end of the time falls at one step
        low, start = guidance.pop("max_step_percent_annealed", 0.5), guidance.pop("anneal_start_step", 5000)
        high = guidance.get("max_step_percent", 0.98)
        guidance["max_step_percent"] = high if isinstance(high, list) else [start, high, low, start]


def _one_less(scale: Any) -> Any:
    """A scheduled guidance scale s as w = s - 1."""
    if isinstance(scale, list):
        values = {0, 1} if len(scale) == 3 else {1, *range(2, len(scale), 2)}
        return [_one_less(entry) if place in values else entry for place, entry in enumerate(scale)]
    return scale - 1 if isinstance(scale, (int, float)) else scale  # what is no number is refused later, by its name


def _without_counterpart(content: dict[str, Any]) -> list[str]:
    """Remove, in place, settings that only threestudio has; returns their full names."""
    lost = []
    for key in [key for key in _SETTINGS[""] if key in content]:
        del content[key]
        lost.append(key)
    lost += _remove(content, "data", "data", content["data_type"], "data")
    lost += _remove(content, "system", "system", content["system_type"], "system")
    system = content["system"]
    for kind in _SLOTS:
        lost += _remove(system, kind, kind, system.get(f"{kind}_type"), f"system.{kind}")
    return lost


def _remove(owner: dict[str, Any], name: str, kind: Kind, type_name: str | None, where: str) -> list[str]:
    mapping = owner.get(name)
    if not isinstance(mapping, dict) or type_name is None:
        return []
    cls = find(kind, type_name, f"{where}_type")
    own = {field.name for field in dataclasses.fields(cls.Config)}  # type: ignore[attr-defined]
    lost = [key for key in mapping if key in _SETTINGS[name] and key not in own]
    owner[name] = {key: value for key, value in mapping.items() if key not in lost}
    return [f"{where}.{key}" for key in lost]
