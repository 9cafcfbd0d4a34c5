"""The penalties of penalties.py as objectives of a discriminator: what they are taken of, in a training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .parts import Batch, Live
from .penalties import gradient_penalty, roth_penalty, squared_gradient_norm, squared_logits
from .trees import leaves, tree_zip


def r1_penalty(live: Live, batch: Batch) -> Tensor:
    """E ||grad_x D(x)||^2 on reals (Mescheder et al. 2018, eq. 9, without gamma/2)."""
    return squared_gradient_norm(live.logits("real", batch), batch["real"])


def r2_penalty(live: Live, batch: Batch) -> Tensor:
    """E ||grad_x D(x)||^2 on fakes."""
    return squared_gradient_norm(live.logits("fake", batch), batch["fake"])


def interpolated_gradient_penalty(live: Live, batch: Batch) -> Tensor:
    """E (||grad D(x^)|| - 1)^2 at x^ = e x + (1 - e) G(z), e uniform for each sample (Gulrajani et al. 2017, eq. 3)."""
    reals, fakes = batch["real"], batch["fake"]
    first = next(leaves(reals))
    e = torch.rand(len(first), generator=batch["source"], device=first.device)  # one a sample

    def mix(x: Tensor, y: Tensor) -> Tensor:
        share = e.reshape(-1, *(1 for _ in x.shape[1:]))
        mixed = share * x + (1 - share) * y
        return mixed if mixed.requires_grad else mixed.requires_grad_()

    batch["mixed"] = tree_zip(mix, reals, fakes)
    return gradient_penalty(live.logits("mixed", batch), batch["mixed"])


def roth(live: Live, batch: Batch) -> Tensor:
    """Roth et al. 2017, eq. 21, without gamma/2."""
    real, fake = live.logits("real", batch), live.logits("fake", batch)
    return roth_penalty(real, batch["real"], fake, batch["fake"])


def l1(live: Live, batch: Batch) -> Tensor:
    """E |y - G(x)|, the mean over pixels and channels."""
    return (batch["fake"] - batch["real"]).abs().mean()


def mse(live: Live, batch: Batch) -> Tensor:
    """E (y - G(x))^2, the mean over pixels and channels."""
    return (batch["fake"] - batch["real"]).square().mean()


class Perceptual:
    """The mean squared distance in the features of a fixed network (Johnson et al. 2016, section 3.2; Ledig et al. 2017,
    eq. 5), summed over its maps.

    network: an image of [-1, 1] to a tensor, or to a tree of them. It is not trained.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval().requires_grad_(False)

    def __call__(self, live: Live, batch: Batch) -> Tensor:
        return self.between(batch["fake"], batch["real"])

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        self.network.to(x.device)
        with torch.no_grad():
            wanted = list(leaves(self.network(y)))
        seen = leaves(self.network(x))
        pairs = zip(seen, wanted, strict=True)
        return torch.stack([(a - b).square().mean() for a, b in pairs]).sum()


def drift(live: Live, batch: Batch) -> Tensor:
    """E[D(x)^2] on reals."""
    return squared_logits(live.logits("real", batch))
