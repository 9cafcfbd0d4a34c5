"""Resampling against scipy's filters in float64, with zeros outside: blur, twice and half the size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import convolve2d, upfirdn
from torch import Tensor

from gan.trainer.resample import blur, downsample, taps, upsample

LINE = np.array([1.0, 3.0, 3.0, 1.0]) / 8
SIZES = [(2, 2), (4, 6), (8, 4), (14, 14)]
Array = NDArray[np.float64]


def noise(height: int = 6, width: int = 8, channels: int = 3) -> Tensor:
    source = torch.Generator().manual_seed(0)
    return torch.randn(2, channels, height, width, generator=source, dtype=torch.float64)


def filtered(x: Tensor) -> Array:
    """Every place that the filter touches, 3 more rows and columns than x."""
    maps = [convolve2d(map_, np.outer(LINE, LINE)) for map_ in x.flatten(0, 1).numpy()]
    return np.stack(maps).reshape(*x.shape[:2], *maps[0].shape)


def polyphase(x: Tensor, gain: float, up: int, down: int) -> Array:
    """scipy's own resampling, one axis after the other: `gain` in all."""
    y = x.numpy()
    for axis in (2, 3):
        y = upfirdn(np.sqrt(gain) * LINE, y, up, down, axis)
    return y


@pytest.mark.parametrize("gain", [1.0, 4.0, 0.5])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_filter_is_separable_has_the_asked_sum_and_serves_every_channel(
    channels: int, gain: float
) -> None:
    kernel = taps(noise(channels=channels), gain)
    assert kernel.shape == (channels, 1, 4, 4) and kernel.dtype == torch.float64
    for one in kernel[:, 0].numpy():
        assert one == pytest.approx(gain * np.outer(LINE, LINE), abs=1e-15)
        assert one.sum() == pytest.approx(gain, abs=1e-14)
    assert taps(noise().float()).dtype == torch.float32


@pytest.mark.parametrize("gain", [1.0, 4.0])
@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (0, 0), (3, 3), (1, 2), (3, 0)])
def test_blur_is_scipys_convolution_with_so_many_zeros_before_and_after(
    before: int, after: int, gain: float
) -> None:
    x = noise()
    y = blur(x, before, after, gain)
    assert y.shape == (2, 3, 6 + before + after - 3, 8 + before + after - 3)
    begin = 3 - before
    rows, columns = (slice(begin, begin + n) for n in y.shape[2:])
    assert y.numpy() == pytest.approx(gain * filtered(x)[:, :, rows, columns], abs=1e-13)
    assert blur(x, before, after).numpy() == pytest.approx(y.numpy() / gain, abs=1e-13)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_upsampling_is_scipys_with_zeros_between_and_gain_4(height: int, width: int) -> None:
    x = noise(height, width)
    y = upsample(x)
    assert y.shape == (2, 3, 2 * height, 2 * width)
    expected = polyphase(x, 4.0, up=2, down=1)[:, :, 1:-1, 1:-1]
    assert y.numpy() == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_downsampling_is_scipys_filter_and_every_second_pixel(height: int, width: int) -> None:
    x = noise(height, width)
    y = downsample(x)
    assert y.shape == (2, 3, height // 2, width // 2)
    kept = polyphase(x, 1.0, up=1, down=2)[:, :, 1 : 1 + height // 2, 1 : 1 + width // 2]
    assert y.numpy() == pytest.approx(kept, abs=1e-13)
    assert y.numpy() == pytest.approx(filtered(x)[:, :, 2:-1:2, 2:-1:2], abs=1e-13)


def test_a_constant_image_stays_constant_inside_and_falls_to_zero_at_the_border() -> None:
    x = torch.full((1, 2, 8, 8), 0.7, dtype=torch.float64)
    for y, edge in ((upsample(x), 3 / 4), (downsample(x), 7 / 8), (blur(x, 2, 2), 4 / 8)):
        inside = y[:, :, 1:-1, 1:-1] if y.shape[2] != 9 else y[:, :, 2:-2, 2:-2]
        assert (inside - 0.7).abs().max() < 1e-14
        assert y[0, 0, 0, 2].item() == pytest.approx(0.7 * edge)  # taps that lie outside read 0
        assert y[0, 0, 0, 0].item() == pytest.approx(0.7 * edge**2)


def test_twice_and_then_half_the_size_shifts_nothing() -> None:
    rows = torch.arange(16.0, dtype=torch.float64)[None, None, :, None].expand(1, 1, 16, 16)
    for image in (rows, rows.transpose(2, 3)):
        there_and_back = downsample(upsample(image))
        assert (there_and_back - image)[:, :, 2:-2, 2:-2].abs().max() < 1e-12


def test_halving_is_a_quarter_of_the_transpose_of_doubling() -> None:
    x, y = noise(4, 6), noise(8, 12)
    inner = (upsample(x) * y).sum()  # <U x, y> = <x, 4 D y>
    assert inner.item() == pytest.approx((x * 4 * downsample(y)).sum().item(), rel=1e-12)


def test_channels_do_not_mix() -> None:
    x = noise()
    for resample in (upsample, downsample, lambda x: blur(x, 2, 1)):
        whole = resample(x)
        for i in range(3):
            assert torch.allclose(whole[:, i : i + 1], resample(x[:, i : i + 1]), atol=1e-14)
