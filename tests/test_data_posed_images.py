"""Posed images: the file and the camera agree, batches follow seed and step, backgrounds are exact."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from posed_scenes import make_data_set

from distill3d.camera import camera_rays
from distill3d.config.check import ConfigError, build
from distill3d.data.posed.module import PosedImageDataModule, training_rows


def module(root, seed=0, **settings):
    return PosedImageDataModule(build(PosedImageDataModule.Config, {"root": str(root), **settings}, "data"), seed)


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    return make_data_set(tmp_path_factory.mktemp("posed") / "box")


def foreign(box, folder, change=lambda content: content, modes=("RGBA",)):
    """The same set as someone else's: one transforms.json, another world, pictures of some mode."""
    folder.mkdir()
    content = json.loads((box / "transforms_train.json").read_text())
    del content["world"]
    for i, frame in enumerate(content["frames"]):
        with Image.open(box / f"{frame['file_path']}.png") as file:
            file.convert(modes[i % len(modes)]).save(folder / f"{i}.png")
        frame["file_path"] = f"{i}.png"
    (folder / "transforms.json").write_text(json.dumps(change(content)))
    return folder


def test_views_are_read_as_they_were_rendered(box):
    data = module(box)
    assert (len(data.train_views), len(data.test_views)) == (6, 2)
    views = data.train_views
    assert views.names[0] == "train/r_000.png" and views.source_root == box
    written = json.loads((box / "transforms_train.json").read_text())["frames"]
    assert torch.equal(views.cameras.c2w, torch.tensor([frame["transform_matrix"] for frame in written]))
    assert torch.allclose(views.cameras.distance, torch.full((6,), 1.6))
    assert torch.allclose(torch.rad2deg(views.cameras.fovy_rad), torch.full((6,), 40.0))
    assert torch.allclose(views.cameras.position.norm(dim=1), views.cameras.distance)


def test_the_ray_through_a_pixel_hits_what_the_pixel_shows(box):
    """The red front is seen where rays come from +x: image, pose and project's rays share one convention."""
    views = module(box, background="black").train_views
    rays = camera_rays(views.cameras)
    at_front = (0.25 - rays.origins[..., 0]) / rays.directions[..., 0]
    hit = rays.origins + at_front[..., None] * rays.directions
    on_face = (hit[..., 1].abs() < 0.12) & (hit[..., 2].abs() < 0.22) & (rays.origins[..., 0] > 0.5) & (at_front > 0)
    red = (views.images[:, 0] > 0.6) & (views.images[:, 1] < 0.4)
    assert on_face.sum() > 20
    assert red[on_face].float().mean() > 0.95
    assert not red[rays.origins[..., 0] < -0.5].any()


def test_a_batch_is_a_function_of_seed_and_step(box):
    one, again, other = module(box), module(box), module(box, seed=1)
    for step in (0, 3, 11):
        assert torch.equal(one.batch(step).images, again.batch(step).images)
    assert any(one.batch(s).index.tolist() != other.batch(s).index.tolist() for s in range(4))
    assert any(one.batch(s).index.tolist() != one.batch(s, rank=1).index.tolist() for s in range(4))


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_every_view_is_seen_equally_often(count):
    seen = Counter(row for step in range(14) for row in training_rows(7, count, seed=3, step=step))
    assert set(seen.values()) == {2 * count}


def test_an_image_over_another_background_is_exact(box):
    white, black = module(box, background="white"), module(box, background="black")
    over = white.train_views.batch([2, 0]).over(torch.zeros(2, 3))
    assert torch.allclose(over.images, black.train_views.batch([2, 0]).images, atol=1e-6)
    assert torch.equal(over.background, torch.zeros(2, 3)) and over.index.tolist() == [2, 0]
    empty = white.train_views.alpha == 0
    assert (white.train_views.images[empty.expand(-1, 3, -1, -1)] == 1).all()


def test_alpha_means_random_backgrounds_in_training_and_white_in_tests(box):
    data = module(box)
    batches = [data.batch(step) for step in range(3)]
    assert len({tuple(color.tolist()) for batch in batches for color in batch.background}) == 6
    for batch in batches:
        corner = batch.images[:, :, 0, 0]
        assert torch.allclose(corner, batch.background, atol=1e-6)
    assert torch.equal(data.test_views.background, torch.ones(3))
    assert torch.equal(module(box, background="white").batch(0).background, torch.ones(2, 3))


def test_photographs_have_no_alpha(box, tmp_path):
    views = module(foreign(box, tmp_path / "rgb", modes=("RGB",)), test_every=3).train_views
    assert views.alpha is None and views.background is None
    batch = views.batch([0])
    assert batch.over(torch.zeros(1, 3)) is batch


def test_opaque_alpha_is_none_and_mixed_pictures_have_one(box, tmp_path):
    opaque = foreign(box, tmp_path / "opaque", modes=("RGB",))
    for path in opaque.glob("*.png"):
        Image.open(path).convert("RGBA").save(path)
    assert module(opaque, test_every=3).train_views.alpha is None
    mixed = module(foreign(box, tmp_path / "mixed", modes=("RGB", "RGBA")), test_every=3)
    assert mixed.train_views.alpha is not None


def test_a_foreign_world_is_moved_and_scaled_into_ours(box, tmp_path):
    def away(content):
        for frame in content["frames"]:
            pose = np.array(frame["transform_matrix"])
            pose[:3, 3] = 3.0 * pose[:3, 3] + (5.0, 1.0, -2.0)
            frame["transform_matrix"] = pose.tolist()
        return content

    root = foreign(box, tmp_path / "away", away)
    radius = 1.6 * np.sin(np.deg2rad(20.0))
    ours = module(box).train_views.cameras.c2w
    moved = module(root, radius=radius, test_every=3)
    poses = torch.cat([moved.test_views.cameras.c2w, moved.train_views.cameras.c2w])
    assert torch.allclose(poses, ours[[0, 3, 1, 2, 4, 5]], atol=1e-5)
    kept = module(root, world="given", test_every=3).test_views.cameras
    assert torch.allclose(kept.position, 3 * ours[[0, 3], :3, 3] + torch.tensor([5.0, 1.0, -2.0]), atol=1e-4)


def test_smaller_images_are_means_and_keep_the_angle(box):
    full, half = module(box, background="black").train_views, module(box, background="black", downscale=2).train_views
    assert torch.allclose(half.images, torch.nn.functional.avg_pool2d(full.images, 2), atol=1e-6)
    assert torch.equal(half.cameras.fovy_rad, full.cameras.fovy_rad)
    cut = module(box, downscale=3).train_views  # 16 = 5 * 3 + 1
    assert (cut.cameras.height, cut.cameras.width) == (5, 5)
    assert torch.allclose(torch.tan(cut.cameras.fovy_rad / 2), 15 / 16 * torch.tan(full.cameras.fovy_rad / 2))


def test_images_of_different_sizes_are_named(box, tmp_path):
    root = foreign(box, tmp_path / "sizes")
    with Image.open(root / "2.png") as file:
        file.resize((20, 20)).save(root / "2.png")
    content = json.loads((root / "transforms.json").read_text())
    del content["w"], content["h"]
    (root / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"differ in size: .*16x16, .*2.png is 20x20"):
        module(root, test_every=3).check()


def test_a_file_that_is_no_image_is_named(box, tmp_path):
    root = foreign(box, tmp_path / "damaged")
    (root / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"1.png cannot be read as an image"):
        module(root, test_every=3).check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "data.batch_size=0 must be positive"),
        ({"test_every": 1}, "leaves no view to fit"),
        ({"radius": 0}, "data.radius=0.0 must be positive"),
        ({"eval_width": 0}, "data.eval_width=0"),
        ({"background": "grey"}, "data.background='grey' is not a choice"),
        ({"batchsize": 2}, "did you mean 'batch_size'"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        module("x", **settings)


def test_a_missing_root_and_too_small_a_picture_say_what_to_do(box):
    with pytest.raises(ValueError, match=r"data.root is not set"):
        module("").check()
    with pytest.raises(ValueError, match=r"data.downscale=64 leaves nothing"):
        module(box, downscale=64).check()


def test_the_turntable_goes_round_at_the_cameras_distance_and_lens(box):
    data = module(box, n_test_views=5, eval_batch_size=2)
    batches = list(data.test_dataloader())
    assert [len(batch.cameras) for batch in batches] == [2, 2, 1]
    cameras = data.evaluation_batch(4).cameras
    assert cameras.azimuth_deg.tolist() == [0.0, 90.0, -180.0, -90.0]
    assert torch.allclose(cameras.distance, torch.full((4,), 1.6))
    assert (cameras.height, cameras.width) == (16, 16)
    assert len(list(data.val_dataloader())) == 1
