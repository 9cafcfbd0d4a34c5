"""Conditional GAN: DCGAN's networks with labels required and a projection discriminator.

Mirza and Osindero 2014 for the idea, Miyato and Koyama 2018 for the projection. D has no batch norm: lazy R1 keeps
it steady. The default for labelled data; benchmarks/LOG.md has the settings that were tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .dcgan import DCGAN, DCGANOptions


@dataclass(frozen=True, kw_only=True)
class CGANOptions(DCGANOptions):
    r1: float = 1.0
    penalty_every: int = 8
    g_learning_rate: float = 2e-3
    d_learning_rate: float = 2e-3
    beta1: float = 0.0
    beta2: float = 0.99
    decay_share: float = 0.5
    latent: int = 64
    batch_size: int = 32
    width: int = 24
    d_norm: Literal["batch", "none"] = "none"


class CGAN(DCGAN):
    """A DCGAN that makes an image of the class that is asked for."""

    name = "cgan"
    options_type = CGANOptions
    needs_labels = True
