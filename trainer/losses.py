"""Adversarial losses: pure functions of logits that read like the papers' formulas.

r are the discriminator's logits of reals, f of fakes; every discriminator ends in a raw logit, never a sigmoid.
On a tree of logits: the mean within a leaf, the sum over leaves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import relu
from torch.nn.functional import softplus as sp

from .parts import Batch, Live
from .trees import Tree, leaves

Formula = Callable[[Tensor, Tensor], Tensor]  # (r, f) -> one value an element


@dataclass(frozen=True)
class AdversarialLoss:
    """A pair of formulas.

    relative: only differences of r and f mean something, never their sign. paired: G's formula reads r too. boundary: the logit between what D takes
    for real and for fake. smooth: D's formula with the target 1 - e for reals; None where there is no target.
    distance: E r - E f estimates a distance of the two distributions.
    """

    name: str
    source: str
    discriminator: Formula
    generator: Formula
    relative: bool = False
    paired: bool = False
    boundary: float = 0.0
    smooth: Callable[[float], Formula] | None = None
    distance: bool = False

    def smoothed(self, epsilon: float) -> AdversarialLoss:
        """The same with one-sided label smoothing (Salimans et al. 2016, section 3.4)."""
        if not epsilon:
            return self
        assert self.smooth is not None
        return dataclasses.replace(self, discriminator=self.smooth(epsilon))

    def discriminator_objective(self, live: Live, batch: Batch) -> Tensor:
        return _over_leaves(
            self.discriminator, live.logits("real", batch), live.logits("fake", batch)
        )

    def generator_objective(self, live: Live, batch: Batch) -> Tensor:
        f = live.logits("fake", batch)
        r = live.logits("real", batch) if self.paired else f
        return _over_leaves(self.generator, r, f)


def _over_leaves(formula: Formula, real: Tree, fake: Tree) -> Tensor:
    return torch.stack(
        [formula(r, f).mean() for r, f in zip(leaves(real), leaves(fake), strict=True)]
    ).sum()


def _smooth_cross_entropy(e: float) -> Formula:
    return lambda r, f: (1 - e) * sp(-r) + e * sp(r) + sp(f)


MINIMAX = AdversarialLoss(
    "minimax",
    "Goodfellow et al. 2014, eq. 1",
    lambda r, f: sp(-r) + sp(f),
    lambda r, f: -sp(f),
    smooth=_smooth_cross_entropy,
)
NON_SATURATING = AdversarialLoss(
    "non-saturating",
    "Goodfellow et al. 2014, section 3",
    lambda r, f: sp(-r) + sp(f),
    lambda r, f: sp(-f),
    smooth=_smooth_cross_entropy,
)
LEAST_SQUARES = AdversarialLoss(
    "least-squares",
    "Mao et al. 2017, eq. 9, a = 0, b = c = 1, without the factor 1/2",
    lambda r, f: (r - 1).square() + f.square(),
    lambda r, f: (f - 1).square(),
    boundary=0.5,
    smooth=lambda e: lambda r, f: (r - (1 - e)).square() + f.square(),
)
HINGE = AdversarialLoss(
    "hinge",
    "Lim and Ye 2017",
    lambda r, f: relu(1 - r) + relu(1 + f),
    lambda r, f: -f,
)
WASSERSTEIN = AdversarialLoss(
    "wasserstein",
    "Arjovsky et al. 2017, eq. 3",
    lambda r, f: f - r,
    lambda r, f: -f,
    relative=True,
    distance=True,
)
RELATIVISTIC = AdversarialLoss(
    "relativistic",
    "Jolicoeur-Martineau 2018; paired as in Huang et al. 2024 (R3GAN)",
    lambda r, f: sp(-(r - f)),
    lambda r, f: sp(-(f - r)),
    relative=True,
    paired=True,
)
LOSSES = {
    loss.name: loss
    for loss in (NON_SATURATING, MINIMAX, LEAST_SQUARES, HINGE, WASSERSTEIN, RELATIVISTIC)
}


@torch.no_grad()
def distance(real: Tree, fake: Tree) -> float:
    """E r - E f, summed over leaves: the critic's estimate of the earth mover's distance, up to its slope."""
    pairs = zip(leaves(real), leaves(fake), strict=True)
    return sum((r.mean() - f.mean()).item() for r, f in pairs)


@torch.no_grad()
def accuracy(loss: AdversarialLoss, real: Tree, fake: Tree) -> tuple[float, float]:
    """Shares of reals and of fakes that the discriminator tells right: by the loss's boundary, or by pairs."""
    pairs = list(zip(leaves(real), leaves(fake), strict=True))
    if loss.relative:
        right = torch.stack([(r > f).float().mean() for r, f in pairs]).mean().item()
        return right, right
    real_right = torch.stack([(r > loss.boundary).float().mean() for r, _ in pairs]).mean().item()
    return real_right, torch.stack(
        [(f < loss.boundary).float().mean() for _, f in pairs]
    ).mean().item()
