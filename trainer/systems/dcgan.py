"""DCGAN: Radford, Metz and Chintala 2016, with labels where the data has them.

Its rules (section 3): no pooling and no fully connected layer, batch norm everywhere but at G's output and D's
input, ReLU in G with tanh at its end, LeakyReLU in D. Labels enter G by an embedding beside z, and D by projection
(Miyato and Koyama 2018), in a head that has no batch norm either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from ..layers import MinibatchDeviation, smallest_map
from ..options import Options, setting
from ..parts import DataInfo
from ..system import System

MAX_CHANNELS = 1024


@dataclass(frozen=True, kw_only=True)
class DCGANOptions(Options):
    width: int = setting(64, "channels of the layer next to the image", above=0, below=2**16)
    up: Literal["transpose", "resize"] = setting("transpose", "how G doubles the size")
    d_norm: Literal["batch", "none"] = setting("batch", "normalisation in D")


class Upsample(nn.Sequential):
    """Twice the size: a transposed convolution, or nearest neighbours and a convolution, which leaves no
    checkerboard (Odena et al. 2016)."""

    def __init__(self, c_in: int, c_out: int, up: str) -> None:
        if up == "transpose":
            layers: list[nn.Module] = [nn.ConvTranspose2d(c_in, c_out, 4, 2, 1, bias=False)]
        else:
            layers = [nn.Upsample(scale_factor=2), nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)]
        super().__init__(*layers)


class DCGenerator(nn.Module):
    """z [, label] -> image: a map of `base` pixels from a 1x1 one, then doubled to the resolution."""

    def __init__(self, o: DCGANOptions, data: DataInfo, classes: int) -> None:
        super().__init__()
        base, c = plan(data, o.width)
        self.embed = nn.Embedding(classes, o.embedding) if classes else None
        c_in = o.latent + (o.embedding if classes else 0)
        layers: list[nn.Module] = [nn.ConvTranspose2d(c_in, c[0], base, bias=False)]
        for a, b in pairwise(c):
            layers += [nn.BatchNorm2d(a), nn.ReLU(), Upsample(a, b, o.up)]
        layers += [
            nn.BatchNorm2d(c[-1]),
            nn.ReLU(),
            Upsample(c[-1], data.channels, o.up),
            nn.Tanh(),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], 1)  # (B, latent + embedding)
        return self.layers(z[:, :, None, None])  # (B, C, H, W)


class DCDiscriminator(nn.Module):
    """image [, label] -> logit: halved down to a map of `base` pixels, then one convolution over all of it."""

    def __init__(self, o: DCGANOptions, data: DataInfo, classes: int) -> None:
        super().__init__()
        base, c = plan(data, o.width)
        bias = o.d_norm == "none"
        widths = [data.channels, *reversed(c)]
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise(widths)):
            layers.append(nn.Conv2d(a, b, 4, 2, 1, bias=bias))
            if i and o.d_norm == "batch":
                layers.append(nn.BatchNorm2d(b))
            layers.append(nn.LeakyReLU(0.2))
        if o.minibatch_deviation:
            layers.append(MinibatchDeviation())
        self.layers = nn.Sequential(*layers)
        features = c[0] + int(o.minibatch_deviation)
        self.embed = nn.Embedding(classes, o.projection) if classes else None
        if classes:
            self.head: nn.Module = nn.Sequential(
                nn.Conv2d(features, o.projection, base, bias=bias), nn.LeakyReLU(0.2)
            )
            self.out = nn.Conv2d(o.projection, 1, 1, bias=bias)
        else:
            self.head = nn.Identity()
            self.out = nn.Conv2d(features, 1, base, bias=bias)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        h = self.head(self.layers(x))  # (B, projection, 1, 1)
        logit = self.out(h).flatten()  # (B,)
        if self.embed is not None:
            h = h.flatten(1)
            logit = logit + (self.embed(label) * h).sum(1) / math.sqrt(h.shape[1])
        return logit


def plan(data: DataInfo, width: int) -> tuple[int, list[int]]:
    """Size of the smallest map (4 to 7) and G's channels from there on, the image's left out.

    64 px: 4 and 512, 256, 128, 64. 28 px: 7 and 128, 64. Other sizes raise `InputError`.
    """
    base, doublings = smallest_map(data, 1)
    return base, [min(width * 2**i, MAX_CHANNELS) for i in reversed(range(doublings))]


def initialise(module: nn.Module) -> None:
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


def dc_networks(o: DCGANOptions, data: DataInfo, classes: int) -> dict[str, nn.Module]:
    """G and D of the paper's kind, initialised."""
    networks = {"G": DCGenerator(o, data, classes), "D": DCDiscriminator(o, data, classes)}
    for network in networks.values():
        network.apply(initialise)
    return dict(networks)


class DCGAN(System):
    """Convolutional generator and discriminator."""

    name = "dcgan"
    options_type = DCGANOptions

    def __init__(self, options: Options, data: DataInfo) -> None:
        super().__init__(options, data)
        plan(data, options.width)  # refuses a resolution before anything is made

    def networks(self) -> dict[str, nn.Module]:
        return dc_networks(cast(DCGANOptions, self.options), self.data, len(self.classes))
