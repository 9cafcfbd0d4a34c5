"""Optimisers by name, and their steps as differentiable functions, for unrolled discriminators.

`make` gives torch's own; `ahead` computes the step that it would take, as a function of weights and gradients through
which can be differentiated (Metz et al. 2017, eq. 4 to 6).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

EPSILON = 1e-8
TINY = 1e-30  # its root is nothing beside EPSILON; at 0 the root has no finite slope
Moments = dict[str, Any]
Rule = Callable[[Tensor, Tensor, Moments, dict[str, Any]], tuple[Tensor, Moments]]


def make(
    kind: str,
    parameters: Sequence[nn.Parameter],
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Adam, RMSprop (alpha = beta2) or plain SGD. weight_decay lambda adds lambda w to the gradient of w."""
    if kind == "adam":
        return torch.optim.Adam(
            parameters, learning_rate, betas=betas, eps=EPSILON, weight_decay=weight_decay
        )
    if kind == "rmsprop":
        return torch.optim.RMSprop(
            parameters, learning_rate, alpha=betas[1], eps=EPSILON, weight_decay=weight_decay
        )
    assert kind == "sgd"
    return torch.optim.SGD(parameters, learning_rate, weight_decay=weight_decay)


def set_rates(optimizer: torch.optim.Optimizer, learning_rate: float, beta2: float) -> None:
    """The learning rate and beta2 (RMSprop: alpha) of the steps to come."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
        if "betas" in group:
            group["betas"] = (group["betas"][0], beta2)
        if "alpha" in group:
            group["alpha"] = beta2


def load_moments(optimizer: torch.optim.Optimizer, moments: dict[int, Any], what: str) -> None:
    """`load_state_dict` of the moments alone: rates and betas are the players'. Checks names and shapes."""
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    names = MOMENTS[type(optimizer)]
    for parameter, entry in optimizer.state.items():
        shapes = {"step": torch.Size(), **dict.fromkeys(names, parameter.shape)}
        wanted = shapes if names else {"momentum_buffer": None}  # SGD keeps nothing
        if {name: getattr(value, "shape", None) for name, value in entry.items()} != wanted:
            raise ValueError(f"the optimiser of {what} is of another shape")


def ahead(
    optimizer: torch.optim.Optimizer,
    own: Sequence[nn.Parameter],
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    moments: Sequence[Moments] | None,
) -> tuple[list[Tensor], list[Moments]]:
    """The optimiser's next step from `weights` instead of its `own` parameters, and the moments after it.

    moments: of an earlier call, None for the optimiser's present ones. Differentiable by weights and gradients;
    changes nothing.
    """
    (group,) = optimizer.param_groups
    rule = RULES[type(optimizer)]
    before = moments or [dict(optimizer.state.get(parameter, {})) for parameter in own]
    stepped = [
        rule(w, g + group["weight_decay"] * w, m, group)
        for w, g, m in zip(weights, gradients, before, strict=True)
    ]
    return [w for w, _ in stepped], [m for _, m in stepped]


def _adam(w: Tensor, g: Tensor, m: Moments, group: dict[str, Any]) -> tuple[Tensor, Moments]:
    beta1, beta2 = group["betas"]
    t = float(m.get("step", 0.0)) + 1
    mean = beta1 * m.get("exp_avg", torch.zeros_like(w)) + (1 - beta1) * g
    square = beta2 * m.get("exp_avg_sq", torch.zeros_like(w)) + (1 - beta2) * g.square()
    root = square.clamp_min(TINY).sqrt() / math.sqrt(1 - beta2**t)
    w = w - group["lr"] / (1 - beta1**t) * mean / (root + group["eps"])
    return w, {"step": t, "exp_avg": mean, "exp_avg_sq": square}


def _rmsprop(w: Tensor, g: Tensor, m: Moments, group: dict[str, Any]) -> tuple[Tensor, Moments]:
    alpha = group["alpha"]
    square = alpha * m.get("square_avg", torch.zeros_like(w)) + (1 - alpha) * g.square()
    w = w - group["lr"] * g / (square.clamp_min(TINY).sqrt() + group["eps"])
    return w, {"square_avg": square}


def _sgd(w: Tensor, g: Tensor, m: Moments, group: dict[str, Any]) -> tuple[Tensor, Moments]:
    return w - group["lr"] * g, m


RULES: dict[type[torch.optim.Optimizer], Rule] = {
    torch.optim.Adam: _adam,
    torch.optim.RMSprop: _rmsprop,
    torch.optim.SGD: _sgd,
}
MOMENTS: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.Adam: ("exp_avg", "exp_avg_sq"),
    torch.optim.RMSprop: ("square_avg",),
    torch.optim.SGD: (),
}
