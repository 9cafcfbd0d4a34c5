"""Penalties against finite differences in float64, their own gradient too, and against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan.trainer.penalties import (
    gradient_penalty,
    roth_penalty,
    squared_gradient_norm,
    squared_logits,
)

STEP = 1e-5


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def smooth_network(inputs: int) -> nn.Module:
    """Twice differentiable, so that differences converge."""
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Linear(inputs, 5), nn.Softplus(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)
    )
    for parameter in network.parameters():
        parameter.data *= 2
    return network


def difference(function: Callable[[], float], x: Tensor, place: tuple[int, ...]) -> float:
    """Central difference of `function` by one entry of x."""
    with torch.no_grad():
        before = x[place].item()
        x[place] = before + STEP
        high = function()
        x[place] = before - STEP
        low = function()
        x[place] = before
    return (high - low) / (2 * STEP)


def by_differences(function: Callable[[], float], xs: list[Tensor]) -> float:
    """E ||grad||^2 over the batch, each derivative a central difference of the sum of all logits."""
    total = 0.0
    for x in xs:
        places = [tuple(place) for place in torch.ones_like(x).nonzero().tolist()]
        total += sum(difference(function, x, place) ** 2 for place in places) / len(x)
    return total


def test_it_is_the_squared_norm_of_finite_differences() -> None:
    network, x = smooth_network(6), torch.randn(4, 6)
    expected = by_differences(lambda: network(x).sum().item(), [x])
    x.requires_grad_()
    ours = squared_gradient_norm(network(x).flatten(), x)
    assert ours.item() == pytest.approx(expected, rel=1e-7)


def test_trees_of_logits_and_of_inputs_add_up() -> None:
    network, other = smooth_network(6), smooth_network(2)
    x, y = torch.randn(4, 2, 3), torch.randn(4, 2)

    def logits() -> list[Any]:
        patches = network(x.flatten(1)).reshape(4, 1) * torch.ones(4, 5)
        return [patches, {"mixed": other(y) * network(x.flatten(1))}]

    def total() -> float:
        return logits()[0].sum().item() + logits()[1]["mixed"].sum().item()

    expected = by_differences(total, [x, y])
    x.requires_grad_()
    y.requires_grad_()
    ours = squared_gradient_norm(logits(), {"a": x, "b": (y,)})
    assert ours.item() == pytest.approx(expected, rel=1e-7)


def test_its_own_gradient_by_the_weights_is_that_of_finite_differences() -> None:
    network, x = smooth_network(3), torch.randn(5, 3, requires_grad=True)

    def penalty() -> Tensor:
        return squared_gradient_norm(network(x), x)

    penalty().backward()
    largest = 0.0
    for parameter in network.parameters():
        for place in torch.ones_like(parameter).nonzero().tolist():
            with torch.enable_grad():
                expected = difference_of_penalty(penalty, parameter, tuple(place))
            # the last bias shifts all logits alike: no gradient at all
            ours = 0.0 if parameter.grad is None else parameter.grad[tuple(place)].item()
            assert ours == pytest.approx(expected, rel=1e-5, abs=1e-9)
            largest = max(largest, abs(ours))
    assert largest > 1e-2  # the comparison was not one of zeros


def difference_of_penalty(
    penalty: Callable[[], Tensor], parameter: nn.Parameter, place: tuple[int, ...]
) -> float:
    before = parameter.data[place].item()
    parameter.data[place] = before + STEP
    high = penalty().item()
    parameter.data[place] = before - STEP
    low = penalty().item()
    parameter.data[place] = before
    return (high - low) / (2 * STEP)


def test_closed_forms() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]], requires_grad=True)
    w = torch.tensor([0.5, -2.0])
    assert squared_gradient_norm(x @ w, x).item() == 0.25 + 4.0  # D = w.x: ||w||^2
    half_square = x.square().sum(1) / 2  # D = ||x||^2 / 2: E ||x||^2
    assert squared_gradient_norm(half_square, x).item() == (5.0 + 10.0) / 2


def test_it_is_a_mean_over_the_batch_and_a_sum_over_pixels() -> None:
    x = torch.zeros(6, 1, 4, 4, requires_grad=True)
    assert squared_gradient_norm(x.sum((1, 2, 3)), x).item() == 16.0
    assert squared_gradient_norm(x[:2].sum((1, 2, 3)), x).item() == pytest.approx(16.0 / 3)


# The gradient penalty of WGAN-GP.


def squared_norms(function: Callable[[], float], xs: list[Tensor]) -> list[float]:
    """||grad||^2 of each sample, each derivative a central difference of the sum of all logits."""
    totals = [0.0] * len(xs[0])
    for x in xs:
        for place in torch.ones_like(x).nonzero().tolist():
            totals[place[0]] += difference(function, x, tuple(place)) ** 2
    return totals


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_gradient_penalty_is_that_of_finite_differences() -> None:
    network, x = smooth_network(6), torch.randn(4, 6)
    norms = map(math.sqrt, squared_norms(lambda: network(x).sum().item(), [x]))
    expected = mean([(norm - 1) ** 2 for norm in norms])
    x.requires_grad_()
    assert gradient_penalty(network(x), x).item() == pytest.approx(expected, rel=1e-7)


def test_the_gradient_penalty_of_a_linear_critic_is_that_of_its_weights_norm() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]], requires_grad=True)
    for w, expected in (((3.0, -4.0), 16.0), ((0.6, 0.8), 0.0), ((0.0, 0.25), 0.5625)):
        assert gradient_penalty(x @ torch.tensor(w), x).item() == pytest.approx(expected)


def test_the_gradient_penalty_is_a_mean_over_samples_of_norms_over_pixels() -> None:
    x = torch.zeros(3, 1, 2, 2)
    x[:, 0, 0] = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])
    x.requires_grad_()
    half_square = x.square().sum((1, 2, 3)) / 2  # its gradient is x: norms 5, 2 and 1
    assert gradient_penalty(half_square, x).item() == pytest.approx((16 + 1 + 0) / 3)


def test_the_gradient_penalty_of_trees_has_one_norm_over_all_inputs_of_a_sample() -> None:
    network, other = smooth_network(6), smooth_network(2)
    x, y = torch.randn(4, 2, 3), torch.randn(4, 2)

    def logits() -> dict[str, Any]:
        patches = network(x.flatten(1)) * torch.tensor([0.5, 1.0, -0.25])
        return {"patches": patches, "both": [other(y).flatten() * network(x.flatten(1)).flatten()]}

    def total() -> float:
        return logits()["patches"].sum().item() + logits()["both"][0].sum().item()

    norms = map(math.sqrt, squared_norms(total, [x, y]))
    expected = mean([(norm - 1) ** 2 for norm in norms])
    x.requires_grad_()
    y.requires_grad_()
    ours = gradient_penalty(logits(), [x, {"small": y}])
    assert ours.item() == pytest.approx(expected, rel=1e-7)


def test_the_gradient_penalty_has_a_finite_gradient_where_the_critic_is_flat() -> None:
    w = torch.zeros(3, requires_grad=True)
    x = torch.randn(5, 3, requires_grad=True)
    penalty = gradient_penalty(x @ w, x)
    assert penalty.item() == pytest.approx(1.0)  # (0 - 1)^2
    penalty.backward()
    assert w.grad is not None and torch.isfinite(w.grad).all()
    y = torch.zeros(2, 3, requires_grad=True)  # D = a ||y||^2 is flat at its input alone
    a = torch.ones((), requires_grad=True)
    gradient_penalty(a * y.square().sum(1), y).backward()
    assert a.grad is not None and torch.isfinite(a.grad)


# Roth's penalty.


def test_roths_penalty_is_that_of_finite_differences() -> None:
    network, x, y = smooth_network(3), torch.randn(4, 3), torch.randn(4, 3)
    r, f = (network(side).flatten().tolist() for side in (x, y))
    real = squared_norms(lambda: network(x).sum().item(), [x])
    fake = squared_norms(lambda: network(y).sum().item(), [y])
    terms = zip(r, real, f, fake, strict=True)
    expected = mean([(1 - sigmoid(a)) ** 2 * n + sigmoid(b) ** 2 * m for a, n, b, m in terms])
    x.requires_grad_()
    y.requires_grad_()
    ours = roth_penalty(network(x), x, network(y), y)
    assert ours.item() == pytest.approx(expected, rel=1e-7)


def test_roths_penalty_of_a_linear_discriminator_weighs_by_its_sigmoids() -> None:
    w = torch.tensor([3.0, -4.0])  # ||w||^2 = 25

    def at(*logits: float) -> Tensor:
        """Samples of exactly these logits."""
        return (torch.tensor(logits)[:, None] * w / 25).requires_grad_()

    x, y = at(math.log(3)), at(-math.log(4))  # sigmoids 3/4 and 1/5
    assert roth_penalty(x @ w, x, y @ w, y).item() == pytest.approx(25 * (1 / 16 + 1 / 25))
    x, y = at(math.log(3), 0.0), at(-math.log(4), 0.0)  # and 1/2, 1/2: a mean over the batch
    expected = 25 * (1 / 16 + 1 / 25 + 1 / 4 + 1 / 4) / 2
    assert roth_penalty(x @ w, x, y @ w, y).item() == pytest.approx(expected)
    x, y = at(50.0), at(-50.0)  # a D that is sure is left alone
    assert roth_penalty(x @ w, x, y @ w, y).item() == pytest.approx(0.0, abs=1e-12)


def test_roths_penalty_differentiates_the_sum_of_several_logits_and_weighs_by_their_mean() -> None:
    w, v = torch.tensor([1.0, 2.0]), torch.tensor([0.5, -1.0])
    x = torch.tensor([[0.25, 0.5], [-1.0, 0.75]], requires_grad=True)
    y = torch.tensor([[0.5, -0.125], [0.0, 0.5]], requires_grad=True)

    def logits(x: Tensor) -> list[Any]:
        return [(x @ w)[:, None] * torch.tensor([1.0, 3.0]), {"other": x @ v}]

    def leaf_means(sample: list[float]) -> float:
        first = sample[0] * 1.0 + sample[1] * 2.0
        return ((first + 3 * first) / 2 + sample[0] * 0.5 - sample[1] * 1.0) / 2

    squared = (4 * 1.0 + 0.5) ** 2 + (4 * 2.0 - 1.0) ** 2  # ||(1 + 3) w + v||^2
    terms = [
        (1 - sigmoid(leaf_means(a))) ** 2 * squared + sigmoid(leaf_means(b)) ** 2 * squared
        for a, b in zip(x.tolist(), y.tolist(), strict=True)
    ]
    ours = roth_penalty(logits(x), x, logits(y), y)
    assert ours.item() == pytest.approx(mean(terms), rel=1e-12)


# The drift term.


def test_the_drift_term_is_the_mean_square_in_a_leaf_and_the_sum_over_leaves() -> None:
    assert squared_logits(torch.tensor([3.0, -1.0])).item() == 5.0
    tree = {"patches": [torch.tensor([[1.0, -2.0], [3.0, 0.0]])], "whole": (torch.tensor([-4.0]),)}
    assert squared_logits(tree).item() == (1 + 4 + 9 + 0) / 4 + 16


# The penalties' own gradients.


def gp_of(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return gradient_penalty(network(x), x)


def roth_of(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return roth_penalty(network(x), x, network(y), y)


def drift_of(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return squared_logits(network(x))


@pytest.mark.parametrize("penalty", [gp_of, roth_of, drift_of])
def test_every_penaltys_gradient_by_the_weights_is_that_of_finite_differences(
    penalty: Callable[[nn.Module, Tensor, Tensor], Tensor],
) -> None:
    network = smooth_network(3)
    x, y = (torch.randn(5, 3, requires_grad=True) for _ in range(2))

    def value() -> Tensor:
        return penalty(network, x, y)

    value().backward()
    largest = 0.0
    for parameter in network.parameters():
        for place in torch.ones_like(parameter).nonzero().tolist():
            expected = difference_of_penalty(value, parameter, tuple(place))
            # the last bias shifts all logits alike: no gradient at all
            ours = 0.0 if parameter.grad is None else parameter.grad[tuple(place)].item()
            assert ours == pytest.approx(expected, rel=1e-5, abs=1e-9)
            largest = max(largest, abs(ours))
    assert largest > 1e-2  # the comparison was not one of zeros
