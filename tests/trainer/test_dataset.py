"""Prepared data in memory: what a system learns of it, samples as tensors, and a digest that any change moves."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gan.trainer.dataset import Dataset
from gan.trainer.parts import DataInfo

from .conftest import CPU

PIXELS = np.arange(4 * 3 * 2 * 5, dtype=np.uint8).reshape(4, 3, 2, 5)
POINTS = np.linspace(-7, 300, 12, dtype=np.float32).reshape(6, 2)
LABELS = np.array([0, 1, 1, 0], np.int64)


def test_of_images_the_shape_and_the_classes_are_known() -> None:
    data = Dataset("pets", PIXELS, LABELS, ("cat", "dog"))
    assert data.info == DataInfo((3, 2, 5), ("cat", "dog"), "image")
    assert (data.info.channels, data.info.height, data.info.width) == (3, 2, 5)
    assert len(data) == 4


def test_of_points_the_dimensions_are_known() -> None:
    data = Dataset("cloud", POINTS, None, ())
    assert data.info == DataInfo((2,), (), "points")
    assert len(data) == 6


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_images_arrive_as_float32_of_minus_1_to_1_in_the_order_asked_for(kind: type) -> None:
    every = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    data = Dataset("levels", every, None, ())
    rows = [255, 0, 51, 51, 128]
    seen = data.samples_of(kind(rows), CPU)
    assert seen.dtype == torch.float32 and seen.shape == (5, 1, 1, 1)
    expected = [(row - 127.5) / 127.5 for row in rows]
    assert seen.flatten().tolist() == pytest.approx(expected, abs=1e-7)
    assert seen[0].item() == 1.0 and seen[1].item() == -1.0


def test_points_arrive_as_they_are() -> None:
    data = Dataset("cloud", POINTS, None, ())
    seen = data.samples_of(torch.tensor([5, 0, 3]), CPU)
    assert seen.dtype == torch.float32
    assert seen.numpy().tobytes() == POINTS[[5, 0, 3]].tobytes()


@pytest.mark.parametrize("samples", [PIXELS, POINTS], ids=["images", "points"])
def test_what_is_done_to_a_batch_leaves_the_data_alone(samples: NDArray[np.generic]) -> None:
    data = Dataset("data", samples.copy(), None, ())
    data.samples_of(torch.arange(4), CPU).zero_()
    assert (data.samples == samples).all()


def test_labels_arrive_as_int64_in_the_order_asked_for() -> None:
    data = Dataset("pets", PIXELS, LABELS, ("cat", "dog"))
    labels = data.labels_of(torch.tensor([3, 1, 0]), CPU)
    assert labels.dtype == torch.int64 and labels.tolist() == [0, 1, 0]


def test_the_digest_moves_with_samples_labels_and_classes_and_with_nothing_else() -> None:
    def digest(
        samples: NDArray[np.generic] = PIXELS,
        labels: NDArray[np.int64] | None = LABELS,
        classes: tuple[str, ...] = ("cat", "dog"),
        name: str = "pets",
    ) -> str:
        return Dataset(name, samples, labels, classes).digest

    other_pixel, other_label = PIXELS.copy(), LABELS.copy()
    other_pixel[3, 2, 1, 4] ^= 1
    other_label[3] ^= 1
    found = [
        digest(),
        digest(other_pixel),
        digest(PIXELS.reshape(4, 3, 5, 2)),
        digest(labels=other_label),
        digest(labels=None),
        digest(classes=("cat", "cow")),
        digest(classes=()),
    ]
    assert len(set(found)) == len(found)
    assert digest(PIXELS.copy(), LABELS.copy(), name="zoo") == found[0]


def test_the_digest_reads_every_row_of_large_data() -> None:
    many = np.zeros((5_000, 2), np.float32)
    before = Dataset("cloud", many, None, ()).digest
    many[4_999, 1] = 1
    assert Dataset("cloud", many, None, ()).digest != before


# Partners and windows.


PARTNERS = np.arange(4 * 1 * 2 * 5, dtype=np.uint8)[::-1].reshape(4, 1, 2, 5).copy()


def test_partners_are_known_by_their_shape_and_arrive_like_samples() -> None:
    data = Dataset("pairs", PIXELS, None, (), partners=PARTNERS, arrangement="pairs")
    assert data.info == DataInfo((3, 2, 5), (), "image", "pairs", (1, 2, 5))
    seen = data.partners_of(torch.tensor([3, 0]), CPU)
    assert seen.dtype == torch.float32 and seen.shape == (2, 1, 2, 5)
    assert seen.numpy() == pytest.approx(PARTNERS[[3, 0]] / 127.5 - 1, abs=1e-6)
    alone = Dataset("images", PIXELS, None, ()).info
    assert (alone.arrangement, alone.partner) == ("single", None)


@pytest.mark.parametrize(("size", "window", "start"), [(9, 4, 2), (8, 4, 2), (8, 8, 0), (9, 1, 4)])
def test_the_centre_window_or_the_whole_is_given(size: int, window: int, start: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, size, size), np.uint8)
    partners = 255 - pixels[:, :1]
    data = Dataset("p", pixels, None, (), partners=partners, arrangement="pairs", window=window)
    assert data.info.shape == (3, window, window) and data.info.partner == (1, window, window)
    rows = torch.tensor([4, 1])
    inside = slice(start, start + window)
    for stored, give in ((pixels, data.samples_of), (partners, data.partners_of)):
        middle = stored[[4, 1]][:, :, inside, inside] / 127.5 - 1
        assert give(rows, CPU).numpy() == pytest.approx(middle, abs=1e-6)
        assert give(rows, CPU, whole=True).numpy() == pytest.approx(
            stored[[4, 1]] / 127.5 - 1, abs=1e-6
        )


def test_a_window_is_no_part_of_the_digest_and_partners_are() -> None:
    def digest(partners: NDArray[np.uint8] | None, **more: Any) -> str:
        return Dataset("x", PIXELS, None, (), partners=partners, **more).digest

    pairs = digest(PARTNERS, arrangement="pairs")
    other = PARTNERS.copy()
    other[3, 0, 1, 4] ^= 1
    found = [
        pairs,
        digest(None),
        digest(other, arrangement="pairs"),
        digest(PARTNERS, arrangement="unpaired"),
        digest(PARTNERS[:3], arrangement="unpaired"),
        digest(PARTNERS.reshape(4, 1, 5, 2), arrangement="pairs"),
    ]
    assert len(set(found)) == len(found)
    assert digest(PARTNERS, arrangement="pairs", window=2) == pairs


def test_the_digest_of_single_data_is_that_of_earlier_versions() -> None:
    text = repr((PIXELS.shape, ("cat", "dog"))).encode()
    whole = hashlib.sha256(text + PIXELS.tobytes() + LABELS.tobytes()).hexdigest()
    assert Dataset("pets", PIXELS, LABELS, ("cat", "dog")).digest == whole
