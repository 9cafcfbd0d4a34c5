"""What holds for each built-in system: shapes, labels by embedding and projection, and a first move that counts."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan.runtime.inputs import draw_field
from gan.trainer import systems
from gan.trainer.builtin import RING, points
from gan.trainer.config import make_options
from gan.trainer.dataset import Dataset
from gan.trainer.engine import Training
from gan.trainer.metrics import drawn_inputs, run_averaged
from gan.trainer.parts import DataInfo, Graph, Live
from gan.trainer.system import System
from gan.trainer.systems.stylegan2 import Discriminator, Mapping
from gan.trainer.trees import Tree, leaves

from .conftest import CPU, same, training, weights
from .translation import NAMES as ON_IMAGES

SYSTEMS = [
    "cgan", "dcgan", "gan", "msg-gan", "progressive", "r3gan", "stylegan2", "unrolled", "wgan", "wgan-gp",
]  # fmt: skip
ON_POINTS = ["gan", "unrolled", "wgan", "wgan-gp"]
CLASSES = ("a", "b", "c")
SMALL: dict[str, Any] = {
    "width": 8, "latent": 6, "batch_size": 6, "embedding": 3, "projection": 5,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "r3gan": {"group": 4}, "wgan": {"warm_up": 1, "warm_up_moves": 2, "d_moves": 2},
    "stylegan2": {"style": 5, "mapping_layers": 2, "path_length_every": 2, "penalty_every": 2},
}  # fmt: skip
PRODUCT_ALONE = ["msg-gan", "progressive", "r3gan", "stylegan2"]  # is D's logit, with classes
MORE_INPUTS = {"stylegan2": ["truncation", "noise_4", "noise_8_0", "noise_8_1"]}
MORE_OUTPUTS = {"msg-gan": {"image_4": (3, 4, 4)}}
MORE_GRAPHS = {"stylegan2": ["mapping", "synthesis"]}
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


def main_graph(system: System) -> Graph:
    return next(iter(system.graphs().values()))


def generated(system: System, made: dict[str, nn.Module], z: Tensor, *label: Tensor) -> Tree:
    """What the main graph makes of z, with its other inputs as they are drawn: a sample, or several scales of one."""
    graph = main_graph(system)
    given = dict(zip(["z", "label"], [z, *label], strict=False))
    drawn = {
        field.name: torch.from_numpy(draw_field(field, 0, range(len(z)), each=True))
        for field in graph.inputs
        if field.name not in given
    }
    return graph.build(made)(*(({**given, **drawn})[field.name] for field in graph.inputs))


def formed(system: System, x: Tensor) -> Tree:
    """Reals as D reads them: at all scales, of a system that has several; at full size, of one that grows."""
    live = cast(Live, SimpleNamespace(knobs={"level": 1.0, "alpha": 1.0}))
    form: Tree = x
    for augment in system.augmentations():
        if augment.reals_only:
            form = augment(live, form, {})
    return form


class Lookup(nn.Module):
    """A table of labels in the place of D's mapping network: their numbers, mapped as it did."""

    def __init__(self, discriminator: Discriminator, classes: int) -> None:
        super().__init__()
        assert discriminator.label is not None
        self.weight = nn.Parameter(discriminator.label(None, torch.arange(classes)).detach())

    def forward(self, z: None, label: Tensor) -> Tensor:
        return self.weight[label]


def table_of_labels(discriminator: nn.Module) -> Tensor:
    """The numbers of each class that D multiplies with a sample's: [classes, numbers]."""
    if isinstance(discriminator, Discriminator):
        lookup = Lookup(discriminator, len(CLASSES))
        discriminator.label = cast(Mapping, lookup)
        return lookup.weight
    (table,) = embeddings(discriminator)
    return table.weight


def embeddings(network: nn.Module) -> list[nn.Embedding]:
    return [module for module in network.modules() if isinstance(module, nn.Embedding)]


def samples(data: DataInfo, count: int) -> Tensor:
    return torch.randn(count, *data.shape, generator=torch.Generator().manual_seed(1))


def test_these_are_the_built_in_systems() -> None:
    """Those that take images are in test_systems_of_images.py."""
    assert systems.names() == sorted([*SYSTEMS, *ON_IMAGES])
    assert [n for n in systems.names() if "points" in systems.load(n)[0].kinds] == ON_POINTS
    assert all("image" in systems.load(name)[0].kinds for name in systems.names())


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [8, 12])
@pytest.mark.parametrize("name", SYSTEMS)
def test_images_are_grey_rgb_or_rgba_with_one_logit_each(
    name: str, size: int, channels: int
) -> None:
    data, labels = DataInfo((channels, size, size), CLASSES), torch.tensor([0, 2])
    system, made = make(name, data), networks(name, data)
    images = generated(system, made, torch.randn(2, 6), labels)
    shapes = [leaf.shape for leaf in leaves(images)]
    assert shapes[0] == (2, channels, size, size)
    halves = [(2, channels, size // 2**i, size // 2**i) for i in range(len(shapes))]
    assert shapes == halves and (len(shapes) == 1 or name in MORE_OUTPUTS)
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
    system, made = make(name, data), networks(name, data)
    z = torch.randn(1, 6).expand(3, -1)
    one = torch.ones(3, dtype=torch.long)
    with torch.no_grad():
        by_class, alike = (generated(system, made, z, x) for x in (torch.arange(3), one))
    for leaf, same_class in zip(leaves(by_class), leaves(alike), strict=True):
        of, again = leaf.flatten(1), same_class.flatten(1)
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert (of[a] - of[b]).abs().max() > 1e-5 * of.abs().max()
        assert torch.allclose(again[0], again[2], atol=1e-6)


@LABELLED
def test_d_compares_sample_and_class_by_a_product_with_the_classs_own_numbers(
    name: str, data: DataInfo
) -> None:
    discriminator = networks(name, data)["D"].double()
    x, label = formed(make(name, data), samples(data, 5).double()), torch.full((5,), 1)
    own = discriminator(x, label)
    table = table_of_labels(discriminator)
    assert torch.allclose(discriminator(x, label), own, rtol=1e-9)
    u, v = torch.randn(2, table.shape[1], dtype=torch.float64)

    def logits(row: Tensor) -> Tensor:
        with torch.no_grad():
            table[1] = row
            return discriminator(x, label)

    plain = logits(torch.zeros_like(u))
    of_u, of_v = logits(u) - plain, logits(v) - plain
    assert of_u.abs().min() > 1e-9 and (of_u - of_u[0]).abs().max() > 1e-9  # it reads the sample
    both = logits(2 * u - 3 * v) - plain
    assert torch.allclose(both, 2 * of_u - 3 * of_v, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        before = logits(u)
        table[[0, 2]] += 1
    assert torch.equal(logits(u), before)  # other classes have no say
    if name in PRODUCT_ALONE:
        assert torch.equal(plain, torch.zeros(5, dtype=torch.float64))
    else:
        assert plain.abs().min() > 0


@LABELLED
def test_the_label_is_an_input_of_the_graph_drawn_from_a_stream_of_its_own(
    name: str, data: DataInfo
) -> None:
    graphs = make(name, data).graphs()
    (main, graph), *others = graphs.items()
    assert main == data.kind and [other for other, _ in others] == MORE_GRAPHS.get(name, [])
    assert [field.name for field in graph.inputs] == ["z", "label", *MORE_INPUTS.get(name, [])]
    streams = [f.draw.stream for f in graph.inputs if f.draw and f.draw.kind != "fixed"]
    assert streams[:2] == [0, 1] and len(set(streams)) == len(streams)
    assert graph.inputs[1].range == (0.0, 2.0) and graph.classes == CLASSES
    assert graph.inputs[0].shape == (6,)
    output, *more = graph.outputs
    assert (output.name, output.kind, output.shape) == (data.kind, data.kind, data.shape)
    assert {field.name: field.shape for field in more} == MORE_OUTPUTS.get(name, {})
    for field in graph.outputs:
        assert field.range == ((-1.0, 1.0) if data.kind == "image" else None)
    for _, other in others:
        assert "label" not in [field.name for field in other.inputs] or other.classes == CLASSES


@pytest.mark.parametrize(
    ("name", "data"),
    [each for each in EACH if each[0] != "cgan"],
    ids=lambda x: getattr(x, "kind", x),
)
def test_without_labels_neither_network_has_any(name: str, data: DataInfo) -> None:
    system, made = make(name, data, labels=False), networks(name, data, labels=False)
    assert not any(embeddings(network) for network in made.values())
    fakes = generated(system, made, torch.randn(2, 6))
    assert next(leaves(fakes)).shape == (2, *data.shape) and made["D"](fakes).shape == (2,)
    for graph in system.graphs().values():
        assert "label" not in [field.name for field in graph.inputs] and graph.classes == ()
    inputs = [field.name for field in main_graph(system).inputs]
    assert inputs == ["z", *MORE_INPUTS.get(name, [])]


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
    live = started(name, data, **(given if more else {}))
    before = {n: parameters(network) for n, network in live.networks.items()}
    for _ in range(2):
        live.run_step()
    assert live.skipped == 0
    for n, network in live.networks.items():
        assert all(torch.isfinite(value).all() for value in weights(network).values())
        assert not same(before[n], parameters(network))


def started(name: str, data: DataInfo, **given: Any) -> Training:
    system = make(name, data, **given)
    return training(type(system), data=small_data(data.kind), options=system.options)


def parameters(network: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in network.named_parameters()}


@LABELLED
def test_a_resumed_training_goes_on_bit_by_bit(name: str, data: DataInfo) -> None:
    """With whatever they keep in buffers, and while those that grow fade in, from step 6 to 8."""
    whole, first, resumed = (started(name, data) for _ in range(3))
    for _ in range(9):
        whole.run_step()
    for _ in range(7):
        first.run_step()
    resumed.load_state(copy.deepcopy(first.state()))
    for _ in range(2):
        resumed.run_step()
    assert same(whole.state(), resumed.state()) and not same(whole.state(), first.state())
    for kind in ("networks", "averaged"):
        buffers = [
            [dict(network.named_buffers()) for network in getattr(live, kind).values()]
            for live in (whole, resumed)
        ]
        assert same(*buffers)  # none is left out of the state


@LABELLED
def test_each_sample_is_a_function_of_its_own_inputs_alone(name: str, data: DataInfo) -> None:
    live = started(name, data)
    for _ in range(2):
        live.run_step()
    for graph in live.system.graphs().values():
        if any(field.draw is None for field in graph.inputs):
            continue  # it is the second half of the main one
        inputs = drawn_inputs(graph, 3, 5, CPU)
        made = run_averaged(graph, live, inputs)
        assert made.shape == (5, *graph.outputs[0].shape) and made.std() > 1e-3
        assert (made[0] - made[1]).abs().max() > 1e-4  # another z, another sample
        alone = run_averaged(graph, live, inputs, chunk=1)
        assert (made - alone).abs().max() < 1e-5 * max(1.0, made.abs().max().item())
