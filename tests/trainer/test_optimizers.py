"""Optimisers by name, and their steps ahead: against torch.optim's own, and differentiated against differences."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan.trainer.optimizers import Moments, ahead, load_moments, make, set_rates

from .conftest import same

KINDS = ("adam", "rmsprop", "sgd")
TYPES = {
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}
STEP = 1e-6  # of central differences
Optimizer = torch.optim.Optimizer


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def parameters(dtype: torch.dtype = torch.float64, seed: int = 0) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(seed)
    shapes = ((3, 2), (4,))
    return [nn.Parameter(torch.randn(s, generator=draw, dtype=dtype)) for s in shapes]


def moved(
    kind: str, own: Sequence[nn.Parameter], steps: int = 3, rate: float = 0.05, decay: float = 0.0
) -> Optimizer:
    """An optimiser of these parameters that has made some steps, on gradients between 0.1 and 3."""
    optimizer = make(kind, own, rate, (0.6, 0.9), decay)
    for number in range(steps):
        follow(optimizer, own, pushes(own, number))
    return optimizer


def pushes(own: Sequence[Tensor], number: int) -> list[Tensor]:
    """The gradients of one step."""
    draw = torch.Generator().manual_seed(100 + number)
    return [torch.randn(p.shape, generator=draw, dtype=p.dtype) for p in own]


def follow(
    optimizer: Optimizer, own: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]
) -> None:
    for parameter, gradient in zip(own, gradients, strict=True):
        parameter.grad = None if gradient is None else gradient.clone()
    optimizer.step()


def values(own: Sequence[Tensor]) -> list[Tensor]:
    return [p.detach().clone() for p in own]


# The steps ahead.


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 2e-6)]
)  # some roundings of numbers below 4
@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_steps_ahead_are_those_that_torch_takes(
    kind: str, decay: float, before: int, dtype: torch.dtype, tolerance: float
) -> None:
    own = parameters(dtype)
    optimizer = moved(kind, own, before, decay=decay)
    theirs = copy.deepcopy((own, optimizer))  # in one copy, so that they stay connected
    weights: Sequence[Tensor] = values(own)
    moments: list[Moments] | None = None
    for number in range(5):
        gradients = pushes(own, 50 + number)
        weights, moments = ahead(optimizer, own, weights, gradients, moments)
        follow(theirs[1], theirs[0], gradients)
        for ours, parameter in zip(weights, theirs[0], strict=True):
            assert ours.dtype == dtype
            assert torch.allclose(ours, parameter, rtol=0, atol=tolerance)
    assert max((p - w).abs().max().item() for p, w in zip(own, weights, strict=True)) > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_looking_ahead_follows_a_changed_rate_and_beta2(kind: str) -> None:
    own = parameters()
    optimizer = moved(kind, own)
    set_rates(optimizer, 0.2, 0.5)
    gradients = pushes(own, 7)
    weights, _ = ahead(optimizer, own, values(own), gradients, None)
    follow(optimizer, own, gradients)
    for ours, parameter in zip(weights, own, strict=True):
        assert torch.allclose(ours, parameter, rtol=0, atol=1e-14)


@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_looking_ahead_changes_neither_weights_nor_gradients_nor_state(
    kind: str, before: int
) -> None:
    own = parameters()
    optimizer = moved(kind, own, before, decay=0.1)
    for p in own:
        p.grad = torch.full_like(p, 7.0)
    kept = copy.deepcopy((values(own), optimizer.state_dict()))
    given, gradients = values(own), pushes(own, 9)
    copies = copy.deepcopy((given, gradients))
    _, moments = ahead(optimizer, own, given, gradients, None)
    first = copy.deepcopy(moments)
    ahead(optimizer, own, given, gradients, moments)
    assert same(values(own), kept[0]) and same(optimizer.state_dict(), kept[1])
    assert same((given, gradients), copies) and same(moments, first)
    assert all(p.grad is not None and bool((p.grad == 7.0).all()) for p in own)


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_two_steps_ahead_are_differentiated_as_finite_differences_of_torchs_steps(
    kind: str, decay: float, double: None
) -> None:
    """A scalar of the weights two steps later, by the weights now and by theta, which the loss also reads."""
    own = parameters()
    optimizer = moved(kind, own, decay=decay)
    theta = torch.tensor([0.7, -1.2], requires_grad=True)

    def loss(weights: Sequence[Tensor]) -> Tensor:
        """Not quadratic in anything, so that second derivatives matter."""
        return (weights[0] @ theta).cosh().sum() + (weights[1] * theta[0]).sin().sum()

    def scalar(weights: Sequence[Tensor]) -> Tensor:
        return weights[0].square().sum() + 2 * weights[1].sum() * weights[1][0]

    def really() -> float:
        """The same by two steps of torch's optimiser on a copy."""
        copies, theirs = copy.deepcopy((own, optimizer))
        for _ in range(2):
            gradients = torch.autograd.grad(loss(copies), copies)
            follow(theirs, copies, gradients)
        return scalar(copies).item()

    start = [p.detach().clone().requires_grad_() for p in own]
    weights: Sequence[Tensor] = start
    moments: list[Moments] | None = None
    for _ in range(2):
        gradients = torch.autograd.grad(loss(weights), weights, create_graph=True)
        weights, moments = ahead(optimizer, own, weights, gradients, moments)
    value = scalar(weights)
    assert value.item() == pytest.approx(really(), rel=1e-12)
    ours = torch.autograd.grad(value, [*start, theta])
    for place, gradient in zip([*own, theta], ours, strict=True):
        assert gradient.abs().max() > 1e-2  # not a comparison of zeros
        expected = differences(really, place)
        assert torch.allclose(gradient, expected, rtol=1e-6, atol=1e-7)


def differences(function: Callable[[], float], x: Tensor) -> Tensor:
    """The gradient of `function` by x: a central difference for each entry."""
    result = torch.zeros_like(x)
    for place in map(tuple, torch.ones_like(x).nonzero().tolist()):
        before = x.data[place].item()
        x.data[place] = before + STEP
        high = function()
        x.data[place] = before - STEP
        low = function()
        x.data[place] = before
        result[place] = (high - low) / (2 * STEP)
    return result.detach()


@pytest.mark.parametrize("kind", KINDS)
def test_a_zero_gradient_moves_nothing_and_has_finite_slopes(kind: str) -> None:
    own = parameters()
    optimizer = make(kind, own, 0.1, (0.5, 0.9))
    start = [p.detach().clone().requires_grad_() for p in own]
    weights: Sequence[Tensor] = start
    moments: list[Moments] | None = None
    for _ in range(2):
        loss = torch.stack([(0.0 * w).square().sum() for w in weights]).sum()
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        weights, moments = ahead(optimizer, own, weights, gradients, moments)
    assert all(torch.equal(w, p) for w, p in zip(weights, own, strict=True))
    slopes = torch.autograd.grad(torch.stack([w.sum() for w in weights]).sum(), start)
    assert all(torch.equal(slope, torch.ones_like(slope)) for slope in slopes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_that_is_zero_only_here_has_finite_slopes(kind: str) -> None:
    """At the least place of a parabola, as for a weight that no sample reaches yet."""
    own = [nn.Parameter(torch.ones(3))]
    start = torch.ones(3, requires_grad=True)
    optimizer = make(kind, own, 0.1, (0.5, 0.9))
    gradient = start - 1.0  # of ||w - 1||^2 / 2
    (after,), _ = ahead(optimizer, own, [start], [gradient], None)
    (slope,) = torch.autograd.grad(after.sum(), start)
    assert torch.equal(after, torch.ones(3)) and torch.isfinite(slope).all()


# Optimisers by name.


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimiser_is_torchs_with_the_given_rate_betas_and_decay(kind: str) -> None:
    own = parameters()
    optimizer = make(kind, own, 0.3, (0.2, 0.7), 0.01)
    (group,) = optimizer.param_groups
    assert type(optimizer) is TYPES[kind]
    assert all(a is b for a, b in zip(group["params"], own, strict=True))
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.01)
    if kind == "adam":
        assert group["betas"] == (0.2, 0.7) and group["eps"] == 1e-8
    if kind == "rmsprop":
        assert group["alpha"] == 0.7 and group["eps"] == 1e-8 and group["momentum"] == 0
    if kind == "sgd":
        assert group["momentum"] == 0 and not group["nesterov"]


@pytest.mark.parametrize("kind", KINDS)
def test_weight_decay_adds_lambda_times_the_weight_to_the_gradient(kind: str) -> None:
    plain, decayed = parameters(), parameters()
    gradients = pushes(plain, 1)
    added = [g + 0.25 * p.detach() for g, p in zip(gradients, plain, strict=True)]
    follow(make(kind, plain, 0.1, (0.5, 0.9)), plain, added)
    follow(make(kind, decayed, 0.1, (0.5, 0.9), 0.25), decayed, gradients)
    for a, b in zip(plain, decayed, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-15)


def test_an_optimiser_of_another_name_is_a_mistake() -> None:
    with pytest.raises(AssertionError):
        make("adagrad", parameters(), 0.1, (0.5, 0.9))


@pytest.mark.parametrize("kind", KINDS)
def test_the_rates_to_come_can_be_set_and_nothing_else_changes(kind: str) -> None:
    own = parameters()
    optimizer = moved(kind, own)
    before = copy.deepcopy(optimizer.state_dict())
    set_rates(optimizer, 0.007, 0.77)
    (group,) = optimizer.param_groups
    (old,) = before["param_groups"]
    changed = {name for name, value in group.items() if name != "params" and value != old[name]}
    assert group["lr"] == 0.007
    if kind == "adam":
        assert group["betas"] == (0.6, 0.77)  # beta1 stays
    if kind == "rmsprop":
        assert group["alpha"] == 0.77
    assert changed == {"adam": {"lr", "betas"}, "rmsprop": {"lr", "alpha"}, "sgd": {"lr"}}[kind]
    assert same(optimizer.state_dict()["state"], before["state"])


# Moments of a checkpoint.


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_moments_go_on_bit_by_bit_and_rates_stay_the_players_own(kind: str) -> None:
    own = parameters()
    optimizer = moved(kind, own)
    others = copy.deepcopy(own)
    fresh = make(kind, others, 0.5, (0.1, 0.8), 0.2)
    load_moments(fresh, copy.deepcopy(optimizer.state_dict()["state"]), "D")
    (group,) = fresh.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.2)
    assert group.get("betas", (0.1, 0.8)) == (0.1, 0.8) and group.get("alpha", 0.8) == 0.8
    assert same(fresh.state_dict()["state"], optimizer.state_dict()["state"])
    for one in (optimizer, fresh):
        one.param_groups[0].update(lr=0.1, weight_decay=0.0)
        set_rates(one, 0.1, 0.9)
    if kind == "adam":
        fresh.param_groups[0]["betas"] = optimizer.param_groups[0]["betas"]
    follow(optimizer, own, pushes(own, 5))
    follow(fresh, others, pushes(own, 5))
    assert same(values(own), values(others))


def refused(kind: str, change: Callable[[dict[int, Any]], object]) -> None:
    """Moments that were changed do not load."""
    own = parameters()
    moments = copy.deepcopy(moved(kind, own).state_dict()["state"])
    change(moments)
    with pytest.raises((ValueError, AttributeError, KeyError, TypeError)):
        load_moments(make(kind, parameters(), 0.1, (0.5, 0.9)), moments, "D")


def spoil(moments: dict[int, Any], change: dict[str, Any]) -> None:
    moments[0].update(change)


@pytest.mark.parametrize(
    ("kind", "name"), [("adam", "exp_avg"), ("adam", "exp_avg_sq"), ("rmsprop", "square_avg")]
)
def test_moments_of_another_shape_are_refused(kind: str, name: str) -> None:
    for spoilt in (torch.zeros(7), torch.zeros(2, 3), torch.zeros(()), "x", None):
        change: dict[str, Any] = {name: spoilt}
        refused(kind, partial(spoil, change=change))
    refused(kind, lambda m: m[1].pop(name))  # of the second parameter too
    refused(kind, lambda m: m[1].update({name: torch.zeros(3)}))
    refused(kind, lambda m: m[0].update(more=torch.zeros(3, 2)))
    refused(kind, lambda m: m[0].update(step=torch.zeros(3)))
    refused(kind, lambda m: m[0].pop("step"))
    refused(kind, lambda m: m.update({7: m[0]}))  # of a parameter that is not there


def test_moments_of_another_kind_of_optimiser_are_refused() -> None:
    moments = {kind: moved(kind, parameters()).state_dict()["state"] for kind in KINDS}
    for own in KINDS:
        for other in {"adam", "rmsprop"} - {own}:  # plain SGD has none
            with pytest.raises(ValueError, match="optimiser of D is of another shape"):
                optimizer = make(own, parameters(), 0.1, (0.5, 0.9))
                load_moments(optimizer, copy.deepcopy(moments[other]), "D")


def test_the_root_of_a_vanishing_square_is_nothing_beside_epsilon() -> None:
    """What keeps the slope finite at 0 must not be seen in a step: the smallest gradient of float32 that squares."""
    own = [nn.Parameter(torch.ones(1))]
    for kind in ("adam", "rmsprop"):
        optimizer = make(kind, own, 1.0, (0.0, 0.5))
        tiny = torch.full((1,), 1e-14)
        (ours,), _ = ahead(optimizer, own, [torch.zeros(1)], [tiny], None)
        # -g / (|g| + eps) for Adam, whose moments are corrected; -g / (|g| / sqrt 2 + eps) for RMSprop
        root = 1e-14 * (1.0 if kind == "adam" else math.sqrt(0.5))
        assert ours.item() == pytest.approx(-1e-14 / (root + 1e-8), rel=1e-5)
