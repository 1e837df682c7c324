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
from distill3d.data.posed.images import counted_mean
from distill3d.data.posed.module import PosedImageDataModule, training_rows
from distill3d.runtime.foreign import ForeignFileError


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
    assert views.names[0] == "train/r_000.png"
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


def capture(folder, sizes, mode="RGB", **content):
    """Views of a smooth pattern on the far sphere, each of its own size, under lenses of one focal length of 40."""
    (folder / "images").mkdir(parents=True)
    frames = []
    for i, (width, height) in enumerate(sizes):
        angle = 2 * np.pi * i / len(sizes)
        back = np.array([np.cos(angle), np.sin(angle), 0.0])
        right = np.array([-np.sin(angle), np.cos(angle), 0.0])
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = np.stack([right, [0, 0, 1], back], axis=1), 2.0 * back
        y, x = np.mgrid[0:height, 0:width] + 0.5
        ray = np.stack([(x - width / 2) / 40.0, (y - height / 2) / 40.0])
        shade = np.stack([0.5 + 0.4 * np.sin(4 * ray[0]), 0.5 + 0.4 * np.cos(3 * ray[1]), 0.5 + 0 * ray[0]], axis=-1)
        Image.fromarray((255 * shade).round().astype(np.uint8)).convert(mode).save(folder / f"images/{i:04d}.png")
        own = {"file_path": f"images/{i:04d}.png", "transform_matrix": pose.tolist(), "w": width, "h": height}
        frames.append(own | {"cx": width / 2, "cy": height / 2})
    (folder / "transforms.json").write_text(json.dumps({"fl_x": 40.0, "fl_y": 40.0, "frames": frames, **content}))
    return folder


def change_frames(folder, change):
    content = json.loads((folder / "transforms.json").read_text())
    for i, frame in enumerate(content["frames"]):
        frame.update(change(i, frame))
    (folder / "transforms.json").write_text(json.dumps(content))


def test_images_of_several_sizes_show_along_each_ray_what_they_showed(tmp_path):
    """Landscape, portrait and a larger copy become one size; pixels that an image does not cover do not count."""
    data = module(capture(tmp_path / "set", [(32, 24)] * 4 + [(24, 32), (64, 48)]), world="given", test_every=4)
    views = data.train_views
    assert (views.cameras.height, views.cameras.width) == (24, 32)
    batch = views.batch(range(len(views)))
    rays = camera_rays(batch.cameras).directions
    local = torch.einsum("bij,bhwi->bhwj", batch.cameras.c2w[:, :3, :3], rays)
    right, down = local[..., 0] / -local[..., 2], -local[..., 1] / -local[..., 2]
    truth = torch.stack([0.5 + 0.4 * torch.sin(4 * right), 0.5 + 0.4 * torch.cos(3 * down), 0.5 + 0 * right], dim=1)
    assert batch.counted is not None
    assert ((batch.images - truth).abs() * batch.counted).max() < 0.03
    share = {name: float(view.mean()) for name, view in zip(views.names, batch.counted, strict=True)}
    assert share["images/0001.png"] == 1.0
    assert 0.4 < share.get("images/0004.png", 0.5625) < 0.65


def test_masked_pixels_do_not_count(tmp_path):
    """Black is masked; the loss sees the others only, whatever lies below the mask."""
    root = capture(tmp_path / "set", [(32, 24)] * 6)
    (root / "masks").mkdir()
    mask = np.zeros((24, 32), np.uint8)
    mask[:, 16:] = 255
    Image.fromarray(mask).save(root / "masks/m.png")
    change_frames(root, lambda i, frame: {"mask_path": "masks/m.png"} if i != 2 else {})
    views = module(root, test_every=3).train_views
    batch = views.batch([0, 1])  # frames 1 and 2
    assert batch.counted[0, 0, :, :16].sum() == 0 and batch.counted[0, 0, :, 16:].min() == 1
    assert batch.counted[1].min() == 1
    error = torch.zeros_like(batch.images)
    error[0, :, :, :16] = 7.0
    assert counted_mean(error, batch.counted) == 0
    error[0, :, :, 16:] = 1.0
    assert float(counted_mean(error, batch.counted)) == pytest.approx(1 / 3)  # half a picture of one and a half
    Image.fromarray(mask // 255).save(root / "masks/m.png")  # 0 and 1, as some tools write them
    assert torch.equal(module(root, test_every=3).train_views.batch([0, 1]).counted, batch.counted)
    Image.fromarray(0 * mask).save(root / "masks/black.png")
    change_frames(root, lambda i, frame: {"mask_path": "masks/black.png"})
    with pytest.raises(ValueError, match=r"black.png and the other masks leave no pixel to fit"):
        module(root, test_every=3).check()
    change_frames(root, lambda i, frame: {"mask_path": "masks/lost.png"})
    with pytest.raises(ValueError, match=r"missing in .*lost.png"):
        module(root, test_every=3).check()


def test_grey_of_16_bits_is_read_by_its_range(tmp_path):
    root = capture(tmp_path / "set", [(32, 24)] * 6, mode="L")
    plain = module(root, test_every=3).train_views.images
    for path in root.glob("images/*.png"):
        values = np.asarray(Image.open(path)).astype(np.uint16) * 257
        Image.fromarray(values).save(path)
        assert Image.open(path).mode == "I;16"
    assert torch.equal(module(root, test_every=3).train_views.images, plain)


def test_paths_of_windows_byte_order_marks_and_upper_case_suffixes_are_read(tmp_path):
    root = capture(tmp_path / "set", [(32, 24)] * 6)
    plain = module(root, test_every=3).train_views.images
    (root / "images/0000.png").rename(root / "images/0000.PNG")
    change_frames(root, lambda i, frame: {"file_path": f"images\\{i:04d}" + ("" if i == 0 else ".png")})
    text = (root / "transforms.json").read_text()
    (root / "transforms.json").write_text(text, encoding="utf-8-sig")
    assert torch.equal(module(root, test_every=3).train_views.images, plain)


def test_a_photograph_is_upright_unless_its_frame_says_how_it_lies(tmp_path):
    root = capture(tmp_path / "set", [(32, 24)] * 6)
    exif = Image.Exif()
    exif[274] = 6  # turn by 90 degrees to see it
    for path in root.glob("images/*.png"):
        Image.open(path).save(path, exif=exif)
    assert module(root, test_every=3).train_views.images.shape[-2:] == (24, 32)
    change_frames(root, lambda i, frame: {"w": 24, "h": 32, "cx": 12, "cy": 16})
    assert module(root, test_every=3).train_views.images.shape[-2:] == (32, 24)


def test_images_are_kept_in_the_size_of_their_files(tmp_path):
    """8 bits a channel until they are asked for: 300 views of 800x800 with an alpha are .8 GB and not 3."""
    views = module(capture(tmp_path / "set", [(32, 24)] * 6, mode="RGBA"), test_every=3).train_views
    assert {view.pixels.dtype for view in views.stored} == {torch.uint8}


def test_a_field_that_is_not_used_is_named(tmp_path, caplog):
    root = capture(tmp_path / "set", [(32, 24)] * 6, aabb_scale=16)
    change_frames(root, lambda i, frame: {"depth_file_path": "depth.png"})
    with caplog.at_level("WARNING"):
        module(root, test_every=3).check()
    assert "not used: aabb_scale, depth_file_path" in caplog.text


@pytest.mark.parametrize(
    "lens",
    [
        {"fl_x": 1e-9, "fl_y": 1e-9},
        {"cx": -5000.0},
        {"fl_x": 1e308, "fl_y": 1e308},
        {"fl_x": 1e-300},
        {"fl_y": 1e308},
        {"k1": 1e6},
        {"k3": 1e300},
        {"p1": -1e3},
    ],
)
def test_a_lens_that_cannot_have_taken_the_picture_is_refused(lens, tmp_path):
    root = capture(tmp_path / "a", [(16, 12)] * 4)
    change_frames(root, lambda i, frame: lens)
    with pytest.raises(ValueError, match=r"png: fl_.* are no lens of a picture of 16x12; give "):
        module(root, test_every=3).check()


def test_a_file_that_is_no_image_is_named(box, tmp_path):
    root = foreign(box, tmp_path / "damaged")
    (root / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"1.png cannot be read as an image"):
        module(root, test_every=3).check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "data.batch_size=0 must be at least 1"),
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


@pytest.mark.parametrize("world", ["given", "auto", "levelled"])
def test_cameras_that_are_all_alike_are_refused(world, tmp_path):
    folder = capture(tmp_path / "set", [(16, 12)] * 4)
    first = json.loads((folder / "transforms.json").read_text())["frames"][0]["transform_matrix"]
    change_frames(folder, lambda i, frame: {"transform_matrix": first})
    with pytest.raises(ForeignFileError, match=r"data\.root=.*all 3 views to fit are from one place"):
        module(folder, world=world).check()
    nearly = [[*row[:3], row[3] + 1e-3] for row in first]
    change_frames(folder, lambda i, frame: {"transform_matrix": [*nearly[:3], first[3]] if i == 2 else first})
    module(folder, world=world).check()


def test_pictures_that_show_nothing_are_refused(box, tmp_path):
    folder = foreign(box, tmp_path / "set")
    paths = sorted(folder.glob("*.png"))
    for path in paths:
        with Image.open(path) as file:
            file.putalpha(0)
            file.save(path)
    with pytest.raises(ForeignFileError, match=r"data\.root=.*images to fit are transparent everywhere"):
        module(folder).check()
    with Image.open(paths[1]) as file:
        file.putalpha(255)
        file.save(paths[1])
    module(folder).check()
