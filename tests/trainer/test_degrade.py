"""What takes detail away: Pillow's bicubic and JPEG, scipy's Gaussian, and draws that are a function of the generator."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from gan.trainer.degrade import (
    BLUR,
    NOISE,
    QUALITY,
    as_bytes,
    blur,
    degrade,
    jpeg,
    reduce,
    uniform,
)

STEP = 2 / 255
Array = NDArray[np.float32]


def smooth(count: int, channels: int, size: int, seed: int = 0) -> Tensor:
    """Images of bytes with some detail, in [-1, 1]."""
    source = np.random.default_rng(seed)
    coarse = source.uniform(0, 255, (count, channels, size // 4, size // 4))
    fine = coarse.repeat(4, 2).repeat(4, 3) * 0.7 + source.uniform(0, 70, (count, channels, size, size))  # fmt: skip
    return torch.from_numpy(fine.round() / 127.5 - 1).float()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def as_pixels(x: Tensor) -> NDArray[np.uint8]:
    return np.rint(x.double().numpy() * 127.5 + 127.5).astype(np.uint8)


@pytest.mark.parametrize(("size", "scale"), [(32, 2), (32, 4), (24, 3), (64, 8)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_reduction_is_pillows_bicubic_within_a_byte(size: int, scale: int, channels: int) -> None:
    x = smooth(3, channels, size)
    small = reduce(x, scale)
    assert small.shape == (3, channels, size // scale, size // scale)
    expected = np.empty(small.shape)
    for i, c in np.ndindex(3, channels):
        plane = Image.fromarray(x[i, c].numpy())  # mode F
        side = (size // scale, size // scale)
        expected[i, c] = np.asarray(plane.resize(side, Image.Resampling.BICUBIC))
    assert np.abs(small.numpy() - expected.clip(-1, 1)).max() <= STEP
    assert np.abs(small.numpy() - expected.clip(-1, 1)).mean() < 0.3 * STEP
    assert small.std() > 0.1


def test_reduction_gives_what_bytes_can_hold() -> None:
    x = torch.where(smooth(2, 3, 32) > 0, 1.0, -1.0)  # bicubic overshoots
    small = reduce(x, 4)
    steps = small.double() * 127.5 + 127.5
    assert (steps - steps.round()).abs().max() < 1e-4
    assert small.min() >= -1 and small.max() <= 1
    assert torch.equal(as_bytes(small), small)


@pytest.mark.parametrize(
    ("value", "byte"), [(-1.0, 0), (1.0, 255), (-3.0, 0), (2.0, 255), (0.0, 128), (0.011, 129)]
)
def test_the_nearest_byte(value: float, byte: int) -> None:
    assert as_bytes(torch.tensor([value])).item() == pytest.approx(byte / 127.5 - 1, abs=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_blur_is_a_gaussian_of_each_images_own_width(channels: int) -> None:
    x = smooth(4, channels, 24)
    sigma = torch.tensor([0.2, 0.7, 1.4, 2.0])
    seen = blur(x, sigma).numpy()
    for i, s in enumerate(sigma.tolist()):
        expected = x[i].double().numpy()
        for axis in (1, 2):
            expected = gaussian_filter1d(expected, s, axis=axis, mode="nearest", radius=6)
        np.testing.assert_allclose(seen[i], expected, atol=1e-5)
    assert np.abs(seen[0] - seen[0].mean()).mean() > np.abs(seen[3] - seen[3].mean()).mean()


def through_a_file(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """[C, H, W] as Pillow gives it back from a JPEG file."""
    file = io.BytesIO()
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    image.save(file, "JPEG", quality=quality)
    back = np.asarray(Image.open(io.BytesIO(file.getvalue())))
    return back[None] if len(pixels) == 1 else back.transpose(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_jpeg_is_that_of_a_file_of_each_images_own_quality(channels: int) -> None:
    x = smooth(3, channels, 24)
    quality = torch.tensor([40.0, 71.6, 95.0])
    seen = jpeg(x, quality)
    colour = min(channels, 3)
    errors = []
    for i, q in enumerate((40, 71, 95)):
        expected = through_a_file(as_pixels(x[i, :colour]), q)
        assert np.array_equal(as_pixels(seen[i, :colour]), expected)
        errors.append((seen[i, :colour] - x[i, :colour]).abs().mean().item())
    assert errors[0] > errors[1] > errors[2] > 0
    assert torch.equal(seen[:, colour:], x[:, colour:])  # alpha
    assert seen.dtype == torch.float32


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_degrading_is_a_function_of_the_generator(channels: int) -> None:
    x = smooth(4, channels, 32)
    torch.manual_seed(1)
    first = degrade(x, 4, seeded(5))
    torch.manual_seed(2)
    assert torch.equal(first, degrade(x, 4, seeded(5)))
    assert first.shape == (4, channels, 8, 8) and torch.equal(as_bytes(first), first)
    assert first.min() >= -1 and first.max() <= 1
    assert not torch.equal(first, degrade(x, 4, seeded(6)))
    assert not torch.equal(first, reduce(x, 4))


def test_each_image_has_strengths_of_its_own() -> None:
    """Of one image many times, some come out noisy and some blurred."""
    x = smooth(1, 3, 32).expand(64, -1, -1, -1)
    seen = degrade(x, 2, seeded())
    assert len({image.numpy().tobytes() for image in seen}) == 64
    away = (seen - reduce(x[:1], 2)).abs().mean((1, 2, 3))
    assert away.max() > 2 * away.min()


@torch.no_grad()
def test_noise_and_blur_come_where_the_formula_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without JPEG: what is drawn is sigma, the noise's deviation and the quality, then the noise."""
    seen: list[Tensor] = []

    def spy(x: Tensor, quality: Tensor) -> Tensor:
        seen.append(quality)
        return x

    monkeypatch.setattr("gan.trainer.degrade.jpeg", spy)
    x = smooth(500, 1, 16)
    made = degrade(x, 2, seeded(3))
    source = seeded(3)
    sigma, deviation, quality = (
        uniform(500, low, high, source) for low, high in (BLUR, NOISE, QUALITY)
    )
    assert torch.equal(seen[0], quality)
    for drawn, (low, high) in ((sigma, BLUR), (deviation, NOISE), (quality, QUALITY)):
        assert low <= drawn.min() < drawn.max() <= high
        assert drawn.mean().item() == pytest.approx((low + high) / 2, rel=0.05)
    rest = made - reduce(blur(x, sigma), 2)
    inside = (made.abs() < 0.99).float()
    measured = ((rest * inside).square().sum((1, 2, 3)) / inside.sum((1, 2, 3))).sqrt()
    wide = deviation > 0.02  # more than the steps of bytes
    ratio = measured[wide] / deviation[wide]
    assert ratio.mean().item() == pytest.approx(1.0, abs=0.05)
    assert np.corrcoef(measured.numpy(), deviation.numpy())[0, 1] > 0.95
