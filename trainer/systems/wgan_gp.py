"""WGAN-GP: Gulrajani et al. 2017. The critic is 1-Lipschitz because its gradient is drawn to norm 1.

L = E D(x~) - E D(x) + lambda E (||grad D(x^)|| - 1)^2 (eq. 3), x^ on the line from a fake to a real. The critic has no
batch norm, which would couple the samples whose gradients are penalised (section 4). DCGAN's networks for images, an
MLP for points; n_critic 5, Adam with betas (0.5, 0.9).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from torch import nn

from ..options import Options, setting
from ..parts import DataInfo
from ..system import System
from .wgan import CriticOptions, critic_networks


@dataclass(frozen=True, kw_only=True)
class WGANGPOptions(CriticOptions):
    d_norm: Literal["batch", "none"] = setting("none", "normalisation in the critic")


class WGANGP(System):
    """A critic with a gradient penalty."""

    name = "wgan-gp"
    options_type = WGANGPOptions
    kinds = ("image", "points")

    @classmethod
    def preset(cls, data: DataInfo) -> Options:
        if data.kind == "image":
            return WGANGPOptions(
                loss="wasserstein", gp=10.0, d_moves=5, beta1=0.5, beta2=0.9, batch_size=64,
                g_learning_rate=1e-4, d_learning_rate=1e-4,
            )  # fmt: skip
        return WGANGPOptions(
            loss="wasserstein", gp=0.1, d_moves=5, beta1=0.5, beta2=0.9, batch_size=256,
            g_learning_rate=1e-3, d_learning_rate=1e-3, decay_share=0.5, latent=2, width=128, growth=1,
        )  # fmt: skip

    def networks(self) -> dict[str, nn.Module]:
        return critic_networks(cast(WGANGPOptions, self.options), self.data, len(self.classes))
