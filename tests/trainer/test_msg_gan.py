"""MSG-GAN: images at every scale, largest first, which D reads all and which all learn from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu, linear

from gan.runtime.errors import InputError
from gan.trainer.config import make_options
from gan.trainer.engine import Training
from gan.trainer.parts import Batch, DataInfo, Live
from gan.trainer.system import build_on_meta
from gan.trainer.systems.msg_gan import MSGGAN, MSGDiscriminator, MSGGenerator, Pyramid
from gan.trainer.systems.progressive import Progressive
from gan.trainer.trees import Tree

from .conftest import images, same, training, weights

TINY: dict[str, Any] = {
    "width": 4, "max_width": 6, "latent": 5, "batch_size": 6, "embedding": 3, "projection": 4,
}  # fmt: skip
SMALL = DataInfo((1, 16, 16))
Images = tuple[Tensor, ...]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def system(data: DataInfo = SMALL, **given: Any) -> MSGGAN:
    return MSGGAN(make_options(MSGGAN, data, {**TINY, **given}), data)


def networks(data: DataInfo = SMALL, **given: Any) -> tuple[MSGGenerator, MSGDiscriminator]:
    """G and D with biases that are not zero, so that none can be forgotten."""
    torch.manual_seed(0)
    made = system(data, **given).networks()
    g, d = made["G"], made["D"]
    with torch.no_grad():
        for parameter in (*g.parameters(), *d.parameters()):
            parameter.add_(0.3 * torch.randn_like(parameter))
    assert isinstance(g, MSGGenerator) and isinstance(d, MSGDiscriminator)
    return g, d


def live(
    steps: int = 10, *, size: int = 16, classes: int = 0, seed: int = 0, **given: Any
) -> Training:
    data = images(24, size, classes)
    options = make_options(MSGGAN, data.info, {**TINY, **given})
    return training(MSGGAN, data=data, options=options, steps=steps, seed=seed)


def pyramid(count: int, sizes: tuple[int, ...] = (16, 8, 4), channels: int = 1) -> Images:
    source = torch.Generator().manual_seed(5)
    return tuple(
        torch.randn(count, channels, size, size, generator=source, dtype=torch.float64)
        for size in sizes
    )


def pooled(x: Tensor, factor: int) -> NDArray[np.float64]:
    """Means of squares of factor x factor pixels."""
    b, c, h, w = x.shape
    blocks = x.detach().double().numpy().reshape(b, c, h // factor, factor, w // factor, factor)
    return np.asarray(blocks.mean((3, 5)))


# The networks.


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("size", "sizes"), [(16, [16, 8, 4]), (28, [28, 14, 7]), (24, [24, 12, 6]), (4, [4])]
)
def test_g_gives_an_image_of_every_size_the_largest_first_and_d_one_logit_for_all(
    size: int, sizes: list[int], channels: int
) -> None:
    g, d = networks(DataInfo((channels, size, size)))
    made = g(torch.randn(2, 5))
    assert isinstance(made, tuple)
    assert [image.shape for image in made] == [(2, channels, side, side) for side in sizes]
    assert d(made).shape == (2,)


@pytest.mark.parametrize(("height", "width"), [(30, 30), (3, 3), (11, 11), (8, 16), (16, 8)])
def test_other_resolutions_are_refused(height: int, width: int) -> None:
    with pytest.raises(InputError, match=f"{height} x {width} pixels.*28, 32, 48, 64"):
        system(DataInfo((3, height, width)))


def test_its_g_is_progressive_growings_with_all_that_reads_images() -> None:
    """Of the same names and shapes, so the published number of parameters is the same too."""
    data = DataInfo((3, 1024, 1024))
    ours = build_on_meta(MSGGAN(MSGGAN.preset(data), data))["G"]
    other = build_on_meta(Progressive(Progressive.preset(data), data))["G"]
    shapes = [{n: p.shape for n, p in network.named_parameters()} for network in (ours, other)]
    assert shapes[0] == shapes[1]


def test_each_scale_is_what_a_progressive_g_of_the_same_weights_gives_at_that_level() -> None:
    g, _ = networks()
    grown = Progressive(make_options(Progressive, SMALL, TINY), SMALL).networks()["G"]
    grown.load_state_dict(g.state_dict(), strict=False)
    z = torch.randn(3, 5)
    with torch.no_grad():
        for level, image in enumerate(reversed(g(z))):
            assert torch.equal(image, grown(z, level=level))


@torch.no_grad()
def judged(d: MSGDiscriminator, images: Images, *, deviation: bool) -> Tensor:
    """The logit: a scale's image is read, put beside what comes from above, convolved twice and halved."""

    def convolved(layer: nn.Module, x: Tensor) -> Tensor:
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
        return leaky_relu(conv2d(x, weight, bias, padding=weight.shape[-1] // 2), 0.2)

    def convolutions(network: nn.Module) -> list[nn.Module]:
        return [m for m in network.modules() if isinstance(m, nn.Conv2d)]

    levels = list(range(len(images)))[::-1]
    h: Tensor | None = None
    for level, x in zip(levels, images, strict=True):
        (reading,) = convolutions(d.from_image[level])
        seen = convolved(reading, x)
        h = seen if h is None else torch.cat([h, seen], 1)
        if level:
            for layer in convolutions(d.blocks[level - 1]):
                h = convolved(layer, h)
            h = torch.from_numpy(pooled(h, 2))
    assert h is not None
    if deviation:  # of one group of at most 4
        spread = (h.var(0, correction=0) + 1e-8).sqrt().mean()
        h = torch.cat([h, spread.expand(len(h), 1, *h.shape[2:])], 1)
    (last,) = convolutions(d.judge)
    dense, out = (m for m in d.judge.modules() if isinstance(m, nn.Linear))
    h = leaky_relu(linear(convolved(last, h).flatten(1), dense.weight, dense.bias), 0.2)
    return linear(h, out.weight, out.bias)[:, 0]


@pytest.mark.parametrize("deviation", [True, False])
@pytest.mark.parametrize("size", [4, 8, 16])
def test_ds_logit_is_that_of_the_formula(size: int, deviation: bool) -> None:
    _, d = networks(DataInfo((3, size, size)), minibatch_deviation=deviation)
    x = pyramid(3, tuple(s for s in (16, 8, 4) if s <= size), 3)
    with torch.no_grad():
        logit = d.double()(x)
    assert torch.allclose(logit, judged(d, x, deviation=deviation), rtol=1e-9, atol=1e-10)


def test_features_and_what_is_read_of_a_smaller_image_share_the_width_by_two_to_one() -> None:
    _, d = networks(DataInfo((1, 16, 16)), width=8, max_width=64)  # 32, 16 and 8 channels
    read = [next(part.parameters()).shape[0] for part in d.from_image]
    assert read == [16, 8, 8]  # the largest image alone is read at full width
    widths = [
        [m.weight.shape[:2] for m in block.modules() if isinstance(m, nn.Conv2d)]
        for block in d.blocks
    ]
    assert widths == [[(24, 24), (32, 24)], [(8, 8), (16, 8)]]


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_a_change_at_any_one_scale_changes_the_logit_and_no_other_samples_own_part(
    scale: int,
) -> None:
    _, d = networks(minibatch_deviation=False)
    x = pyramid(3)
    other = list(x)
    other[scale] = x[scale].clone()
    other[scale][1] += torch.randn(x[scale].shape[1:], dtype=torch.float64)
    with torch.no_grad():
        before, after = d.double()(x), d(tuple(other))
    assert (before[1] - after[1]).abs() > 1e-4
    assert torch.allclose(before[[0, 2]], after[[0, 2]], atol=1e-12)


def test_the_adversarial_gradient_reaches_every_scales_layer_and_no_scale_only_through_another() -> (
    None
):
    run = live()
    g, d = run.networks["G"], run.networks["D"]
    assert isinstance(g, MSGGenerator)
    made = g(torch.randn(4, 5))
    for image in made:
        image.retain_grad()
    (-d(made)).mean().backward()
    for image, layer in zip(made, reversed(g.to_image), strict=True):
        assert image.grad is not None and image.grad.abs().min() > 0
        for parameter in layer.parameters():
            assert parameter.grad is not None and parameter.grad.abs().min() > 0
    # what reaches a scale's layer comes by its own image alone
    bias = g.to_image[1].get_parameter("bias").grad
    assert bias is not None
    assert torch.allclose(bias, made[1].grad.sum((0, 2, 3)), atol=1e-6)


def test_labels_change_every_scale_and_are_judged() -> None:
    g, d = networks(DataInfo((1, 16, 16), ("a", "b", "c")))
    z, labels = torch.randn(1, 5).expand(3, -1), torch.arange(3)
    with torch.no_grad():
        made = g(z, labels)
        logits = d(tuple(image[:1].expand(3, -1, -1, -1) for image in made), labels)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert all((image[a] - image[b]).abs().max() > 1e-3 for image in made)
        assert (logits[a] - logits[b]).abs() > 1e-5


# Reals, augmentations, graphs.


def test_the_reals_are_a_pyramid_of_means() -> None:
    x = torch.randn(3, 2, 16, 16)
    made = Pyramid(3)(live(), x, {})
    assert isinstance(made, tuple) and len(made) == 3
    assert torch.equal(made[0], x)
    for k, image in enumerate(made):
        assert image.numpy() == pytest.approx(pooled(x, 2**k), abs=1e-6)


def test_the_pyramid_is_for_the_reals_alone_and_comes_before_the_other_augmentations() -> None:
    first, *rest = system(instance_noise=0.1, diffaugment="color").augmentations()
    assert isinstance(first, Pyramid) and first.reals_only
    assert [other.reals_only for other in rest] == [False, False]


def seen_by_d(run: Training, sample: Images) -> Images:
    """What D is shown of reals of these scales, after the augmentations."""
    shown: list[Tree] = []

    def spy(live: Live, sample: Tree, batch: Batch) -> Tree:
        shown.append(sample)
        return torch.zeros(len(sample[0]))

    run.system.discriminate = spy  # type: ignore[method-assign]
    run.logits("real", {"real": sample, "source": torch.Generator().manual_seed(2)})
    (found,) = shown
    assert isinstance(found, tuple)
    return found


def smooth(count: int) -> Tensor:
    """Colour waves of low frequency, other ones in each sample: at half the size still the same image."""
    source = torch.Generator().manual_seed(1)
    row, column = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    a, b, c = torch.rand((3, count, 3, 1, 1), generator=source) * 2
    return 0.8 * torch.sin(math.pi * (a * row + b * column + 2 * c))


AUGMENTED: dict[str, dict[str, Any]] = {
    "colour of diffaugment": {"diffaugment": "color"},
    "places of diffaugment": {"diffaugment": "translation,cutout"},
    "colour of ada": {"ada": 1.0, "ada_colour": 1.0},
    "places of ada": {"ada": 1.0, "ada_colour": 0.0},
}


@pytest.mark.parametrize("which", AUGMENTED)
def test_augmentations_transform_all_scales_alike(which: str) -> None:
    given = {"diffaugment": "", "ada": 0.0, **AUGMENTED[which]}
    run = live(size=32, **given)
    x = smooth(16)
    if which == "colour of ada":  # whose places are moved too: one colour, wherever it goes
        x = x[:, :, :1, :1].expand_as(x).contiguous()
    scales = tuple(torch.from_numpy(pooled(x, 2**k)).float() for k in range(4))
    shown = seen_by_d(run, scales)
    assert [image.shape for image in shown] == [image.shape for image in scales]
    assert (shown[0] - x).abs().mean() > 0.05
    for k in (1, 2):
        halved = torch.from_numpy(pooled(shown[0], 2**k)).float()
        apart = (shown[k] - halved).abs().mean((1, 2, 3))
        otherwise = (shown[k] - halved.roll(1, 0)).abs().mean()
        assert apart.max() < (1e-5 if "colour" in which else 0.2) and otherwise > 0.25


def test_the_graphs_outputs_are_named_by_their_sizes_the_largest_first() -> None:
    ((name, graph),) = system(DataInfo((3, 16, 16))).graphs().items()
    assert name == "image"
    assert [field.name for field in graph.outputs] == ["image", "image_8", "image_4"]
    assert [field.shape for field in graph.outputs] == [(3, 16, 16), (3, 8, 8), (3, 4, 4)]
    assert {(field.kind, field.range) for field in graph.outputs} == {("image", (-1.0, 1.0))}
    assert [field.name for field in graph.inputs] == ["z"] and graph.classes == ()
    run = live()
    made = run.system.graphs()["image"].build(run.averaged)(torch.randn(2, 5))
    assert [tuple(image.shape[1:]) for image in made] == [(1, 16, 16), (1, 8, 8), (1, 4, 4)]


def test_images_of_other_smallest_sizes_have_graphs_of_their_own_names() -> None:
    for size, smaller in ((28, [14, 7]), (24, [12, 6]), (7, [])):
        (graph,) = system(DataInfo((1, size, size))).graphs().values()
        expected = {"image": (1, size, size)} | {f"image_{s}": (1, s, s) for s in smaller}
        assert {field.name: field.shape for field in graph.outputs} == expected
        run = live(size=size)
        made = run.system.graphs()["image"].build(run.averaged)(torch.randn(2, 5))
        assert [tuple(image.shape[1:]) for image in made] == [*expected.values()]


def test_the_graph_of_the_smallest_size_has_one_image_and_one_with_labels_has_their_names() -> None:
    (graph,) = system(DataInfo((1, 4, 4))).graphs().values()
    assert [field.name for field in graph.outputs] == ["image"]
    (graph,) = system(DataInfo((1, 8, 8), ("a", "b"))).graphs().values()
    assert [field.name for field in graph.inputs] == ["z", "label"] and graph.classes == ("a", "b")


# Penalties.


def slopes(function: Callable[[Images], Tensor], x: Images) -> list[float]:
    """Each sample's squared norm of differences of the sum of all logits, over all scales."""
    totals, step = [0.0] * len(x[0]), 1e-6
    with torch.no_grad():
        for image in x:
            for place in np.ndindex(*image.shape):
                before = image[place].item()
                image[place] = before + step
                high = function(x).sum().item()
                image[place] = before - step
                low = function(x).sum().item()
                image[place] = before
                totals[place[0]] += ((high - low) / (2 * step)) ** 2
    return totals


def penalised(name: str, **given: Any) -> tuple[float, list[float], float]:
    """Our penalty on two samples of 8 and 4 pixels, the slopes by differences, and its weight."""
    run = live(size=8, batch_size=2, **given)
    (objective,) = (o for o in run.players["D"].objectives if o.name == name)
    _, d = networks(DataInfo((1, 8, 8)), minibatch_deviation=True)
    run.networks["D"] = d.double()
    real = pyramid(2, (8, 4))
    fake = tuple(image.flip(0) * 0.5 + 0.2 for image in real)
    x = real
    if name == "gp":
        e = torch.rand(2, generator=torch.Generator().manual_seed(3))[:, None, None, None]
        x = tuple(e * r + (1 - e) * f for r, f in zip(real, fake, strict=True))
    expected = slopes(d, x)
    for entry in objective.differentiates:
        assert entry == "real"
        real = tuple(image.requires_grad_() for image in real)
    batch: Batch = {"source": torch.Generator().manual_seed(3), "real": real, "fake": fake}
    return objective.value(run, batch).item(), expected, objective.weight


def test_the_gradient_penalty_mixes_all_scales_alike_and_has_one_norm_over_them() -> None:
    ours, squared, weight = penalised("gp")
    norms = [math.sqrt(value) for value in squared]
    assert ours == pytest.approx(sum((norm - 1) ** 2 for norm in norms) / 2, rel=1e-5)
    assert weight == 10.0 and min(norms) > 0.01


def test_r1_is_the_squared_norm_over_all_scales() -> None:
    ours, squared, weight = penalised("r1", r1=4.0, gp=0.0, loss="non-saturating")
    assert ours == pytest.approx(sum(squared) / 2, rel=1e-5)
    assert weight == 2.0 and min(squared) > 1e-3


# Training.


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"loss": "non-saturating", "gp": 0.0, "r1": 1.0, "optimizer": "adam"},
        {"loss": "relativistic", "diffaugment": "color,translation,cutout"},
    ],
    ids=["preset", "r1", "relativistic"],
)
def test_a_move_of_each_player_changes_every_parameter(given: dict[str, Any]) -> None:
    run = live(classes=1, **given)  # each batch has all classes
    begun = {name: weights(run.networks[name]) for name in ("D", "G")}
    run.run_step()
    assert run.skipped == 0 and all(math.isfinite(v) for v in run.means.take().values())
    # of differences of logits, what all samples share cancels out
    relative = run.system.loss.relative
    for network, start in begun.items():
        for name, parameter in run.networks[network].named_parameters():
            moved = (parameter != start[name]).flatten()
            if network == "D" and relative and name != "judge.out.bias":
                assert moved.any(), name
            elif network == "G" or not relative:
                assert moved.all(), (network, name)


def test_the_seed_alone_decides_the_weights() -> None:
    a, b, c = (live(2, size=8, seed=seed) for seed in (1, 1, 2))
    for run in (a, b, c):
        run.run_step()
        run.run_step()
    assert same(a.state(), b.state())
    assert not same(a.state()["networks"], c.state()["networks"])


def test_parts_of_a_batch_give_the_gradients_of_the_whole() -> None:
    """Samples at several scales are split alike."""
    given: dict[str, Any] = {"minibatch_deviation": False, "gp": 0.0, "r1": 1.0, "optimizer": "sgd"}
    runs = [live(size=8, accumulate=parts, **given) for parts in (1, 3)]
    for run in runs:
        run.run_step()
    for a, b in zip(*(weights(run.networks["D"]).values() for run in runs), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_points_are_refused() -> None:
    with pytest.raises(InputError, match="msg-gan cannot be trained on such data"):
        make_options(MSGGAN, DataInfo((2,), kind="points"), {})
