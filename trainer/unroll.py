"""Unrolled GANs (Metz et al. 2017): the opponents' networks as they will be k moves later, differentiably.

theta^(0) = theta_D;  theta^(i+1) = theta^(i) + the optimiser's step on L_D(theta^(i), theta_G);  G's loss is taken at
theta^(k), and its gradient also flows through theta^(k)(theta_G). D itself moves by one ordinary step from theta^(0).
The limits of D's real moves (clipped gradients and weights) are not foreseen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .optimizers import Moments, ahead
from .parts import Batch, Player

Loss = Callable[
    [Mapping[str, nn.Module]], Tensor
]  # the opponent's loss with these networks in the place of its own


class Foreseen(nn.Module):
    """A network with other weights: calling it calls the network with them."""

    def __init__(self, network: nn.Module, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._parts = (network, dict(weights))  # in a tuple, so that they are not its own

    def forward(self, *arguments: Any, **named: Any) -> Any:
        network, weights = self._parts
        return torch.func.functional_call(network, weights, arguments, named)


def foresee(
    player: Player,
    networks: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    k: int,
) -> dict[str, Foreseen]:
    """The player's networks after k of its optimiser's steps on `loss`, as functions of all that the loss reads."""
    names = [
        (network, name)
        for network in player.networks
        for name, _ in networks[network].named_parameters()
    ]
    own = [networks[network].get_parameter(name) for network, name in names]
    weights: Sequence[Tensor] = [p.detach().requires_grad_() for p in own]
    moments: list[Moments] | None = None
    for _ in range(k):
        value = loss(_with(names, weights, networks))
        gradients = torch.autograd.grad(value, weights, create_graph=True, materialize_grads=True)
        weights, moments = ahead(optimizer, own, weights, gradients, moments)
    return _with(names, weights, networks)


def _with(
    names: Sequence[tuple[str, str]], weights: Sequence[Tensor], networks: Mapping[str, nn.Module]
) -> dict[str, Foreseen]:
    by_network: dict[str, dict[str, Tensor]] = {}
    for (network, name), value in zip(names, weights, strict=True):
        by_network.setdefault(network, {})[name] = value
    return {name: Foreseen(networks[name], values) for name, values in by_network.items()}


def without_logits(batch: Batch) -> Batch:
    """The batch as before any discriminator saw it."""
    return {name: value for name, value in batch.items() if not name.endswith(" logits")}
