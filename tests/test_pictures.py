"""Panels, contact sheets, PNG and MP4 files."""

from __future__ import annotations

import textwrap

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from distill3d.runtime.pictures import (
    blank,
    contact_sheet,
    label,
    labelled_grid,
    large_panel,
    normal_picture,
    panel,
    tiled,
    to_uint8,
    whole_label,
    write_png,
)
from distill3d.runtime.video import even_sides, write_video
from distill3d.types import RenderOutput


def output(normal: bool = True) -> RenderOutput:
    rgb = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    opacity = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 4, 5)
    world = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1) * opacity
    return RenderOutput(rgb, opacity, opacity, world if normal else None, "albedo")


def test_bytes_round_and_clamp_and_show_what_is_not_a_number_as_black():
    values = torch.tensor([-1.0, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 2.0, float("nan")])
    assert to_uint8(values).tolist() == [0, 0, 0, 1, 255, 255, 0]


def test_a_panel_is_rgb_normal_opacity():
    image = panel(output(), 1)
    assert image.shape == (3, 4, 15)
    assert torch.equal(image[..., :5], to_uint8(output().rgb)[1])
    assert image[:, 0, 5].tolist() == [128, 128, 255]  # a normal along +z
    assert (image[..., 10:] == 255).all()


def test_an_enlarged_panel_has_named_columns_of_the_size_asked_for():
    small = torch.zeros(3, 4, 15, dtype=torch.uint8)
    for column, colour in enumerate((200, 100, 50)):
        small[column, :, 5 * column : 5 * column + 5] = colour
    large = large_panel(small, 100)
    assert large.shape == (3, 32 + 80, 300)
    for column, colour in enumerate((200, 100, 50)):
        part = large[:, 32:, 100 * column : 100 * column + 100]
        assert (part[column] == colour).all() and (part.sum(0) == part[column]).all()  # columns do not mix
        head = large[:, :32, 100 * column : 100 * column + 100]
        assert head.min() < 100 and (head[:, 0] == 255).all()  # letters, whole
    assert large_panel(small, 2).shape == (3, 32 + 4, 12)  # only made even, never smaller


def test_a_label_is_whole_at_the_width_that_is_said():
    for text in ("a", "guidance_type=lmc-sds", "guidance_type=lmc-sds guidance_scale=100 min_step=0.02 max_step=0.98"):
        lines = textwrap.wrap(text, whole_label(text) // 7)
        assert " ".join(lines) == text and len(lines) <= 3


def test_words_and_lines_of_a_label_stand_apart():
    ink = (label("dB on", 60) < 128).any(0).any(0)
    letters = ink.nonzero()[:, 0]
    assert letters.diff().max() > 3  # between the words, in pixels; between letters of one it is 2
    rows = (label("object gypsy", 50, 48) < 128).any(0).any(1).int()
    assert (rows.diff() == 1).sum() == 2  # a line of white between g, y and p and what stands below


def test_normals_are_black_where_nothing_is_and_where_there_are_none():
    assert (normal_picture(output())[0] == 0).all()
    assert (normal_picture(output(normal=False)) == 0).all()


def test_a_contact_sheet_has_a_column_for_each_view_and_a_row_for_each_kind():
    rgb = output().rgb
    sheet = contact_sheet([rgb, 1 - rgb])
    assert sheet.shape == (3, 8, 10)
    assert torch.equal(sheet[:, 4:, 5:], to_uint8(1 - rgb)[1])


def test_a_png_round_trips(tmp_path):
    image = to_uint8(output().rgb)[0]
    write_png(tmp_path / "x.png", image)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), image.permute(1, 2, 0).numpy())
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_tiles_fill_rows_and_the_rest_is_white():
    images = torch.arange(5).float().div(10)[:, None, None, None].expand(5, 3, 4, 6)
    sheet = tiled(images, 3)
    assert sheet.shape == (3, 8, 18) and (sheet[:, 4:, 12:] == 255).all()
    assert torch.equal(sheet[:, 4:, :6], to_uint8(images[3:4])[0])
    assert tiled(images[:2], 3).shape == (3, 4, 12)


def test_labels_have_as_many_lines_as_they_need_up_to_three():
    pictures = [[torch.zeros(3, 40, 40, dtype=torch.uint8)] * 2]
    short, two, long = (labelled_grid(pictures, ["a", name], [""]) for name in ("b", "two words", "many " * 20))
    assert [sheet.shape[1:] for sheet in (short, two, long)] == [(16 + 42, 84), (32 + 42, 84), (48 + 42, 84)]
    assert torch.equal(long[:, -42:], short[:, -42:])
    assert not torch.equal(short[:, :-42], blank(*short[:, :-42].shape[1:]))


@pytest.mark.parametrize(("height", "width"), [(128, 128), (18, 34), (50, 20)])
def test_a_video_has_the_size_asked_for(tmp_path, height, width, caplog):
    frames = torch.zeros(7, 3, height, width, dtype=torch.uint8)
    frames[:, 0, : height // 2] = 200
    write_video(tmp_path / "x.mp4", frames, 10)
    meta, *raw = list(imageio_ffmpeg.read_frames(str(tmp_path / "x.mp4")))
    assert meta["size"] == (width, height)
    assert (len(raw), meta["fps"]) == (7, 10)
    first = np.frombuffer(raw[0], np.uint8).reshape(height, width, 3).astype(int)
    assert np.abs(first[1, 1] - [200, 0, 0]).max() < 12
    assert np.abs(first[-2, -2]).max() < 12
    assert not caplog.records
    assert [p.name for p in tmp_path.iterdir()] == ["x.mp4"]


def test_odd_sides_are_padded_with_a_message_and_never_resized(tmp_path, caplog):
    frames = torch.randint(0, 255, (2, 3, 17, 21), dtype=torch.uint8)
    padded = even_sides(frames, "x.mp4")
    assert padded.shape == (2, 3, 18, 22)
    assert torch.equal(padded[..., :17, :21], frames)
    assert torch.equal(padded[..., 17, :21], frames[..., 16, :])
    assert "x.mp4: 21x17 is padded to 22x18" in caplog.text
    write_video(tmp_path / "x.mp4", frames, 10)
    assert next(imageio_ffmpeg.read_frames(str(tmp_path / "x.mp4")))["size"] == (22, 18)
