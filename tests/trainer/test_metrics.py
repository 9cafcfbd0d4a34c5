"""Coverage and density against a loop over pairs, on cases with known answers, and of known generators."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan.runtime.inputs import draw_field
from gan.runtime.signature import Draw, Field
from gan.trainer.data import load_dataset
from gan.trainer.dataset import Dataset
from gan.trainer.metrics import (
    Coverage,
    Likeness,
    coverage_and_density,
    coverage_within,
    default_metrics,
    drawn_inputs,
    psnr,
    run_averaged,
    takes_data,
)
from gan.trainer.parts import Graph, Live
from gan.trainer.system import image_field

from .conftest import CPU, images


def cloud(seed: int, count: int = 60, dims: int = 5, shift: float = 0.0) -> Tensor:
    values = np.random.default_rng(seed).normal(size=(count, dims)) + shift
    return torch.from_numpy(values.astype(np.float32))


def by_loops(real: Tensor, fake: Tensor, k: int) -> tuple[float, float]:
    """Naeem et al. 2020, eqs. 5 and 6, pair by pair in float64."""
    r, f = real.double().numpy(), fake.double().numpy()
    covered, inside = 0, 0
    for i in range(len(r)):
        others = sorted(np.linalg.norm(r[i] - r[j]) for j in range(len(r)) if j != i)
        radius = others[k - 1]
        hits = sum(np.linalg.norm(r[i] - f[j]) < radius for j in range(len(f)))
        covered += hits > 0
        inside += int(hits)
    return covered / len(r), inside / (k * len(f))


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("shift", [0.0, 0.5, 1.5])
def test_they_are_those_of_a_loop_over_pairs(k: int, shift: float) -> None:
    real, fake = cloud(0), cloud(1, count=40, shift=shift)
    expected = by_loops(real, fake, k)
    assert coverage_and_density(real, fake, k) == pytest.approx(expected, abs=1e-6)
    assert 0 < expected[0] < 1  # a case that says something


def test_a_common_offset_changes_nothing() -> None:
    real, fake = cloud(0, shift=300.0), cloud(1, shift=300.5)
    expected = by_loops(real, fake, 5)
    assert coverage_and_density(real, fake) == pytest.approx(expected, abs=1e-6)


def test_the_reals_themselves_cover_all_at_density_one() -> None:
    assert coverage_and_density(cloud(0), cloud(0)) == (1.0, 1.0)


def test_samples_of_the_same_distribution_cover_nearly_all() -> None:
    coverage, density = coverage_and_density(cloud(0, 400, 3), cloud(1, 400, 3))
    assert coverage == pytest.approx(1 - 2**-5, abs=0.04)  # 1 - (1/2)^k, Naeem et al., section 3.3
    assert density == pytest.approx(1.0, abs=0.1)


def test_far_samples_cover_nothing() -> None:
    assert coverage_and_density(cloud(0), cloud(1, shift=100.0)) == (0.0, 0.0)


def test_collapsed_samples_cover_little_however_many_and_good_they_are() -> None:
    real = cloud(0, 200)
    one = real[:1].expand(500, -1) + 1e-3
    coverage, _ = coverage_and_density(real, one)
    assert 0 < coverage < 0.15
    half = torch.cat([real[:100] + 1e-3])
    assert 0.5 < coverage_and_density(real, half)[0] < 1.0


def test_few_reals_lower_k() -> None:
    assert coverage_and_density(cloud(0, 3), cloud(0, 3)) == (1.0, 1.0)


def test_within_classes_a_mixed_up_label_is_seen() -> None:
    real = torch.cat([cloud(0), cloud(1, shift=50.0)])
    labels = torch.arange(2).repeat_interleave(60)
    assert coverage_and_density(real, real)[0] == 1.0
    assert coverage_within(real, real, labels, labels) == {0: 1.0, 1: 1.0}
    assert coverage_within(real, real, labels, 1 - labels) == {0: 0.0, 1: 0.0}


def test_within_classes_each_is_judged_by_its_own() -> None:
    real, fake = torch.cat([cloud(0), cloud(1)]), torch.cat([cloud(2), cloud(3, shift=1.0)])
    labels = torch.arange(2).repeat_interleave(60)
    within = coverage_within(real, fake, labels, labels)
    assert within[0] == pytest.approx(by_loops(real[:60], fake[:60], 5)[0])
    assert within[1] == pytest.approx(by_loops(real[60:], fake[60:], 5)[0])
    assert within[0] > within[1]


def test_within_classes_a_class_without_fakes_is_not_covered_and_a_small_one_left_out() -> None:
    real = torch.cat([cloud(0), cloud(1), cloud(2, count=5)])
    labels = torch.cat([torch.arange(2).repeat_interleave(60), torch.full((5,), 2)])
    within = coverage_within(real, cloud(0), labels, torch.zeros(60, dtype=torch.long))
    assert within == {0: 1.0, 1: 0.0}


# The metric of a training. The "generators" below hand out pictures from a list.


class Replay(nn.Module):
    """Gives the pictures of a list, one after the other, for any input."""

    def __init__(self, pictures: Tensor) -> None:
        super().__init__()
        self.pictures, self.given = pictures, 0

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        self.given += len(z)
        return self.pictures[self.given - len(z) : self.given]


def replaying(data: Dataset, pictures: Tensor, label_name: str = "label") -> tuple[Graph, Live]:
    inputs = [Field("z", (2,), draw=Draw("normal"))]
    if data.classes:
        last = float(len(data.classes) - 1)
        inputs.append(
            Field(label_name, (), "label", "int64", (0.0, last), Draw("choice", stream=1))
        )
    graph = Graph(
        tuple(inputs), (image_field(data.info),), lambda nets: Replay(pictures), data.classes
    )
    return graph, cast(Live, SimpleNamespace(averaged={}))


def every(data: Dataset, step: int, start: int = 0) -> Tensor:
    return data.samples_of(np.arange(start, len(data), step), CPU)


def test_a_generator_that_gives_other_reals_scores_one() -> None:
    data = images(200, 16)
    graph, live = replaying(data, every(data, 2, start=1))
    metric = Coverage(data, graph, CPU).metric()
    values = metric.measure(live)
    assert metric.name == "coverage" and metric.higher_is_better and metric.good[0] == 0.7
    assert values["coverage"] == 1.0
    assert set(values) == {"coverage", "density"}


def test_a_generator_that_gives_one_picture_scores_next_to_nothing() -> None:
    data = images(200, 16)
    graph, live = replaying(data, every(data, 200).expand(100, -1, -1, -1))
    assert Coverage(data, graph, CPU).measure(live)["coverage"] < 0.1


def test_a_generator_of_noise_scores_nothing_on_digits_and_other_digits_nearly_all() -> None:
    data = load_dataset(None, resolution=28)
    noise = torch.rand(512, 1, 28, 28) * 2 - 1
    graph, live = replaying(data, noise)
    coverage = Coverage(data, graph, CPU)
    assert coverage.measure(live)["coverage"] == 0.0
    assert coverage.real_to_real > 0.9  # digits cover digits: the features tell them from noise


@pytest.mark.parametrize("label_name", ["label", "kind"])
def test_with_classes_the_worst_one_is_named(label_name: str) -> None:
    data = images(240, 16, classes=2)
    data.labels = np.repeat(np.arange(2), 120)
    graph, live = replaying(data, every(data, 2, start=1), label_name)
    coverage = Coverage(data, graph, CPU)
    # what the metric will ask for: labels drawn by the latent stream, as many of each as may be
    asked = draw_field(graph.inputs[1], 0, range(120))
    assert set(asked.tolist()) == {0, 1}
    # class 0 as asked, and for class 1 always one picture
    zeros, one = data.samples_of(np.arange(1, 120, 2), CPU), data.samples_of(np.array([121]), CPU)
    pictures = torch.stack([zeros[i % 60] if kind == 0 else one[0] for i, kind in enumerate(asked)])
    graph, live = replaying(data, pictures, label_name)
    values = Coverage(data, graph, CPU).measure(live)
    assert set(values) == {"coverage", "density", "class_coverage", "worst_class_coverage"}
    assert values["worst_class_coverage"] < 0.4 < values["class_coverage"]
    assert coverage.real_to_real > 0


def test_the_same_networks_measure_the_same_twice() -> None:
    data = images(64, 8)
    network = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    z = Field("z", (2,), draw=Draw("normal"))
    graph = Graph((z,), (image_field(data.info),), lambda nets: nets["G"])
    live = cast(Live, SimpleNamespace(averaged={"G": network}))
    coverage = Coverage(data, graph, CPU)
    first = coverage.measure(live)
    torch.manual_seed(5)
    assert coverage.measure(live) == first == Coverage(data, graph, CPU).measure(live)


def test_running_in_chunks_changes_nothing() -> None:
    network = nn.Linear(3, 4)
    fields = (Field("a", (3,)), Field("b", (3,)))

    class Sum(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            return network(a - b), a

    graph = Graph(fields, (Field("x", (4,)),), lambda nets: Sum())
    inputs = {"b": torch.randn(10, 3), "a": torch.randn(10, 3)}
    live = cast(Live, SimpleNamespace(averaged={}))
    out = run_averaged(graph, live, inputs, chunk=4)
    assert torch.allclose(out, network(inputs["a"] - inputs["b"]), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "most"),
    [((1, 8, 8), 64), ((3, 256, 256), 64), ((3, 512, 512), 16), ((3, 1024, 1024), 4), ((3, 8192, 8192), 1)],
)  # fmt: skip
def test_large_images_are_made_fewer_at_a_time(shape: tuple[int, int, int], most: int) -> None:
    """At most 64, and no more pixels than 64 images of 256 have, but one image always."""
    sizes: list[int] = []

    class Counted(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            sizes.append(len(z))
            return z

    graph = Graph((Field("z", (1,)),), (Field("image", shape, "image"),), lambda nets: Counted())
    live = cast(Live, SimpleNamespace(averaged={}))
    z = torch.arange(150.0)[:, None]
    assert torch.equal(run_averaged(graph, live, {"z": z}), z)
    assert sizes == [most] * (150 // most) + [150 % most] * (150 % most > 0)


# The inputs of a graph, as the latent stream draws them.


FIELDS = {
    "z": Field("z", (5,), draw=Draw("normal")),
    "flat": Field("flat", (2, 3), draw=Draw("uniform", 3, low=-1.0, high=1.0)),
    "label": Field("label", (), "label", "int64", (0.0, 6.0), Draw("choice", stream=1)),
    "own": Field("own", (1, 4, 4), "noise", draw=Draw("normal", 16)),
    "shared": Field("shared", (1, 4, 4), "noise", draw=Draw("normal", 16, shared=True)),
    "truncation": Field("truncation", (), "scalar", draw=Draw("fixed", value=0.5)),
}


@pytest.mark.parametrize("seed", [0, 9])
def test_drawn_inputs_are_the_rows_of_the_latent_stream_that_sampling_has(seed: int) -> None:
    graph = Graph(tuple(FIELDS.values()), (Field("x", (1,)),), lambda nets: nn.Identity())
    inputs = drawn_inputs(graph, seed, 7, CPU)
    assert list(inputs) == list(FIELDS)
    for name, field in FIELDS.items():
        expected = draw_field(field, seed, range(7))  # as the runtime draws for a sample
        assert inputs[name].numpy().dtype == expected.dtype
        assert np.array_equal(inputs[name].numpy(), expected)
    for name in ("z", "flat", "own"):
        assert len({tuple(row.flatten().tolist()) for row in inputs[name]}) == 7
    assert torch.equal(inputs["truncation"], torch.full((7,), 0.5))


def test_shared_noise_is_one_row_in_memory_and_the_same_for_every_seed() -> None:
    graph = Graph((FIELDS["shared"],), (Field("x", (1,)),), lambda nets: nn.Identity())
    one, other = (drawn_inputs(graph, seed, 1000, CPU)["shared"] for seed in (1, 2))
    assert one.shape == (1000, 1, 4, 4) and one.untyped_storage().nbytes() == 16 * 4
    assert torch.equal(one, other) and one[0].std() > 0.3
    assert torch.equal(one[0], one[999])


def test_a_graph_with_shared_noise_is_measured_and_its_label_may_have_any_name() -> None:
    data = images(64, 8, classes=2)
    z, noise = FIELDS["z"], Field("noise", (1, 8, 8), "noise", draw=Draw("normal", 16, shared=True))
    label = Field("kind", (), "label", "int64", (0.0, 1.0), Draw("choice", stream=1))
    given: list[tuple[Tensor, ...]] = []

    class Noisy(nn.Module):
        def forward(self, z: Tensor, kind: Tensor, noise: Tensor) -> Tensor:
            given.append((z, kind, noise))
            return noise * z[:, :1, None, None].sign() * (kind[:, None, None, None] + 1)

    graph = Graph((z, label, noise), (image_field(data.info),), lambda nets: Noisy(), data.classes)
    coverage = Coverage(data, graph, CPU, count=20)
    values = coverage.measure(cast(Live, SimpleNamespace(averaged={})))
    assert "worst_class_coverage" in values
    ((latents, kinds, noises),) = given
    assert np.array_equal(latents.numpy(), draw_field(z, 0, range(20)))
    assert np.array_equal(kinds.numpy(), draw_field(label, 0, range(20)))
    assert np.array_equal(noises.numpy(), draw_field(noise, 0, range(20)))


# Likeness to the truth.


class Half(nn.Module):
    """What it is given, times a half."""

    def forward(self, image: Tensor) -> Tensor:
        return image / 2


PICTURE = Field("image", (1, "h", "w"), "image", range=(-1.0, 1.0))
MADE = Field("made", (1, "h", "w"), "image", range=(-1.0, 1.0))
TRANSLATING = Graph((PICTURE,), (MADE,), lambda nets: nets["G"])


@pytest.mark.parametrize("distance", [1.0, 0.1, 1e-3])
def test_psnr_is_that_of_the_pooled_error(distance: float) -> None:
    truth = torch.zeros(4, 1, 2, 2)
    assert psnr(truth + distance, truth) == pytest.approx(-20 * np.log10(distance / 2), abs=1e-3)
    flat = truth.clone()
    flat[0] = distance  # one image is off, the others are exact
    error = distance**2 / 4
    assert psnr(flat, truth) == pytest.approx(10 * np.log10(4 / error), abs=1e-3)


def test_psnr_of_equal_images_is_finite_and_of_overshooting_ones_is_of_what_is_seen() -> None:
    truth = torch.ones(1, 1, 2, 2)
    assert psnr(truth, truth) == pytest.approx(120.0)
    assert psnr(truth * 3, truth) == pytest.approx(120.0)
    assert psnr(-truth, truth) == pytest.approx(0.0)


def test_likeness_is_of_all_examples_by_the_averaged_network() -> None:
    truth = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (70, 1, 4, 4)))
    live = cast(
        Live,
        SimpleNamespace(
            averaged={"G": Half()}, examples={"image": truth, "real": truth, "source": None}
        ),
    )
    metric = Likeness(TRANSLATING).metric()
    assert metric.name == "psnr" and metric.higher_is_better
    values = truth.numpy() / 2
    expected = {
        "psnr": 10 * np.log10(4 / np.square(values).mean()),
        "l1": np.abs(values).mean(),
    }
    assert metric.measure(live) == pytest.approx(expected, rel=1e-6)


def test_the_default_metric_is_likeness_where_the_graph_takes_what_the_data_gives() -> None:
    drawn = Graph(
        (Field("z", (4,), draw=Draw("normal")),),
        (image_field(images().info),),
        lambda nets: nets["G"],
    )
    assert [m.name for m in default_metrics(images(), drawn, CPU)] == ["coverage"]
    assert [m.name for m in default_metrics(images(), TRANSLATING, CPU)] == ["psnr"]
    assert default_metrics(images(7), TRANSLATING, CPU) == []
    assert takes_data(TRANSLATING) and not takes_data(drawn)
    fixed = Field("psi", (), "scalar", draw=Draw("fixed", value=1.0))
    assert not takes_data(Graph((*drawn.inputs, fixed), drawn.outputs, drawn.build))


def test_large_inputs_are_run_fewer_at_once() -> None:
    """Parts of at most 64, and fewer where what is given is large."""
    sizes: list[int] = []

    class Counted(Half):
        def forward(self, image: Tensor) -> Tensor:
            sizes.append(len(image))
            return super().forward(image)

    live = cast(Live, SimpleNamespace(averaged={"G": Counted()}))
    small, large = torch.zeros(70, 1, 8, 8), torch.zeros(1).expand(5, 1, 2048, 2048)
    assert len(run_averaged(TRANSLATING, live, {"image": small, "other": small})) == 70
    assert sizes == [64, 6]
    sizes.clear()
    assert run_averaged(TRANSLATING, live, {"image": large}).shape == (5, 1, 2048, 2048)
    assert sizes == [3, 2]
