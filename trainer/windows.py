"""Random windows and random mirroring of a batch, the same for all images that belong together.

What is random is drawn for the whole batch of all processes, each of which then takes its slice of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def zoomed_size(size: int, zoom: float, source: torch.Generator) -> int:
    """Pixels a side after enlarging by a factor in [1, zoom], one for the whole batch."""
    factor = torch.rand((), generator=source, device=source.device).item()
    return round(size * (1.0 + (zoom - 1.0) * factor))


def places(count: int, whole: int, window: int, source: torch.Generator) -> Tensor:
    """Where windows of `window` pixels begin in images of `whole` pixels, all places alike: int64 [count, 2], y and x."""
    last = whole - window
    return torch.randint(0, last + 1, (count, 2), generator=source, device=source.device)


def cut(
    images: Sequence[Tensor], places: Tensor, window: int, *, whole: int | None = None
) -> list[Tensor]:
    """Windows [B, C, window, window] of images [B, C, H, W], alike from each; first enlarged to `whole` pixels a side."""
    if whole is not None:
        images = [enlarge(image, whole) for image in images]
    steps = torch.arange(window, device=places.device)
    rows, columns = ((places[:, axis, None] + steps) for axis in (0, 1))  # (B, window)
    return [_window(image, rows, columns) for image in images]


def enlarge(images: Tensor, size: int) -> Tensor:
    """[B, C, size, size], bilinear; the same images where nothing changes."""
    if images.shape[2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear")


def flips(count: int, source: torch.Generator) -> Tensor:
    """Which images are mirrored, half of them: bool [count, 1, 1, 1]."""
    return torch.rand((count, 1, 1, 1), generator=source, device=source.device) < 0.5


def mirror(images: Sequence[Tensor], flips: Tensor) -> list[Tensor]:
    """The images, left and right exchanged where `flips` says so, alike in each."""
    return [torch.where(flips, image.flip(3), image) for image in images]


def _window(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    pixels = (rows[:, :, None] * image.shape[3] + columns[:, None, :]).flatten(1)  # (B, w * w)
    picked = image.flatten(2).gather(2, pixels[:, None].expand(-1, image.shape[1], -1))
    return picked.unflatten(2, (rows.shape[1], columns.shape[1]))  # (B, C, w, w)
