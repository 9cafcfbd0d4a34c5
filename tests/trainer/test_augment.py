"""What discriminators see: each transform told apart from its results, against loops, closed forms and rates."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from gan.runtime.errors import CheckpointError
from gan.trainer.augment import (
    POLICIES,
    AdaptiveAugmentation,
    Beside,
    DiffAugment,
    ImagePool,
    InstanceNoise,
    alike,
    blits,
    colours,
    geometry,
    pipeline,
    recolour,
    rotation,
    scaling,
    shift,
    split_alpha,
    translation,
    uniform,
    warp,
)
from gan.trainer.engine import Training
from gan.trainer.objectives import r1_penalty
from gan.trainer.parts import Augmentation, Batch, Live, Turn
from gan.trainer.systems.gan import GAN, GANOptions
from gan.trainer.trees import leaves

from .conftest import PointOptions, images, same, training

MANY = 20_000  # samples of a statistic
GREY, RGB, RGBA = 1, 3, 4


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def batch(seed: int = 0) -> Batch:
    return {"source": torch.Generator().manual_seed(seed)}


def live(**knobs: float) -> Live:
    return cast(Live, SimpleNamespace(knobs=knobs, batch_size=5))


def samples(*shape: int, seed: int = 0) -> Tensor:
    """Numbers of [-1, 1), like pixels."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def happens(share: float, probability: float, count: int) -> bool:
    """Whether a share of `count` lies within five standard deviations of its probability."""
    deviation = math.sqrt(probability * (1 - probability) / count)
    return abs(share - probability) <= 5 * deviation


def assert_uniform(values: Tensor, low: float, high: float) -> None:
    assert low <= values.min() and values.max() <= high
    tenths = torch.histc(values.double(), 10, low, high)
    assert all(happens(tenth.item() / len(values), 0.1, len(values)) for tenth in tenths)


def assert_normal(values: Tensor, deviation: float) -> None:
    """Mean, deviation and fourth moment, each within five of its own standard deviations."""
    x, n = values.double().flatten() / deviation, values.numel()
    assert abs(x.mean().item()) < 5 / math.sqrt(n)
    assert x.square().mean().item() == pytest.approx(1.0, abs=5 * math.sqrt(2 / n))
    assert x.pow(4).mean().item() == pytest.approx(3.0, abs=5 * math.sqrt(96 / n))


def augmentations() -> dict[str, tuple[Augmentation, Live]]:
    return {
        "noise": (InstanceNoise(), live(instance_noise=0.3)),
        "diffaugment": (DiffAugment(POLICIES), live()),
        "ada": (AdaptiveAugmentation(0.9, 0.0, 100, cutout=1.0), live()),
    }


# All of them.


@pytest.mark.parametrize("name", ["noise", "diffaugment", "ada"])
@pytest.mark.parametrize("channels", [GREY, RGB, RGBA])
def test_an_augmentation_draws_from_the_batchs_own_source_alone(name: str, channels: int) -> None:
    augment, training = augmentations()[name]
    x = samples(5, channels, 8, 8)
    before, kept = torch.get_rng_state(), x.clone()
    results = [augment(training, x, batch(seed)) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(x, kept)
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    assert results[0].shape == x.shape and results[0].dtype == torch.float32


@pytest.mark.parametrize("name", ["noise", "diffaugment", "ada"])
def test_an_augmentation_of_a_tree_gives_the_same_tree(name: str) -> None:
    augment, training = augmentations()[name]
    whole, half = samples(2, 3, 8, 8), samples(2, 3, 4, 4)
    seen = augment(training, {"whole": whole, "half": [half]}, batch())
    assert set(seen) == {"whole", "half"} and isinstance(seen["half"], list)
    for before, after in ((whole, seen["whole"]), (half, seen["half"][0])):
        assert before.shape == after.shape and not torch.equal(before, after)


# Several scales of one image.


SCALES: list[Any] = [
    pytest.param(lambda a, b, c: (a, b, c), id="tuple"),
    pytest.param(lambda a, b, c: [c, {"b": b, "a": a}], id="nest"),
]


def scales(count: int, channels: int = RGB, size: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """Images at three sizes, each the means of squares of the one before."""
    x = samples(count, channels, size, size)
    return x, avg_pool2d(x, 2), avg_pool2d(x, 4)


@pytest.mark.parametrize("nest", SCALES)
def test_alike_gives_every_leaf_the_same_draws_and_goes_on_after_them(nest: Any) -> None:
    tree, one, plain = nest(*scales(5)), batch(3), batch(3)
    drawn = uniform(next(leaves(tree)), plain)
    seen = alike(lambda x: uniform(x, one) + 0 * x, tree, one)
    assert len(set(drawn.flatten().tolist())) == 5
    for leaf in leaves(seen):
        assert torch.equal(leaf, drawn.expand_as(leaf))
    later = [torch.rand(3, generator=each["source"]) for each in (one, plain)]
    assert torch.equal(
        *later
    )  # a next transform draws other numbers, and as many were used as by one leaf


@pytest.mark.parametrize("nest", SCALES)
@pytest.mark.parametrize("channels", [GREY, RGB, RGBA])
def test_colour_is_the_same_at_all_scales(channels: int, nest: Any) -> None:
    """Colour is affine in the pixel, and means of squares keep an image's mean: the two can be exchanged."""
    augment, large = DiffAugment(("color",)), scales(6, channels)[0]
    seen = augment(live(), nest(*scales(6, channels)), batch())
    whole = augment(live(), large, batch())
    assert not torch.allclose(whole, large, atol=0.1)
    by_size = {leaf.shape[-1]: leaf for leaf in leaves(seen)}
    for factor in (1, 2, 4):
        assert torch.allclose(by_size[16 // factor], avg_pool2d(whole, factor), atol=1e-5)


def test_a_shift_is_the_same_at_all_scales_but_for_whole_pixels() -> None:
    """Found by the brightest pixel, in the middle of a square that no shift of an eighth moves out of the image."""
    count = 500
    spot = torch.zeros(count, 1, 32, 32)
    spot[:, :, 16:20, 16:20] = 1.0
    sizes = (spot, avg_pool2d(spot, 2), avg_pool2d(spot, 4))
    seen = DiffAugment(("translation",))(live(), sizes, batch())
    centres = [torch.tensor([(centre(row)) for row in leaf[:, 0]]) for leaf in seen]  # (N, 2)
    moves = [(at - at0) for at, at0 in zip(centres, [18.0, 9.0, 4.5], strict=True)]
    assert moves[0].abs().max() == 4 and moves[1].abs().max() == 2 and moves[2].abs().max() == 1
    for smaller, factor in ((moves[1], 2), (moves[2], 4)):
        assert (smaller - moves[0] / factor).abs().max() < 1  # in pixels of the smaller image
    other = moves[0][torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    assert (moves[1] - other / 2).abs().max() > 2  # as it were by draws of their own


def centre(image: Tensor) -> list[float]:
    """The mean place of an image's light, (row, column) of [0, side)."""
    places = torch.arange(len(image)) + 0.5
    return [float((image.sum(axis) * places).sum() / image.sum()) for axis in (1, 0)]


def test_cutout_is_at_the_same_place_at_all_scales() -> None:
    ones = torch.ones(300, 1, 16, 16)
    seen = DiffAugment(("cutout",))(live(), (ones, ones[..., ::2, ::2]), batch())
    inside = avg_pool2d(seen[0], 2)
    certain = (inside == 0) | (inside == 1)  # squares on the hole's border belong to both
    assert 0.6 < certain.float().mean() < 1.0
    assert torch.equal(seen[1][certain], inside[certain])


@pytest.mark.parametrize("channels", [GREY, RGB, RGBA])
def test_ada_is_the_same_at_all_scales(channels: int) -> None:
    """A plain surface shows colour alone, which is exact; a smooth one also geometry, which resampling blurs."""
    augment = AdaptiveAugmentation(1.0, 0.0, 100)
    plain = samples(50, channels, 1, 1)
    large, small = augment(
        live(), (plain.expand(-1, -1, 16, 16), plain.expand(-1, -1, 8, 8)), batch()
    )
    assert torch.allclose(large[:, :, :8, :8], small, atol=1e-4)
    assert not torch.allclose(large, plain.expand_as(large), atol=0.1)
    line = torch.linspace(-1, 1, 32)
    smooth = (line[:, None] + 0.5 * line.square()).expand(50, channels, 32, 32)
    large, small = augment(live(), (smooth, avg_pool2d(smooth, 2)), batch())
    near = (avg_pool2d(large, 2) - small).abs().mean()
    apart = (avg_pool2d(large.roll(1, 0), 2) - small).abs().mean()  # by another's draws
    assert near < 0.15 * apart


def test_a_single_image_is_augmented_as_before_there_were_several() -> None:
    x = samples(4, RGB, 8, 8)
    source = batch(5)
    by_hand = DiffAugment.cutout(
        DiffAugment.translation(DiffAugment.color(x, source), source), source
    )
    assert torch.equal(DiffAugment(POLICIES)(live(), x, batch(5)), by_hand)
    assert torch.equal(
        AdaptiveAugmentation(0.7, 0.0, 100)(live(), (x,), batch(5))[0],
        pipeline(x, batch(5), 0.7),
    )


def test_noise_is_of_its_own_at_every_scale() -> None:
    """Pixels of white noise are independent, whatever the size: the draws of one are not those of another."""
    zero = torch.zeros(2_000, 1, 4, 4)
    large, small = InstanceNoise()(live(instance_noise=1.0), (zero, zero.clone()), batch())
    assert_normal(large, 1.0)
    assert_normal(small, 1.0)
    together = (large * small).mean().item() * math.sqrt(large.numel())
    assert abs(together) < 5


# Instance noise.


def test_the_noise_falls_linearly_to_exactly_nothing_after_its_share_of_the_run() -> None:
    options = PointOptions(instance_noise=0.4, instance_noise_share=0.5, batch_size=2**14)
    live = training(options=options, steps=10)
    seen = told(live)
    for step in range(10):
        seen.clear()
        live.run_step()
        sigma = 0.4 * max(0.0, 1 - step / 5)
        for sample, clean in seen:
            if sigma == 0.0:
                assert torch.equal(sample, clean)
            else:
                assert_normal(sample - clean, sigma)
    assert len(seen) == 3  # D: real and fake; G: fake


def told(live: Training) -> list[tuple[Tensor, Tensor]]:
    """(what D sees, the sample that it is made of), of every look from now on."""
    seen: list[tuple[Tensor, Tensor]] = []
    original = live.logits

    def logits(name: str, batch: Batch) -> Any:
        looked = len(looks)
        answer = original(name, batch)
        seen.extend((look.detach(), batch[name].detach()) for look in looks[looked:])
        return answer

    looks: list[Tensor] = []
    discriminate = live.system.discriminate

    def spy(live: Live, sample: Any, batch: Batch) -> Any:
        looks.append(sample)
        return discriminate(live, sample, batch)

    live.logits = logits  # type: ignore[method-assign]
    live.system.discriminate = spy  # type: ignore[method-assign]
    return seen


def test_reals_and_fakes_get_noise_of_their_own_and_alike() -> None:
    live = training(options=PointOptions(instance_noise=0.4, batch_size=2**14))
    seen = told(live)
    live.run_step()
    real, fake, of_g = ((sample - clean).double().flatten() for sample, clean in seen)
    for noise in (real, fake, of_g):
        assert_normal(noise, 0.4)
    for a, b in ((real, fake), (fake, of_g), (real, of_g)):  # the correlation of unrelated numbers
        assert abs((a * b).mean().item() / 0.16) < 5 / math.sqrt(len(a))


def test_every_pixel_has_noise_of_its_own() -> None:
    x = samples(4, 3, 8, 8)
    noise = InstanceNoise()(live(instance_noise=0.5), x, batch()) - x
    assert noise.unique().numel() > 0.99 * noise.numel()


def test_no_noise_leaves_the_very_sample() -> None:
    x = samples(4, 3, 8, 8)
    assert InstanceNoise()(live(instance_noise=0.0), x, batch()) is x


# DiffAugment: colour.


def told_apart(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Brightness, saturation and contrast that made y of x, one of each a sample; fails if nothing could have."""
    x, y = x.double(), y.double()
    mean_x, mean_y = (t.mean((1, 2, 3)) for t in (x, y))
    grey_x, grey_y = (t.mean(1, keepdim=True) for t in (x, y))
    light_x, light_y = ((g - g.mean((1, 2, 3), keepdim=True)).flatten(1) for g in (grey_x, grey_y))
    contrast = (light_x * light_y).sum(1) / light_x.square().sum(1)
    assert torch.allclose(light_y, contrast[:, None] * light_x, rtol=0, atol=1e-5)
    hue_x, hue_y = ((t - g).flatten(1) for t, g in ((x, grey_x), (y, grey_y)))
    both = (hue_x * hue_y).sum(1) / hue_x.square().sum(1).clamp_min(1e-20)
    assert torch.allclose(hue_y, both[:, None] * hue_x, rtol=0, atol=1e-5)
    return mean_y - mean_x, both / contrast, contrast


def test_colour_shifts_the_mean_scales_colours_about_grey_and_contrast_about_the_mean() -> None:
    x = samples(MANY, RGB, 2, 3)
    brightness, saturation, contrast = told_apart(x, DiffAugment.color(x, batch()))
    # float32 rounds the results, which moves a factor by a little more than itself
    assert_uniform(brightness.clamp(-0.5, 0.5), -0.5, 0.5)
    assert_uniform(saturation.clamp(0.0, 2.0), 0.0, 2.0)
    assert_uniform(contrast.clamp(0.5, 1.5), 0.5, 1.5)
    for values, low, high in ((brightness, -0.5, 0.5), (saturation, 0, 2), (contrast, 0.5, 1.5)):
        assert low - 1e-5 < values.min() and values.max() < high + 1e-5
    for a, b in ((brightness, saturation), (saturation, contrast), (contrast, brightness)):
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1].item()) < 5 / math.sqrt(MANY)


def test_colour_of_a_grey_image_has_no_saturation() -> None:
    x = samples(MANY, GREY, 2, 3)
    y = DiffAugment.color(x, batch())
    brightness, _, contrast = told_apart(x, y)
    assert_uniform(brightness.clamp(-0.5, 0.5), -0.5, 0.5)
    assert_uniform(contrast.clamp(0.5, 1.5), 0.5, 1.5)


def test_colour_leaves_alpha_as_it_is_and_out_of_the_means() -> None:
    x = samples(7, RGBA, 4, 4)
    y = DiffAugment.color(x, batch(3))
    assert torch.equal(y[:, 3], x[:, 3])
    assert torch.equal(y[:, :3], DiffAugment.color(x[:, :3], batch(3)))


# DiffAugment: translation.


def moved(x: NDArray[Any], down: int, right: int) -> NDArray[Any]:
    """Rolled, and what came in from the other side set to 0."""
    result = np.roll(x, (down, right), (-2, -1))
    h, w = x.shape[-2:]
    rows, columns = np.arange(h) - down, np.arange(w) - right
    result[..., (rows < 0) | (rows >= h), :] = 0
    result[..., (columns < 0) | (columns >= w)] = 0
    return result


def test_a_shift_is_by_whole_pixels_and_zeros_come_in() -> None:
    x = samples(7, 2, 16, 24)
    down, right = torch.tensor([0, 1, -1, 2, -2, 0, 1]), torch.tensor([0, 0, 3, -3, 1, -2, 2])
    ours = shift(x, down, right).numpy()
    for image, result, d, r in zip(x.numpy(), ours, down.tolist(), right.tolist(), strict=True):
        assert np.array_equal(result, moved(image, d, r))


@pytest.mark.parametrize(
    ("h", "w", "most"), [(8, 16, (1, 2)), (28, 12, (4, 2)), (4, 3, (1, 0))]
)  # an eighth of the side, half a pixel rounded up
def test_translation_is_every_shift_of_up_to_an_eighth_equally_often(
    h: int, w: int, most: tuple[int, int]
) -> None:
    count = 3_000
    x = samples(1, 1, h, w).expand(count, -1, -1, -1)
    seen = DiffAugment.translation(x, batch()).numpy().reshape(count, -1)
    shifts = [(d, r) for d in range(-most[0], most[0] + 1) for r in range(-most[1], most[1] + 1)]
    times = [
        np.all(seen == moved(x[0].numpy(), d, r).reshape(1, -1), axis=1).sum() for d, r in shifts
    ]
    assert sum(times) == count
    assert all(happens(n / count, 1 / len(shifts), count) for n in times)


# DiffAugment: cutout.


def holes(count: int, h: int, w: int) -> NDArray[Any]:
    """Where cutout put its square: [count, h, w]."""
    x = samples(1, RGB, h, w).expand(count, -1, -1, -1) + 2  # nowhere 0
    y = DiffAugment.cutout(x, batch())
    hole: NDArray[Any] = (y == 0).numpy()
    assert np.array_equal(hole, np.repeat(hole[:, :1], RGB, 1))  # of all channels
    assert torch.equal(y[~torch.from_numpy(hole)], x[~torch.from_numpy(hole)])
    return hole[:, 0]


def test_cutout_is_a_rectangle_of_half_of_each_side() -> None:
    hole = holes(2_000, 16, 8)
    rows, columns = (np.logical_or.reduce(hole, axis) for axis in (2, 1))
    assert np.array_equal(hole, rows[:, :, None] & columns[:, None, :])
    for side, half in ((rows, 8), (columns, 4)):
        inner = side[~side[:, 0] & ~side[:, -1]]  # those that do not reach beyond the border
        assert len(inner) > 500
        assert set(inner.sum(1)) == {half}
        assert side.sum(1).max() == half and side.sum(1).min() >= 1
        assert np.all(np.abs(np.diff(side.astype(int), axis=1)).sum(1) <= 2)  # in one piece


def test_cutout_is_anywhere_and_its_places_are_symmetric() -> None:
    count = 10_000
    rate = holes(count, 8, 8).mean(0)
    assert rate.min() > 0.05 and rate.max() < 0.5
    bound = 5 * math.sqrt(2 * 0.25 / count)
    assert np.abs(rate - rate[::-1]).max() < bound and np.abs(rate - rate[:, ::-1]).max() < bound
    assert np.abs(rate - rate.T).max() < bound


# DiffAugment: all of it.


def test_policies_are_applied_in_their_order() -> None:
    x = samples(6, RGB, 8, 8)
    one = batch()
    expected = DiffAugment.cutout(DiffAugment.translation(x, one), one)
    assert torch.equal(DiffAugment(("translation", "cutout"))(live(), x, batch()), expected)
    one = batch()
    expected = DiffAugment.translation(DiffAugment.color(x, one), one)
    assert torch.equal(DiffAugment(("color", "translation"))(live(), x, batch()), expected)
    assert DiffAugment(())(live(), x, batch()) is x


@pytest.mark.parametrize("policy", POLICIES)
def test_diffaugment_is_differentiable_twice(policy: str, double: None) -> None:
    augment = DiffAugment((policy,))

    def function(x: Tensor) -> Tensor:
        return cast(Tensor, augment(live(), x, batch(1)))

    x = samples(2, RGB, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(function, x) and torch.autograd.gradgradcheck(function, x)


# ADA: the resampling.


def mirrored(place: int, size: int) -> int:
    """Walk back from the border until inside; the border pixel itself is not repeated."""
    while size > 1 and not 0 <= place < size:
        place = -place if place < 0 else 2 * (size - 1) - place
    return place if size > 1 else 0


def resampled(x: NDArray[Any], inverse: NDArray[Any]) -> NDArray[Any]:
    """Pixel by pixel: the place in x, and the four pixels around it by their nearness."""
    _, h, w = x.shape
    result = np.zeros_like(x)
    for row in range(h):
        for column in range(w):
            place = inverse @ [column - (w - 1) / 2, row - (h - 1) / 2, 1.0]
            px, py = place[0] + (w - 1) / 2, place[1] + (h - 1) / 2
            for i in (math.floor(py), math.floor(py) + 1):
                for j in (math.floor(px), math.floor(px) + 1):
                    near = (1 - abs(py - i)) * (1 - abs(px - j))
                    result[:, row, column] += near * x[:, mirrored(i, h), mirrored(j, w)]
    return result


@pytest.mark.parametrize(("h", "w"), [(5, 7), (6, 4), (1, 5), (2, 2)])
def test_warp_is_the_resampling_of_a_loop_over_pixels(h: int, w: int, double: None) -> None:
    draw = np.random.default_rng(0)
    x = samples(6, 2, h, w)
    inverse = np.zeros((6, 3, 3))
    inverse[:, :2, :2] = draw.normal(0, 1, (6, 2, 2))
    inverse[:, :2, 2] = draw.normal(0, 8, (6, 2))  # far out, so that the border reflects repeatedly
    inverse[:, 2, 2] = 1
    ours = warp(x, torch.from_numpy(inverse)).numpy()
    for image, matrix, result in zip(x.numpy(), inverse, ours, strict=True):
        assert np.allclose(result, resampled(image, matrix), rtol=0, atol=1e-12)


def matrix(*rows: tuple[float, float, float]) -> Tensor:
    return torch.tensor([[*rows, (0.0, 0.0, 1.0)]])


def test_the_identity_shows_the_same_pixels() -> None:
    for size in ((8, 8), (7, 12)):
        x = samples(3, RGB, *size)
        assert torch.equal(warp(x, torch.eye(3).expand(3, 3, 3)), x)


def test_flips_and_quarter_turns_are_numpys_bit_by_bit() -> None:
    for size in (8, 7):
        x = samples(1, RGB, size, size)
        flip = warp(x, matrix((-1, 0, 0), (0, 1, 0))).numpy()
        assert np.array_equal(flip, x.numpy()[..., ::-1])
        assert np.array_equal(flip, warp(x, scaling(torch.tensor([-1.0]), torch.ones(1))).numpy())
        upside_down = warp(x, matrix((1, 0, 0), (0, -1, 0))).numpy()
        assert np.array_equal(upside_down, x.numpy()[..., ::-1, :])
        for quarter in range(4):
            c, s = (1, 0, -1, 0)[quarter], (0, 1, 0, -1)[quarter]
            turned = np.rot90(x.numpy(), quarter, (2, 3))
            assert np.array_equal(warp(x, matrix((c, -s, 0), (s, c, 0))).numpy(), turned)
            # by cosine and sine in float32: a place is off by some 1e-7 of the image's half
            about = warp(x, rotation(torch.tensor([quarter * math.pi / 2]))).numpy()
            assert np.allclose(about, turned, rtol=0, atol=1e-5)


def test_whole_pixels_are_shifted_bit_by_bit_and_the_border_reflects() -> None:
    x = samples(1, RGB, 6, 9)
    reflected = np.pad(x.numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)), "reflect")
    for dx, dy in ((0, 0), (2, 0), (-3, 1), (4, -4), (0, 3)):
        ours = warp(x, translation(torch.tensor([float(dx)]), torch.tensor([float(dy)]))).numpy()
        assert np.array_equal(ours, reflected[:, :, 4 + dy : 10 + dy, 4 + dx : 13 + dx])


@pytest.mark.parametrize("turn", [0.4, math.pi])
def test_warp_is_differentiable_twice(turn: float, double: None) -> None:
    inverse = rotation(torch.tensor([turn, 0.3])) @ scaling(
        torch.tensor([1.3, -0.7]), torch.ones(2)
    )

    def function(x: Tensor) -> Tensor:
        return warp(x, inverse)

    x = samples(2, 2, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(function, x) and torch.autograd.gradgradcheck(function, x)


# ADA: pixel blits.


def blit_parts(x: Tensor, p: float) -> tuple[Tensor, Tensor, Tensor]:
    """Flip (1 or -1), quarter turn (0 to 3) and shift in whole pixels (x, y) of each sample."""
    m = blits(x, batch(), p).double()
    assert torch.equal(m[:, 2], torch.tensor([0.0, 0.0, 1.0]).double().expand(len(x), 3))
    whole = m.round()
    assert (m - whole).abs().max() < 1e-6  # cosines and sines of quarter turns in float32
    flip = torch.linalg.det(whole[:, :2, :2])
    # the matrix is shift @ flip @ turn
    turn = torch.stack([flip, torch.ones_like(flip)], 1)[:, :, None] * whole[:, :2, :2]
    assert torch.equal(turn[:, 0, 0], turn[:, 1, 1]) and torch.equal(turn[:, 0, 1], -turn[:, 1, 0])
    quarter = torch.atan2(turn[:, 1, 0], turn[:, 0, 0]) / (math.pi / 2)
    return flip, quarter.round() % 4, whole[:, :2, 2]


def test_blits_are_all_flips_and_quarter_turns_equally_often_and_shifts_up_to_an_eighth() -> None:
    x = torch.zeros(MANY, 1, 16, 16)
    flip, quarter, far = blit_parts(x, 1.0)
    for f in (-1, 1):
        for q in range(4):
            share = ((flip == f) & (quarter == q)).double().mean().item()
            assert happens(share, 1 / 8, MANY)
    for axis in (0, 1):  # uniform in (-2, 2), rounded
        for pixels, share in ((-2, 1 / 8), (-1, 1 / 4), (0, 1 / 4), (1, 1 / 4), (2, 1 / 8)):
            assert happens((far[:, axis] == pixels).double().mean().item(), share, MANY)


def test_blits_of_an_image_that_is_not_square_turn_by_halves_and_shift_by_their_own_side() -> None:
    flip, quarter, far = blit_parts(torch.zeros(MANY, 1, 8, 32), 1.0)
    assert happens((flip < 0).double().mean().item(), 1 / 2, MANY)
    assert happens((quarter == 2).double().mean().item(), 1 / 2, MANY)
    assert set(quarter.tolist()) == {0, 2}
    assert set(far[:, 0].tolist()) == set(range(-4, 5))  # x: an eighth of 32
    assert set(far[:, 1].tolist()) == {-1, 0, 1}


@pytest.mark.parametrize("p", [0.2, 0.7])
def test_each_blit_happens_with_its_probability_and_by_itself(p: float) -> None:
    flip, quarter, far = blit_parts(torch.zeros(MANY, 1, 16, 16), p)
    flipped, turned, shifted = flip < 0, quarter != 0, (far != 0).any(1)
    expected = (p / 2, p * 3 / 4, p * (1 - 1 / 16))  # half a choice, one of four, one of both axes
    for happened, probability in zip((flipped, turned, shifted), expected, strict=True):
        assert happens(happened.double().mean().item(), probability, MANY)
    all_three = (flipped & turned & shifted).double().mean().item()
    assert happens(all_three, math.prod(expected), MANY)


# ADA: geometry.

SMALL = 1e-4  # below: it did not happen; what happens is that small in one case of thousands


def geometry_parts(p: float, h: int = 16, w: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log2 of scale and of the uneven scale (without sign), the linear part, and the shift in sides."""
    m = geometry(torch.zeros(MANY, 1, h, w), batch(), p).double()
    assert torch.equal(m[:, 2], torch.tensor([0.0, 0.0, 1.0]).double().expand(MANY, 3))
    linear = m[:, :2, :2]
    scale = torch.linalg.det(linear).log2() / 2  # the uneven scale and rotations keep areas
    values = torch.linalg.svdvals(linear)
    uneven = (values[:, 0] / values[:, 1]).log2() / 2
    far = torch.linalg.solve(linear, m[:, :2, 2])  # the matrix is linear @ shift
    return scale, uneven, linear, far / torch.tensor([w, h])


def test_geometry_has_normal_scales_uniform_turns_and_normal_shifts() -> None:
    scale, uneven, _, far = geometry_parts(1.0)
    assert_normal(scale, 0.2)
    signs = torch.rand(MANY, generator=torch.Generator().manual_seed(1)) < 0.5
    assert_normal(torch.where(signs, uneven, -uneven), 0.2)  # the larger one comes first
    assert_normal(far, 0.125)
    scale, uneven, linear, _ = geometry_parts(0.4)
    even = uneven < SMALL  # then the two rotations are one
    angle = torch.atan2(linear[even, 1, 0], linear[even, 0, 0])
    turned = angle[angle.abs() > SMALL]
    assert_uniform(turned, -math.pi, math.pi)


@pytest.mark.parametrize("p", [0.2, 0.7])
def test_each_part_of_geometry_happens_with_its_probability(p: float) -> None:
    scale, uneven, linear, far = geometry_parts(p)
    even = uneven < SMALL
    angle = torch.atan2(linear[even, 1, 0], linear[even, 0, 0]).abs()
    shifted = (far.abs() > SMALL / 10).any(1)
    for happened in (scale.abs() > SMALL, ~even, angle > SMALL, shifted):
        assert happens(happened.double().mean().item(), p, len(happened))
    both = ((scale.abs() > SMALL) & ~even & shifted).double().mean().item()
    assert happens(both, p**3, MANY)


def test_one_turn_comes_before_and_one_after_the_uneven_scale() -> None:
    p = 0.5
    _, uneven, linear, _ = geometry_parts(p)
    linear = linear[uneven > 0.02]  # enough to tell its axes
    left, _, right = torch.linalg.svd(linear)
    each = 1 - math.sqrt(1 - p)  # so that at least one happens with p
    for axes in (left, right):
        oblique = axes[:, 0].abs().min(1).values > 1e-3
        # an axis lies within 1e-3 of a side's direction in 4 of 3142 cases
        share = oblique.double().mean().item()
        assert abs(share - each) < 5 * math.sqrt(each * (1 - each) / len(linear)) + 4 / 3142


# ADA: colours.

AXIS = torch.ones(3, dtype=torch.float64) / math.sqrt(3)  # of grey
PLANE = torch.tensor(
    [[1 / math.sqrt(2), -1 / math.sqrt(2), 0], [1 / math.sqrt(6), 1 / math.sqrt(6), -2 / math.sqrt(6)]],
    dtype=torch.float64,
)  # fmt: skip
# of what is orthogonal to it, so that (PLANE[0], PLANE[1], AXIS) is right-handed


def colour_parts(p: float, channels: int = RGB) -> dict[str, Tensor]:
    """Brightness, log2 of contrast, flip, hue in radians and log2 of saturation, each told from the matrix."""
    m = colours(torch.zeros(MANY, channels, 2, 2), batch(), p).double()
    assert torch.equal(m[:, 3], torch.tensor([0.0, 0.0, 0.0, 1.0]).double().expand(MANY, 4))
    linear, offset = m[:, :3, :3], m[:, :3, 3]
    along = linear @ AXIS
    grey = along @ AXIS
    assert (along - grey[:, None] * AXIS).abs().max() < 1e-5  # grey stays grey
    assert (AXIS @ linear - grey[:, None] * AXIS).abs().max() < 1e-5  # colours stay beside it
    plane = PLANE @ linear @ PLANE.T
    size = torch.linalg.det(plane).sqrt()
    hue = torch.atan2(plane[:, 1, 0] - plane[:, 0, 1], plane[:, 0, 0] + plane[:, 1, 1])
    cos, sin = size * hue.cos(), size * hue.sin()
    rotated = torch.stack([cos, -sin, sin, cos], 1).reshape(-1, 2, 2)
    assert ((plane - rotated).abs().amax((1, 2)) / size.clamp_min(1)).max() < 1e-5
    light = offset @ AXIS
    assert (offset - light[:, None] * AXIS).abs().max() < 1e-5
    return {
        "brightness": light / math.sqrt(3) / grey,
        "contrast": grey.abs().log2(),
        "flip": grey.sign(),
        "hue": hue,
        "saturation": (size / grey.abs()).log2(),
        "matrix": m,
    }  # fmt: skip


def test_colours_are_the_papers_five_transforms_in_its_sizes() -> None:
    parts = colour_parts(1.0)
    assert_normal(parts["brightness"], 0.2)
    assert_normal(parts["contrast"], 0.5)
    assert happens((parts["flip"] < 0).double().mean().item(), 0.5, MANY)
    assert_uniform(parts["hue"], -math.pi, math.pi)
    assert_normal(parts["saturation"], 1.0)


@pytest.mark.parametrize("p", [0.2, 0.7])
def test_each_transform_of_colour_happens_with_its_probability(p: float) -> None:
    parts = colour_parts(p)
    happened = {
        name: parts[name].abs() > SMALL for name in ("brightness", "contrast", "hue", "saturation")
    }
    for each in happened.values():
        assert happens(each.double().mean().item(), p, MANY)
    flipped = parts["flip"] < 0
    assert happens(flipped.double().mean().item(), p / 2, MANY)
    together = torch.stack([*happened.values(), flipped]).all(0).double().mean().item()
    assert happens(together, p**4 * p / 2, MANY)


def test_a_luma_flip_alone_is_an_involution_that_turns_light_into_dark_and_keeps_colours() -> None:
    parts = colour_parts(0.3)
    names = ("brightness", "contrast", "hue", "saturation")
    alone = (parts["flip"] < 0) & torch.stack([parts[n].abs() < SMALL for n in names]).all(0)
    m = parts["matrix"][alone]
    assert len(m) > 100
    assert torch.allclose(m @ m, torch.eye(4).double().expand_as(m), rtol=0, atol=1e-6)
    assert torch.allclose(m[:, :3, :3] @ AXIS, -AXIS.expand(len(m), 3), rtol=0, atol=1e-6)
    assert torch.allclose(m[:, :3, :3] @ PLANE.T, PLANE.T.expand(len(m), 3, 2), rtol=0, atol=1e-6)


def test_a_hue_alone_turns_colours_about_grey_and_a_saturation_alone_stretches_them() -> None:
    parts = colour_parts(0.3)
    names = ("brightness", "contrast", "hue", "saturation")
    for name in ("hue", "saturation"):
        others = torch.stack([parts[n].abs() < SMALL for n in names if n != name]).all(0)
        alone = others & (parts["flip"] > 0) & (parts[name].abs() > SMALL)
        m = parts["matrix"][alone][:, :3, :3]
        assert len(m) > 100
        assert torch.allclose(m @ AXIS, AXIS.expand(len(m), 3), rtol=0, atol=1e-6)
        lengths = (m @ PLANE[0]).norm(dim=1)
        expected = torch.ones(len(m)) if name == "hue" else parts[name][alone].exp2()
        assert torch.allclose(lengths, expected.double(), rtol=1e-5)


def test_colours_of_a_grey_image_have_neither_hue_nor_saturation() -> None:
    parts = colour_parts(1.0, GREY)
    assert parts["saturation"].abs().max() < 1e-5 and parts["hue"].abs().max() < 1e-5
    assert_normal(parts["brightness"], 0.2)
    assert_normal(parts["contrast"], 0.5)


def test_the_colours_of_pixels_are_mapped_and_alpha_is_kept() -> None:
    m = torch.zeros(5, 4, 4)
    m[:, :3] = samples(5, 3, 4)
    m[:, 3, 3] = 1
    x = samples(5, RGBA, 3, 4)
    rgb = x[:, :3].numpy().astype(np.float64)
    expected = np.einsum("bij,bjhw->bihw", m[:, :3, :3].double().numpy(), rgb)
    expected += m[:, :3, 3].double().numpy()[:, :, None, None]
    with_alpha = recolour(x, m)
    assert np.allclose(with_alpha[:, :3].numpy(), expected, rtol=0, atol=1e-6)
    assert torch.equal(with_alpha[:, 3], x[:, 3])
    assert torch.equal(recolour(x[:, :3], m), with_alpha[:, :3])


def test_a_grey_image_takes_the_map_of_grey() -> None:
    m = torch.zeros(5, 4, 4)
    m[:, :3] = samples(5, 3, 4)
    m[:, 3, 3] = 1
    grey = samples(5, GREY, 3, 4)
    assert torch.allclose(
        recolour(grey, m), recolour(grey.expand(-1, 3, -1, -1), m).mean(1, keepdim=True), atol=1e-6
    )


def test_alpha_is_the_fourth_channel_and_no_other() -> None:
    for channels, coloured in ((GREY, 1), (RGB, 3), (RGBA, 3)):
        x = samples(2, channels, 3, 3)
        c, alpha = split_alpha(x)
        assert c.shape[1] == coloured and torch.equal(torch.cat([c, alpha], 1), x)


@pytest.mark.parametrize("channels", [GREY, RGB, RGBA])
def test_recolouring_is_differentiable_twice(channels: int, double: None) -> None:
    m = samples(2, 4, 4)

    def function(x: Tensor) -> Tensor:
        return recolour(x, m)

    x = samples(2, channels, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(function, x) and torch.autograd.gradgradcheck(function, x)


# ADA: the pipeline.


@pytest.mark.parametrize("channels", [GREY, RGB, RGBA])
def test_the_pipeline_with_probability_0_shows_the_same_pixels(channels: int) -> None:
    for size in ((8, 8), (7, 12)):
        x = samples(6, channels, *size)
        assert torch.equal(pipeline(x, batch(), 0.0, 1.0, 1.0), x)
        for augment, knobs in (
            (AdaptiveAugmentation(0.0, 0.6, 100), live()),
            (AdaptiveAugmentation(0.7, 0.6, 100), live(ada=0.0)),
        ):
            assert augment(knobs, x, batch()) is x


def test_the_augmentation_is_the_pipeline_with_its_probability_times_the_knob() -> None:
    x = samples(64, RGB, 8, 8)
    augment = AdaptiveAugmentation(0.8, 0.0, 100, colour=0.5, cutout=0.25)
    expected = pipeline(x, batch(), 0.8, 0.5, 0.25)
    assert torch.equal(augment(live(), x, batch()), expected)
    half = pipeline(x, batch(), 0.8 * 0.5, 0.5, 0.25)
    assert torch.equal(augment(live(ada=0.5), x, batch()), half) and not torch.equal(half, expected)


def test_the_pipeline_is_its_blits_and_geometry_in_one_resampling_and_then_its_colours() -> None:
    x = samples(16, RGB, 8, 8)
    source = batch()
    inverse = blits(x, source, 0.8) @ geometry(x, source, 0.8)
    m = colours(x, source, 0.8 * 0.5)
    assert torch.equal(pipeline(x, batch(), 0.8, 0.5), recolour(warp(x, inverse), m))
    assert not torch.equal(pipeline(x, batch(), 0.8, 0.0), warp(x, torch.eye(3).expand(16, 3, 3)))


def changed(p: float, colour: float, cutout: float) -> float:
    """Share of images of one colour that are not of that colour any more; where they are moved does not show."""
    x = torch.tensor([0.5, -0.2, 0.1])[:, None, None].expand(MANY, 3, 4, 4)
    seen = pipeline(x, batch(), p, colour, cutout)
    return (seen - x).abs().amax((1, 2, 3)).gt(1e-4).double().mean().item()


def test_colours_have_a_multiple_of_the_probability() -> None:
    assert changed(0.5, 0.0, 0.0) == 0.0
    q = 0.5 * 0.4  # brightness, contrast, hue and saturation; and half of the flips
    assert happens(changed(0.5, 0.4, 0.0), 1 - (1 - q) ** 4 * (1 - q / 2), MANY)


def test_cutout_has_a_multiple_of_the_probability() -> None:
    assert happens(changed(0.5, 0.0, 0.6), 0.5 * 0.6, MANY)
    assert changed(1.0, 0.0, 1.0) == 1.0
    ones = torch.ones(200, GREY, 8, 8)
    seen = pipeline(ones, batch(), 1.0, 0.0, 1.0)
    assert torch.allclose(seen, seen.round(), rtol=0, atol=1e-5)  # 1, and 0 in the square
    assert seen.round().mean((1, 2, 3)).min() >= 0.75  # a quarter of the pixels at most


@pytest.mark.parametrize("channels", [GREY, RGB, RGBA])
def test_the_pipelines_gradient_is_that_of_differences(channels: int) -> None:
    """It is affine in x, so that a difference over any distance is a derivative, up to float32."""
    x = samples(8, channels, 8, 8).requires_grad_()
    d, v = samples(8, channels, 8, 8, seed=1), samples(8, channels, 8, 8, seed=2)

    def function(x: Tensor) -> Tensor:
        return (pipeline(x, batch(5), 1.0, 1.0, 0.5) * v).sum((1, 2, 3))

    (gradient,) = torch.autograd.grad(function(x).sum(), x)
    ours = (gradient * d).sum((1, 2, 3))
    with torch.no_grad():
        expected = (function(x + d) - function(x - d)) / 2
    assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-3)
    assert expected.abs().max() > 1


def test_the_r1_penalty_through_the_pipeline_has_the_gradient_of_its_closed_form() -> None:
    """D(x) = w . A x with A the pipeline's linear part, read off pixel by pixel: E ||A^T w||^2, 2 E A A^T w."""
    count, side = 5, 4
    w = samples(side * side).requires_grad_()
    augment = AdaptiveAugmentation(0.9, 0.0, 100, cutout=0.5)

    def logits(name: str, batch_of: Batch) -> Tensor:
        return augment(live(), batch_of[name], batch(3)).flatten(1) @ w

    def shown(x: Tensor) -> Tensor:
        return cast(Tensor, augment(live(), x, batch(3))).flatten(1).double()

    real = samples(count, GREY, side, side).requires_grad_()
    training = cast(Live, SimpleNamespace(logits=logits))
    penalty = r1_penalty(training, {"real": real})
    penalty.backward()
    nothing = shown(torch.zeros(count, GREY, side, side))
    pixels = torch.eye(side * side).reshape(-1, 1, GREY, side, side)
    a = torch.stack([shown(p.expand(count, -1, -1, -1)) - nothing for p in pixels], 2)
    back = torch.einsum("bij,i->bj", a, w.detach().double())  # A^T w
    assert penalty.item() == pytest.approx(back.square().sum(1).mean().item(), rel=1e-4)
    expected = 2 * torch.einsum("bij,bj->bi", a, back).mean(0)
    assert w.grad is not None
    assert torch.allclose(w.grad.double(), expected, rtol=1e-3, atol=1e-4)
    assert expected.abs().max() > 0.1


# ADA: the controller.


def steered(augment: AdaptiveAugmentation, *rights: float) -> list[float]:
    """p after each of some steps, in which D told these shares of the reals right."""
    found = []
    for right in rights:
        augment.adapt(live(), right)
        found.append(augment.p)
    return found


def test_p_grows_by_its_speed_at_every_fourth_step_while_d_is_always_right_until_1() -> None:
    augment = AdaptiveAugmentation(0.0, 0.6, images=100)  # 4 * 5 / 100 = 0.2 each time
    found = steered(augment, *[1.0] * 28)
    expected = [min(1.0, 0.2 * ((step + 1) // 4)) for step in range(28)]
    assert found == pytest.approx(expected) and found[-1] == 1.0


def test_p_moves_by_the_images_of_the_present_stage() -> None:
    augment = AdaptiveAugmentation(0.0, 0.6, images=400)
    for size, expected in ((16, 0.16), (4, 0.20)):  # 4 * 16 / 400, then 4 * 4 / 400
        for _ in range(4):
            augment.adapt(cast(Live, SimpleNamespace(knobs={}, batch_size=size)), 1.0)
        assert augment.p == pytest.approx(expected)


def test_p_falls_to_0_below_the_target_and_stays_on_it() -> None:
    augment = AdaptiveAugmentation(0.5, 0.5, images=100)
    right_on = (0.5 + 1) / 2  # r_t = 2 * right - 1
    assert steered(augment, *[right_on] * 12) == [0.5] * 12
    expected = [0.5] * 3 + [0.3] * 4 + [0.1] * 4 + [0.0] * 9
    assert steered(augment, *[right_on - 0.01] * 20) == pytest.approx(expected)


def test_p_follows_the_mean_of_four_readings_and_not_their_last() -> None:
    for rights, expected in (((1, 1, 1, 0.2), 0.7), ((0, 0.2, 0.2, 1), 0.3)):
        assert steered(AdaptiveAugmentation(0.5, 0.5, 100), *rights)[-1] == expected


def test_the_state_in_the_middle_of_an_interval_goes_on_as_if_nothing_had_happened() -> None:
    rights = (1, 0.9, 1, 0.1, 1, 1, 0.4, 1, 0, 0, 1, 0.3)
    for stop in range(12):
        whole, first = (AdaptiveAugmentation(0.5, 0.5, 100) for _ in range(2))
        second = AdaptiveAugmentation(0.0, 0.5, 100)
        steered(first, *rights[:stop])
        second.load_state(copy.deepcopy(first.state()))
        assert steered(second, *rights[stop:]) == steered(whole, *rights)[stop:]
        assert second.state() == whole.state()


def test_a_state_with_more_readings_than_an_interval_still_comes_to_its_end() -> None:
    augment = AdaptiveAugmentation(0.0, 0.5, images=100)
    augment.load_state({"p": 0.5, "readings": [-1.0] * 4 + [1.0] * 3})
    assert steered(augment, 1.0) == [0.7]  # by the last three and this one


@pytest.mark.parametrize(
    "state",
    [
        None, {}, [], "x", {"p": 0.5}, {"readings": []},
        {"p": 1.5, "readings": []}, {"p": -0.1, "readings": []}, {"p": math.nan, "readings": []},
        {"p": "x", "readings": []}, {"p": None, "readings": []}, {"p": [0.5], "readings": []},
        {"p": 0.5, "readings": None}, {"p": 0.5, "readings": 0.5}, {"p": 0.5, "readings": "x"},
        {"p": 0.5, "readings": ["x"]}, {"p": 0.5, "readings": [None]},
        {"p": 0.5, "readings": [1.5]}, {"p": 0.5, "readings": [math.nan]},
    ],
)  # fmt: skip
def test_a_state_that_no_controller_gave_is_refused_and_changes_nothing(state: Any) -> None:
    augment = AdaptiveAugmentation(0.25, 0.5, 100)
    with pytest.raises((KeyError, TypeError, ValueError, AssertionError)):
        augment.load_state(state)
    assert augment.state() == {"p": 0.25, "readings": []}


# ADA in a training.


def small(**given: Any) -> Training:
    """A GAN of one small layer on grey images of 8 pixels; p moves by 4 * 4 / 160 = 0.1."""
    sizes = {"width": 4, "depth": 1, "latent": 3, "batch_size": 4, "dropout": 0.0}
    options = GANOptions(**{**sizes, "ada_images": 160, **given})
    return training(GAN, data=images(24, 8), options=options, steps=20)


def sure(live: Training, logit: float = 10.0) -> Training:
    """D answers about `logit` to everything, and never learns."""
    for player in live.players.values():
        player.learning_rate = 0.0
    d = cast(Any, live.networks["D"])
    with torch.no_grad():
        d.out.weight.mul_(0.01)
        d.out.bias.fill_(logit)
    return live


@pytest.mark.parametrize("loss", ["non-saturating", "minimax", "least-squares", "hinge"])
def test_the_controller_learns_from_what_d_told_right(loss: str) -> None:
    """G's move, which of these losses reads no reals, must not make it forget."""
    live = sure(small(loss=loss, ada_target=0.6))
    found = []
    for _ in range(9):
        live.run_step()
        found.append(live.state()["augmentations"]["ada"]["p"])
    assert found == pytest.approx([0, 0, 0, 0.1, 0.1, 0.1, 0.1, 0.2, 0.2])
    assert live.means.take()["augmentation/ada/p"] == pytest.approx(sum(found) / 9)
    live = sure(small(loss=loss, ada_target=0.6, ada=0.5), -10.0)  # never right
    for _ in range(4):
        live.run_step()
    assert live.state()["augmentations"]["ada"]["p"] == pytest.approx(0.4)


def test_a_step_in_which_d_did_not_look_teaches_the_controller_nothing() -> None:
    class Every2nd(GAN):
        def turns(self) -> tuple[Turn, ...]:
            return (Turn("D", lambda step: 1 - step % 2),)

    options = GANOptions(
        width=4, depth=1, latent=3, batch_size=4, dropout=0.0, ada_images=160, ada_target=0.6
    )
    live = sure(training(Every2nd, data=images(24, 8), options=options, steps=20))
    found = []
    for _ in range(8):
        live.run_step()
        found.append(live.state()["augmentations"]["ada"]["p"])
    assert found == pytest.approx([0, 0, 0, 0, 0, 0, 0.1, 0.1])  # four looks: steps 0, 2, 4, 6


def test_without_a_target_p_stays_as_given() -> None:
    live = sure(small(ada=0.3, loss="relativistic"))
    assert not live.augmentations[0].adapts
    for _ in range(9):
        live.run_step()
    assert cast(AdaptiveAugmentation, live.augmentations[0]).p == 0.3
    assert live.state()["augmentations"] == {"ada": {}}  # it is a setting, not a state


@pytest.mark.parametrize("stop", [3, 6, 8])
def test_a_training_saves_p_and_its_readings_and_resumes_bit_by_bit(stop: int) -> None:
    def make() -> Training:
        return small(ada=0.5, ada_target=0.1, loss="relativistic", ada_cutout=0.5, r1=1.0)

    whole, first, second = make(), make(), make()
    for _ in range(12):
        whole.run_step()
    for _ in range(stop):
        first.run_step()
    state = first.state()
    assert len(state["augmentations"]["ada"]["readings"]) == stop % 4
    second.load_state(copy.deepcopy(state))
    torch.rand(17)  # the global generator is somewhere else in the resumed process
    for _ in range(12 - stop):
        second.run_step()
    assert same(whole.state(), second.state())
    assert whole.state()["augmentations"]["ada"]["p"] != 0.5  # it has learnt something


def test_a_training_refuses_a_state_that_no_controller_gave() -> None:
    live = small(ada_target=0.6)
    live.run_step()
    for junk in (None, {"ada": None}, {"ada": {"p": 2.0, "readings": []}}):
        with pytest.raises(CheckpointError):
            small(ada_target=0.6).load_state(live.state() | {"augmentations": junk})


def test_a_probability_without_a_target_is_the_options_and_not_the_checkpoints() -> None:
    """So that a change of it that was accepted on resuming counts."""
    live, resumed = small(ada=0.2), small(ada=0.5)
    live.run_step()
    resumed.load_state(copy.deepcopy(live.state()))
    assert cast(AdaptiveAugmentation, resumed.augmentations[0]).p == 0.5


def test_an_augmentation_that_was_accepted_on_resuming_starts_from_its_beginning() -> None:
    live, resumed = small(), small(ada=0.5, instance_noise=0.1)
    live.run_step()
    resumed.load_state(copy.deepcopy(live.state()))
    resumed.run_step()
    assert resumed.step == 2


# The pool of earlier fakes, and the sample beside what it was made from.


def numbered(start: int, count: int = 1) -> Tensor:
    """Images that say which they are: [count, 1, 1, 1] of start, start + 1, ..."""
    return torch.arange(start, start + count, dtype=torch.float32)[:, None, None, None]


def live_pool() -> Live:
    return cast(Live, SimpleNamespace(knobs={}))


def test_a_pool_is_filled_with_the_first_fakes_which_pass_as_they_are() -> None:
    pool, draws = ImagePool(5), batch()
    assert torch.equal(pool(live_pool(), numbered(0, 3), draws), numbered(0, 3))
    seen = pool(live_pool(), numbered(3, 2), draws)
    assert torch.equal(seen, numbered(3, 2))
    assert torch.equal(pool.state()["0"].flatten(), torch.arange(5.0))


def test_of_a_full_pool_half_of_the_fakes_are_exchanged_for_a_random_one() -> None:
    """Whoever comes out was there, and the new one has its place."""
    size, count = 8, 8_000
    pool, draws = ImagePool(size), batch()
    pool(live_pool(), numbered(0, size), draws)
    inside = set(range(size))
    kept, ages = 0, []
    for i in range(size, count):
        (out,) = pool(live_pool(), numbered(i), draws).flatten().tolist()
        if out == i:
            kept += 1
        else:
            assert out in inside
            ages.append(i - out)
            inside = inside - {int(out)} | {i}
        if i % 500 == 0:
            assert set(pool.state()["0"].flatten().tolist()) == inside
    share = kept / (count - size)
    assert abs(share - 0.5) < 4 * math.sqrt(0.25 / count)
    # a place is hit by one step in 2 * size
    assert np.mean(ages) == pytest.approx(2 * size, rel=0.08)


def test_each_place_of_a_pool_is_exchanged_alike() -> None:
    hits = np.zeros(4)
    for seed in range(2_000):
        pool = ImagePool(4)
        pool.load_state({"0": numbered(0, 4)})
        out = int(pool(live_pool(), numbered(9), batch(seed)).item())
        hits[out if out < 9 else 0] += out < 9
    assert hits.sum() == pytest.approx(1_000, abs=90)
    assert np.abs(hits / hits.sum() - 0.25).max() < 0.06


def test_a_pool_begins_anew_with_images_of_another_size() -> None:
    pool, draws = ImagePool(3), batch()
    pool(live_pool(), torch.zeros(3, 1, 2, 2), draws)
    larger = torch.rand(2, 1, 4, 4)
    assert torch.equal(pool(live_pool(), larger, draws), larger)
    assert torch.equal(pool.state()["0"], larger)


def test_what_is_not_finite_passes_and_is_never_kept() -> None:
    pool, draws = ImagePool(3), batch()
    bad = numbered(0, 4)
    bad[1], bad[3] = math.nan, math.inf
    for _ in range(20):
        out = pool(live_pool(), bad, draws).flatten()
        assert math.isnan(out[1]) and out[3] == math.inf
        assert out[[0, 2]].isfinite().all()
        assert pool.state()["0"].isfinite().all()


def test_each_leaf_has_a_pool_of_its_own_and_no_gradient() -> None:
    pool, draws = ImagePool(2), batch()
    for step in range(30):
        a = numbered(step * 10, 1).requires_grad_()
        out = pool(live_pool(), {"a": a, "b": (numbered(1000 + step, 2),)}, draws)
        assert out["a"].max() < 1000 <= out["b"][0].min()
        assert not out["a"].requires_grad and out["b"][0].shape == (2, 1, 1, 1)
    assert {name: len(images) for name, images in pool.state().items()} == {"0": 2, "1": 2}


def test_a_pools_state_goes_round_and_goes_on_alike() -> None:
    first, second = ImagePool(3), ImagePool(3)
    for step in range(7):
        first(live_pool(), numbered(step), batch(step))
    second.load_state(copy.deepcopy(first.state()))
    assert same(first.state(), second.state())
    before = copy.deepcopy(first.state())
    for step in range(7, 20):
        outs = [pool(live_pool(), numbered(step), batch(step)) for pool in (first, second)]
        assert torch.equal(*outs)
    assert same(first.state(), second.state()) and not same(first.state(), before)


def test_what_a_pool_keeps_is_its_own() -> None:
    """Neither the fake that came nor a state that was taken changes with it."""
    pool = ImagePool(1)
    fake = numbered(7)
    pool(live_pool(), fake, batch())
    state = pool.state()
    fake.zero_()
    assert state["0"].item() == 7
    taken = {name: images.clone() for name, images in state.items()}
    for step in range(12):
        pool(live_pool(), numbered(100 + step), batch(step))
    assert pool.state()["0"].item() >= 100
    assert same(state, taken)


@pytest.mark.parametrize(
    "state",
    [
        {"0": [1.0]}, {"0": "x"}, {"0": None}, {"0": torch.zeros(4, 1, 1, 1)},
        {"0": torch.zeros(2, 1, 1)}, {"0": 1}, {0: torch.zeros(1, 1, 1, 1)},
        {"0": torch.full((1, 1, 1, 1), math.nan)}, {"0": torch.zeros(1, 1, 1, 1, dtype=torch.int64)},
        [1], None,
    ],
)  # fmt: skip
def test_a_wrong_state_of_a_pool_is_refused(state: Any) -> None:
    """As the engine counts on: KeyError, TypeError, ValueError or AttributeError."""
    pool = ImagePool(3)
    pool(live_pool(), numbered(5), batch())
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        pool.load_state(state)
    assert pool.state()["0"].item() == 5


def test_beside_is_the_entry_first_and_the_sample_second() -> None:
    x, y = torch.randn(2, 1, 4, 4), torch.randn(2, 3, 4, 4)
    given, sample = Beside("image")(live_pool(), y, {"image": x, **batch()})
    assert given is x and sample is y
    assert not (Beside("image").reals_only or Beside("image").fakes_only)
