"""What each penalty is taken of in a training: which samples, which logits, at which steps, and counted how often."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan.trainer.dataset import Dataset
from gan.trainer.engine import Training
from gan.trainer.objectives import (
    Perceptual,
    drift,
    interpolated_gradient_penalty,
    l1,
    mse,
    r1_penalty,
    r2_penalty,
    roth,
)
from gan.trainer.options import Options
from gan.trainer.parts import Augmentation, Batch, Live, Stage, Turn
from gan.trainer.system import System
from gan.trainer.trees import Tree

from .conftest import Point, PointOptions, training


def half_square(sample: Tensor) -> Tensor:
    """D(x) = ||x||^2 / 2, whose gradient is x."""
    return sample.flatten(1).square().sum(1) / 2


def live(asked: list[str] | None = None, d: Any = half_square) -> Live:
    """A training of which only the logits are known."""

    def logits(name: str, batch: Batch) -> Tree:
        if asked is not None:
            asked.append(name)
        return d(batch[name])

    return cast(Live, SimpleNamespace(logits=logits))


def batch_of(count: int = 6, seed: int = 3) -> Batch:
    draw = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(count, 2, 3, 3, generator=draw) for _ in range(2))
    return {"real": real, "fake": fake, "source": torch.Generator().manual_seed(seed)}


def places(batch: Batch) -> Tensor:
    """e of x^ = e x + (1 - e) y, at every pixel: [B, C, H, W], in float64."""
    real, fake, mixed = (batch[name].detach().double() for name in ("real", "fake", "mixed"))
    return (mixed - fake) / (real - fake)


# Where the gradient penalty looks.


def test_the_points_of_the_gradient_penalty_lie_between_real_and_fake_of_the_same_row() -> None:
    batch = batch_of()
    batch["fake"] = batch["real"] + 1 + batch["fake"].abs()  # nowhere alike, so e can be told
    interpolated_gradient_penalty(live(), batch)
    e = places(batch).flatten(1)
    assert e.min() >= 0 and e.max() < 1
    # one e a sample: x^ is exact to a few float32 steps of numbers below 8, the two are at least 1 apart
    assert (e - e[:, :1]).abs().max() < 3e-6
    assert e[:, 0].unique().numel() == len(e)


def test_the_places_between_real_and_fake_are_drawn_from_the_batchs_own_source() -> None:
    before = torch.get_rng_state()

    def mixed(seed: int) -> Tensor:
        batch = batch_of(seed=seed)
        interpolated_gradient_penalty(live(), batch)
        return cast(Tensor, batch["mixed"])

    assert torch.equal(mixed(3), mixed(3)) and not torch.equal(mixed(3), mixed(4))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_places_between_real_and_fake_are_uniform() -> None:
    count = 20_000
    source = torch.Generator().manual_seed(1)
    batch: Batch = {"real": torch.ones(count, 1), "fake": torch.zeros(count, 1), "source": source}
    interpolated_gradient_penalty(live(), batch)
    e = batch["mixed"].detach().double().flatten()
    assert e.mean().item() == pytest.approx(0.5, abs=5 / math.sqrt(12 * count))
    tenths = torch.histc(e, 10, 0.0, 1.0)
    assert (tenths - count / 10).abs().max() < 5 * math.sqrt(count * 0.1 * 0.9)


def test_what_is_penalised_is_the_logits_of_the_points_between() -> None:
    asked: list[str] = []
    batch = batch_of()
    value = interpolated_gradient_penalty(live(asked), batch)
    assert asked == ["mixed"]
    norms = np.sqrt((batch["mixed"].detach().double().numpy() ** 2).sum((1, 2, 3)))
    assert value.item() == pytest.approx(((norms - 1) ** 2).mean(), rel=1e-5)


def test_the_points_between_are_augmented_as_all_that_the_discriminator_sees() -> None:
    class Doubled(Augmentation):
        name = "doubled"

        def __call__(self, live: Live, sample: Tree, batch: Batch) -> Tree:
            return 2 * sample

    class System(Point):
        def augmentations(self) -> list[Augmentation]:
            return [Doubled()]

    live = training(System)
    w = weight(live).item()
    batch: Batch = {
        "real": torch.randn(5, 1, 1, 1),
        "fake": torch.randn(5, 1, 1, 1),
        "source": torch.Generator(),
    }
    value = interpolated_gradient_penalty(live, batch)
    assert value.item() == pytest.approx((abs(2 * w) - 1) ** 2, rel=1e-5)


def test_a_sample_that_is_a_tree_has_one_place_between_for_all_its_leaves() -> None:
    batch: Batch = {
        "real": [torch.ones(6, 1, 4, 4), {"half": torch.ones(6, 2, 2, 2)}],
        "fake": [torch.zeros(6, 1, 4, 4), {"half": torch.zeros(6, 2, 2, 2)}],
        "source": torch.Generator().manual_seed(3),
    }

    def d(sample: Any) -> Tensor:
        return half_square(sample[0]) + half_square(sample[1]["half"])

    interpolated_gradient_penalty(live(d=d), batch)
    large, small = batch["mixed"][0], batch["mixed"][1]["half"]
    assert torch.equal(large[:, 0, 0, 0], large[:, 0, 3, 3])
    assert torch.equal(large[:, 0, 0, 0], small[:, 1, 1, 1])


# The others.


def test_r1_is_of_the_reals_alone_and_r2_of_the_fakes_alone() -> None:
    for penalty, name in ((r1_penalty, "real"), (r2_penalty, "fake")):
        asked: list[str] = []
        batch = batch_of()
        batch[name].requires_grad_()
        value = penalty(live(asked), batch)
        assert asked == [name]
        expected = (batch[name].detach().double().numpy() ** 2).sum((1, 2, 3)).mean()
        assert value.item() == pytest.approx(expected, rel=1e-5)


def test_the_drift_term_is_of_the_logits_of_the_reals_alone() -> None:
    asked: list[str] = []
    batch = batch_of()
    value = drift(live(asked), batch)
    assert asked == ["real"]
    logits = (batch["real"].double().numpy() ** 2).sum((1, 2, 3)) / 2
    assert value.item() == pytest.approx((logits**2).mean(), rel=1e-5)


def test_roths_penalty_takes_the_real_logits_by_the_reals_and_the_fake_logits_by_the_fakes() -> (
    None
):
    asked: list[str] = []
    batch = batch_of()
    batch["fake"] = 0.1 * batch["fake"]
    for name in ("real", "fake"):
        batch[name].requires_grad_()
    value = roth(live(asked), batch)
    assert asked == ["real", "fake"]
    x, y = (
        batch[name].detach().double().flatten(1).square().sum(1).numpy()
        for name in ("real", "fake")
    )  # squared gradients; half of them are the logits

    def sigmoid(logits: Any) -> Any:
        return 1 / (1 + np.exp(-logits))

    expected = (1 - sigmoid(x / 2)) ** 2 * x + sigmoid(y / 2) ** 2 * y
    assert value.item() == pytest.approx(expected.mean(), rel=1e-5)


# Lazy penalties.


class Curved(Point):
    """D is curved, so that a penalty's gradient is not the same everywhere."""

    def networks(self) -> dict[str, nn.Module]:
        return {
            **super().networks(),
            "D": nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1)),
        }


def weight(live: Training) -> Tensor:
    return next(live.networks["D"].parameters())


def gradients(kind: type[System], options: Options, data: Dataset, steps: int) -> list[Tensor]:
    """D's gradient of each step, all weights in one vector, in float64."""
    live = training(kind, options=options, data=data)
    live.stages = [Stage((Turn("D"),))]
    found = []
    for _ in range(steps):
        live.run_step()
        grads = [p.grad for p in live.networks["D"].parameters()]
        found.append(torch.cat([cast(Tensor, g).double().flatten() for g in grads]))
    return found


def constant(pixel: int = 200) -> Dataset:
    """One and the same image twelve times: a penalty on reals is the same in every batch."""
    return Dataset("constant", np.full((12, 1, 1, 1), pixel, np.uint8), None, ())


@pytest.mark.parametrize("k", [2, 3, 8])
def test_lazy_penalties_of_k_steps_push_frozen_weights_as_far_as_those_of_each_step(k: int) -> None:
    def pushed(penalty_every: int, r1: float = 3.0) -> Tensor:
        frozen = PointOptions(r1=r1, penalty_every=penalty_every, d_learning_rate=0.0)
        return torch.stack(gradients(Curved, frozen, constant(), k)).sum(0)

    without = pushed(1, r1=0.0)
    each, lazy = pushed(1) - without, pushed(k) - without
    assert each.norm() > 0.1  # there is something to compare
    # float32 gradients, each rounded once or twice
    assert torch.allclose(lazy, each, rtol=0, atol=1e-6 * each.norm().item() * k)


def test_a_lazy_penalty_falls_on_the_first_of_k_steps_with_k_times_its_weight() -> None:
    def each(r1: float, every: int) -> list[Tensor]:
        frozen = PointOptions(r1=r1, penalty_every=every, d_learning_rate=0.0)
        return gradients(Curved, frozen, constant(), 7)

    without, always, lazy = each(0.0, 1), each(3.0, 1), each(3.0, 3)
    for step in range(7):
        expected = (3 if step % 3 == 0 else 0) * (always[step] - without[step])
        assert torch.allclose(lazy[step] - without[step], expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("k", [1, 4, 16])
def test_k_steps_with_a_lazy_penalty_are_k_steps_of_the_optimiser(k: int) -> None:
    """StyleGAN2's optimiser makes k + 1 steps in k iterations, as its penalty has a step of its own.

    So its rate is multiplied by c = k / (k + 1) and its betas raised to c. Here c = k / k = 1.
    """
    options = PointOptions(r1=1.0, penalty_every=k, beta1=0.3, beta2=0.9, d_learning_rate=0.01)
    live = training(Curved, options=options, steps=k)
    for _ in range(k):
        live.run_step()
    optimizer = live.optimizers["D"]
    assert [state["step"].item() for state in optimizer.state.values()] == [k] * 4
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"]) == (0.01, (0.3, 0.9))


# Distances to the truth.


def test_l1_and_mse_are_means_over_pixels_and_channels() -> None:
    batch = batch_of()
    real, fake = (batch[name].double().numpy() for name in ("real", "fake"))
    nobody = cast(Live, None)
    assert l1(nobody, batch).item() == pytest.approx(np.abs(real - fake).mean(), rel=1e-5)
    assert mse(nobody, batch).item() == pytest.approx(np.square(real - fake).mean(), rel=1e-5)


class Forest(nn.Module):
    """x -> a tree of maps, by a layer and a norm whose statistics would move in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 3, 3, bias=False)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tree:
        y = self.norm(self.layer(x))
        return {"a": [y, y.square()], "b": x[:, :1]}


def test_the_perceptual_distance_is_the_sum_over_all_maps_of_mean_squares() -> None:
    network = Forest()
    x, y = torch.randn(2, 4, 2, 6, 6)
    found = Perceptual(network)(cast(Live, None), {"fake": x, "real": y}).item()
    kernel = network.layer.weight.double()
    maps = []
    for image in (x, y):
        h = torch.nn.functional.conv2d(image.double(), kernel) / math.sqrt(1 + 1e-5)
        maps.append([h, h.square(), image[:, :1].double()])
    expected = sum((a - b).square().mean().item() for a, b in zip(*maps, strict=True))
    assert found == pytest.approx(expected, rel=1e-4)
    assert Perceptual(network).between(x, x).item() == 0.0


def test_a_network_of_one_map_and_one_of_the_images_own_are_known_too() -> None:
    x, y = torch.randn(2, 4, 2, 6, 6)
    assert Perceptual(nn.Identity()).between(x, y).item() == pytest.approx(
        (x - y).square().mean().item()
    )


def test_the_perceptual_distance_moves_the_fakes_alone() -> None:
    network = Forest().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x, y = (torch.randn(4, 2, 6, 6, requires_grad=True) for _ in range(2))
    objective = Perceptual(network)
    assert not network.training
    objective.between(x, y).backward()
    assert x.grad is not None and x.grad.abs().max() > 0 and y.grad is None
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)  # statistics too


def test_the_perceptual_distances_gradient_is_that_of_differences() -> None:
    network = Forest().double()
    x, y = torch.randn(2, 1, 2, 4, 4, dtype=torch.float64)
    x.requires_grad_()
    objective = Perceptual(network)
    assert torch.autograd.gradcheck(lambda t: objective.between(t, y), x)
