"""transforms.json: what is read, how it is split, and what each mistake says."""

import json
import math

import numpy as np
import pytest

from distill3d.data.posed.transforms_json import checked_pose, read_frame_sets

POSE = np.eye(4).tolist()


def write(folder, frames, name="transforms.json", images=True, **content):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames, **content}))
    for frame in frames if images else []:
        path = folder / frame["file_path"]
        path = path if path.suffix else path.with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def frame(name="a", pose=POSE, **more):
    return {"file_path": name, "transform_matrix": pose, **more}


def frames(count, suffix=".png"):
    return [frame(f"images/{i}{suffix}") for i in range(count)]


def names(found):
    return [f.path.name for f in found]


def test_every_nth_view_is_held_out_where_there_is_no_split(tmp_path):
    sets = read_frame_sets(write(tmp_path, frames(9)), test_every=4)
    assert names(sets.test) == ["0.png", "4.png", "8.png"]
    assert sorted(names(sets.train) + names(sets.test)) == [f"{i}.png" for i in range(9)]
    assert not sets.own_world


def test_blenders_split_and_nerfstudios_own_lists_are_honoured(tmp_path):
    blender = write(tmp_path / "b", [frame("./train/r_0"), frame("./train/r_1")], "transforms_train.json")
    write(blender, [frame("./test/r_0")], "transforms_test.json")
    sets = read_frame_sets(blender, 8)
    assert (names(sets.train), names(sets.test)) == (["r_0.png", "r_1.png"], ["r_0.png"])
    listed = {"train_filenames": ["images/1.png", "images/2.png"], "test_filenames": ["images/0.png"]}
    sets = read_frame_sets(write(tmp_path / "n", frames(4), **listed), 8)
    assert (names(sets.train), names(sets.test)) == (["1.png", "2.png"], ["0.png"])


def test_a_split_without_a_test_list_holds_out_the_val_list_or_the_rest(tmp_path):
    val = {"train_filenames": ["images/1.png", "images/2.png"], "val_filenames": ["images/3.png"]}
    sets = read_frame_sets(write(tmp_path / "v", frames(5), **val), 8)
    assert (names(sets.train), names(sets.test)) == (["1.png", "2.png"], ["3.png"])
    sets = read_frame_sets(write(tmp_path / "t", frames(4), test_filenames=["images/0.png"]), 8)
    assert (names(sets.train), names(sets.test)) == (["1.png", "2.png", "3.png"], ["0.png"])
    both = {"val_filenames": ["images/3.png"], "test_filenames": ["images/0.png"]}
    assert names(read_frame_sets(write(tmp_path / "b", frames(4), **both), 8).train) == ["1.png", "2.png"]


def test_listed_images_without_a_frame_are_named(tmp_path, caplog):
    listed = {"train_filenames": ["images/1.png", "images/2.png", "images/9.png"], "test_filenames": ["images/0.png"]}
    read_frame_sets(write(tmp_path, frames(4), **listed), 8)
    assert "1 listed images have no frame" in caplog.text and "9.png" in caplog.text


def test_without_a_test_file_blenders_val_file_takes_its_place(tmp_path):
    write(tmp_path, [frame("0"), frame("1")], "transforms_train.json")
    write(tmp_path, [frame("2")], "transforms_val.json")
    assert names(read_frame_sets(tmp_path, 8).test) == ["2.png"]


def test_a_lens_of_a_frame_goes_before_that_of_the_file(tmp_path):
    own = [frame("0"), frame("1", fl_x=50.0, fl_y=60.0, cx=3.0, k1=0.1), frame("2", camera_angle_x=1.0)]
    first, second, third = read_frame_sets(write(tmp_path, own, w=100, h=80), 3).test + (
        read_frame_sets(tmp_path, 3).train
    )
    assert first.lens.focal_lengths(100) == pytest.approx((50 / math.tan(0.35),) * 2)
    assert second.lens.focal_lengths(100) == (50.0, 60.0)
    assert (second.lens.cx, second.lens.cy, second.lens.distortion[0], second.lens.width) == (3.0, None, 0.1, 100)
    assert third.lens.focal_lengths(100)[0] == pytest.approx(50 / math.tan(0.5))


@pytest.mark.parametrize(
    ("pose", "message"),
    [
        (np.eye(3).tolist(), "is 3x3, not 4x4"),
        (np.eye(4)[:3].tolist(), "is 3x4, not 4x4"),
        ([[1, 0], [0]], "no matrix of numbers"),
        ("eye", "no matrix of numbers"),
        (np.diag([2.0, 2.0, 2.0, 1.0]).tolist(), "not a rotation"),
        (np.diag([1.0, 1.0, -1.0, 1.0]).tolist(), "not a rotation"),
        (np.diag([1.0, 1.0, 1.0, 2.0]).tolist(), "last row"),
        (np.full((4, 4), np.nan).tolist(), "NaN"),
    ],
)
def test_a_bad_matrix_is_named_with_its_frame(pose, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        checked_pose(pose, "here")
    assert str(caught.value).startswith("here") and "camera-to-world" in str(caught.value)
    with pytest.raises(ValueError, match=r"transforms.json, frame 1 \(bad\)"):
        read_frame_sets(write(tmp_path, [frame("a"), frame("bad", pose)]), 2)


def test_missing_images_are_named_and_counted(tmp_path):
    write(tmp_path, frames(6))
    for i in range(1, 6):
        (tmp_path / f"images/{i}.png").unlink()
    with pytest.raises(ValueError, match=r"images are missing in .*1.png, .*2.png, .*3.png and 2 more"):
        read_frame_sets(tmp_path, 8)


@pytest.mark.parametrize(
    ("count", "message"),
    [(1, "holds 0 images to fit and 1 to test"), (2, "holds 1 images to fit and 1 to test")],
)
def test_a_data_set_of_too_few_images_is_refused(count, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_frame_sets(write(tmp_path, frames(count)), 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "no list of frames"),
        ('{"frames": []}', "no list of frames"),
        ('{"frames": [3]}', "frame 0 must be a mapping"),
        ('{"frames": [{"file_path": "a"}]}', "transform_matrix"),
        (json.dumps({"frames": [frame()]}), "has no lens"),
        (json.dumps({"frames": [frame(fl_x=-1)]}), "a positive length"),
        (json.dumps({"frames": [frame(camera_angle_x=4.0)]}), "an angle in 0"),
        (json.dumps({"frames": [frame(fl_x="f")]}), "fl_x='f' must be a finite number"),
        (json.dumps({"frames": [frame(fl_x=1, fl_y=0)]}), "fl_y=0.0; expected"),
        (json.dumps({"frames": [frame(fl_x=1, w=0.5)]}), "w=0.5 must be a whole number of pixels"),
        (json.dumps({"frames": [frame(fl_x=1, w=1e9)]}), "w=1e.09 must be a whole number of pixels"),
        ('{"frames": [{"file_path": "a", "transform_matrix": [[' + "9" * 400 + "]]}]}", "transform_matrix"),
        (json.dumps({"frames": [frame(fl_x=int("9" * 400))]}), "fl_x=9+ must be a finite number"),
        ("[" * 100_000, "nested too deep"),
        (json.dumps({"frames": [frame(mask_path=3)], "fl_x": 1}), "mask_path=3"),
        (json.dumps({"frames": [frame(fl_x=1)], "train_filenames": "all"}), "train_filenames must be a list"),
        (json.dumps({"frames": [frame(fl_x=1, camera_model="OPENCV_FISHEYE")]}), "no perspective camera"),
    ],
)
def test_a_damaged_file_says_where(content, message, tmp_path):
    (tmp_path / "transforms.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_frame_sets(tmp_path, 8)
    assert "transforms.json" in str(caught.value)


def test_a_folder_without_transforms_says_how_to_make_one(tmp_path):
    with pytest.raises(ValueError, match=r"data.root=.*--render-views"):
        read_frame_sets(tmp_path, 8)
