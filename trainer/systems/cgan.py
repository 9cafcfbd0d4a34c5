"""Conditional GAN: DCGAN's networks with labels required and a projection discriminator.

Mirza and Osindero 2014 for the idea, Miyato and Koyama 2018 for the projection. D has no batch norm: lazy R1 keeps
it steady. The default for labelled data; benchmarks/LOG.md has the settings that were tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..options import Options, setting
from ..parts import DataInfo
from .dcgan import DCGAN, DCGANOptions


@dataclass(frozen=True, kw_only=True)
class CGANOptions(DCGANOptions):
    d_norm: Literal["batch", "none"] = setting("none", "normalisation in D")


class CGAN(DCGAN):
    """A DCGAN that makes an image of the class that is asked for."""

    name = "cgan"
    options_type = CGANOptions
    needs_labels = True

    @classmethod
    def preset(cls, data: DataInfo) -> Options:
        return CGANOptions(
            r1=1.0, penalty_every=8, g_learning_rate=2e-3, d_learning_rate=2e-3, beta1=0.0,
            beta2=0.99, decay_share=0.5, latent=64, batch_size=32, width=24,
        )  # fmt: skip
