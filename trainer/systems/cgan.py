"""Conditional GAN: DCGAN's networks with labels required and a projection discriminator.

Mirza and Osindero 2014 for the idea, Miyato and Koyama 2018 for the projection. Without batch norm in D, R1 and
minibatch deviation keep it steady. The default for labelled data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .dcgan import DCGAN, DCGANOptions


@dataclass(frozen=True, kw_only=True)
class CGANOptions(DCGANOptions):
    r1: float = 1.0
    penalty_every: int = 8
    g_learning_rate: float = 1e-3
    d_learning_rate: float = 1e-3
    beta1: float = 0.0
    beta2: float = 0.99
    latent: int = 64
    width: int = 32
    d_norm: Literal["batch", "none"] = "none"
    minibatch_deviation: bool = True


class CGAN(DCGAN):
    """A DCGAN that makes an image of the class that is asked for."""

    name = "cgan"
    options_type = CGANOptions
    needs_labels = True
