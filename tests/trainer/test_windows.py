"""Random windows are sub-images, in the same place of everything that belongs together, and every place is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gan.trainer.randomness import generator
from gan.trainer.windows import cut, enlarge, flips, mirror, places, zoomed_size

from .conftest import CPU


def source(seed: int = 0) -> torch.Generator:
    return generator(CPU, seed, "windows")


def numbered(count: int, channels: int, size: int, offset: int = 0) -> Tensor:
    """Images in which every value is different."""
    whole = torch.arange(count * channels * size * size, dtype=torch.float32) + offset
    return whole.reshape(count, channels, size, size)


@pytest.mark.parametrize(("size", "window"), [(9, 4), (8, 8), (5, 1)])
def test_a_window_is_the_part_of_the_image_at_its_place(size: int, window: int) -> None:
    images = numbered(6, 3, size)
    where = places(6, size, window, source())
    (windows,) = cut([images], where, window)
    assert windows.shape == (6, 3, window, window) and windows.is_contiguous()
    for image, (y, x), seen in zip(images, where.tolist(), windows, strict=True):
        assert torch.equal(seen, image[:, y : y + window, x : x + window])


def test_images_may_be_wider_than_they_are_high() -> None:
    images = torch.arange(2 * 5 * 9).float().reshape(2, 1, 5, 9)
    (windows,) = cut([images], torch.tensor([[1, 5], [0, 6]]), 3)
    assert torch.equal(windows, torch.stack([images[0, :, 1:4, 5:8], images[1, :, 0:3, 6:9]]))


def test_windows_are_cut_alike_from_all_that_belongs_together() -> None:
    images = [numbered(5, 3, 7), numbered(5, 1, 7, 10_000)]
    where = places(5, 7, 3, source())
    first, second = cut(images, where, 3)
    assert first.shape == (5, 3, 3, 3) and second.shape == (5, 1, 3, 3)
    inside = (first[:, :1] - images[0][:, :1, :1, :1], second - images[1][:, :, :1, :1])
    assert torch.equal(*inside)


def test_every_place_is_drawn_equally_often() -> None:
    count = 16_000
    where = places(count, 7, 4, source(1))
    assert where.shape == (count, 2) and where.dtype == torch.int64
    found = torch.bincount(where[:, 0] * 4 + where[:, 1], minlength=16)
    assert len(found) == 16 and where.min() == 0 and where.max() == 3
    assert (found - count / 16).abs().max() < 5 * (count / 16) ** 0.5
    assert torch.equal(places(3, 5, 5, source()), torch.zeros(3, 2, dtype=torch.int64))


def test_places_are_a_function_of_the_generator_and_a_slice_of_them_cuts_a_slice() -> None:
    images, where = numbered(8, 2, 9), places(8, 9, 4, source(3))
    assert torch.equal(places(8, 9, 4, source(3)), where)
    assert not torch.equal(places(8, 9, 4, source(4)), where)
    (whole,) = cut([images], where, 4)
    (part,) = cut([images[3:6]], where[3:6], 4)
    assert torch.equal(part, whole[3:6])


def test_cutting_is_differentiable() -> None:
    images = numbered(2, 1, 6).requires_grad_()
    where = places(2, 6, 3, source())
    cut([images], where, 3)[0].sum().backward()
    assert images.grad is not None
    for (y, x), gradient in zip(where.tolist(), images.grad[:, 0], strict=True):
        inside = torch.zeros(6, 6)
        inside[y : y + 3, x : x + 3] = 1
        assert torch.equal(gradient, inside)


def test_a_zoom_is_one_factor_between_one_and_the_largest() -> None:
    drawn = [zoomed_size(100, 1.5, source(seed)) for seed in range(400)]
    assert min(drawn) >= 100 and max(drawn) <= 150
    assert min(drawn) < 103 and max(drawn) > 147 and abs(np.mean(drawn) - 125) < 4
    assert {zoomed_size(100, 1.0, source(seed)) for seed in range(9)} == {100}
    assert zoomed_size(100, 1.5, source(5)) == drawn[5]


def test_enlarging_is_bilinear_as_pillow_does_it() -> None:
    pixels = np.random.default_rng(0).random((2, 3, 10, 10), np.float32)
    large = enlarge(torch.from_numpy(pixels), 17)
    for image, mine in zip(pixels.reshape(-1, 10, 10), large.reshape(-1, 17, 17), strict=True):
        theirs = Image.fromarray(image).resize((17, 17), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(theirs) - mine.numpy()).max() < 1e-5
    same = torch.from_numpy(pixels)
    assert enlarge(same, 10) is same


def test_windows_of_a_zoomed_batch_are_parts_of_the_enlarged_images() -> None:
    images = [torch.rand(4, 3, 8, 8), torch.rand(4, 1, 8, 8)]
    where = places(4, 11, 6, source())
    for image, windows in zip(images, cut(images, where, 6, whole=11), strict=True):
        assert torch.equal(windows, cut([enlarge(image, 11)], where, 6)[0])


def test_half_of_the_images_are_mirrored_alike_in_all_that_belongs_together() -> None:
    turned = flips(4_000, source())
    assert turned.shape == (4_000, 1, 1, 1) and abs(int(turned.sum()) - 2_000) < 160
    images = [numbered(12, 3, 4), numbered(12, 1, 4)]
    chosen = turned[:12]
    assert 0 < int(chosen.sum()) < 12
    for image, seen in zip(images, mirror(images, chosen), strict=True):
        for number in range(12):
            wanted = image[number].flip(2) if chosen[number] else image[number]
            assert torch.equal(seen[number], wanted)


def test_flips_are_those_of_runs_before_there_were_windows() -> None:
    drawn = torch.rand((6, 1, 1, 1), generator=source(2)) < 0.5
    assert torch.equal(flips(6, source(2)), drawn)
