"""Image to 3D: a picture cut out and framed, its view fitted, the other views distilled."""

from __future__ import annotations

import importlib.util
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from posed_scenes import colored_box
from system_doubles import TINY_DATA, TINY_SYSTEM, make_trainer, merged

from distill3d.cli import main
from distill3d.config.check import ConfigError, build
from distill3d.config.registry import find
from distill3d.data.reference_image import ReferenceImageDataModule
from distill3d.evaluation.render_views import mesh_views
from distill3d.runtime.cutout import cut_out, framed

CAMERA = {"reference_elevation_deg": 20.0, "reference_azimuth_deg": 40.0, "reference_distance": 1.6}
SYSTEM = merged(
    TINY_SYSTEM,
    {
        "geometry": {"pos_encoding_config": {"base_resolution": 16}},
        "renderer": {"num_samples_per_ray": 32},
        "material": {"ambient_only_steps": 10_000},
        "background_type": "solid-color-background",
        "background": {"color": [0.5, 0.5, 0.5], "random_aug": True, "random_aug_prob": 0.5},
        "optimizer": {"args": {"lr": 0.05, "betas": [0.9, 0.99]}},
        "loss": {"lambda_sds": 1e-4, "lambda_rgb": 1.0, "lambda_mask": 1.0, "lambda_orient": 0.0},
    },
)


def data_module(image, **changes):
    settings = merged({**TINY_DATA, "reference_size": 16, "reference_fovy_deg": 40.0, **CAMERA}, changes)
    return ReferenceImageDataModule(build(ReferenceImageDataModule.Config, {"image": str(image), **settings}, "data"))


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """The box, red at the front and green on the left, as the camera of `CAMERA` sees it, before nothing."""
    path = tmp_path_factory.mktemp("photo") / "box.png"
    Image.new("RGBA", (4, 4), "red").save(path)  # for the camera of a module, which reads no file
    seen = mesh_views(colored_box(), data_module(path).reference_camera(32), "albedo")
    straight = torch.cat([seen.rgb / seen.alpha.clamp_min(1e-6), seen.alpha], 1)[0]
    Image.fromarray((straight.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save(path)
    return path


def square(path, size=(10, 6), box=(2, 1, 5, 3), opaque=False):
    """A red rectangle, at columns 2 to 4 and rows 1 to 2, before blue that is transparent."""
    image = Image.new("RGBA", size, (0, 0, 255, 255 if opaque else 0))
    image.paste((255, 0, 0, 255), box)
    image.save(path)
    return path


def test_the_object_is_cut_out_by_its_alpha_and_padded_to_a_square(tmp_path):
    picture = cut_out(square(tmp_path / "a.png"))
    assert picture.shape == (4, 10, 10)
    expected = torch.zeros(4, 10, 10)
    expected[0, 3:5, 2:5] = expected[3, 3:5, 2:5] = 1.0  # no blue is left, and two rows were added above
    assert torch.equal(picture, expected)


@pytest.mark.parametrize("fill", [0.5, 0.8, 1.0])
def test_the_object_is_centred_and_as_large_as_is_asked(tmp_path, fill):
    rgb, alpha = framed(cut_out(square(tmp_path / "a.png", (200, 120), (20, 10, 80, 50))), 60, fill)
    rows, columns = (torch.nonzero((alpha[0] > 0.5).any(axis)).flatten() for axis in (1, 0))
    assert len(columns) == pytest.approx(60 * fill, abs=1) and len(rows) == pytest.approx(40 * fill, abs=1)
    for line in (rows, columns):
        assert float(line.float().mean()) == pytest.approx(29.5, abs=0.5)
    torch.testing.assert_close(rgb[0], alpha[0])


def test_a_picture_whose_background_stays_is_refused_with_what_to_do(tmp_path, monkeypatch):
    path = square(tmp_path / "a.png", opaque=True)
    with pytest.raises(ValueError, match=r"a\.png' has no transparent background; give a PNG"):
        cut_out(path, "alpha")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "rembg" else found(name))
    with pytest.raises(ValueError, match=r'rembg, which would remove it, is not installed \(pip install "rembg\['):
        cut_out(path)
    assert (cut_out(path, "none")[3, 2:8] == 1.0).all()
    with pytest.raises(ValueError, match=r"nothing is left of the picture"):
        cut_out(square(tmp_path / "b.png", box=(0, 0, 0, 0)))
    with pytest.raises(ValueError, match=r"data\.image='.*none\.png' is no file"):
        data_module(tmp_path / "none.png").check()


def test_rembg_is_asked_where_there_is_no_alpha(tmp_path, monkeypatch):
    def remove(image):
        cut = np.array(image)
        cut[..., 3] = np.where(cut[..., 0] > 128, 255, 0)
        return Image.fromarray(cut)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setitem(__import__("sys").modules, "rembg", SimpleNamespace(remove=remove))
    assert torch.equal(cut_out(square(tmp_path / "a.png", opaque=True)), cut_out(square(tmp_path / "b.png")))


def test_settings_are_checked(tmp_path):
    for wrong, message in (({"fill": 1.5}, "fill=1.5"), ({"reference_size": [8, 16]}, "reference_size")):
        with pytest.raises(ConfigError, match=message):
            data_module(square(tmp_path / "a.png"), **wrong)
    with pytest.raises(ConfigError, match=r"image is not set"):
        data_module("")


def trained(folder, photo, steps, **changes):
    cls = find("system", "image-to-3d-system")
    system = cls(build(cls.Config, merged(SYSTEM, changes), "system"), seed=0)
    system.attach(SimpleNamespace(root=folder))
    trainer, data = make_trainer(folder, steps), data_module(photo)
    trainer.fit(system, data)
    trainer.test(system, data, verbose=False)
    return system, json.loads((folder / "metrics.json").read_text())


def test_the_scene_comes_to_show_the_picture_and_only_by_its_loss(tmp_path, photo):
    system, fitted = trained(tmp_path / "a", photo, 60)
    _, distilled = trained(tmp_path / "b", photo, 60, loss={"lambda_rgb": 0.0, "lambda_mask": 0.0})
    assert fitted["reference_psnr_db"] > 20.0 > 15.0 > distilled["reference_psnr_db"]
    assert "save/it60-reference.png" in fitted["files"]
    with torch.no_grad():
        reference = data_module(photo).reference(0)
        seen = system.scene.fitted(reference.cameras, system.step_now())
        assert (seen.opacity - reference.alpha).abs().mean() < 0.1


def test_the_losses_are_mean_squared_errors_before_the_scenes_own_background(photo):
    cls = find("system", "image-to-3d-system")
    system = cls(build(cls.Config, merged(SYSTEM, {"renderer": {"randomized": False}}), "system"), seed=0)
    system.trainer = make_trainer(photo.parent, 1)
    reference = data_module(photo).reference(0)
    with torch.no_grad():
        terms = system.reference_terms(reference)
        seen = system.scene.fitted(reference.cameras, system.step_now())
    # the colour behind the scene, from a pixel that the object leaves empty
    color = (seen.rgb - 0.0)[0, :, 0, 0] if float(seen.opacity[0, 0, 0, 0]) == 0.0 else None
    assert color is not None
    target = reference.rgb + (1 - reference.alpha) * color[:, None, None]
    torch.testing.assert_close(terms["rgb"], (seen.rgb - target).square().mean())
    torch.testing.assert_close(terms["mask"], (seen.opacity - reference.alpha).square().mean())


def test_the_shipped_config_trains(tmp_path, photo, monkeypatch):
    from test_configs import IN_LITTLE

    monkeypatch.setattr(os, "environ", dict(os.environ))  # a trial tells its children where it is
    small = [*IN_LITTLE, "data.reference_size=24", "trainer.max_steps=2", f"exp_root_dir={tmp_path}"]
    assert main(["--config", "image-to-3d.yaml", "--train", f"data.image={photo}", *small]) == 0
    (path,) = tmp_path.rglob("metrics.json")
    metrics = json.loads(path.read_text())
    assert metrics["steps"] == 2 and not metrics["diverged"]
    assert {"save/it2-reference.png", "save/it2-export/model.glb"} <= set(metrics["files"])
