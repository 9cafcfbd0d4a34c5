"""GAN: Goodfellow et al. 2014, fully connected, on images or points.

G is z -> width, 2 width, 4 width, ... -> sample, and D the reverse with dropout. The paper's D has maxout units; here
both have LeakyReLU, as in most code since. `--loss minimax` is the paper's eq. 1, `non-saturating` (the default) what
its section 3 advises against vanishing gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from ..layers import MinibatchDeviation
from ..options import Options, setting
from ..parts import DataInfo
from ..system import System


@dataclass(frozen=True, kw_only=True)
class GANOptions(Options):
    width: int = setting(
        256, "units of the layer next to z in G, and next to the logit in D", above=0, below=2**16
    )
    depth: int = setting(3, "hidden layers of G and of D", low=1, high=32)
    growth: int = setting(
        2, "each layer towards the sample has so many times the units", low=1, high=64
    )
    dropout: float = setting(0.3, "share of D's units that are left out in a move", below=1)
    batch_size: int = setting(100, "samples a move", above=0, below=2**24)
    beta1: float = setting(0.9, "of Adam", below=1)

    @property
    def hidden(self) -> list[int]:
        """Units of G's hidden layers, from z to the sample."""
        return [self.width * self.growth**i for i in range(self.depth)]


class MLPGenerator(nn.Module):
    """z [, label] -> sample: fully connected; images end in tanh, points as they are."""

    def __init__(
        self,
        o: Options,
        hidden: Sequence[int],
        data: DataInfo,
        classes: int,
        activation: Callable[[], nn.Module] = lambda: nn.LeakyReLU(0.2),
    ) -> None:
        super().__init__()
        self.shape = data.shape
        self.embed = nn.Embedding(classes, o.embedding) if classes else None
        widths = [o.latent + (o.embedding if classes else 0), *hidden]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), activation()]
        layers.append(nn.Linear(widths[-1], math.prod(data.shape)))
        if data.kind == "image":
            layers.append(nn.Tanh())
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.embed is not None:
            z = torch.cat([z, self.embed(label)], 1)  # (B, latent + embedding)
        return self.layers(z).reshape(-1, *self.shape)  # (B, C, H, W) or (B, D)


class MLPDiscriminator(nn.Module):
    """sample [, label] -> logit: fully connected; a label enters by projection on the last hidden layer."""

    def __init__(
        self,
        o: Options,
        hidden: Sequence[int],
        data: DataInfo,
        classes: int,
        dropout: float = 0.0,
        activation: Callable[[], nn.Module] = lambda: nn.LeakyReLU(0.2),
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for a, b in pairwise([math.prod(data.shape), *hidden]):
            layers += [nn.Linear(a, b), activation()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        if o.minibatch_deviation:
            layers.append(MinibatchDeviation())
        self.layers = nn.Sequential(*layers)
        features = hidden[-1] + int(o.minibatch_deviation)
        self.out = nn.Linear(features, 1)
        self.embed = nn.Embedding(classes, features) if classes else None

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        h = self.layers(x)  # (B, F)
        logit = self.out(h).flatten()  # (B,)
        if self.embed is not None:
            logit = logit + (self.embed(label) * h).sum(1) / math.sqrt(h.shape[1])
        return logit


def mlp_networks(o: GANOptions, data: DataInfo, classes: int) -> dict[str, nn.Module]:
    """G and D of the paper's kind."""
    return {
        "G": MLPGenerator(o, o.hidden, data, classes),
        "D": MLPDiscriminator(o, o.hidden[::-1], data, classes, o.dropout),
    }


class GAN(System):
    """Fully connected generator and discriminator."""

    name = "gan"
    options_type = GANOptions
    kinds = ("image", "points")

    @classmethod
    def preset(cls, data: DataInfo) -> Options:
        if data.kind == "image":
            return GANOptions()
        return GANOptions(
            width=128, growth=1, dropout=0.0, latent=2, batch_size=256, beta1=0.5,
            g_learning_rate=1e-3, d_learning_rate=1e-3, decay_share=0.5,
        )  # fmt: skip

    def networks(self) -> dict[str, nn.Module]:
        return mlp_networks(cast(GANOptions, self.options), self.data, len(self.classes))
