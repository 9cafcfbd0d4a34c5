"""SRGAN: begins at bicubic, learns the content first, then all; sees no further than its radius."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from gan.runtime.errors import InputError
from gan.trainer.config import make_options
from gan.trainer.degrade import degrade, reduce
from gan.trainer.features import RandomMaps
from gan.trainer.parts import DataInfo
from gan.trainer.systems.srgan import SRGAN, SRDiscriminator, SRResNet

from .conftest import same
from .translation import batch_of, dataset, live, parameters, randomise, values


def info(size: int = 16, channels: int = 3) -> DataInfo:
    return DataInfo((channels, size, size))


def options(data: DataInfo, **given: Any) -> Any:
    return make_options(SRGAN, data, given)


def graph_of(**given: Any) -> Any:
    data = info(16)
    return SRGAN(options(data, **given), data).graphs()["enlarge"]


def cubic(t: float) -> float:
    """Keys' kernel with a = -0.75, as torch and OpenCV have it."""
    a, t = -0.75, abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


def enlarged(x: np.ndarray, scale: int) -> np.ndarray:
    """Bicubic enlargement of the last two axes, in float64, the border repeated."""
    for axis in (-2, -1):
        side = x.shape[axis]
        matrix = np.zeros((side * scale, side))
        for i in range(side * scale):
            centre = (i + 0.5) / scale - 0.5
            for j in range(math.floor(centre) - 1, math.floor(centre) + 3):
                matrix[i, min(max(j, 0), side - 1)] += cubic(centre - j)
        x = np.moveaxis(np.moveaxis(x, axis, -1) @ matrix.T, -1, axis)
    return x


# The networks.


@pytest.mark.parametrize("scale", [2, 4, 8])
@torch.no_grad()
def test_it_begins_at_a_bicubic_enlargement(scale: int) -> None:
    network = live("srgan", scale=scale).networks["G"]
    x = torch.rand(2, 3, 5, 7) * 2 - 1
    made = network.double()(x.double())
    assert made.shape == (2, 3, 5 * scale, 7 * scale)
    np.testing.assert_allclose(made.numpy(), enlarged(x.double().numpy(), scale), atol=1e-9)


@torch.no_grad()
def test_what_it_adds_is_the_papers_network() -> None:
    torch.manual_seed(0)
    network = SRResNet(1, 4, 2, 4, "batch")
    randomise(network)
    network.double().eval()
    x = torch.randn(2, 1, 6, 5, dtype=torch.float64)
    convs = iter(m for m in network.modules() if isinstance(m, nn.Conv2d))
    norms = iter(m for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    slopes = iter(m.weight for m in network.modules() if isinstance(m, nn.PReLU))

    def prelu(h: Tensor) -> Tensor:
        return torch.where(h > 0, h, next(slopes) * h)

    h = first = prelu(next(convs)(x))
    for _ in range(2):
        inner = prelu(next(norms)(next(convs)(h)))
        h = h + next(norms)(next(convs)(inner))
    h = first + next(norms)(next(convs)(h))
    for _ in range(2):
        b, c, height, width = (h := next(convs)(h)).shape
        h = h.reshape(b, c // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
        h = prelu(h.reshape(b, c // 4, 2 * height, 2 * width))
    detail = next(convs)(h)
    assert next(convs, None) is None and next(slopes, None) is None
    expected = detail.numpy() + enlarged(x.numpy(), 4)
    np.testing.assert_allclose(network(x).numpy(), expected, atol=1e-9)
    assert detail.std() > 0.1


def test_the_papers_networks_have_their_sizes() -> None:
    with torch.device("meta"):
        g = SRResNet(3, 64, 16, 4, "batch")
        d = SRDiscriminator(info(96), 64)
        assert d(torch.empty(2, 3, 96, 96)).shape == (2,)
    convs = [m for m in g.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 1 + 2 * 16 + 1 + 2 + 1
    assert (convs[0].kernel_size, convs[-1].kernel_size, convs[-2].out_channels) == (
        (9, 9), (9, 9), 256,
    )  # fmt: skip
    judging = [m for m in d.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in judging] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [m.stride[0] for m in judging] == [1, 2] * 4
    assert [m.out_features for m in d.modules() if isinstance(m, nn.Linear)] == [1024, 1]


def reach(network: nn.Module, scale: int, small: int) -> int:
    """How far from its own pixel of the small image an output's pixel sees, by gradients."""
    worst = 0
    for axis, place in ((2, 0), (2, scale - 1), (3, 0), (3, scale - 1)):
        x = torch.zeros(1, 1, small, small, dtype=torch.float64, requires_grad=True)
        middle = small // 2
        at = [middle * scale + scale // 2] * 2
        at[axis - 2] = middle * scale + place
        made = network(x + 0.1)[0, 0, at[0], at[1]]
        (slope,) = torch.autograd.grad(made, x)
        seen = slope[0, 0].abs().amax(3 - axis).nonzero()
        worst = max(worst, int((seen - middle).abs().max()))
    return worst


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_radius_is_how_far_it_sees_and_within_two_pixels_of_it(
    scale: int, blocks: int, norm: str
) -> None:
    network = SRResNet(1, 3, blocks, scale, norm)  # type: ignore[arg-type]
    randomise(network)
    radius = graph_of(scale=scale, blocks=blocks, norm=norm).radius
    seen = reach(network.double().eval(), scale, 2 * radius + 9)
    assert seen <= radius <= seen + 2


@pytest.mark.parametrize("norm", ["instance", "affine-instance"])
def test_with_instance_norms_it_sees_everything_and_needs_two_pixels(norm: str) -> None:
    graph = graph_of(norm=norm)
    assert graph.radius is None and graph.least == 2
    graph.build(live("srgan", norm=norm).averaged)(torch.rand(1, 3, 2, 2))


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_graph_takes_images_of_any_size(scale: int) -> None:
    run = live("srgan", scale=scale)
    ((name, graph),) = run.system.graphs().items()
    assert name == "enlarge" and graph.least == 1
    assert (graph.inputs[0].name, graph.inputs[0].shape) == ("image", (3, "h", "w"))
    assert graph.outputs[0].shape == (3, f"{scale}*h", f"{scale}*w")
    assert graph.outputs[0].name == "enlarged" and graph.inputs[0].draw is None
    for h, w in ((1, 1), (1, 6), (5, 3)):
        made = graph.build(run.averaged)(torch.rand(2, 3, h, w))
        assert made.shape == (2, 3, scale * h, scale * w)


# The objectives.


def test_the_preset_is_the_papers_but_for_batch_norm() -> None:
    o = options(info(96))
    assert (o.batch_size, o.g_learning_rate, o.d_learning_rate, o.beta1) == (16, 1e-4, 1e-4, 0.9)
    assert (o.scale, o.width, o.blocks, o.norm, o.adversarial) == (4, 64, 16, "none", 1e-3)


def test_the_small_image_is_the_reduced_one_and_mixed_is_the_degraded_one() -> None:
    run = live("srgan")
    batch = batch_of(run)
    assert torch.equal(batch["image"], reduce(batch["real"], 4))
    assert batch["image"].shape == (4, 3, 4, 4) and batch["fake"].shape == (4, 3, 16, 16)
    mixed = live("srgan", degradation="mixed")
    drawn = mixed._next_batch("test")
    real, source = drawn["real"], drawn["source"]
    again = mixed._next_batch("test")  # a further position
    assert not torch.equal(drawn["image"], reduce(real, 4))
    source.manual_seed(3)
    first = degrade(real, 4, source)
    source.manual_seed(3)
    prepared = mixed.system.prepare({"real": real, "source": source})
    assert torch.equal(prepared["image"], first)
    assert not torch.equal(again["image"], drawn["image"])


def test_the_objectives_are_weighted_as_the_paper_has_them() -> None:
    run = live("srgan", content=2.0, perceptual=0.3, adversarial=0.01)
    randomise(run.networks["G"])
    batch = batch_of(run)
    fake, real = (batch[name].detach() for name in ("fake", "real"))
    maps = RandomMaps(3).double()
    distance = sum(
        (a - b).square().mean().item()
        for a, b in zip(maps(fake.double()), maps(real.double()), strict=True)
    )
    logits = run.networks["D"](fake).double()
    expected = {
        "adversarial": 0.01 * softplus(-logits).mean().item(),
        "content": 2.0 * np.square((fake - real).double().numpy()).mean(),
        "perceptual": 0.3 * distance,
    }
    assert values(run, "G", batch) == pytest.approx(expected, rel=1e-5)
    assert set(values(run, "D", batch)) == {"adversarial"}


def test_a_perceptual_weight_of_0_is_no_objective() -> None:
    names = [o.name for o in live("srgan", perceptual=0.0).players["G"].objectives]
    assert names == ["adversarial", "content"]


# The stages.


def moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    return {name for name in before if not same(before[name], after[name])}


def test_the_content_comes_first_and_moves_g_alone_then_all_is_learnt() -> None:
    run = live("srgan", steps=4, content_share=0.5, adversarial_rate=0.25, optimizer="adam")
    for step in range(4):
        before = parameters(run)
        run.run_step()
        read = run.means.take()
        whole = step >= 2
        assert moved(before, parameters(run)) == ({"G", "D"} if whole else {"G"})
        assert ("loss/G/adversarial" in read) == ("loss/G/perceptual" in read) == whole
        assert ("loss/D" in read) == whole
        rates = {name: o.param_groups[0]["lr"] for name, o in run.optimizers.items()}
        assert rates == pytest.approx(dict.fromkeys(rates, 1e-4 * (0.25 if whole else 1.0)))
        moments = next(iter(run.optimizers["G"].state.values()))
        assert float(moments["step"]) == (step - 1 if whole else step + 1)  # fresh at the stage


def test_an_unrolling_g_learns_in_the_stage_without_d() -> None:
    run = live("srgan", steps=4, unroll=1)
    for _ in range(4):
        run.run_step()
    assert run.skipped == 0


def test_the_rate_still_falls_in_the_second_stage() -> None:
    run = live("srgan", steps=8, content_share=0.5, decay_share=0.5, adversarial_rate=0.5)
    rates = []
    for _ in range(8):
        run.run_step()
        rates.append(run.optimizers["G"].param_groups[0]["lr"] * 1e4)
    assert rates == pytest.approx([1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25])


# The metric.


def test_the_metrics_are_of_the_examples() -> None:
    run = live("srgan")
    randomise(run.averaged["G"])
    (metric,) = run.system.metrics() or []
    assert metric.name == "perceptual" and not metric.higher_is_better
    found = metric.measure(run)
    with torch.no_grad():
        made = run.averaged["G"](run.examples["image"]).clamp(-1, 1).double()
        truth = run.examples["real"].double()
        maps = RandomMaps(3).double()
        pairs = zip(maps(made), maps(truth), strict=True)
        distance = sum((a - b).square().mean().item() for a, b in pairs)
    assert found["perceptual"] == pytest.approx(distance, rel=1e-4)
    error = np.square((made - truth).numpy()).mean()
    assert found["psnr"] == pytest.approx(10 * math.log10(4 / error), abs=1e-3)


def test_a_system_of_ones_own_may_bring_other_features() -> None:
    class Own(SRGAN):
        def features(self) -> nn.Module:
            return nn.AvgPool2d(4)

    data = dataset("srgan")
    made = Own(make_options(Own, data.info, {"width": 4, "d_width": 2}), data.info)
    (objective,) = (o for o in made.players()["G"].objectives if o.name == "perceptual")
    x, y = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    distance = (nn.AvgPool2d(4)(x - y)).square().mean()
    value = objective.value(live("srgan"), {"fake": x, "real": y})
    assert value.item() == pytest.approx(distance.item(), rel=1e-5)


# What does not fit.

REFUSED: list[tuple[int, dict[str, Any], str]] = [
    (10, {}, r"10 x 10 pixels, made 4 times smaller\. Use a multiple of 4"),
    (12, {"scale": 8}, "Use a multiple of 8"),
    (4, {}, "Use a multiple of 4, at least 8"),
    (16, {"batch_size": 1}, "too small for D's batch norm"),
    (16, {"batch_size": 4, "accumulate": 4}, "too small for D's batch norm"),
]


@pytest.mark.parametrize(("size", "given", "said"), REFUSED)
def test_what_does_not_fit_is_refused(size: int, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        SRGAN(options(info(size), **given), info(size))


@pytest.mark.parametrize(
    ("size", "given"), [(8, {"batch_size": 2}), (20, {"batch_size": 1}), (16, {"scale": 8})]
)
def test_the_smallest_that_fit_train(size: int, given: dict[str, Any]) -> None:
    for norm in ("none", "batch", "instance"):
        run = live("srgan", dataset("srgan", size=size), norm=norm, steps=2, **given)
        for _ in range(2):
            run.run_step()
        assert run.skipped == 0
