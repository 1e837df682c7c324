"""threestudio's 55 files: what runs, why the others do not, and what their names mean here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_pipelines import TinyFolders, tiny_settings

from benchmarks.threestudio_yamls import FILES, content, rows, table
from distill3d import run
from distill3d.config.check import ConfigError, edit_distance, nearest
from distill3d.config.experiment import load
from distill3d.config.files import PROJECT
from distill3d.config.registry import find
from distill3d.config.threestudio_types import COUNTERPARTS, SD2
from distill3d.verbs import Request

RUN = {
    *("dreamfusion-sd", "dreamfusion-if", "dreamfusion-if-perpneg", "gradio/dreamfusion-sd", "gradio/dreamfusion-if"),
    *("hifa", "sdi", "magic3d-coarse-sd", "magic3d-coarse-if", "debugging/stablediffusion"),
    *("prolificdreamer", "prolificdreamer-scene", "prolificdreamer-patch"),
    *(f"experimental/prolificdreamer-{name}" for name in ("importance", "propnet")),
    *(
        f"experimental/unified-guidance/{n}"
        for n in ("dreamfusion-sd", "hifa", "prolificdreamer", "prolificdreamer-hifa")
    ),
}


@pytest.fixture(scope="module")
def table_rows() -> dict[str, str | None]:
    return dict(rows())


def test_each_file_runs_or_is_refused_with_a_reason_and_without_a_guess(table_rows: dict[str, str | None]) -> None:
    assert len(table_rows) == 55
    assert {name for name, reason in table_rows.items() if reason is None} == RUN
    refused = [reason for reason in table_rows.values() if reason is not None]
    assert all("is threestudio's, and not here: " in reason and "did you mean" not in reason for reason in refused)


def test_the_table_stands_in_the_docs(table_rows: dict[str, str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.threestudio_yamls.rows", lambda: iter(table_rows.items()))
    assert table() in (PROJECT / "docs/threestudio.md").read_text(encoding="utf-8")


def test_every_counterpart_is_registered_and_takes_what_it_brings() -> None:
    for slot, names in COUNTERPARTS.items():
        for name, found in names.items():
            assert bool(found.ours) != bool(found.reason), name
            if found.ours:
                fields = find(slot, found.ours).Config.__dataclass_fields__  # type: ignore[arg-type, attr-defined]
                assert set(found.settings) <= set(fields), name


def loaded(tmp_path: Path, name: str, *arguments: str, **extra: Any) -> Any:
    file = tmp_path / "theirs.yaml"
    file.write_text(yaml.safe_dump(content({**FILES[name], **extra})))
    return load(file, arguments).experiment


def test_prolificdreamer_is_vsd_of_colours_that_are_never_lit(tmp_path: Path) -> None:
    made = loaded(tmp_path, "prolificdreamer", **{"system.material.color_activation": "sigmoid"}).system
    assert (made["guidance_type"], made["guidance"]["guidance_scale"]) == ("vsd", 6.5)
    assert made["material"] == {"ambient_only_steps": 1_000_000_000, "albedo_activation": "sigmoid"}
    assert made["optimizer"]["params"]["geometry.weights"] == {"lr": 0.001}
    assert not [name for name in made["optimizer"]["params"] if name.endswith("_network")]
    assert made["loss"]["lambda_sds"] == 1.0


def test_rates_that_differ_within_one_network_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded(tmp_path, "prolificdreamer", "system.optimizer.params={geometry.density_network: {lr: 0.1}, "
           "geometry.feature_network: {lr: 0.2}}")  # fmt: skip
    assert "system.optimizer.params.geometry.feature_network" in caplog.text


def test_sdi_is_the_authors_program_at_the_papers_scales(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = loaded(tmp_path, "sdi").system
    guidance = made["guidance"]
    assert made["guidance_type"] == "sdi" and guidance["released"] is True and guidance["use_perp_neg"] is True
    assert (guidance["guidance_scale"], guidance["inversion_guidance_scale"]) == (6.5, -8.5)  # Perp-Neg counts from 1
    assert "system.loss.lambda_convex" in caplog.text


def test_hifa_falls_as_a_square_root_and_its_image_loss_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert loaded(tmp_path, "hifa").system["guidance"]["timestep_sampling"] == "hifa-sqrt"
    assert "system.guidance.use_img_loss" in caplog.text


@pytest.mark.parametrize(("name", "scale"), [("dreamfusion-sd", 99.0), ("prolificdreamer", 6.5)])
def test_the_unified_guidance_counts_from_the_unconditional_answer(tmp_path: Path, name: str, scale: float) -> None:
    """Under SDS, too; and its time does not fall by itself, as that of the older VSD guidance does."""
    told = {"system.guidance.guidance_scale": scale + 1, "system.guidance.max_step_percent": 0.98}
    guidance = loaded(tmp_path, f"experimental/unified-guidance/{name}", **told).system["guidance"]
    assert guidance["guidance_scale"] == scale
    assert guidance["max_step_percent"] in (0.98, [5000, 0.98, 0.98, 5000])


@pytest.mark.parametrize("rule", ["csd", "ism"])
def test_rules_of_other_repositories_are_the_programs_of_their_authors(tmp_path: Path, rule: str) -> None:
    half = {"system.guidance.half_precision_weights": False}
    made = loaded(tmp_path, "dreamfusion-sd", guidance=f"stable-diffusion-{rule}-guidance", **half).system
    assert (made["guidance_type"], made["guidance"]["released"]) == (rule, True)
    assert made["prior"] == {"pretrained_model_name_or_path": SD2, "precision": "float32"}


def test_a_silent_file_has_the_defaults_of_their_types(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = loaded(tmp_path, "dreamfusion-sd").system["geometry"]
    assert (made["normal_type"], made["mlp_network_config"]) == ("finite_difference", {"n_neurons": 64})
    own = {"system.geometry.normal_type": "analytic", "system.geometry.mlp_network_config": {"n_neurons": 16}}
    made = loaded(tmp_path, "dreamfusion-sd", **own).system["geometry"]
    assert (made["normal_type"], made["mlp_network_config"]) == ("analytic", {"n_neurons": 16})


@pytest.mark.parametrize("name", ["sdi", "prolificdreamer"])
def test_what_is_done_as_they_say_is_not_called_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    loaded(tmp_path, name, **{"system.material.n_output_dims": 3} if name == "prolificdreamer" else {})
    assert "enable_sdi" not in caplog.text and "n_output_dims" not in caplog.text


def test_mvdreams_extension_is_sets_of_views_under_the_reconstruction_loss(tmp_path: Path) -> None:
    extension = {
        "data": "mvdream-random-multiview-camera-datamodule",
        "data.n_view": 4,
        "data.batch_size": 8,
        "system": "mvdream-system",
        "background": "mvdream-neural-environment-map-background",
        "guidance": "mvdream-multiview-diffusion-guidance",
        "system.guidance.guidance_scale": 50.0,
        "system.guidance.recon_std_rescale": 0.5,
        "system.guidance.model_name": "sd-v2.1-base-4view",
        "system.guidance.ckpt_path": "/models/mvdream.pt",
    }
    made = loaded(tmp_path, "dreamfusion-sd", **extension)
    assert (made.data_type, made.data["n_view"], made.data["relative_radius"]) == ("random-camera-datamodule", 4, True)
    assert (made.system["guidance_type"], made.system["guidance"]["guidance_scale"]) == ("reconstruction-sds", 49.0)
    assert made.system["background_type"] == "neural-environment-map-background"


def test_gpus_are_devices_and_empty_settings_of_stages_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    empty = {"system.weights": None, "system.geometry_convert_from": None, "system.stage": "coarse"}
    made = loaded(tmp_path, "dreamfusion-sd", "n_gpus=2", **empty)
    assert made.trainer["devices"] == 2 and caplog.text == ""


def test_a_density_begins_with_that_of_another_trial(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    converted = loaded(tmp_path, "prolificdreamer", **{"system.geometry_convert_from": "a.ckpt"}).system
    assert converted["weights"] == "a.ckpt"
    assert converted["weights_ignore_modules"] == ["material", "background", "occupancy"]
    whole = {"system.weights": "b.ckpt", "system.weights_ignore_modules": ["background"]}
    made = loaded(tmp_path, "prolificdreamer", **whole, **{"system.geometry_convert_from": "a.ckpt"}).system
    assert (made["weights"], made["weights_ignore_modules"]) == ("b.ckpt", ["background"])
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"system.stage": "geometry"}, r"system\.stage is threestudio's.*resume=TRIAL"),
        ({"system.refinement": True}, r"system\.refinement is threestudio's"),
        ({"system.material.n_output_dims": 4}, r"n_output_dims=4 is threestudio's.*no latents"),
        ({"system": "sdj-system"}, r"'sdj-system' is not a registered system; known: "),
    ],
)
def test_what_is_another_experiment_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, "prolificdreamer", **settings)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("", "abc", 3),
        ("abc", "abc", 0),
        ("lr", "rl", 1),
        ("cuont", "count", 1),
        ("sdi", "svg", 2),
        ("kitten", "sitting", 3),
    ],
)
def test_edit_distance(a: str, b: str, expected: int) -> None:
    assert edit_distance(a, b) == edit_distance(b, a) == expected


def test_a_hint_is_a_slip_or_a_beginning_and_never_a_guess() -> None:
    assert nearest("lambda_orinet", ["lambda_opaque", "lambda_orient"]) == "did you mean 'lambda_orient'?"
    assert nearest("pretrained_model", ["precision", "pretrained_model_name_or_path"]).startswith("did you mean 'pretr")
    assert nearest("sdi-system", ["svg-edit-system", "dreamfusion-system"]).startswith("known: ")
    assert nearest("any", []) == "there are none"


SMALL = {
    "data.width": 8,
    "data.height": 8,
    "system.geometry.pos_encoding_config.log2_hashmap_size": 8,
    "system.geometry.pos_encoding_config.n_levels": 4,
    "system.renderer.num_samples_per_ray": 16,
    "system.material.ambient_only_steps": 1,
    "trainer.val_check_interval": 1000,
    "trainer.max_steps": 2,
    "trainer.enable_progress_bar": False,
    "use_timestamp": False,
}


@pytest.mark.parametrize("name", ["prolificdreamer", "magic3d-coarse-if", "sdi", "hifa"])
def test_it_trains_on_a_tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("DISTILL3D_CACHE", str(tmp_path / "cache"))
    kind = "deepfloyd-if" if name.endswith("-if") else "stable-diffusion"
    prior = {"pretrained_model_name_or_path": str(TinyFolders(tmp_path)(kind)), **tiny_settings(kind)}
    settings = {**SMALL, "exp_root_dir": str(tmp_path / "out"), **{f"system.prior.{k}": v for k, v in prior.items()}}
    file = tmp_path / "theirs.yaml"
    file.write_text(yaml.safe_dump(content(FILES[name])))
    written = (f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items())
    prepared = run.prepare(Request("train", str(file), tuple(written)))
    before = {key: value.clone() for key, value in prepared.system.state_dict().items()}
    prepared.trainer.fit(prepared.system, datamodule=prepared.data)
    after = prepared.system.state_dict()
    assert prepared.trainer.global_step == 2
    assert any((after[key] != value).any() for key, value in before.items() if "encoding" in key)
