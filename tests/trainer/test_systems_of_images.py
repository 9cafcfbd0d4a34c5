"""What holds for each system that takes an image: training, resuming, options crossed, and nothing that crashes."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch

from gan.runtime.errors import InputError
from gan.trainer.metrics import default_metrics
from gan.trainer.parts import Arrangement
from gan.trainer.progress import Sheet
from gan.trainer.trees import leaves

from .conftest import CPU, same, weights
from .translation import NAMES, dataset, live, parameters

EACH = pytest.mark.parametrize("name", NAMES)
WITH_PAIRS: list[tuple[str, Arrangement | None]] = [
    *((name, None) for name in NAMES), ("face-aging", "pairs"), ("inpainting", "unpaired"),
]  # fmt: skip
ARRANGED = pytest.mark.parametrize(("name", "arrangement"), WITH_PAIRS, ids=lambda x: x or "single")


@ARRANGED
def test_a_training_moves_the_averages_and_stays_finite(
    name: str, arrangement: Arrangement | None
) -> None:
    data = dataset(name, arrangement=arrangement)
    run = live(name, data, steps=24)
    begun, averaged = parameters(run), {n: weights(net) for n, net in run.averaged.items()}
    for _ in range(24):
        run.run_step()
    read = run.means.take()
    assert run.skipped == 0 and all(map(math.isfinite, read.values()))
    for network in (*run.networks.values(), *run.averaged.values()):
        assert all(value.isfinite().all() for value in weights(network).values())
    ended = parameters(run)
    assert not [n for n in begun if same(begun[n], ended[n])]  # each has moved
    assert not [n for n, net in run.averaged.items() if same(averaged[n], weights(net))]
    metrics = run.system.metrics()
    if metrics is None:
        metrics = default_metrics(data, run.graph, CPU)
    values = {n: v for metric in metrics for n, v in metric.measure(run).items()}
    assert values and all(map(math.isfinite, values.values()))
    assert metrics[0].name in values
    assert Sheet(run).draw().shape[2] == 3


@ARRANGED
def test_a_resumed_training_goes_on_bit_by_bit(name: str, arrangement: Arrangement | None) -> None:
    """From within each stage: with dropout, statistics, pools and whatever is drawn."""
    data = dataset(name, arrangement=arrangement)
    whole = live(name, data, steps=9)
    states = []
    for _ in range(9):
        states.append(copy.deepcopy(whole.state()))
        whole.run_step()
    for stop in (2, 4, 7):
        resumed = live(name, data, steps=9)
        resumed.load_state(copy.deepcopy(states[stop]))
        for _ in range(stop, 9):
            resumed.run_step()
        assert same(whole.state(), resumed.state())
    if name == "cyclegan":
        pool = whole.state()["augmentations"]["pool"]
        assert [images.shape for images in pool.values()] == [(3, 3, 16, 16)] * 2
        forgetful = live(name, data, steps=9)
        state = copy.deepcopy(states[7])
        state["augmentations"]["pool"] = {}
        forgetful.load_state(state)
        for _ in range(2):
            forgetful.run_step()
        assert not same(whole.state()["networks"], forgetful.state()["networks"])


@EACH
def test_the_seed_alone_decides_the_weights(name: str) -> None:
    a, b, c = (live(name, seed=seed, steps=3) for seed in (1, 1, 2))
    for run in (a, b, c):
        torch.rand(7)
        for _ in range(3):
            run.run_step()
    assert same(a.state(), b.state())
    assert not same(a.state()["networks"], c.state()["networks"])


PLAIN: dict[str, dict[str, Any]] = {  # no statistics of the batch, and no draws that parts share
    "pix2pix": {"norm": "instance", "d_norm": "instance", "dropout": 0.0},
    "cyclegan": {"pool": 0},
}


@pytest.mark.parametrize("name", PLAIN)
def test_parts_of_a_batch_give_the_gradients_of_the_whole(name: str) -> None:
    runs = [
        live(name, batch_size=4, accumulate=parts, optimizer="sgd", **PLAIN[name])
        for parts in (1, 2)
    ]
    begun = parameters(runs[0])
    for run in runs:
        run.run_step()
    moved = [parameters(run) for run in runs]
    for network, before in begun.items():
        for parameter, value in before.items():
            a, b = (made[network][parameter] - value for made in moved)
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(a.abs().max()) + 1e-9)


@EACH
def test_a_batch_in_parts_trains(name: str) -> None:
    run = live(name, accumulate=2, batch_size=4, steps=6)
    begun = parameters(run)
    for _ in range(6):
        run.run_step()
    ended = parameters(run)
    assert run.skipped == 0 and not [n for n in begun if same(begun[n], ended[n])]


OPTIONS: dict[str, dict[str, Any]] = {
    "diffaugment": {"diffaugment": "color,translation,cutout"},
    "ada": {"ada_target": 0.6, "ada": 0.3, "ada_images": 100},
    "r1": {"r1": 1.0, "penalty_every": 2},
    "gp": {"gp": 1.0, "loss": "wasserstein"},
    "noise": {"instance_noise": 0.1},
    "spectral": {"spectral_norm": True},
    "moves": {"d_moves": 2},
    "relativistic": {"loss": "relativistic"},
    "parts": {"accumulate": 2, "batch_size": 4},
    "clipped": {"clip_gradient": 0.5, "clip_weights": 0.1},
    "reused": {"fakes": "reused"},
    "unrolled": {"unroll": 1},
}
CROSSED = [(*pair, NAMES[i % len(NAMES)]) for i, pair in enumerate(itertools.combinations(OPTIONS, 2))]  # fmt: skip


@pytest.mark.parametrize(("first", "second", "name"), CROSSED)
def test_options_two_by_two_train_or_are_refused_by_name(
    first: str, second: str, name: str
) -> None:
    data = dataset(name)
    try:
        run = live(name, data, steps=4, **OPTIONS[first] | OPTIONS[second])
    except InputError as error:
        assert error.seen and error.repair
        return
    for _ in range(4):
        run.run_step()
    assert run.skipped == 0
    values = [v for net in run.networks.values() for v in weights(net).values()]
    assert all(value.isfinite().all() for value in values)


@EACH
@pytest.mark.parametrize("option", ["diffaugment", "ada", "r1", "spectral", "moves"])
def test_an_option_changes_the_training(name: str, option: str) -> None:
    """It is not passed over."""
    plain, other = live(name, steps=6), live(name, steps=6, **OPTIONS[option])
    for run in (plain, other):
        for _ in range(6):
            run.run_step()
    judges = plain.system.discriminators()
    a, b = (
        [p.detach() for n in judges for p in run.networks[n].parameters()] for run in (plain, other)
    )
    assert not same(a, b)


@pytest.mark.parametrize("channels", [1, 4])
@EACH
def test_grey_and_rgba_images_train(name: str, channels: int) -> None:
    run = live(name, dataset(name, channels=channels), steps=6, diffaugment="color")
    for _ in range(6):
        run.run_step()
    assert run.skipped == 0
    shapes = [x.shape[1:] for x in leaves(run.examples["real"])]
    assert set(shapes) == {(channels, 16, 16)}
    assert Sheet(run).draw().shape[2] == channels


@pytest.mark.parametrize("size", [*range(1, 13), 14, 16, 20, 24, 28])
@EACH
def test_each_resolution_trains_or_is_refused_by_name(name: str, size: int) -> None:
    """By the preset's sizes, with what is tiny here left to it where it depends on the resolution."""
    given: dict[str, Any] = (
        {"d_layers": None, "downs": None} if name in ("pix2pix", "cyclegan") else {}
    )
    try:
        run = live(name, dataset(name, size=size, count=8), steps=3, **given)
    except InputError as error:
        assert error.seen and error.repair
        return
    for _ in range(3):
        run.run_step()
    assert run.skipped == 0


@EACH
def test_the_networks_of_the_averages_are_those_that_graphs_are_built_of(name: str) -> None:
    run = live(name)
    for graph in run.system.graphs().values():
        graph.build(run.averaged)  # KeyError else
    assert not set(run.averaged) & set(run.system.discriminators())
