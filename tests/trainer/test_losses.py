"""Adversarial losses against the papers' formulas, written with sigmoids and logarithms in plain Python."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from gan.trainer.losses import LOSSES, AdversarialLoss, accuracy, distance
from gan.trainer.parts import Live

REAL, FAKE = (2.0, -1.0, 0.25), (0.5, -3.0, 1.5)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def log(x: float) -> float:
    return math.log(x)


# For each loss: what D and what G minimise, for one pair of logits.
FORMULAS: dict[str, Any] = {
    "minimax": (
        lambda r, f: -log(sigmoid(r)) - log(1 - sigmoid(f)),
        lambda r, f: log(1 - sigmoid(f)),
    ),
    "non-saturating": (
        lambda r, f: -log(sigmoid(r)) - log(1 - sigmoid(f)),
        lambda r, f: -log(sigmoid(f)),
    ),
    "least-squares": (lambda r, f: (r - 1) ** 2 + f**2, lambda r, f: (f - 1) ** 2),
    "hinge": (lambda r, f: max(0, 1 - r) + max(0, 1 + f), lambda r, f: -f),
    "wasserstein": (lambda r, f: f - r, lambda r, f: -f),
    "relativistic": (
        lambda r, f: -log(sigmoid(r - f)),
        lambda r, f: -log(sigmoid(f - r)),
    ),
}
# The same, worked out by hand for r = 0, f = 0 and for r = 1, f = -1.
BY_HAND = {
    "minimax": ((2 * math.log(2), -math.log(2)), (2 * 0.31326169, -0.31326169)),
    "non-saturating": ((2 * math.log(2), math.log(2)), (2 * 0.31326169, 1.31326169)),
    "least-squares": ((1.0, 1.0), (1.0, 4.0)),
    "hinge": ((2.0, 0.0), (0.0, 1.0)),
    "wasserstein": ((0.0, 0.0), (-2.0, 1.0)),
    "relativistic": ((math.log(2), math.log(2)), (0.12692801, 2.12692801)),
}


def live() -> Live:
    """A training whose logits are given by hand."""
    return cast(Live, SimpleNamespace(logits=lambda name, batch: batch[name]))


def both(loss: AdversarialLoss, real: Any, fake: Any) -> tuple[float, float]:
    batch = {"real": real, "fake": fake}
    d, g = loss.discriminator_objective(live(), batch), loss.generator_objective(live(), batch)
    assert d.shape == g.shape == ()
    return d.item(), g.item()


def mean(values: Any) -> float:
    values = list(values)
    return math.fsum(values) / len(values)


def test_there_are_these_six_losses() -> None:
    assert set(LOSSES) == set(FORMULAS)
    assert all(loss.name == name and loss.source for name, loss in LOSSES.items())


@pytest.mark.parametrize("name", FORMULAS)
def test_both_players_minimise_the_papers_formula(name: str) -> None:
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)
    d, g = both(LOSSES[name], real, fake)
    for ours, formula in zip((d, g), FORMULAS[name], strict=True):
        expected = mean(formula(r, f) for r, f in zip(REAL, FAKE, strict=True))
        assert ours == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", BY_HAND)
def test_the_values_are_those_worked_out_by_hand(name: str) -> None:
    for (r, f), expected in zip(((0.0, 0.0), (1.0, -1.0)), BY_HAND[name], strict=True):
        ours = both(LOSSES[name], torch.tensor([r]), torch.tensor([f]))
        assert ours == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_tree_of_logits_counts_each_leaf_once_whatever_its_size(name: str) -> None:
    leaf = [((0.5, -2.0, 1.0, 3.0), (1.0, 0.0, -1.0, 2.0)), ((-0.5,), (0.75,))]
    shapes = [(2, 2), (1,)]

    def tree(side: int) -> dict[str, Any]:
        first, second = (
            torch.tensor(leaf[i][side]).reshape(shape) for i, shape in enumerate(shapes)
        )
        return {"patches": [first], "whole": (second,)}

    d, g = both(LOSSES[name], tree(0), tree(1))
    for ours, formula in zip((d, g), FORMULAS[name], strict=True):
        expected = sum(mean(map(formula, reals, fakes)) for reals, fakes in leaf)
        assert ours == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_push_d_apart_and_g_towards_real(name: str) -> None:
    real = torch.tensor([0.3], requires_grad=True)
    fake = torch.tensor([0.2], requires_grad=True)
    batch = {"real": real, "fake": fake}
    LOSSES[name].discriminator_objective(live(), batch).backward()
    assert real.grad is not None and fake.grad is not None
    assert real.grad.item() < 0 < fake.grad.item()
    fake.grad = None
    LOSSES[name].generator_objective(live(), batch).backward()
    assert fake.grad is not None and cast(Tensor, fake.grad).item() < 0


@pytest.mark.parametrize("name", ["minimax", "non-saturating", "relativistic"])
def test_logits_far_out_stay_finite(name: str) -> None:
    for size in (1e4, -1e4):
        assert all(
            map(math.isfinite, both(LOSSES[name], torch.tensor([size]), -torch.tensor(size)[None]))
        )


def test_the_generator_of_a_paired_loss_needs_the_reals_and_no_other_does() -> None:
    asked: list[str] = []

    def logits(name: str, batch: Any) -> Tensor:
        asked.append(name)
        return torch.zeros(1)

    for loss in LOSSES.values():
        asked.clear()
        loss.generator_objective(cast(Live, SimpleNamespace(logits=logits)), {})
        assert ("real" in asked) == loss.paired


def test_accuracy_counts_signs() -> None:
    real, fake = torch.tensor([1.0, 2.0, -1.0, 0.0]), torch.tensor([-1.0, 3.0, -0.5, -2.0])
    assert accuracy(LOSSES["non-saturating"], real, fake) == (0.5, 0.75)
    assert accuracy(LOSSES["hinge"], real, fake) == (0.5, 0.75)


def test_accuracy_of_least_squares_has_its_border_between_its_targets() -> None:
    real, fake = torch.tensor([0.9, 1.1, 0.4]), torch.tensor([0.1, -0.1, 0.4, 0.6])
    share, other = accuracy(LOSSES["least-squares"], real, fake)
    assert share == pytest.approx(2 / 3) and other == 0.75


def test_accuracy_of_relative_losses_counts_pairs_and_ignores_an_offset() -> None:
    real, fake = torch.tensor([1.0, 2.0, -1.0, 0.0]), torch.tensor([-1.0, 3.0, -0.5, -2.0])
    for offset in (0.0, 100.0):
        for name in ("relativistic", "wasserstein"):
            assert accuracy(LOSSES[name], real + offset, fake + offset) == (0.5, 0.5)


def test_accuracy_of_a_tree_is_the_mean_over_its_leaves() -> None:
    real = [torch.ones(6), -torch.ones(2)]
    fake = {"a": -torch.ones(6), "b": -torch.ones(2)}
    assert accuracy(LOSSES["non-saturating"], real, fake) == (0.5, 1.0)
    assert accuracy(LOSSES["relativistic"], real, fake) == (0.5, 0.5)


# One-sided label smoothing.

# What D minimises for one pair of logits with the target 1 - e for reals: cross-entropy of that target, or the
# square of the gap to it.
SMOOTHED: dict[str, Any] = dict.fromkeys(
    ("minimax", "non-saturating"),
    lambda r, f, e: -(1 - e) * log(sigmoid(r)) - e * log(1 - sigmoid(r)) - log(1 - sigmoid(f)),
) | {"least-squares": lambda r, f, e: (r - (1 - e)) ** 2 + f**2}


@pytest.mark.parametrize("epsilon", [0.1, 0.25])
@pytest.mark.parametrize("name", SMOOTHED)
def test_a_smoothed_loss_has_the_target_one_minus_epsilon_for_reals_and_zero_for_fakes(
    name: str, epsilon: float
) -> None:
    d, g = both(LOSSES[name].smoothed(epsilon), torch.tensor(REAL), torch.tensor(FAKE))
    expected = mean(SMOOTHED[name](r, f, epsilon) for r, f in zip(REAL, FAKE, strict=True))
    assert d == pytest.approx(expected, rel=1e-5)
    assert g == both(LOSSES[name], torch.tensor(REAL), torch.tensor(FAKE))[1]  # D's target alone


@pytest.mark.parametrize("name", SMOOTHED)
def test_a_smoothed_loss_is_least_where_d_gives_reals_that_probability(name: str) -> None:
    epsilon = 0.2
    best = 1 - epsilon if name == "least-squares" else math.log((1 - epsilon) / epsilon)
    real = torch.tensor([best], dtype=torch.float64, requires_grad=True)
    fake = torch.zeros(1, dtype=torch.float64)
    loss = LOSSES[name].smoothed(epsilon)
    loss.discriminator_objective(live(), {"real": real, "fake": fake}).backward()
    assert real.grad is not None and real.grad.item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", SMOOTHED)
def test_a_smoothed_loss_of_a_tree_counts_each_leaf_once(name: str) -> None:
    real = [torch.tensor(REAL), torch.tensor([1.0])]
    fake = [torch.tensor(FAKE), torch.tensor([-1.0])]
    d, _ = both(LOSSES[name].smoothed(0.1), real, fake)
    first = mean(SMOOTHED[name](r, f, 0.1) for r, f in zip(REAL, FAKE, strict=True))
    assert d == pytest.approx(first + SMOOTHED[name](1.0, -1.0, 0.1), rel=1e-5)


@pytest.mark.parametrize("name", FORMULAS)
def test_smoothing_by_nothing_changes_nothing(name: str) -> None:
    assert LOSSES[name].smoothed(0.0) is LOSSES[name]


def test_losses_without_a_target_for_reals_have_nothing_to_smooth() -> None:
    unable = {name for name, loss in LOSSES.items() if loss.smooth is None}
    assert unable == {"hinge", "wasserstein", "relativistic"} == set(FORMULAS) - set(SMOOTHED)
    for name in unable:
        with pytest.raises(AssertionError):
            LOSSES[name].smoothed(0.1)


def test_a_smoothed_loss_stays_finite_far_out() -> None:
    for name in ("minimax", "non-saturating"):
        for size in (1e4, -1e4):
            loss = LOSSES[name].smoothed(0.1)
            assert all(map(math.isfinite, both(loss, torch.tensor([size]), torch.tensor([-size]))))


# The critic's distance.


def test_the_distance_is_the_difference_of_means_summed_over_leaves() -> None:
    assert distance(torch.tensor([3.0, 5.0]), torch.tensor([1.0, -2.0])) == 4.0 - -0.5
    real = {"patches": torch.tensor([[1.0, 2.0], [3.0, 6.0]]), "whole": [torch.tensor([2.0])]}
    fake = {"patches": torch.tensor([[0.0, 1.0], [0.0, 1.0]]), "whole": [torch.tensor([7.0])]}
    assert distance(real, fake) == (3.0 - 0.5) + (2.0 - 7.0)


def test_the_distance_is_what_the_critic_of_wasserstein_maximises_and_no_other_loss_has_one() -> (
    None
):
    real, fake = torch.tensor(REAL), torch.tensor(FAKE, requires_grad=True)
    d, _ = both(LOSSES["wasserstein"], real, fake)
    assert distance(real, fake) == pytest.approx(-d)
    assert {name for name, loss in LOSSES.items() if loss.distance} == {"wasserstein"}
