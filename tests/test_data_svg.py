"""The drawing to edit, from a file or from those that are shipped."""

from __future__ import annotations

import gzip

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
    with pytest.raises(SvgError, match="cannot be unpacked"):
        make_data(DATA, svg=str(tmp_path / "packed.svg")).document()
    with pytest.raises(ConfigError, match="give the drawing as svg"):
        make_data(DATA, image="cat.png")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_the_encoding_that_a_file_declares_is_read_and_utf_8_is_written(encoding, tmp_path):
    declared = "utf-8" if encoding == "utf-8-sig" else encoding
    text = f'<?xml version="1.0" encoding="{declared}"?>\n<svg xmlns="http://www.w3.org/2000/svg"><title>Käse</title>'
    text += '<rect width="9" height="9"/></svg>'
    (tmp_path / "a.svg").write_bytes(text.encode(encoding))
    document = make_data(DATA, svg=str(tmp_path / "a.svg")).document()
    assert "Käse" in document.text and 'encoding="utf-8"' in document.text.lower()


def test_a_compressed_drawing_is_read_and_a_bomb_is_not(tmp_path):
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>'
    (tmp_path / "a.svgz").write_bytes(gzip.compress(drawing))
    assert make_data(DATA, svg=str(tmp_path / "a.svgz")).document().text == drawing.decode()
    (tmp_path / "bomb.svgz").write_bytes(gzip.compress(b" " * (65 << 20)))
    with pytest.raises(SvgError, match="unpacks to more than 64 MB"):
        make_data(DATA, svg=str(tmp_path / "bomb.svgz")).document()


def test_text_in_another_or_no_known_encoding_is_told(tmp_path):
    (tmp_path / "a.svg").write_bytes("<svg><title>Käse</title></svg>".encode("latin-1"))
    with pytest.raises(SvgError, match="not text in utf-8"):
        make_data(DATA, svg=str(tmp_path / "a.svg")).document()
    (tmp_path / "b.svg").write_bytes(b'<?xml version="1.0" encoding="klingon"?><svg/>')
    with pytest.raises(SvgError, match="unknown encoding, 'klingon'"):
        make_data(DATA, svg=str(tmp_path / "b.svg")).document()


def test_a_drawing_that_is_nearly_a_line_is_refused_before_it_fills_the_memory(tmp_path):
    (tmp_path / "tall.svg").write_text(drawing('<circle r="9"/>', 'viewBox="0 0 1 100000"'))
    with pytest.raises(SvgError, match="one side over 64 times the other; crop it"):
        make_data(DATA, svg=str(tmp_path / "tall.svg")).check()
