"""Resampling with the filter [1, 3, 3, 1], zeros outside: blur, twice and half the size (Karras et al. 2020a)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, pad

TAPS = (1.0, 3.0, 3.0, 1.0)


def taps(like: Tensor, gain: float = 1.0) -> Tensor:
    """The two-dimensional filter, of sum `gain`, once for each channel: (C, 1, 4, 4)."""
    line = torch.tensor(TAPS, device=like.device, dtype=like.dtype) / sum(TAPS)
    return (gain * torch.outer(line, line)).expand(like.shape[1], 1, 4, 4)


def blur(x: Tensor, before: int, after: int, gain: float = 1.0) -> Tensor:
    """Filtered, with so many zeros around: (B, C, H, W) -> (B, C, H + before + after - 3, ...)."""
    return conv2d(pad(x, (before, after, before, after)), taps(x, gain), groups=x.shape[1])


def upsample(x: Tensor) -> Tensor:
    """Zeros put between the pixels, then filtered with gain 4: (B, C, 2H, 2W)."""
    return conv_transpose2d(x, taps(x, 4.0), stride=2, padding=1, groups=x.shape[1])


def downsample(x: Tensor) -> Tensor:
    """Filtered, and every second pixel kept: (B, C, H/2, W/2)."""
    return conv2d(x, taps(x), stride=2, padding=1, groups=x.shape[1])
