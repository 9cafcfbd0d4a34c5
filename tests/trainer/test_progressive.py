"""Progressive growing: levels that switch without a step, phases that share out the run, graphs that know how far."""

from __future__ import annotations

import copy
import math
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu, linear

from gan.runtime.errors import InputError
from gan.trainer.config import make_options
from gan.trainer.dataset import Dataset
from gan.trainer.engine import Training, stage_at
from gan.trainer.parts import Batch, DataInfo, Live
from gan.trainer.system import build_on_meta, parameter_count
from gan.trainer.systems.progressive import (
    FadeIn,
    Progressive,
    ProgressiveDiscriminator,
    ProgressiveGenerator,
)
from gan.trainer.trees import Tree

from .conftest import images, same, training, weights

TINY: dict[str, Any] = {
    "width": 3, "max_width": 6, "latent": 5, "batch_size": 8, "batch_rows": 64, "embedding": 3,
    "projection": 4,
}  # fmt: skip
FAST: dict[str, Any] = {"loss": "non-saturating", "gp": 0.0, "drift": 0.0}
SMALL = DataInfo((1, 16, 16))
Array = NDArray[np.float64]
M = TypeVar("M", bound=nn.Module)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def system(data: DataInfo = SMALL, **given: Any) -> Progressive:
    return Progressive(make_options(Progressive, data, {**TINY, **given}), data)


def generator(data: DataInfo = SMALL, **given: Any) -> ProgressiveGenerator:
    torch.manual_seed(0)
    made = system(data, **given).networks()["G"]
    assert isinstance(made, ProgressiveGenerator)
    return randomise(made)


def discriminator(data: DataInfo = SMALL, **given: Any) -> ProgressiveDiscriminator:
    torch.manual_seed(0)
    made = system(data, **given).networks()["D"]
    assert isinstance(made, ProgressiveDiscriminator)
    return randomise(made)


def randomise(network: M) -> M:
    """Biases that are not zero, so that none can be forgotten."""
    source = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=source))
    return network


def live(
    steps: int = 20,
    *,
    size: int = 16,
    classes: int = 0,
    seed: int = 0,
    data: Dataset | None = None,
    **given: Any,
) -> Training:
    data = data or images(24, size, classes)
    options = make_options(Progressive, data.info, {**TINY, **given})
    return training(Progressive, data=data, options=options, steps=steps, seed=seed)


def at(level: int, alpha: float, run: Training | None = None) -> Training:
    """A training whose knobs are those of a level."""
    run = run or live()
    run.knobs = {"level": float(level), "alpha": alpha}
    return run


def pooled(x: Tensor, factor: int) -> Array:
    """Means of squares of factor x factor pixels."""
    b, c, h, w = x.shape
    blocks = x.double().numpy().reshape(b, c, h // factor, factor, w // factor, factor)
    return np.asarray(blocks.mean((3, 5)))


def enlarged(x: Array, factor: int = 2) -> Array:
    return x.repeat(factor, 2).repeat(factor, 3)


# Sizes.


def test_parameters_at_1024_pixels_are_as_many_as_published() -> None:
    data = DataInfo((3, 1024, 1024))
    made = build_on_meta(Progressive(Progressive.preset(data), data))
    assert parameter_count(made["G"]) == 23_079_115
    assert parameter_count(made["D"]) == 23_087_249


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("size", "base"), [(16, 4), (28, 7), (24, 6), (4, 4), (5, 5)])
def test_every_level_has_images_of_its_size_and_one_logit_each(
    size: int, base: int, channels: int
) -> None:
    data = DataInfo((channels, size, size))
    g, d = generator(data), discriminator(data)
    assert g(torch.randn(2, 5)).shape == (2, channels, size, size)
    levels = size.bit_length() - base.bit_length() + 1
    assert len(g.to_image) == len(d.from_image) == levels
    for level in range(levels):
        image = g(torch.randn(2, 5), level=level)
        assert image.shape == (2, channels, base * 2**level, base * 2**level)
        assert d(image, level=level).shape == (2,)
    with torch.no_grad():  # the top level is the one that is taken without being named
        z = torch.randn(2, 5)
        assert torch.equal(g(z), g(z, level=levels - 1))
        assert torch.equal(d(g(z)), d(g(z), level=levels - 1))


@pytest.mark.parametrize(("height", "width"), [(30, 30), (3, 3), (11, 11), (8, 16), (16, 8)])
def test_other_resolutions_are_refused(height: int, width: int) -> None:
    with pytest.raises(InputError, match=f"{height} x {width} pixels.*28, 32, 48, 64"):
        system(DataInfo((3, height, width)))


def test_the_image_is_linear_in_its_last_layer_and_not_held_within_minus_1_and_1() -> None:
    g = generator()
    z = torch.randn(3, 5)
    before = g(z)
    with torch.no_grad():
        g.to_image[-1].get_parameter("bias").add_(50.0)
    assert torch.allclose(g(z) - 50.0, before, atol=1e-4)


# The networks as formulas, in float64.


def used(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    return layer.weight, layer.bias  # type: ignore[return-value]


def normed(x: Tensor) -> Tensor:
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def convolved(layer: nn.Module, x: Tensor) -> Tensor:
    weight, bias = used(layer)
    return conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


def convolutions(network: nn.Module) -> list[nn.Module]:
    return [m for m in network.modules() if isinstance(m, nn.Conv2d)]


@torch.no_grad()
def drawn(g: ProgressiveGenerator, z: Tensor, level: int) -> Tensor:
    """The image of a level from z: no norm left out, every convolution followed by its activation and its norm."""
    weight, _ = used(g.first.dense)
    x = linear(normed(z), weight).reshape(len(z), *g.first.shape) + g.first.bias
    x = normed(leaky_relu(x, 0.2))
    x = normed(leaky_relu(convolved(convolutions(g.first)[0], x), 0.2))
    for block in list(g.blocks)[:level]:
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        for convolution in convolutions(block):
            x = normed(leaky_relu(convolved(convolution, x), 0.2))
    return convolved(g.to_image[level], x)


@torch.no_grad()
def judged(
    d: ProgressiveDiscriminator, x: Tensor, level: int, alpha: float, *, deviation: bool
) -> Tensor:
    """The logit of an image of a level."""

    def read(level: int, x: Tensor) -> Tensor:
        return leaky_relu(convolved(convolutions(d.from_image[level])[0], x), 0.2)

    h = read(level, x)
    for i in reversed(range(level)):
        for convolution in convolutions(d.blocks[i]):
            h = leaky_relu(convolved(convolution, h), 0.2)
        h = torch.from_numpy(pooled(h, 2))
        if i == level - 1:
            h = (1 - alpha) * read(i, torch.from_numpy(pooled(x, 2))) + alpha * h
    if deviation:  # of one group of at most 4
        spread = (h.var(0, correction=0) + 1e-8).sqrt().mean()
        h = torch.cat([h, spread.expand(len(h), 1, *h.shape[2:])], 1)
    (last,) = convolutions(d.judge)
    h = leaky_relu(convolved(last, h), 0.2).flatten(1)
    dense, out = (m for m in d.judge.modules() if isinstance(m, nn.Linear))
    h = leaky_relu(linear(h, *used(dense)), 0.2)
    return linear(h, *used(out))[:, 0]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_generators_image_is_that_of_the_formula(level: int) -> None:
    g = generator().double()
    z = torch.randn(3, 5, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(g(z, level=level), drawn(g, z, level), atol=1e-10)


@pytest.mark.parametrize("deviation", [True, False])
@pytest.mark.parametrize(("level", "alpha"), [(0, 1.0), (1, 0.3), (1, 1.0), (2, 0.0), (2, 0.75)])
def test_a_discriminators_logit_is_that_of_the_formula(
    level: int, alpha: float, deviation: bool
) -> None:
    d = discriminator(minibatch_deviation=deviation).double()
    x = torch.randn(3, 1, 4 * 2**level, 4 * 2**level, dtype=torch.float64)
    with torch.no_grad():
        logit = d(x, level=level, alpha=alpha)
    assert torch.allclose(
        logit, judged(d, x, level, alpha, deviation=deviation), rtol=1e-9, atol=1e-10
    )


def test_every_layer_begins_with_its_published_gain_over_the_root_of_its_fan_in() -> None:
    data = DataInfo((3, 16, 16))
    made = system(data, width=64, max_width=128, latent=96).networks()
    root = {"he": math.sqrt(2.0), "plain": 1.0, "dense": math.sqrt(2.0) / 4}
    seen = dict.fromkeys(root, 0)
    for network in made.values():
        for name, layer in network.named_modules():
            if not isinstance(layer, (nn.Conv2d, nn.Linear)):
                continue
            kind = "plain" if "to_image" in name or name == "judge.out" else "he"
            kind = "dense" if name == "first.dense" else kind
            w = layer.weight.detach()
            if isinstance(layer, nn.Conv2d):
                assert w.shape[2:] == ((1, 1) if "image" in name else (3, 3))
            std = w.double().std().item() * math.sqrt(w[0].numel())
            assert std == pytest.approx(root[kind], rel=5 / math.sqrt(2 * w.numel()))
            seen[kind] += 1
    assert seen == {"he": 1 + 2 * 2 + 3 + 2 * 2 + 2, "plain": 3 + 1, "dense": 1}


# The switch of levels.


@pytest.mark.parametrize("level", [1, 2])
def test_a_new_level_begins_with_the_old_image_enlarged_bit_by_bit(level: int) -> None:
    g = generator()
    z = torch.randn(4, 5)
    with torch.no_grad():
        old = g(z, level=level - 1)
        new = g(z, level=level, alpha=0.0)
        assert torch.equal(new, old.repeat_interleave(2, 2).repeat_interleave(2, 3))
        assert not torch.equal(g(z, level=level), new) and old.std() > 0.05


@pytest.mark.parametrize("level", [1, 2])
def test_a_new_level_of_d_begins_as_the_old_one_on_halved_images_bit_by_bit(level: int) -> None:
    d = discriminator()
    x = torch.randn(4, 1, 4 * 2**level, 4 * 2**level)
    with torch.no_grad():
        old = d(nn.AvgPool2d(2)(x), level=level - 1)
        assert torch.equal(d(x, level=level, alpha=0.0), old)
        assert not torch.equal(d(x, level=level), old) and old.std() > 1e-3


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("level", [1, 2])
def test_in_between_the_image_is_the_weighted_mean_of_old_and_new(level: int, alpha: float) -> None:
    g = generator().double()
    z = torch.randn(4, 5, dtype=torch.float64)
    with torch.no_grad():
        old, new = g(z, level=level - 1).numpy(), g(z, level=level).numpy()
        expected = (1 - alpha) * enlarged(old) + alpha * new
        assert g(z, level=level, alpha=alpha).numpy() == pytest.approx(expected, abs=1e-12)


def test_the_first_level_knows_no_fading() -> None:
    g, d, z = generator(), discriminator(), torch.randn(4, 5)
    with torch.no_grad():
        assert torch.equal(g(z, level=0, alpha=0.0), g(z, level=0))
        x = g(z, level=0)
        assert torch.equal(d(x, level=0, alpha=0.0), d(x, level=0))


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.7, 1.0])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_reals_are_as_sharp_as_the_present_level(level: int, alpha: float) -> None:
    x = torch.randn(3, 2, 16, 16)
    faded = FadeIn(2)(at(level, alpha), x, {})
    sharp = pooled(x, 4 // 2**level)
    expected = sharp
    if level:
        expected = (1 - alpha) * enlarged(pooled(x, 8 // 2**level)) + alpha * sharp
    assert faded.numpy() == pytest.approx(expected, abs=1e-5)


def test_the_reals_are_exact_at_both_ends_of_the_fade() -> None:
    x = torch.randn(3, 2, 16, 16)
    assert torch.equal(FadeIn(2)(at(2, 1.0), x, {}), x)
    begun = FadeIn(2)(at(2, 0.0), x, {})
    halves = FadeIn(2)(at(1, 1.0), x, {})
    assert torch.equal(begun, halves.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_fading_in_is_for_the_reals_alone_and_comes_before_the_other_augmentations() -> None:
    first, *rest = system(instance_noise=0.1, diffaugment="color").augmentations()
    assert isinstance(first, FadeIn) and first.reals_only
    assert [other.reals_only for other in rest] == [False, False]
    assert [other.name for other in rest] == ["diffaugment", "instance_noise"]


# Stages.


def knobs(made: Progressive) -> list[tuple[int, float, float]]:
    """(level, alpha at the stage's begin, alpha at its end) of each stage."""
    found = []
    for stage in made.stages():
        level, alpha = stage.schedules["level"], stage.schedules["alpha"]
        assert level(0.0) == level(0.5) == level(1.0)
        assert alpha(0.5) == pytest.approx((alpha(0.0) + alpha(1.0)) / 2)
        found.append((int(level(0.0)), alpha(0.0), alpha(1.0)))
    return found


def test_levels_rise_and_each_but_the_first_fades_in_before_it_settles() -> None:
    assert knobs(system(DataInfo((1, 32, 32)))) == [
        (0, 1.0, 1.0),
        (1, 0.0, 1.0), (1, 1.0, 1.0),
        (2, 0.0, 1.0), (2, 1.0, 1.0),
        (3, 0.0, 1.0), (3, 1.0, 1.0),
    ]  # fmt: skip


def test_without_fading_each_level_only_settles() -> None:
    made = system(fade_share=0.0)
    assert knobs(made) == [(0, 1.0, 1.0), (1, 1.0, 1.0), (2, 1.0, 1.0)]
    assert [stage.fresh_optimizers for stage in made.stages()] == [False, True, True]


def test_optimisers_forget_exactly_at_new_levels() -> None:
    flags = [stage.fresh_optimizers for stage in system(DataInfo((1, 32, 32))).stages()]
    assert flags == [False, True, False, True, False, True, False]


@pytest.mark.parametrize("batch_rows", [0, 16, 64, 2048])
@pytest.mark.parametrize("fade", [0.5, 0.2])
@pytest.mark.parametrize("last", [0.1, 0.4, 0.7])
@pytest.mark.parametrize("size", [8, 32, 28])
def test_images_are_shared_out_one_part_then_two_and_the_last_level_has_its_own(
    size: int, last: float, fade: float, batch_rows: int
) -> None:
    made = system(
        DataInfo((1, size, size)), last_share=last, fade_share=fade, batch_rows=batch_rows
    )
    fading, settled = dict[int, float](), dict[int, float]()
    for (level, begin, _), stage in zip(knobs(made), made.stages(), strict=True):
        assert stage.batch_size is not None
        share = stage.share * stage.batch_size  # of the run's images
        (settled if begin == 1.0 else fading)[level] = share
    total = sum([*fading.values(), *settled.values()])
    top = max(settled)
    per_level = [(fading.get(i, 0.0) + settled.get(i, 0.0)) / total for i in range(top + 1)]
    assert per_level[top] == pytest.approx(last)
    part = per_level[0]
    assert per_level[1:top] == pytest.approx([2 * part] * (top - 1))
    assert sum(per_level) == pytest.approx(1.0)
    for i in range(1, top + 1):  # the last one fades no longer than the others
        whole = min(last, 2 * part) if i == top else 2 * part
        assert fading[i] / total == pytest.approx(fade * whole)
    assert 0 not in fading


@pytest.mark.parametrize(
    ("size", "given", "expected"),
    [
        (1024, {"batch_size": 512, "batch_rows": 2048}, [512, 256, 128, 64, 32, 16, 8, 4, 4]),
        (1024, {"batch_size": 16, "batch_rows": 2048}, [16, 16, 16, 16, 16, 16, 8, 4, 4]),
        (28, {"batch_size": 512, "batch_rows": 2048}, [256, 128, 64]),  # 2048 / 7 is 292
        (24, {"batch_size": 50, "batch_rows": 1000}, [50, 50, 32]),  # 50 is the user's own
        (16, {"batch_size": 50, "batch_rows": 0}, [50, 50, 50]),
        (16, {"batch_size": 50, "batch_rows": 3}, [4, 4, 4]),
        (16, {"batch_size": 2, "batch_rows": 2048}, [2, 2, 2]),
    ],
)
def test_a_batch_is_the_largest_power_of_two_within_the_rows_but_4_and_no_more_than_was_chosen(
    size: int, given: dict[str, int], expected: list[int]
) -> None:
    made = system(DataInfo((1, size, size)), **given)
    sizes = dict[int, int | None]()
    for (level, _, _), stage in zip(knobs(made), made.stages(), strict=True):
        assert sizes.setdefault(level, stage.batch_size) == stage.batch_size
    assert list(sizes.values()) == expected


def test_schedules_run_over_the_whole_run_and_not_over_each_stage() -> None:
    stages = system(decay_share=0.6, instance_noise=0.2, instance_noise_share=0.5).stages()
    steps, seen = 1_000, set[int]()
    for step in range(steps):
        number, progress = stage_at(stages, step, steps)
        seen.add(number)
        curves, t = stages[number].schedules, step / steps
        assert curves["learning_rate"](progress) == pytest.approx(min(1, (1 - t) / 0.6), abs=2e-3)
        noise = 0.2 * max(0, 1 - t / 0.5)
        assert curves["instance_noise"](progress) == pytest.approx(noise, abs=1e-3)
    assert seen == set(range(5))


# A training through all levels.


def watched(run: Training) -> list[dict[str, Any]]:
    """The run to its end, and what every step saw."""
    steps = list[dict[str, Any]]()
    sizes = dict[str, set[tuple[int, ...]]]()
    generate, discriminate = run.system.generate, run.system.discriminate

    def made(live: Live, batch: Batch) -> Batch:
        found = generate(live, batch)
        sizes.setdefault("real", set()).add(tuple(batch["real"].shape))
        sizes.setdefault("fake", set()).add(tuple(found["fake"].shape))
        return found

    def seen(live: Live, sample: Tree, batch: Batch) -> Tree:
        sizes.setdefault("D", set()).add(tuple(sample.shape))
        return discriminate(live, sample, batch)

    run.system.generate, run.system.discriminate = made, seen  # type: ignore[method-assign]
    while run.step < run.config.steps:
        sizes.clear()
        before = run.images_seen
        run.run_step()
        (group,) = run.optimizers["G"].param_groups
        steps.append({
            "level": int(run.knobs["level"]), "alpha": run.knobs["alpha"], "rate": group["lr"],
            "images": run.images_seen - before, "sizes": dict(sizes),
            "moves": max(entry["step"].item() for entry in run.optimizers["G"].state.values()),
        })  # fmt: skip
    return steps


def test_every_step_of_a_run_has_the_levels_size_batch_alpha_and_fresh_optimisers() -> None:
    run = live(24, g_learning_rate=0.01, decay_share=0.5, **FAST)
    steps = watched(run)
    assert run.skipped == 0
    levels = [step["level"] for step in steps]
    assert levels == sorted(levels) and set(levels) == {0, 1, 2}
    moves = 0
    for number, step in enumerate(steps):
        size, batch = 4 * 2 ** step["level"], {0: 8, 1: 8, 2: 4}[step["level"]]
        assert step["images"] == batch
        assert step["sizes"] == {of: {(batch, 1, size, size)} for of in ("real", "fake", "D")}
        assert step["rate"] == pytest.approx(0.01 * min(1, (1 - number / 24) / 0.5), abs=3e-4)
        new = number > 0 and step["level"] != levels[number - 1]
        moves = 1 if new else moves + 1
        assert step["moves"] == moves
        if new:
            assert step["alpha"] < 0.35
        elif number and step["alpha"] != 1.0:
            assert step["alpha"] > steps[number - 1]["alpha"]
    for level in (1, 2):
        own = [step["alpha"] for step in steps if step["level"] == level]
        assert own == sorted(own) and own[-1] == 1.0 and own.count(1.0) > 1
    assert all(step["alpha"] == 1.0 for step in steps if step["level"] == 0)


def untouched(level: int, name: str) -> bool:
    """Whether a parameter belongs to a level that has not been reached."""
    part, *rest = name.split(".")
    if part == "blocks":
        return int(rest[0]) >= level
    return part in ("to_image", "from_image") and int(rest[0]) > level


def test_levels_that_are_not_reached_stay_as_they_were_initialised() -> None:
    run = live(12, **FAST)
    begun = {"D": weights(run.networks["D"]), "G": weights(run.networks["G"])}
    seen = set()
    while run.step < 12:
        run.run_step()
        level = int(run.knobs["level"])
        seen.add(level)
        for network, start in (
            (run.networks["D"], begun["D"]), (run.networks["G"], begun["G"]),
            (run.averaged["G"], begun["G"]),
        ):  # fmt: skip
            for name, parameter in network.named_parameters():
                if untouched(level, name):
                    assert torch.equal(parameter, start[name]), (name, run.step)
    assert seen == {0, 1, 2}
    for name, parameter in run.networks["G"].named_parameters():
        assert not torch.equal(parameter, begun["G"][name]), name


def test_how_far_it_has_grown_reaches_the_average() -> None:
    run = live(12, **FAST)
    alphas = set()
    while run.step < 12:
        run.run_step()
        for network in (run.networks["G"], run.averaged["G"]):
            assert network.get_buffer("level").item() == run.knobs["level"]
            assert network.get_buffer("alpha").item() == pytest.approx(run.knobs["alpha"])
        alphas.add(run.knobs["alpha"])
    assert len(alphas) > 3 and run.averaged["G"].get_buffer("level").item() == 2


def graph_of(run: Training) -> nn.Module:
    ((name, graph),) = run.system.graphs().items()
    assert name == "image"
    assert [field.shape for field in graph.outputs] == [run.data.info.shape]
    return graph.build(run.averaged)


@pytest.mark.parametrize(("level", "alpha"), [(0, 1.0), (1, 0.25), (1, 1.0), (2, 0.5)])
def test_the_graph_of_an_unfinished_run_is_the_enlarged_image_of_its_level(
    level: int, alpha: float
) -> None:
    run = live()
    g = run.averaged["G"]
    assert isinstance(g, ProgressiveGenerator)
    g.remember(level, alpha)
    z = torch.randn(3, 5)
    with torch.no_grad():
        image = graph_of(run)(z)
        expected = g(z, level=level, alpha=alpha).double().numpy()
        assert torch.equal(image.double(), torch.from_numpy(enlarged(expected, 4 // 2**level)))
    assert image.shape == (3, 1, 16, 16) and image.std() > 0.01


def test_the_graph_of_a_finished_run_is_g_at_the_top_level() -> None:
    run = live(8, **FAST)
    while run.step < 8:
        run.run_step()
    z = torch.randn(3, 5)
    with torch.no_grad():
        assert torch.equal(graph_of(run)(z), run.averaged["G"](z))


@pytest.mark.parametrize(
    ("stored", "level", "alpha"), [((9, 7.0), 2, 1.0), ((1, -1.0), 1, 0.0), ((-3, 0.5), 0, 1.0)]
)
def test_buffers_of_a_damaged_checkpoint_are_held_within_the_levels(
    stored: tuple[int, float], level: int, alpha: float
) -> None:
    run = live()
    g = run.averaged["G"]
    assert isinstance(g, ProgressiveGenerator)
    g.remember(*stored)
    with torch.no_grad():
        z = torch.randn(2, 5)
        image = graph_of(run)(z)
        expected = enlarged(g(z, level=level, alpha=alpha).numpy(), 4 // 2**level)
    assert np.array_equal(image.numpy(), expected)


# Penalties, labels, resuming.


def move_of_d(run: Training, level: int, alpha: float) -> dict[str, float]:
    """One step of the run, held at a level."""
    for stage in run.stages:
        stage.schedules |= {"level": lambda t: float(level), "alpha": lambda t: alpha}
    run.run_step()
    return run.means.take()


def test_the_presets_penalty_is_that_of_finite_differences_while_fading() -> None:
    run = live(size=8, batch_size=2, drift=0.0, data=images(12, 8))
    objectives = {o.name: o for o in run.players["D"].objectives}
    assert run.system.options.loss == "wasserstein"
    assert set(objectives) == {"adversarial", "gp"} and objectives["gp"].weight == 10.0
    at(1, 0.6, run)
    d = run.networks["D"] = randomise(run.networks["D"]).double()
    batch: Batch = {"source": torch.Generator().manual_seed(3)}
    batch |= {name: torch.randn(2, 1, 8, 8, dtype=torch.float64) for name in ("real", "fake")}
    ours = objectives["gp"].value(run, batch).item()
    e = torch.rand(2, generator=torch.Generator().manual_seed(3))[:, None, None, None]
    x = e * batch["real"] + (1 - e) * batch["fake"]
    norms, step = [], 1e-6
    with torch.no_grad():
        for sample in range(2):
            total = 0.0
            for row, column in np.ndindex(8, 8):
                nudge = torch.zeros_like(x)
                nudge[sample, 0, row, column] = step
                rise = d(x + nudge, None, 1, 0.6).sum() - d(x - nudge, None, 1, 0.6).sum()
                total += (rise.item() / (2 * step)) ** 2
            norms.append(math.sqrt(total))
    expected = sum((norm - 1) ** 2 for norm in norms) / 2
    assert ours == pytest.approx(expected, rel=1e-5) and expected > 1e-3


@pytest.mark.parametrize(("level", "alpha"), [(0, 1.0), (1, 0.5), (2, 0.01), (2, 1.0)])
def test_a_move_of_each_player_changes_all_that_takes_part_and_nothing_else(
    level: int, alpha: float
) -> None:
    run = live(classes=1)  # each batch has all classes
    begun = {name: weights(run.networks[name]) for name in ("D", "G")}
    read = move_of_d(run, level, alpha)
    assert run.skipped == 0
    assert all(math.isfinite(value) for value in read.values())
    assert read["loss/D/gp"] > 0 and read["loss/D/drift"] >= 0
    takes_part = {level} | ({level - 1} if alpha < 1 else set[int]())
    for network, start in begun.items():
        for name, parameter in run.networks[network].named_parameters():
            part, *rest = name.split(".")
            silent = untouched(level, name)
            if part in ("to_image", "from_image"):
                silent = int(rest[0]) not in takes_part
            moved = (parameter != start[name]).flatten()
            assert not moved.any() if silent else moved.all(), (network, name)


def test_labels_change_the_image_and_are_judged_at_every_level() -> None:
    data = DataInfo((1, 16, 16), ("a", "b", "c"))
    g, d = generator(data), discriminator(data)
    z, labels = torch.randn(1, 5).expand(3, -1), torch.arange(3)
    for level in range(3):
        for alpha in (0.5, 1.0):
            with torch.no_grad():
                made = g(z, labels, level, alpha)
                logits = d(made[:1].expand(3, -1, -1, -1), labels, level, alpha)
            for a, b in ((0, 1), (0, 2), (1, 2)):
                assert (made[a] - made[b]).abs().max() > 1e-3
                assert (logits[a] - logits[b]).abs() > 1e-5


def test_z_and_the_label_are_normalised_each_on_its_own() -> None:
    g = generator(DataInfo((1, 8, 8), ("a", "b", "c")))
    z, labels = torch.randn(3, 5), torch.arange(3)
    with torch.no_grad():
        before = g(z, labels)
        assert torch.allclose(g(30 * z, labels), before, atol=1e-4)
        g.first.get_parameter("embed.weight").mul_(30)
        assert torch.allclose(g(z, labels), before, atol=1e-4)
        g.first.get_parameter("embed.weight").neg_()
        assert not torch.allclose(g(z, labels), before, atol=1e-2)


def test_a_run_with_labels_gives_them_to_both_networks_and_to_the_graph() -> None:
    run = live(8, classes=3, **FAST)
    while run.step < 8:
        run.run_step()
    assert run.skipped == 0
    (graph,) = run.system.graphs().values()
    assert [field.name for field in graph.inputs] == ["z", "label"]
    assert graph.classes == ("c0", "c1", "c2")
    z, labels = torch.randn(1, 5).expand(3, -1), torch.arange(3)
    with torch.no_grad():
        made = graph_of(run)(z, labels)
        assert torch.equal(made, run.averaged["G"](z, labels))
    assert (made[0] - made[1]).abs().max() > 1e-3


@pytest.mark.parametrize("stop", [2, 3, 5, 7])
def test_a_run_resumed_within_a_level_ends_with_the_same_bits(stop: int) -> None:
    """It stops within the first level, before the second, while that fades in, and after."""
    whole, first, resumed = (live(9, size=8, decay_share=0.5, last_share=0.7) for _ in range(3))
    seen = []
    while whole.step < 9:
        whole.run_step()
        seen.append((whole.knobs["level"], whole.knobs["alpha"]))
    while first.step < stop:
        first.run_step()
    resumed.load_state(copy.deepcopy(first.state()))
    torch.rand(17)  # the global generator is somewhere else in the resumed process
    while resumed.step < 9:
        resumed.run_step()
    assert [level for level, _ in seen] == [0.0] * 3 + [1.0] * 6
    assert 0 < seen[4][1] < seen[5][1] < 1 and [alpha for _, alpha in seen[6:]] == [1.0] * 3
    assert same(whole.state(), resumed.state())
    assert not same(whole.state()["networks"], first.state()["networks"])


def test_the_seed_alone_decides_the_weights() -> None:
    a, b, c = (live(4, size=8, seed=seed) for seed in (1, 1, 2))
    for run in (a, b, c):
        while run.step < 4:
            run.run_step()
    assert same(a.state(), b.state())
    assert not same(a.state()["networks"], c.state()["networks"])


@pytest.mark.parametrize("size", [4, 7])
def test_data_of_the_smallest_size_have_one_level_that_never_fades(size: int) -> None:
    run = live(6, size=size, decay_share=0.5)
    (stage,) = run.stages
    assert not stage.fresh_optimizers
    steps = watched(run)
    assert run.skipped == 0
    for number, step in enumerate(steps):
        assert (step["level"], step["alpha"], step["moves"]) == (0, 1.0, number + 1)
        assert step["sizes"]["D"] == {(8, 1, size, size)}
    z = torch.randn(2, 5)
    with torch.no_grad():
        assert torch.equal(graph_of(run)(z), run.averaged["G"](z))


def test_points_are_refused() -> None:
    with pytest.raises(InputError, match="progressive cannot be trained on such data"):
        make_options(Progressive, DataInfo((2,), kind="points"), {})
