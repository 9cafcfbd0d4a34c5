"""Penalties on a discriminator: pure functions of logits and the inputs they came from.

Each is the body of its formula, without its weight, and is differentiable. Inputs and logits may be trees.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .trees import Tree, leaves


def squared_gradient_norm(logits: Tree, inputs: Tree) -> Tensor:
    """E ||grad_x sum D(x)||^2 over a tree of inputs x: the body of R1 and R2.

    R1 is gamma/2 times this on reals, R2 on fakes (Mescheder et al. 2018, section 4.1).
    """
    return _squared_norms(logits, inputs).mean()


def gradient_penalty(logits: Tree, inputs: Tree) -> Tensor:
    """E (||grad_x D(x)|| - 1)^2 (Gulrajani et al. 2017, eq. 3)."""
    # clamped, because the root has no finite slope at 0
    norms = _squared_norms(logits, inputs).clamp_min(1e-20).sqrt()
    return (norms - 1).square().mean()


def roth_penalty(r: Tree, x: Tree, f: Tree, y: Tree) -> Tensor:
    """E[(1 - s(r))^2 ||grad_x r||^2 + s(f)^2 ||grad_y f||^2], s the sigmoid (Roth et al. 2017, eq. 21).

    r: logits of reals x; f: of fakes y. Of several logits a sample, their sum is differentiated and their mean
    weighs.
    """
    real = (1 - _mean_logit(r).sigmoid()).square() * _squared_norms(r, x)
    fake = _mean_logit(f).sigmoid().square() * _squared_norms(f, y)
    return (real + fake).mean()


def squared_logits(logits: Tree) -> Tensor:
    """E[D(x)^2], the drift term (Karras et al. 2018, appendix A.1): the mean in a leaf, the sum over leaves."""
    return torch.stack([leaf.square().mean() for leaf in leaves(logits)]).sum()


def _squared_norms(logits: Tree, inputs: Tree) -> Tensor:
    """||grad_x sum D(x)||^2 of each sample: (B,), summed over a tree of inputs of one batch size."""
    xs = list(leaves(inputs))
    total = torch.stack([leaf.sum() for leaf in leaves(logits)]).sum()
    gradients = torch.autograd.grad(total, xs, create_graph=True)
    return torch.stack([g.square().flatten(1).sum(1) for g in gradients]).sum(0)


def _mean_logit(logits: Tree) -> Tensor:
    """One logit a sample: (B,)."""
    parts = [leaf.reshape(len(leaf), -1).mean(1) for leaf in leaves(logits)]
    return torch.stack(parts).mean(0)
