"""Images of a folder: crops, captions, order, and mistakes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from distill3d.config.experiment import build
from distill3d.data.image_folder import ImageFolderDataModule, read_image


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "more").mkdir()
    for name, size, colour in (("a.png", (40, 20), "red"), ("more/b.JPG", (16, 30), "blue")):
        Image.new("RGB", size, colour).save(tmp_path / name, format="PNG" if name.endswith("png") else "JPEG")
    (tmp_path / "a.txt").write_text("a red wall\n", encoding="utf-8")
    return tmp_path


def module(root, **settings):
    return ImageFolderDataModule(build(ImageFolderDataModule.Config, {"root": str(root), **settings}), seed=3)


def test_batches_are_square_crops_with_their_captions(folder):
    batch = next(iter(module(folder, image_size=12, batch_size=16).train_dataloader()))
    assert batch.images.shape == (16, 3, 12, 12) and set(batch.captions) == {"a red wall", ""}
    for image, caption in zip(batch.images, batch.captions, strict=True):
        colour = torch.tensor([1.0, -1.0, -1.0] if caption else [-1.0, -1.0, 1.0])
        torch.testing.assert_close(image.mean((1, 2)), colour, rtol=0, atol=0.05)


def test_batches_are_a_function_of_the_step(folder):
    data = module(folder, image_size=12, batch_size=8)
    first, again, other = (data.batch(step) for step in (5, 5, 6))
    assert torch.equal(first.images, again.images) and first.captions == again.captions
    assert first.captions != other.captions


def test_transparent_parts_are_white(tmp_path):
    Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "clear.png", 8) == 1.0).all()


def test_mistakes_are_named(tmp_path, folder):
    with pytest.raises(ValueError, match=r"data\.root is not set"):
        module("").batch(0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no images"):
        module(tmp_path / "empty").batch(0)
    (tmp_path / "empty" / "bad.png").write_text("no image")
    with pytest.raises(ValueError, match=r"bad\.png cannot be read"):
        module(tmp_path / "empty").batch(0)
    with pytest.raises(ValueError, match=r"image_size=0 must be at least 1"):
        module(folder, image_size=0)
