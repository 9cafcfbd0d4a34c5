"""Random windows, enlargement and mirror images of training images, alike for all images of a list."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def zoomed(images: list[Tensor], zoom: float, source: torch.Generator) -> list[Tensor]:
    """Images [B, C, H, W], all enlarged by one factor of [1, zoom]."""
    if zoom == 1.0:
        return images
    draw = torch.rand((), generator=source, device=source.device).item()
    h, w = (round(side * (1 + draw * (zoom - 1))) for side in images[0].shape[2:])
    return [interpolate(x, (h, w), mode="bilinear", antialias=True) for x in images]


def places(count: int, sides: tuple[int, int], window: int, source: torch.Generator) -> Tensor:
    """Where windows of so many pixels begin: int64 [count, 2], rows and columns."""
    room = torch.tensor([side - window + 1 for side in sides], device=source.device)
    draws = torch.rand((count, 2), generator=source, device=source.device)
    return torch.minimum((draws * room).long(), room - 1)


def cut(images: list[Tensor], begin: Tensor, window: int) -> list[Tensor]:
    """The windows [B, C, window, window] of [B, C, H, W] that begin there (B, 2)."""
    span = torch.arange(window, device=begin.device)
    number = torch.arange(len(begin), device=begin.device)[:, None, None]
    rows, columns = (begin[:, i, None] + span for i in (0, 1))  # (B, window)
    index = number, rows[:, :, None], columns[:, None, :]
    return [x.permute(0, 2, 3, 1)[index].permute(0, 3, 1, 2).contiguous() for x in images]


def mirrored(images: list[Tensor], flip: Tensor) -> list[Tensor]:
    """The mirror images of those that `flip` (B,) names, the others as they are."""
    return [torch.where(flip[:, None, None, None], x.flip(3), x) for x in images]
