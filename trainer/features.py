"""Random features: a small convolutional network with fixed weights, the same on every machine.

No weights to download, and fair to data far from photographs; random embeddings are what Naeem et al. 2020
(section 5) recommend there.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, leaky_relu

from ..runtime import latents

SEED = 0x6761_6E66_6561_7431  # of the weights; a change is a change of every metric
WIDTHS = (32, 64, 128)


class RandomFeatures(nn.Module):
    """Images [B, C, H, W] of [-1, 1] -> features [B, 128 + 128 * 16]: three strided convolutions, then global
    and 4x4 means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in pairwise((channels, *WIDTHS))
        )
        with torch.no_grad():
            for number, layer in enumerate(self.layers):
                assert isinstance(layer, nn.Conv2d)
                fan_in = layer.weight[0].numel()
                drawn = latents.words(SEED, number, range(len(layer.weight)), fan_in)
                values = latents.normals(drawn) / np.float32(math.sqrt(fan_in))
                layer.weight.copy_(torch.from_numpy(values).view_as(layer.weight))
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = leaky_relu(layer(x), 0.2)
        return torch.cat([x.mean((2, 3)), adaptive_avg_pool2d(x, 4).flatten(1) / 4], 1)


class RandomMaps(nn.Module):
    """Images -> the maps of the three convolutions, 1/2, 1/4 and 1/8 of the image's size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = RandomFeatures(channels).layers

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for layer in self.layers:
            x = leaky_relu(layer(x), 0.2)
            maps.append(x)
        return maps


@torch.no_grad()
def embed(features: nn.Module, images: Tensor, chunk: int = 256) -> Tensor:
    """Features of many images, some at a time: float32 [N, F]."""
    return torch.cat([features(part) for part in images.split(chunk)])
