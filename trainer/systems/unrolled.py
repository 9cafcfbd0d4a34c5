"""Unrolled GAN: Metz et al. 2017. G is judged by the discriminator as it will be `unroll` moves later.

On points the paper's own networks (section 3.1 and appendix A): two hidden layers of 128 tanh units each,
orthogonal weights, z of 256 numbers, Adam with rate 1e-4 for D and 1e-3 for G, 5 unrolling steps. On images DCGAN's
networks without batch norm in D, which could not be unrolled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from torch import nn

from ..options import Options, setting
from ..parts import DataInfo
from ..system import System
from .dcgan import DCGANOptions, dc_networks
from .gan import GANOptions, MLPDiscriminator, MLPGenerator


@dataclass(frozen=True, kw_only=True)
class UnrolledOptions(DCGANOptions, GANOptions):
    d_norm: Literal["batch", "none"] = setting(
        "none", "normalisation in D; batch cannot be unrolled"
    )
    dropout: float = setting(0.0, "share of D's units left out in a move", below=1)


def orthogonal(module: nn.Module) -> None:
    """Orthogonal weights of gain 1.4 and no bias, as in the authors' code."""
    if isinstance(module, nn.Linear):
        nn.init.orthogonal_(module.weight, 1.4)
        nn.init.zeros_(module.bias)


class Unrolled(System):
    """A generator that looks ahead."""

    name = "unrolled"
    options_type = UnrolledOptions
    kinds = ("image", "points")

    @classmethod
    def preset(cls, data: DataInfo) -> Options:
        if data.kind == "image":
            return UnrolledOptions(unroll=5, beta1=0.5, width=16, batch_size=64)
        return UnrolledOptions(
            unroll=5, g_learning_rate=1e-3, d_learning_rate=1e-4, beta1=0.5, batch_size=512,
            latent=256, width=128, depth=2, growth=1,
        )  # fmt: skip

    def networks(self) -> dict[str, nn.Module]:
        o, classes = cast(UnrolledOptions, self.options), len(self.classes)
        if self.data.kind == "image":
            return dc_networks(o, self.data, classes)
        g = MLPGenerator(o, o.hidden, self.data, classes, nn.Tanh)
        d = MLPDiscriminator(o, o.hidden[::-1], self.data, classes, o.dropout, nn.Tanh)
        return {"G": g.apply(orthogonal), "D": d.apply(orthogonal)}
