"""Modes of a known mixture, counted by hand and against a closed form, and the metrics that data has by default."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan.runtime.inputs import draw_field
from gan.runtime.signature import Draw, Field
from gan.trainer.builtin import GRID, RING, points
from gan.trainer.dataset import Dataset, Mixture
from gan.trainer.features import RandomFeatures
from gan.trainer.metrics import Coverage, Modes, coverage_and_density, default_metrics, modes
from gan.trainer.parts import Graph, Live
from gan.trainer.system import sample_field

from .conftest import CPU, images

SQUARE = Mixture(np.array([[0, 0], [10, 0], [0, 10], [10, 10]], np.float32), 0.1)
FAR = [100.0, 100.0]


def around(centre: int, count: int, distance: float = 0.0) -> Tensor:
    """`count` points at one distance from a centre of the square, in all directions."""
    angles = torch.arange(count) * 2.4
    directions = torch.stack([angles.cos(), angles.sin()], 1)
    return torch.from_numpy(SQUARE.centres[centre]) + distance * directions


@pytest.mark.parametrize(
    ("held", "found"), [((96, 100, 100, 100), 4), ((5, 5, 5, 385), 4), ((4, 5, 5, 386), 3), ((0, 0, 0, 400), 1)]
)  # fmt: skip
def test_a_mode_counts_from_five_in_a_hundred_of_its_fair_share(
    held: tuple[int, ...], found: int
) -> None:
    samples = torch.cat([around(c, n) for c, n in enumerate(held)])
    samples = torch.cat([samples, torch.tensor([FAR] * (400 - len(samples)))])
    assert modes(samples, SQUARE)[0] == found  # a fair share of 400 is 100, of which 5 suffice


def test_a_mode_without_any_sample_never_counts_however_few_there_are() -> None:
    assert modes(around(2, 3), SQUARE) == (1, 1.0)
    assert modes(torch.tensor([FAR] * 10), SQUARE) == (0, 0.0)


@pytest.mark.parametrize(
    ("distance", "within", "near"),
    [(0.29, None, True), (0.31, None, False), (0.31, 0.35, True), (0.29, 0.2, False)],
)
def test_near_is_within_three_deviations_or_the_distance_that_is_given(
    distance: float, within: float | None, near: bool
) -> None:
    samples = torch.cat([around(0, 30, distance), torch.tensor([FAR] * 10)])
    assert modes(samples, SQUARE, within) == ((1, 0.75) if near else (0, 0.0))


def test_samples_that_lie_between_modes_count_for_none() -> None:
    between = torch.tensor([[5.0, 5.0]]).expand(200, -1)
    found, near = modes(torch.cat([around(1, 200, 0.1), between]), SQUARE)
    assert (found, near) == (1, 0.5)


@pytest.mark.parametrize(("mixture", "count"), [(RING, 8), (GRID, 25)], ids=["ring", "grid"])
def test_the_mixtures_own_points_find_every_mode_and_as_many_are_near_as_rayleigh_says(
    mixture: Mixture, count: int
) -> None:
    found, near = modes(torch.from_numpy(points(mixture, 20_000, seed=9)), mixture)
    inside = 1 - math.exp(-(3**2) / 2)  # of a Gaussian in the plane
    assert found == count
    assert near == pytest.approx(inside, abs=5 * math.sqrt(inside * (1 - inside) / 20_000))


# As a metric of a generator.


class Pick(nn.Module):
    """The points of given modes, by the sign and the size of z."""

    def __init__(self, mixture: Mixture, chosen: list[int]) -> None:
        super().__init__()
        self.register_buffer("centres", torch.from_numpy(mixture.centres)[chosen])

    def forward(self, z: Tensor) -> Tensor:
        centres = self.get_buffer("centres")
        return centres[(z[:, 0].abs() * 1e4).long() % len(centres)]


Z = Field("z", (3,), "latent", draw=Draw("normal"))


def graph_of(data: Dataset) -> Graph:
    return Graph((Z,), (sample_field(data.info),), lambda networks: networks["G"])


def live(generator: nn.Module) -> Live:
    return cast(Live, SimpleNamespace(averaged={"G": generator}))


def ring(count: int = 200) -> Dataset:
    return Dataset("ring", points(RING, count), None, (), mixture=RING)


@pytest.mark.parametrize("chosen", [[3], [0, 4], list(range(8))])
def test_a_generators_modes_are_those_that_it_reaches(chosen: list[int]) -> None:
    metric = Modes(RING, graph_of(ring()), CPU).metric()
    measured = metric.measure(live(Pick(RING, chosen)))
    assert measured == {"modes": float(len(chosen)), "near": 1.0}
    assert metric.name == "modes" and metric.higher_is_better


def test_all_but_one_of_eight_modes_are_good_and_six_are_not() -> None:
    low, high = Modes(RING, graph_of(ring()), CPU).metric().good
    assert 6 < low <= 7 and high >= 8


def test_the_samples_are_the_first_2000_of_seed_0_by_the_averaged_network() -> None:
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            seen.append(z)
            return z[:, :2]

    measured = Modes(RING, graph_of(ring()), CPU).measure(live(Spy()))
    expected = draw_field(Z, 0, range(2_000))
    assert np.array_equal(torch.cat(seen).numpy(), expected)
    distances = np.linalg.norm(expected[:, None, :2] - RING.centres, axis=2).min(1)
    assert measured["near"] == pytest.approx((distances < 0.06).mean(), abs=1e-3)


def test_coverage_of_points_is_taken_in_the_points_themselves() -> None:
    data = ring(400)
    coverage = Coverage(data, graph_of(data), CPU)
    half = Pick(RING, [0, 1, 2, 3])
    measured = coverage.measure(live(half))
    rows = torch.linspace(0, 399, 400).long()
    reals = torch.from_numpy(data.samples)[rows]
    fakes = half(torch.from_numpy(draw_field(Z, 0, range(200))))
    ours, density = coverage_and_density(reals[0::2], fakes)
    others, _ = coverage_and_density(reals[0::2], reals[1::2])
    assert measured["coverage"] == pytest.approx(ours / others)
    assert measured["density"] == pytest.approx(density)
    assert 0 < measured["coverage"] < 0.6


def test_coverage_of_images_is_taken_in_random_features() -> None:
    data = images(64)
    reals = data.samples_of(torch.arange(64), CPU)

    class Faint(nn.Module):
        """Paler copies of some of the reals."""

        def forward(self, z: Tensor) -> Tensor:
            return 0.9 * reals[(z[:, 0].abs() * 1e4).long() % 64]

    measured = Coverage(data, graph_of(data), CPU).measure(live(Faint()))
    fakes = Faint()(torch.from_numpy(draw_field(Z, 0, range(32))))

    def expected(features: nn.Module) -> tuple[float, float]:
        seen = features(reals)
        ours, density = coverage_and_density(seen[0::2], features(fakes))
        return ours / coverage_and_density(seen[0::2], seen[1::2])[0], density

    found = (measured["coverage"], measured["density"])
    assert found == pytest.approx(expected(RandomFeatures(1)), abs=1e-6)
    assert found != pytest.approx(expected(nn.Flatten()), abs=1e-6)  # a case that tells them apart


def names(data: Dataset, graph: Graph | None = None) -> list[str]:
    return [metric.name for metric in default_metrics(data, graph or graph_of(data), CPU)]


def test_points_of_a_known_mixture_have_their_modes_first_and_then_coverage() -> None:
    assert names(ring()) == ["modes", "coverage"]


def test_other_points_and_images_have_coverage_alone() -> None:
    assert names(Dataset("cloud", points(RING, 50), None, ())) == ["coverage"]
    assert names(images(24)) == ["coverage"]


@pytest.mark.parametrize(
    ("count", "of_images", "of_points"),
    [(7, [], []), (8, ["coverage"], ["modes", "coverage"])],
)
def test_fewer_than_eight_samples_have_no_metric(
    count: int, of_images: list[str], of_points: list[str]
) -> None:
    assert names(images(count)) == of_images
    assert names(ring(count)) == of_points


def test_what_is_neither_image_nor_points_has_no_metric() -> None:
    scores = Graph((Z,), (Field("score", (), "scalar"),), lambda networks: networks["G"])
    assert names(images(24), scores) == []
