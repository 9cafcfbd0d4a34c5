"""Training randomness depends on (seed, step, purpose) and on nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from gan.runtime.signature import Draw, Field
from gan.trainer.randomness import DataOrder, derive_seed, draw, generator

from .conftest import CPU

Z = Field("z", (50, 20), draw=Draw("normal"))


def test_seeds_of_different_purposes_differ_and_fit_into_63_bits() -> None:
    purposes = [(seed, step, name) for seed in range(5) for step in range(20) for name in "zxy"]
    seeds = {derive_seed(*purpose) for purpose in purposes}
    assert len(seeds) == len(purposes)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**60  # and they use them
    assert derive_seed(2**64 - 1, "x") != derive_seed(0, "x")


def test_a_seed_is_the_same_in_another_process() -> None:
    code = "from gan.trainer.randomness import derive_seed; print(derive_seed(7, 3, 'z'))"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert int(other) == derive_seed(7, 3, "z")


def test_draws_depend_on_seed_step_and_purpose_and_nothing_else() -> None:
    def drawn(*purpose: int | str) -> torch.Tensor:
        return draw(Z, 8, generator(CPU, *purpose))  # type: ignore[arg-type]

    first = drawn(1, 5, "0/0", "z")
    torch.manual_seed(99)
    torch.rand(10)
    assert torch.equal(drawn(1, 5, "0/0", "z"), first)
    for other in [(2, 5, "0/0", "z"), (1, 6, "0/0", "z"), (1, 5, "1/0", "z"), (1, 5, "0/0", "y")]:
        assert not torch.equal(drawn(*other), first)


def test_normal_draws_have_the_fields_shape_and_scale() -> None:
    values = draw(Field("z", (50, 20), draw=Draw("normal", scale=3.0)), 100, generator(CPU, 0))
    assert values.shape == (100, 50, 20) and values.dtype == torch.float32
    assert values.std().item() == pytest.approx(3.0, rel=0.02)
    assert values.mean().item() == pytest.approx(0.0, abs=0.05)


def test_uniform_draws_fill_their_range() -> None:
    field = Field("u", (1000,), draw=Draw("uniform", low=-2.0, high=6.0))
    values = draw(field, 50, generator(CPU, 0))
    assert -2.0 <= values.min() < -1.99 and 5.99 < values.max() < 6.0
    assert values.mean().item() == pytest.approx(2.0, abs=0.06)


def test_every_epoch_is_another_permutation_of_all_samples() -> None:
    order = DataOrder(50, seed=3)
    epochs = [order.indices(50 * epoch, 50).tolist() for epoch in range(4)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert epochs[0] != list(range(50))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def epoch(seed: int, number: int) -> list[int]:
        return DataOrder(50, seed).indices(50 * number, 50).tolist()

    assert epoch(3, 2) == epoch(3, 2)
    assert epoch(3, 2) != epoch(4, 2)
    later = DataOrder(50, 3)
    later.indices(450, 50)  # what was asked before changes nothing
    assert later.indices(100, 50).tolist() == epoch(3, 2)


@pytest.mark.parametrize("batch", [1, 7, 10, 64])
def test_batches_cross_epochs_without_losing_or_doubling_a_sample(batch: int) -> None:
    order, whole = DataOrder(10, seed=1), DataOrder(10, seed=1).indices(0, 640)
    parts = [order.indices(position, batch) for position in range(0, 640 - batch + 1, batch)]
    assert all(len(part) == batch for part in parts)
    joined = torch.cat(parts)
    assert torch.equal(joined, whole[: len(joined)])
    assert sorted(whole[:10].tolist()) == sorted(whole[10:20].tolist()) == list(range(10))
    assert whole.dtype == torch.int64
