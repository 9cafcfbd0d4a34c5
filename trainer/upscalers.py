"""Networks that enlarge an image: residual-in-residual dense blocks."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu, pixel_unshuffle

DENSE = 5  # convolutions of a dense block, of which an RRDB has three
SHARE = 0.2  # of what a block adds


class DenseBlock(nn.Module):
    """x + 0.2 of five 3x3 convolutions, each of which sees x and all maps before it."""

    def __init__(self, c: int, growth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(c + i * growth, growth if i < DENSE - 1 else c, 3, padding=1)
            for i in range(DENSE)
        )

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for conv in self.convs[:-1]:
            maps.append(leaky_relu(conv(torch.cat(maps, 1)), 0.2))
        return x + SHARE * self.convs[-1](torch.cat(maps, 1))


class RRDB(nn.Sequential):
    """x + 0.2 of three dense blocks."""

    def __init__(self, c: int, growth: int) -> None:
        super().__init__(*(DenseBlock(c, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for block in self:
            h = block(h)
        return x + SHARE * h


class RRDBNet(nn.Module):
    """image -> image `scale` times as large, both in [-1, 1] (Wang et al. 2018, section 3.1); inside from 0 to 1, as
    the published weights have it.

    unshuffle: the blocks work at a size so many times smaller, where u x u pixels are channels (Wang et al. 2021,
    section 3.2: 2 for a scale of 2, 4 for one of 1); the sides of the image must be multiples of it. scale and
    unshuffle are powers of two.
    """

    def __init__(
        self, channels: int, width: int, blocks: int, growth: int, scale: int, unshuffle: int = 1
    ) -> None:
        super().__init__()
        self.unshuffle = unshuffle
        self.first = nn.Conv2d(channels * unshuffle**2, width, 3, padding=1)
        self.body = nn.Sequential(*(RRDB(width, growth) for _ in range(blocks)))
        self.tail = nn.Conv2d(width, width, 3, padding=1)
        doublings = int(math.log2(scale * unshuffle))
        self.ups = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(doublings))
        self.large = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        self.body.apply(_begin_small)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        x = pixel_unshuffle((x + 1) / 2, self.unshuffle)  # (B, u^2 C, H / u, W / u)
        h = self.first(x)
        h = h + self.tail(self.body(h))
        for up in self.ups:
            h = leaky_relu(up(interpolate(h, scale_factor=2.0, mode="nearest")), 0.2)
        return 2 * self.last(leaky_relu(self.large(h), 0.2)) - 1  # (B, C, s H, s W)

    @staticmethod
    def radius(blocks: int, scale: int, unshuffle: int = 1) -> int:
        """How far, in pixels of the input, a pixel of the output can see: its reach followed back through the layers."""
        doublings, furthest = int(math.log2(scale * unshuffle)), 0
        for place in range(2**doublings):  # of an output pixel; from there on it repeats
            first = place - 2  # the other way it is as far, from the mirrored place
            for _ in range(doublings):
                first = (first - 1) // 2
            first = unshuffle * (first - (1 + 3 * DENSE * blocks + 1))
            furthest = max(furthest, place // scale - first)
        return furthest


def _begin_small(module: nn.Module) -> None:
    """A tenth of He's initial weights (Wang et al. 2018, section 3.1: a smaller initialisation)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        with torch.no_grad():
            module.weight.mul_(0.1)
        nn.init.zeros_(cast(Tensor, module.bias))
