"""The drawing to edit, from a file or from those that are shipped."""

from __future__ import annotations

import pytest
import torch
from picture_doubles import make_data
from svg_drawings import drawing

from distill3d.config.check import ConfigError
from distill3d.data.svg import DRAWINGS
from distill3d.scenes.svg.document import SvgError

DATA = "svg-datamodule"


@pytest.mark.parametrize("path", sorted(DRAWINGS.glob("*.svg")), ids=lambda path: path.name)
def test_a_shipped_drawing_is_found_by_its_name_and_wholly_understood(path):
    document = make_data(DATA, svg=path.name).document()
    assert document.text == path.read_text()
    assert len(document.shapes) >= 8 and document.unsupported == document.invisible == ()


def test_the_size_is_the_priors_or_what_is_asked_for(tmp_path):
    (tmp_path / "wide.svg").write_text(drawing('<circle r="9"/>', 'viewBox="0 0 100 50"'))
    sizes = [
        make_data(DATA, svg=str(tmp_path / "wide.svg"), **asked)
        for asked in ({}, {"width": 40}, {"height": 10}, {"width": 9, "height": 8})
    ]
    assert [data.drawn_size(data.document(), 32) for data in sizes] == [(32, 64), (20, 40), (10, 20), (8, 9)]


def test_a_picture_system_can_start_from_the_drawing():
    picture = make_data(DATA).picture()
    assert picture.shape == (3, 128, 128) and not picture.requires_grad
    assert torch.equal(picture[:, 0, 0], torch.ones(3))


def test_mistakes_name_the_setting(tmp_path):
    with pytest.raises(SvgError, match=r"data.svg='cat.svg' is no file.*apple.svg"):
        make_data(DATA, svg="cat.svg").document()
    (tmp_path / "packed.svg").write_bytes(b"\x1f\x8b\x08\xff\xfe")
    with pytest.raises(SvgError, match="not UTF-8"):
        make_data(DATA, svg=str(tmp_path / "packed.svg")).document()
    with pytest.raises(ConfigError, match="give the drawing as svg"):
        make_data(DATA, image="cat.png")
