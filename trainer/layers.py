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


def initialise_dcgan(module: nn.Module) -> None:
    """N(0, 0.02) for weights, N(1, 0.02) for batch norm's gains (Radford et al. 2016, section 4).

    Embeddings keep N(0, 1): a class is an input, like z.
    """
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
