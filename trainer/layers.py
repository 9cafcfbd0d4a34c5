"""Layers that several systems share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MinibatchDeviation(nn.Module):
    """Appends one channel: the standard deviation over the batch, averaged over features and places.

    Karras et al. 2018 (progressive growing), section 3. It couples the samples of a batch, so it belongs to
    discriminators only.
    """

    def forward(self, x: Tensor) -> Tensor:
        deviation = (x.var(0, correction=0) + 1e-8).sqrt().mean()
        return torch.cat([x, deviation.expand(len(x), 1, *x.shape[2:])], 1)  # (B, C + 1, H, W)
