"""The size at which a prior sees a render."""

from __future__ import annotations

import pytest
import torch

from distill3d.priors.resize import native_size, to_native


@pytest.mark.parametrize(
    ("size", "sizes", "expected"),
    [
        ((64, 64), (32, 64), (64, 64)),
        ((50, 50), (32, 64), (64, 64)),
        ((40, 40), (32, 64), (32, 32)),
        ((48, 48), (32, 64), (32, 32)),  # a tie takes the cheaper size
        ((512, 512), (32, 64), (64, 64)),
        ((32, 64), (64,), (64, 128)),
        ((90, 60), (64,), (96, 64)),
        ((300, 100), (64,), (192, 64)),
    ],
)
def test_nearest_native_size_keeps_the_aspect(
    size: tuple[int, int], sizes: tuple[int, ...], expected: tuple[int, int]
) -> None:
    assert native_size(*size, sizes, multiple=8) == expected


def test_a_native_image_passes_untouched() -> None:
    rgb = torch.rand(1, 3, 64, 64)
    assert to_native(rgb, (32, 64), 8) is rgb


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    checkerboard = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    small = to_native(checkerboard[None, None].float(), (16,), 8)
    torch.testing.assert_close(small[..., 2:-2, 2:-2], torch.full((1, 1, 12, 12), 0.5), atol=1e-3, rtol=0)
