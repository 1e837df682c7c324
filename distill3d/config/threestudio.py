"""threestudio's names: its YAMLs run unchanged, and what has no counterpart here is named in one warning.

There, a guidance mixes a diffusion model with a rule for the gradient. Here ``system.prior`` is the model and
``system.guidance`` the rule, so the old guidance names stand for a pair. Its ``guidance_scale`` in
``text + s (text - uncond)`` is the papers' w, as here, but for VSD and with Perp-Neg it is diffusers' w + 1.
Its orientation loss is divided by the number of rays that hit.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from distill3d.config.registry import Kind, find

log = logging.getLogger(__name__)

# guidance name -> its rule, and the model that it loads where none is named
_GUIDANCES = {
    "stable-diffusion-guidance": ("sds", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
    "deep-floyd-guidance": ("sds", "DeepFloyd/IF-I-XL-v1.0"),
    "stable-diffusion-vsd-guidance": ("vsd", "stabilityai/stable-diffusion-2-1-base"),
}
_PROMPT_PROCESSORS = ("stable-diffusion-prompt-processor", "deep-floyd-prompt-processor")
_MODEL = "pretrained_model_name_or_path"

# (where it is there, where it is here), below ``system``
_MOVES = [
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
    "data": ("rays_d_normalize",),
    "system": ("weights", "weights_ignore_modules", "cleanup_after_validation_step", "cleanup_after_test_step"),
    "geometry": (
        *("n_input_dims", "n_feature_dims", "shape_init", "shape_init_params", "isosurface", "isosurface_method"),
        *("isosurface_resolution", "isosurface_threshold", "isosurface_chunk", "isosurface_coarse_to_fine"),
        *("isosurface_deformable_grid", "isosurface_remove_outliers", "isosurface_outlier_n_faces_threshold"),
        *("anneal_density_blob_std_config", "detach_blob_points", "pred_normal"),
    ),
    "material": ("use_bump", "diffuse_light_color", "ambient_light_color"),
    "background": ("n_output_dims", "random_aug", "random_aug_prob", "share_aug_bg", "eval_color"),
    "renderer": (
        *("estimator", "prune_alpha_threshold", "return_comp_normal", "return_normal_perturb", "randomized"),
        *("num_samples_per_ray_importance", "proposal_network_config", "prop_optimizer_config", "grid_prune"),
    ),
    "prompt_processor": (
        *("spawn", "use_cache", "use_prompt_debiasing", "pretrained_model_name_or_path_prompt_debiasing"),
        *("prompt_debiasing_mask_ids", "view_dependent_prompt_front"),
    ),
    "guidance": (
        *("enable_memory_efficient_attention", "enable_attention_slicing", "token_merging", "token_merging_params"),
        *("sqrt_anneal", "trainer_max_steps", "use_img_loss", "use_sjc", "var_red", "max_items_eval", "grad_clip"),
        *("pretrained_model_name_or_path_lora", "guidance_scale_lora", "lora_cfg_training", "lora_n_timestamp_samples"),
        "camera_condition_type",
    ),
    "exporter": (
        *("save_name", "save_normal", "save_uv", "save_texture", "texture_size", "texture_format"),
        *("xatlas_chart_options", "xatlas_pack_options", "context_type"),
    ),
}


def translate(content: dict[str, Any]) -> dict[str, Any]:
    """Settings in threestudio's names as settings in ours; settings in ours are returned as they are."""
    system = content["system"]
    if not _is_foreign(system):
        return content
    system = {key: dict(value) if isinstance(value, dict) else value for key, value in system.items()}
    lost = _rename(system)
    content = {**content, "system": system}
    lost += _without_counterpart(content)
    if lost:
        log.warning("ignored settings of threestudio that have no counterpart here: %s", ", ".join(lost))
    return content


def _is_foreign(system: dict[str, Any]) -> bool:
    guidance = system.get("guidance")
    return (
        str(system.get("guidance_type")) in _GUIDANCES
        or system.get("prompt_processor_type") in _PROMPT_PROCESSORS
        or (isinstance(guidance, dict) and _MODEL in guidance)
    )


def _rename(system: dict[str, Any]) -> list[str]:
    """Rename types and move settings, in place; returns settings that contradict others."""
    rule, default_model = _GUIDANCES.get(system.get("guidance_type", ""), (None, None))
    if rule:
        system["guidance_type"] = rule
    if system.get("prompt_processor_type") in _PROMPT_PROCESSORS:
        system["prompt_processor_type"] = "prompt-processor"
    lost = []
    for (old, key), (new, name) in _MOVES:
        if not isinstance(system.get(old), dict) or key not in system[old]:
            continue
        value = system[old].pop(key)
        if system.setdefault(new, {}).setdefault(name, value) != value:
            lost.append(f"system.{old}.{key}")
    _rename_guidance(system)
    if system.get("renderer_type", "nerf-volume-renderer") == "nerf-volume-renderer":
        system["renderer"] = {"max_samples_per_ray": None, **(system.get("renderer") or {})}  # no cap there
    half = (system.get("guidance") or {}).pop("half_precision_weights", True)
    if not half:
        system.setdefault("prior", {}).setdefault("precision", "float32")
    if default_model:
        system.setdefault("prior", {}).setdefault(_MODEL, default_model)
    loss = system.get("loss")
    if isinstance(loss, dict) and "lambda_orient" in loss:
        loss.setdefault("orient_reduction", "ray_mean")
    if isinstance(loss, dict) and "lambda_vsd" in loss:
        loss["lambda_sds"] = loss.pop("lambda_vsd")
        if loss.pop("lambda_lora", 1.0) != 1.0:  # Adam's step does not depend on it, so here it has weight 1
            lost.append("system.loss.lambda_lora")
    return lost


def _rename_guidance(system: dict[str, Any]) -> None:
    """The settings of VSD and Perp-Neg that have another form here, in place."""
    guidance, prompts = system.get("guidance"), system.get("prompt_processor")
    if not isinstance(guidance, dict):
        return
    is_vsd, is_perp_neg = system.get("guidance_type") == "vsd", guidance.get("use_perp_neg")
    if (is_vsd or is_perp_neg) and "guidance_scale" in guidance:
        guidance["guidance_scale"] = _one_less(guidance["guidance_scale"])
    if is_perp_neg and isinstance(prompts, dict) and "overhead_threshold" in prompts:
        guidance.setdefault("perp_neg_overhead_threshold", prompts["overhead_threshold"])
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
    kinds: tuple[Kind, ...] = (
        "geometry",
        "material",
        "background",
        "renderer",
        "prompt_processor",
        "guidance",
        "exporter",
    )
    for kind in kinds:
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
