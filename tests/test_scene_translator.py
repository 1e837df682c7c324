"""The image-to-image network: its start, its sizes, its file."""

from __future__ import annotations

import pytest
import torch

from distill3d.scenes.translator import Translator, load_translator, save_translator


def trained(width: int = 4) -> Translator:
    network = Translator(width)
    with torch.no_grad():
        network.last.weight += 0.1
    return network


def test_it_starts_as_the_identity_and_still_has_a_gradient():
    images = torch.rand(2, 3, 8, 8)
    network = Translator(4)
    assert torch.equal(network(images), images)
    network(images).square().sum().backward()
    assert network.last.weight.grad is not None and float(network.last.weight.grad.abs().max()) > 0


@pytest.mark.parametrize("size", [(8, 8), (13, 7), (5, 32)])
def test_every_size_comes_back_in_its_size(size):
    images = torch.rand(2, 3, *size)
    out = trained()(images)
    assert out.shape == images.shape and not torch.equal(out, images)


def test_rows_do_not_depend_on_each_other():
    images = torch.rand(3, 3, 8, 8)
    network = trained()
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]))


def test_a_file_round_trips_and_others_are_refused(tmp_path):
    network = trained(6)
    save_translator(network, tmp_path / "x.safetensors")
    images = torch.rand(1, 3, 9, 9)
    assert torch.equal(load_translator(tmp_path / "x.safetensors")(images), network(images))
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
    with pytest.raises(FileNotFoundError, match=r"translation\.yaml"):
        load_translator(tmp_path / "y.safetensors")
    (tmp_path / "z.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="cannot be read as a safetensors file"):
        load_translator(tmp_path / "z.safetensors")
