"""The gradient penalty against finite differences in float64 and against closed forms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan.trainer.penalties import squared_gradient_norm

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
