"""Inpainting: the known pixels stay bit for bit, holes are where they are said to be, and three stages."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from gan.runtime.errors import InputError
from gan.trainer.config import make_options
from gan.trainer.parts import DataInfo
from gan.trainer.system import build_on_meta
from gan.trainer.systems.inpainting import (
    Critic,
    DilatedNetwork,
    Inpainting,
    hole_l1,
    rectangles,
    window,
)

from .conftest import same
from .translation import batch_of, dataset, live, parameters, randomise, values


def info(height: int = 16, width: int | None = None, channels: int = 3) -> DataInfo:
    return DataInfo((channels, height, width or height))


def options(data: DataInfo, **given: Any) -> Any:
    return make_options(Inpainting, data, given)


def system(data: DataInfo, **given: Any) -> Inpainting:
    return Inpainting(options(data, **given), data)


def drawn(count: int, sides: tuple[int, int], low: float, high: float, seed: int = 0) -> Tensor:
    like = torch.empty(count, 3, *sides)
    return rectangles(like, low, high, torch.Generator().manual_seed(seed))


def box(mask: Tensor) -> tuple[int, int, int, int]:
    """The first and last row and column of a hole [H, W]."""
    rows, columns = (mask.amax(1 - axis).nonzero().flatten() for axis in (0, 1))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


# The holes.


@pytest.mark.parametrize("sides", [(16, 16), (9, 20)])
@pytest.mark.parametrize(("low", "high"), [(0.25, 0.5), (0.1, 1.0), (0.5, 0.5)])
def test_a_hole_is_a_rectangle_of_the_sizes_asked_for_anywhere_in_the_image(
    sides: tuple[int, int], low: float, high: float
) -> None:
    masks = drawn(3_000, sides, low, high)
    assert masks.shape == (3_000, 1, *sides) and set(masks.unique().tolist()) == {0.0, 1.0}
    boxes = [box(mask[0]) for mask in masks]
    for axis, side in enumerate(sides):
        first = np.array([b[2 * axis] for b in boxes])
        last = np.array([b[2 * axis + 1] for b in boxes])
        length = last - first + 1
        least, most = (max(1, round(share * side)) for share in (low, high))
        assert set(length) == set(range(least, most + 1))
        for size in set(length):  # begins anywhere, with equal chances
            begins = first[length == size]
            assert set(begins) == set(range(side - size + 1)) or len(begins) < 60
        assert abs((first / np.maximum(side - length, 1)).mean() - 0.5) < 0.03 or high == 1
    for mask, (top, bottom, left, right) in zip(masks, boxes, strict=True):
        assert mask.sum() == (bottom - top + 1) * (right - left + 1)  # and is filled


def test_holes_are_a_function_of_the_generator_and_differ_within_a_batch() -> None:
    assert torch.equal(drawn(8, (16, 16), 0.2, 0.6), drawn(8, (16, 16), 0.2, 0.6))
    masks = drawn(8, (16, 16), 0.2, 0.6)
    assert not torch.equal(masks, drawn(8, (16, 16), 0.2, 0.6, seed=1))
    assert len({m.numpy().tobytes() for m in masks}) > 4


def test_a_hole_may_be_the_whole_image_or_one_pixel() -> None:
    assert (drawn(20, (8, 8), 1.0, 1.0) == 1).all()
    assert (drawn(20, (8, 8), 0.001, 0.001).sum((1, 2, 3)) == 1).all()


def test_largest_and_smallest_may_be_given_in_either_order() -> None:
    run = live("inpainting", smallest_hole=0.5, largest_hole=0.25, batch_size=12)
    sizes = {box(m[0])[1] - box(m[0])[0] + 1 for m in run._next_batch("test")["mask"]}
    assert sizes <= {4, 5, 6, 7, 8} and len(sizes) > 1


def test_masks_of_the_datas_own_are_taken_where_it_has_them() -> None:
    data = dataset("inpainting", partner=1, arrangement="unpaired")
    assert data.partners is not None
    data.partners[:] = np.where(data.partners > 200, 255, 0)
    run = live("inpainting", data)
    batch = run._next_batch("test")
    own = batch["partner"]
    assert torch.equal(batch["mask"], (own > 0).float())
    assert 0.1 < batch["mask"].mean() < 0.4
    for _ in range(3):
        run.run_step()
    assert run.skipped == 0


# The local critic's window.


@pytest.mark.parametrize(("height", "width", "size"), [(7, 9, (3, 4)), (6, 6, (6, 6)), (5, 8, (2, 4))])  # fmt: skip
def test_the_window_contains_every_hole_that_fits_and_lies_in_the_image(
    height: int, width: int, size: tuple[int, int]
) -> None:
    """All rectangles up to the window's size, at all places."""
    holes = [
        (top, left, h, w)
        for h, w in itertools.product(range(1, size[0] + 1), range(1, size[1] + 1))
        for top, left in itertools.product(range(height - h + 1), range(width - w + 1))
    ]
    mask = torch.zeros(len(holes), 1, height, width)
    for i, (top, left, h, w) in enumerate(holes):
        mask[i, 0, top : top + h, left : left + w] = 1
    places = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)
    x = torch.cat([places.expand(len(holes), -1, -1, -1), mask], 1)
    seen = window(x, mask, size)
    assert seen.shape == (len(holes), 2, *size)
    for i, (top, left, h, w) in enumerate(holes):
        assert seen[i, 1].sum() == h * w, holes[i]  # all of it
        begin = int(seen[i, 0, 0, 0])
        row, column = divmod(begin, width)
        expected = places[0, 0, row : row + size[0], column : column + size[1]]
        assert torch.equal(seen[i, 0], expected)  # a rectangle of the image itself
        middle = (top + (h - 1) / 2, left + (w - 1) / 2)
        for side, extent, at, centre in zip(size, (height, width), (row, column), middle, strict=True):  # fmt: skip
            off = abs(at + (side - 1) / 2 - centre)
            assert off <= 0.5 or at in (0, extent - side)  # in the middle, but for borders


def test_the_window_of_no_hole_and_of_a_hole_larger_than_it_lies_in_the_image() -> None:
    x = torch.rand(2, 3, 8, 8)
    mask = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    seen = window(x, mask, (4, 4))
    assert seen.shape == (2, 3, 4, 4)
    assert torch.equal(seen[1], x[1, :, 2:6, 2:6])
    found = [torch.equal(seen[0], x[0, :, i : i + 4, j : j + 4]) for i, j in itertools.product(range(5), repeat=2)]  # fmt: skip
    assert sum(found) == 1
    assert torch.equal(window(x, mask, (8, 8)), x)


def test_the_window_has_a_gradient_to_its_own_pixels_alone() -> None:
    x = torch.rand(1, 1, 8, 8, requires_grad=True)
    mask = torch.zeros(1, 1, 8, 8)
    mask[0, 0, 0, 7] = 1
    window(x, mask, (4, 4)).sum().backward()
    expected = torch.zeros(8, 8)
    expected[:4, 4:] = 1
    assert x.grad is not None and torch.equal(x.grad[0, 0], expected)


def test_the_critics_see_the_whole_and_the_window_around_the_hole() -> None:
    run = live("inpainting")
    batch = batch_of(run)
    shown: dict[str, Tensor] = {}
    for name in ("D", "local D"):
        hook = lambda _, given, name=name: shown.__setitem__(name, given[0])
        run.networks[name].register_forward_pre_hook(hook)
    logits = run.logits("fake", batch)
    assert list(logits) == ["global", "local"]
    assert [logits[name].shape for name in logits] == [(4,), (4,)]
    assert torch.equal(shown["D"], batch["fake"])
    assert torch.equal(shown["local D"], window(batch["fake"], batch["mask"], (8, 8)))


# The composite.


@pytest.mark.parametrize("generator", ["dilated", "unet"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@torch.no_grad()
def test_the_known_pixels_are_the_inputs_bit_for_bit(generator: str, channels: int) -> None:
    run = live("inpainting", dataset("inpainting", channels=channels), generator=generator, downs=2)
    randomise(run.networks["G"])
    randomise(run.averaged["G"])
    batch = batch_of(run)
    hole = (batch["mask"] == 1).expand_as(batch["real"])
    assert torch.equal(batch["fake"][~hole], batch["real"][~hole])
    assert (batch["fake"][hole] != batch["real"][hole]).float().mean() > 0.9
    assert torch.equal(batch["fake"][hole], batch["painted"][hole])
    fill = run.system.graphs()["fill"].build(run.averaged)
    for sides in ((8, 8), (12, 20)):
        x = torch.rand(3, channels, *sides) * 2 - 1
        x[0, 0, 0, 0] = -0.0
        mask = drawn(3, sides, 0.2, 0.8)
        made = fill(x, mask)
        known = (mask == 0).expand_as(x).numpy()
        assert made.numpy()[known].tobytes() == x.numpy()[known].tobytes()
        assert (made.numpy()[~known] != x.numpy()[~known]).mean() > 0.9
        assert torch.equal(fill(x, torch.zeros_like(mask)), x)


@pytest.mark.parametrize("generator", ["dilated", "unet"])
@torch.no_grad()
def test_what_is_in_the_hole_has_no_part_in_what_is_painted(generator: str) -> None:
    run = live("inpainting", generator=generator, downs=2, norm="instance", width=8)
    randomise(run.averaged["G"])
    fill = run.system.graphs()["fill"].build(run.averaged)
    x, mask = torch.rand(2, 3, 16, 16), drawn(2, (16, 16), 0.4, 0.6)
    other = torch.where(mask > 0.5, torch.rand_like(x) * 2 - 1, x)
    assert torch.equal(fill(x, mask), fill(other, mask))
    known = x + 0.3 * (1 - mask)  # and what is known has
    assert (fill(x, mask) - fill(known, mask))[(mask == 1).expand_as(x)].abs().max() > 1e-3


def test_a_mask_between_0_and_1_is_taken_by_its_half() -> None:
    run = live("inpainting")
    fill = run.system.graphs()["fill"].build(run.averaged)
    x, mask = torch.rand(1, 3, 16, 16), drawn(1, (16, 16), 0.4, 0.6)
    assert torch.equal(fill(x, mask * 0.6), fill(x, mask))
    assert torch.equal(fill(x, mask * 0.4), x)


# The networks.


def test_the_completion_network_is_the_papers() -> None:
    """Table 1 of Iizuka et al., and dilations of 2, 4, 8 and 16 at a quarter of the size."""
    network = DilatedNetwork(4, 3, 64, "batch", "transpose")
    convs = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert [conv.out_channels for conv in convs] == [
        64, 128, 128, 256, 256, 256, 256, 256, 256, 256, 256, 256, 128, 128, 64, 32, 3,
    ]  # fmt: skip
    assert [conv.kernel_size[0] for conv in convs] == [5, *[3] * 11, 4, 3, 4, 3, 3]
    assert [conv.stride[0] for conv in convs] == [1, 2, 1, 2, *[1] * 8, 2, 1, 2, 1, 1]
    assert [conv.dilation[0] for conv in convs] == [*[1] * 6, 2, 4, 8, 16, *[1] * 7]


@pytest.mark.parametrize("up", ["transpose", "resize"])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_it_gives_an_image_of_its_size(norm: Any, up: Any) -> None:
    made = DilatedNetwork(4, 3, 4, norm, up)(torch.rand(2, 4, 8, 20))
    assert made.shape == (2, 3, 8, 20) and made.abs().max() < 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 4), (5, 9), (16, 16), (40, 8), (1, 64)])
def test_a_critic_judges_images_of_any_size(height: int, width: int) -> None:
    assert Critic(2, height, width, 4)(torch.rand(3, 2, height, width)).shape == (3,)


def test_the_critics_are_of_the_whole_and_of_half_of_it() -> None:
    made = build_on_meta(system(info(32, 16)))
    with torch.device("meta"):
        assert made["D"](torch.empty(2, 3, 32, 16)).shape == (2,)
        assert made["local D"](torch.empty(2, 3, 16, 8)).shape == (2,)


# The objectives.


def test_the_l1_is_of_the_pixels_of_holes() -> None:
    x, y = torch.randn(5, 3, 6, 7), torch.randn(5, 3, 6, 7)
    mask = drawn(5, (6, 7), 0.2, 0.9)
    inside = (mask == 1).expand_as(x)
    expected = np.abs((x - y)[inside].double().numpy()).mean()
    assert hole_l1(x, y, mask).item() == pytest.approx(expected, rel=1e-5)
    assert hole_l1(x, y, torch.zeros_like(mask)).item() == 0.0


def test_the_objectives_are_weighted_as_they_are_set() -> None:
    run = live("inpainting", reconstruction=7.0, adversarial=0.25)
    batch = batch_of(run)
    g = values(run, "G", batch)
    assert list(g) == ["adversarial", "reconstruction"]
    inside = (batch["mask"] == 1).expand_as(batch["real"])
    distance = (batch["painted"] - batch["real"])[inside].abs().double().mean().item()
    assert g["reconstruction"] == pytest.approx(7 * distance, rel=1e-5)
    near = window(batch["fake"], batch["mask"], (8, 8))
    f = [run.networks["D"](batch["fake"]), run.networks["local D"](near)]
    expected = 0.25 * sum(softplus(-logits.double()).mean().item() for logits in f)
    assert g["adversarial"] == pytest.approx(expected, rel=1e-5)
    near = window(batch["real"], batch["mask"], (8, 8))
    r = [run.networks["D"](batch["real"]), run.networks["local D"](near)]
    expected = sum(softplus(x.double()).mean().item() for x in f)
    expected += sum(softplus(-x.double()).mean().item() for x in r)
    assert values(run, "D", batch)["adversarial"] == pytest.approx(expected, rel=1e-5)


# The stages.


def test_g_learns_alone_then_the_critics_alone_then_both() -> None:
    run = live("inpainting", steps=10, completion_share=0.4, critics_share=0.3)
    movers: list[set[str]] = []
    for _ in range(10):
        before = parameters(run)
        run.run_step()
        after, read = parameters(run), run.means.take()
        movers.append({n for n in before if not same(before[n], after[n])})
        assert ("loss/G/adversarial" in read) == (len(movers) > 7)
        assert (movers[-1] == {"D", "local D"}) == ("loss/G" not in read)
    assert movers == [{"G"}] * 4 + [{"D", "local D"}] * 3 + [{"G", "D", "local D"}] * 3


def test_a_stage_without_a_share_is_left_out() -> None:
    assert len(system(info(), completion_share=0.0, critics_share=0.0).stages()) == 1
    only = system(info(), completion_share=0.75, critics_share=0.25).stages()
    assert [[turn.player for turn in stage.turns] for stage in only] == [["G"], ["D"]]


def test_the_shares_together_are_at_most_the_whole() -> None:
    with pytest.raises(InputError, match=r"completion_share 0\.9 and critics_share 0\.2"):
        system(info(), completion_share=0.9, critics_share=0.2)


def test_an_unrolling_g_learns_in_the_stage_without_critics() -> None:
    run = live("inpainting", steps=6, unroll=1)
    for _ in range(6):
        run.run_step()
    assert run.skipped == 0


# Graph, metric, what does not fit.


@pytest.mark.parametrize(("generator", "axis"), [("dilated", "4*"), ("unet", "8*")])
def test_the_graph_takes_image_and_mask(generator: str, axis: str) -> None:
    ((name, graph),) = system(info(), generator=generator, downs=3).graphs().items()
    image, mask = graph.inputs
    assert (name, image.name, mask.name) == ("fill", "image", "mask")
    assert (image.kind, mask.kind, mask.range) == ("image", "mask", (0.0, 1.0))
    assert image.shape == (3, f"{axis}h", f"{axis}w") and mask.shape == (1, *image.shape[1:])
    (filled,) = graph.outputs
    assert (filled.name, filled.shape, filled.range) == ("filled", image.shape, (-1.0, 1.0))
    assert graph.radius is None and image.draw is mask.draw is None


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("generator", ["dilated", "unet"])
def test_the_smallest_that_it_says_to_take_is_taken(generator: str, norm: str) -> None:
    run = live("inpainting", generator=generator, downs=3, norm=norm)
    graph = run.system.graphs()["fill"]
    shapes = [field.shape_at({"h": graph.least, "w": graph.least}) for field in graph.inputs]
    image, mask = (torch.rand(1, *shape) for shape in shapes)
    assert graph.build(run.averaged)(image, mask).shape == image.shape


def test_the_metric_is_of_the_examples() -> None:
    run = live("inpainting")
    (metric,) = run.system.metrics() or []
    examples = run.examples
    with torch.no_grad():
        known = examples["real"] * (1 - examples["mask"])
        made = run.averaged["G"](torch.cat([known, examples["mask"]], 1))
    inside = (examples["mask"] == 1).expand_as(made)
    expected = (made - examples["real"])[inside].abs().mean().item()
    assert metric.measure(run) == pytest.approx({"hole_l1": expected}, rel=1e-4)
    assert not metric.higher_is_better and len(made) == 12


REFUSED: list[tuple[DataInfo, dict[str, Any], str]] = [
    (info(14), {}, r"14 x 14 pixels, halved 2 times\. Use a multiple of 4$"),
    (info(4), {}, r"Use a multiple of 4, at least 8$"),
    (info(8, 12), {"generator": "unet", "downs": 3}, r"multiple of 8, or .*--set downs=N$"),
    (info(7), {"generator": "unet"}, "7 x 7 pixels, halved 1 times"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "given", "said"), REFUSED)
def test_sizes_that_do_not_fit_are_refused(
    data: DataInfo, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        system(data, **given)
    assert re.search(said, str(caught.value).rstrip("."))


def test_pairs_are_refused() -> None:
    with pytest.raises(InputError, match=r"arranged as pairs\. It takes single or unpaired"):
        options(DataInfo((3, 16, 16), arrangement="pairs", partner=(1, 16, 16)))


@pytest.mark.parametrize("given", [{}, {"generator": "unet", "downs": 3}])
def test_the_smallest_images_train(given: dict[str, Any]) -> None:
    for norm in ("batch", "instance"):
        data = dataset("inpainting", size=8)
        run = live("inpainting", data, batch_size=1, norm=norm, **given)
        for _ in range(6):
            run.run_step()
        assert run.skipped == 0
