"""WGAN: Arjovsky, Chintala and Bottou 2017. The critic is 1-Lipschitz, roughly, because its weights are clipped.

Algorithm 1: n_critic moves of the critic, each followed by w <- clip(w, -c, c), then one of G, all by RMSprop. As in
the authors' code the critic gets 100 moves in each of the first 25 steps and in every 500th, so that it is near its
optimum when its estimate counts. E f(x) - E f(G(z)) is logged as `distance`: up to a factor the earth mover's
distance of reals and fakes. DCGAN's networks for images, an MLP for points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import nn

from ..options import Options, setting
from ..parts import DataInfo, Turn
from ..system import System
from .dcgan import DCGANOptions, dc_networks
from .gan import GANOptions, mlp_networks


@dataclass(frozen=True, kw_only=True)
class CriticOptions(DCGANOptions, GANOptions):
    dropout: float = setting(0.0, "share of the critic's units left out in a move", below=1)


@dataclass(frozen=True, kw_only=True)
class WGANOptions(CriticOptions):
    warm_up: int = setting(
        25, "first steps in which the critic has warm_up_moves, as in every 500th"
    )
    warm_up_moves: int = setting(100, "moves of the critic in those steps", above=0)


def critic_networks(o: CriticOptions, data: DataInfo, classes: int) -> dict[str, nn.Module]:
    """G and the critic: DCGAN's for images, fully connected ones for points."""
    make = dc_networks if data.kind == "image" else mlp_networks
    return make(o, data, classes)


class WGAN(System):
    """A critic with clipped weights."""

    name = "wgan"
    options_type = WGANOptions
    kinds = ("image", "points")

    @classmethod
    def preset(cls, data: DataInfo) -> Options:
        if data.kind == "image":
            return WGANOptions(
                loss="wasserstein", clip_weights=0.01, d_moves=5, optimizer="rmsprop", beta2=0.99,
                g_learning_rate=5e-5, d_learning_rate=5e-5, batch_size=64,
            )  # fmt: skip
        return WGANOptions(
            loss="wasserstein", clip_weights=0.1, d_moves=5, optimizer="rmsprop", beta2=0.99,
            g_learning_rate=5e-4, d_learning_rate=5e-4, batch_size=256, latent=2, width=128, growth=1,
        )  # fmt: skip

    def networks(self) -> dict[str, nn.Module]:
        return critic_networks(cast(WGANOptions, self.options), self.data, len(self.classes))

    def turns(self) -> tuple[Turn, ...]:
        o = cast(WGANOptions, self.options)

        def moves(step: int) -> int:
            return o.warm_up_moves if step < o.warm_up or step % 500 == 0 else o.d_moves

        _, g = super().turns()
        return Turn("D", moves if o.warm_up else o.d_moves), g
