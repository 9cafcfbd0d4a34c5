"""Penalties on a discriminator's gradient: pure functions of logits and the inputs they came from."""

from __future__ import annotations

import torch
from torch import Tensor

from .trees import Tree, leaves


def squared_gradient_norm(logits: Tree, inputs: Tree) -> Tensor:
    """E ||grad_x sum D(x)||^2 over a tree of inputs x: the body of R1 and R2.

    R1 is gamma/2 times this on reals, R2 on fakes (Mescheder et al. 2018, section 4.1). Differentiable.
    """
    xs = list(leaves(inputs))
    total = torch.stack([leaf.sum() for leaf in leaves(logits)]).sum()
    gradients = torch.autograd.grad(total, xs, create_graph=True)
    return torch.stack([g.square().flatten(1).sum(1).mean() for g in gradients]).sum()
