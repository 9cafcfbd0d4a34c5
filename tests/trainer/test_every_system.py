"""What holds for each built-in system: shapes, labels by embedding and projection, and a first move that counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan.trainer import systems
from gan.trainer.builtin import RING, points
from gan.trainer.config import make_options
from gan.trainer.dataset import Dataset
from gan.trainer.parts import DataInfo
from gan.trainer.system import System

from .conftest import same, training, weights

SYSTEMS = ["cgan", "dcgan", "gan", "r3gan", "unrolled", "wgan", "wgan-gp"]
ON_POINTS = ["gan", "unrolled", "wgan", "wgan-gp"]
CLASSES = ("a", "b", "c")
SMALL: dict[str, Any] = {
    "width": 8, "latent": 6, "batch_size": 6, "embedding": 3, "projection": 5,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "r3gan": {"group": 4}, "wgan": {"warm_up": 1, "warm_up_moves": 2, "d_moves": 2},
}  # fmt: skip
IMAGES = DataInfo((3, 8, 8), CLASSES)
CLOUD = DataInfo((2,), CLASSES, "points")
EACH = [*((name, IMAGES) for name in SYSTEMS), *((name, CLOUD) for name in ON_POINTS)]
LABELLED = pytest.mark.parametrize(("name", "data"), EACH, ids=lambda x: getattr(x, "kind", x))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def make(name: str, data: DataInfo, **given: Any) -> System:
    kind, _ = systems.load(name)
    return kind(make_options(kind, data, {**SMALL, **OWN.get(name, {}), **given}), data)


def networks(name: str, data: DataInfo, **given: Any) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {n: network.eval() for n, network in make(name, data, **given).networks().items()}


def embeddings(network: nn.Module) -> list[nn.Embedding]:
    return [module for module in network.modules() if isinstance(module, nn.Embedding)]


def samples(data: DataInfo, count: int) -> Tensor:
    return torch.randn(count, *data.shape, generator=torch.Generator().manual_seed(1))


def test_these_are_the_built_in_systems() -> None:
    assert systems.names() == SYSTEMS
    assert [n for n in SYSTEMS if "points" in systems.load(n)[0].kinds] == ON_POINTS
    assert all("image" in systems.load(name)[0].kinds for name in SYSTEMS)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [8, 12])
@pytest.mark.parametrize("name", SYSTEMS)
def test_images_are_grey_rgb_or_rgba_with_one_logit_each(
    name: str, size: int, channels: int
) -> None:
    made = networks(name, DataInfo((channels, size, size), CLASSES))
    labels = torch.tensor([0, 2])
    images = made["G"](torch.randn(2, 6), labels)
    assert images.shape == (2, channels, size, size)
    assert made["D"](images, labels).shape == (2,)


@pytest.mark.parametrize("dimensions", [1, 2, 5])
@pytest.mark.parametrize("name", ON_POINTS)
def test_points_have_any_dimension_and_one_logit_each(name: str, dimensions: int) -> None:
    made = networks(name, DataInfo((dimensions,), kind="points"))
    fakes = made["G"](torch.randn(7, 6))
    assert fakes.shape == (7, dimensions) and made["D"](fakes).shape == (7,)


@pytest.mark.parametrize("name", ON_POINTS)
def test_points_are_not_held_within_minus_1_and_1(name: str) -> None:
    generator = networks(name, DataInfo((2,), kind="points"))["G"]
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(20)
    assert generator(torch.randn(50, 6)).abs().max() > 1.5


@LABELLED
def test_a_class_changes_the_sample(name: str, data: DataInfo) -> None:
    generator = networks(name, data)["G"]
    z = torch.randn(1, 6).expand(3, -1)
    made = generator(z, torch.arange(3)).flatten(1)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (made[a] - made[b]).abs().max() > 1e-5 * made.abs().max()
    again = generator(z, torch.ones(3, dtype=torch.long)).flatten(1)
    assert torch.allclose(again[0], again[2], atol=1e-6)


@LABELLED
def test_d_compares_sample_and_class_by_a_product_with_the_classs_own_numbers(
    name: str, data: DataInfo
) -> None:
    discriminator = networks(name, data)["D"].double()
    (table,) = embeddings(discriminator)
    x, label = samples(data, 5).double(), torch.full((5,), 1)
    u, v = torch.randn(2, table.embedding_dim, dtype=torch.float64)

    def logits(row: Tensor) -> Tensor:
        with torch.no_grad():
            table.weight[1] = row
            return discriminator(x, label)

    plain = logits(torch.zeros_like(u))
    of_u, of_v = logits(u) - plain, logits(v) - plain
    assert of_u.abs().min() > 1e-9 and (of_u - of_u[0]).abs().max() > 1e-9  # it reads the sample
    both = logits(2 * u - 3 * v) - plain
    assert torch.allclose(both, 2 * of_u - 3 * of_v, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        before = logits(u)
        table.weight[[0, 2]] += 1
    assert torch.equal(logits(u), before)  # other classes have no say
    if name == "r3gan":  # its logit is the product alone
        assert torch.equal(plain, torch.zeros(5, dtype=torch.float64))
    else:
        assert plain.abs().min() > 0


@LABELLED
def test_the_label_is_an_input_of_the_graph_drawn_from_a_stream_of_its_own(
    name: str, data: DataInfo
) -> None:
    (graph,) = make(name, data).graphs().values()
    assert [field.name for field in graph.inputs] == ["z", "label"]
    assert [field.draw.stream for field in graph.inputs if field.draw] == [0, 1]
    assert graph.inputs[1].range == (0.0, 2.0) and graph.classes == CLASSES
    assert graph.inputs[0].shape == (6,)
    (output,) = graph.outputs
    assert (output.kind, output.shape) == (data.kind, data.shape)
    assert output.range == ((-1.0, 1.0) if data.kind == "image" else None)


@pytest.mark.parametrize(
    ("name", "data"),
    [each for each in EACH if each[0] != "cgan"],
    ids=lambda x: getattr(x, "kind", x),
)
def test_without_labels_neither_network_has_any(name: str, data: DataInfo) -> None:
    made = networks(name, data, labels=False)
    assert not any(embeddings(network) for network in made.values())
    fakes = made["G"](torch.randn(2, 6))
    assert fakes.shape == (2, *data.shape) and made["D"](fakes).shape == (2,)
    (graph,) = make(name, data, labels=False).graphs().values()
    assert [field.name for field in graph.inputs] == ["z"] and graph.classes == ()


def small_data(kind: str) -> Dataset:
    """24 samples of noise in three classes."""
    labels = np.arange(24, dtype=np.int64) % 3
    if kind == "points":
        return Dataset("cloud", points(RING, 24), labels, CLASSES)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 3, 8, 8), np.uint8)
    return Dataset("noise", pixels, labels, CLASSES)


@pytest.mark.parametrize("more", [False, True], ids=["plain", "more"])
@LABELLED
def test_a_step_moves_both_networks_and_stays_finite(name: str, data: DataInfo, more: bool) -> None:
    given = {"spectral_norm": name != "r3gan", "minibatch_deviation": True, "instance_noise": 0.1}
    system = make(name, data, **(given if more else {}))
    live = training(type(system), data=small_data(data.kind), options=system.options)
    before = {n: weights(network) for n, network in live.networks.items()}
    for _ in range(2):
        live.run_step()
    assert live.skipped == 0
    for n, network in live.networks.items():
        after = weights(network)
        assert all(torch.isfinite(value).all() for value in after.values())
        assert not same(before[n], after)
