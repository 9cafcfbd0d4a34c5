"""R3GAN: published sizes and settings, blocks that begin as the identity, and schedules that reach the engine."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import conv2d

from gan.runtime.errors import InputError
from gan.trainer.config import make_options
from gan.trainer.engine import Training
from gan.trainer.options import Options
from gan.trainer.parts import Batch, DataInfo, Live
from gan.trainer.system import build_on_meta, parameter_count
from gan.trainer.systems.r3gan import (
    R3GAN,
    Block,
    Down,
    R3GANOptions,
    R3Generator,
    Up,
    gamma_for,
    plan,
)

from .conftest import CPU, config, images

TINY: dict[str, Any] = {
    "width": 8, "group": 4, "latent": 6, "batch_size": 4, "embedding": 3, "projection": 5,
}  # fmt: skip
COLOUR = DataInfo((3, 64, 64))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def system(data: DataInfo = COLOUR, **given: Any) -> R3GAN:
    return R3GAN(make_options(R3GAN, data, given), data)


def networks(data: DataInfo, **given: Any) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return system(data, **given).networks()


# Sizes.


def block_parameters(c: int) -> int:
    """1x1 C -> 2C, 3x3 in groups of 16, 1x1 2C -> C, and a bias before each of the two LeakyReLUs."""
    inside = 2 * c
    return c * inside + inside * 16 * 9 + inside * c + 2 * inside


def trunk_parameters(widths: list[int]) -> int:
    """Two blocks a stage and a 1x1 convolution where the width changes: the same in G and D."""
    mixes = sum(a * b for a, b in pairwise(widths) if a != b)
    return sum(2 * block_parameters(c) for c in widths) + mixes


@pytest.mark.parametrize(
    ("resolution", "widths", "g", "d", "published_g", "published_d"),
    [
        (64, [768] * 4 + [384], 22_429_824, 22_381_440, 22.4, 22.4),
        (256, [768] * 4 + [384, 192, 96], 23_057_952, 23_009_568, 23.06, 23.01),
    ],
)
def test_parameters_are_as_many_as_published(
    resolution: int, widths: list[int], g: int, d: int, published_g: float, published_d: float
) -> None:
    made = build_on_meta(system(DataInfo((3, resolution, resolution))))
    trunk = trunk_parameters(widths)
    basis, from_z, to_rgb = 768 * 4 * 4, 64 * 768, widths[-1] * 3
    assert parameter_count(made["G"]) == trunk + basis + from_z + to_rgb == g
    from_rgb, last_basis, logit = 3 * widths[-1], 768 * 4 * 4, 768
    assert parameter_count(made["D"]) == trunk + from_rgb + last_basis + logit == d
    assert g / 1e6 == pytest.approx(published_g, abs=0.05)
    assert d / 1e6 == pytest.approx(published_d, abs=0.05)


@pytest.mark.parametrize(
    ("size", "base", "widths"),
    [
        (4, 4, [64]), (8, 4, [64, 64]), (28, 7, [64, 64, 64]), (32, 4, [64] * 4),
        (48, 6, [64, 64, 64, 32]), (64, 4, [64] * 4 + [32]), (128, 4, [64] * 4 + [32, 16]),
        (256, 4, [64] * 4 + [32, 16, 8]), (10, 5, [64, 64]),
    ],
)  # fmt: skip
def test_a_resolution_is_a_small_map_and_doublings_that_halve_the_width_beyond_32(
    size: int, base: int, widths: list[int]
) -> None:
    assert plan(DataInfo((3, size, size)), 64) == (base, widths)
    assert base * 2 ** (len(widths) - 1) == size


@pytest.mark.parametrize(("height", "width"), [(30, 30), (3, 3), (11, 11), (36, 36), (32, 64)])
def test_other_resolutions_are_refused(height: int, width: int) -> None:
    with pytest.raises(InputError, match=f"{height} x {width} pixels.*28, 32, 48, 64"):
        system(DataInfo((3, height, width)))


@pytest.mark.parametrize("given", [{"width": 28}, {"width": 768, "group": 20}, {"width": 100}])
def test_a_width_that_the_groups_do_not_divide_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"width does not fit the groups.*power of two times"):
        system(**given)


def test_points_are_refused_with_the_systems_that_take_them() -> None:
    with pytest.raises(InputError, match="r3gan cannot be trained on such data"):
        make_options(R3GAN, DataInfo((2,), kind="points"), {})


# Blocks.


def blocks(network: nn.Module) -> list[Block]:
    return [m for m in network.modules() if isinstance(m, Block)]


def test_every_block_has_a_3x3_convolution_in_groups_of_16_and_is_twice_as_wide_inside() -> None:
    for network in build_on_meta(system(DataInfo((3, 256, 256)))).values():
        found = blocks(network)
        assert len(found) == 2 * 7
        for block in found:
            c = block.expand.in_channels
            shapes = [tuple(m.weight.shape) for m in (block.expand, block.spatial, block.reduce)]
            assert shapes == [(2 * c, c, 1, 1), (2 * c, 16, 3, 3), (c, 2 * c, 1, 1)]
        assert max(block.spatial.groups for block in found) == 96  # of the 768 channels


def test_no_layer_normalises_and_no_convolution_has_a_bias() -> None:
    for network in build_on_meta(system()).values():
        computing = [m for m in network.modules() if not list(m.children())]
        assert {type(m) for m in computing} <= {nn.Conv2d, nn.Linear, nn.Identity}
        assert all(m.bias is None for m in computing if isinstance(m, (nn.Conv2d, nn.Linear)))
        assert not any(isinstance(m, nn.modules.batchnorm._NormBase) for m in network.modules())


@pytest.mark.parametrize("name", ["G", "D"])
def test_every_block_is_the_identity_at_first(name: str) -> None:
    for block in blocks(networks(DataInfo((3, 16, 16)), **TINY)[name]):
        x = torch.randn(2, 8, 5, 5)
        assert torch.equal(block(x), x)


def test_a_block_adds_three_convolutions_with_a_bias_and_leaky_relu_0_2_between_them() -> None:
    torch.manual_seed(0)
    o = make_options(R3GAN, COLOUR, TINY)
    assert isinstance(o, R3GANOptions)
    block = Block(8, o, 4).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_()
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    biases = [p[:, None, None] for n, p in block.named_parameters() if "bias" in n]
    assert [tuple(b.shape) for b in biases] == [(16, 1, 1)] * 2
    y = conv2d(x, block.expand.weight) + biases[0]
    y = torch.where(y > 0, y, 0.2 * y)
    y = conv2d(y, block.spatial.weight, padding=1, groups=4) + biases[1]
    y = torch.where(y > 0, y, 0.2 * y)
    assert torch.allclose(block(x), x + conv2d(y, block.reduce.weight), atol=1e-10)


@pytest.mark.parametrize("blocks_a_stage", [1, 2, 3])
def test_fix_up_scales_a_blocks_weights_by_the_number_of_blocks(blocks_a_stage: int) -> None:
    made = networks(DataInfo((3, 16, 16)), width=128, group=16, blocks=blocks_a_stage)
    depth = 3 * blocks_a_stage  # stages of 4, 8 and 16 pixels
    gain = math.sqrt(2 / 1.04) * depth**-0.25
    for network in made.values():
        found = blocks(network)
        assert len(found) == depth
        for block in found:
            for layer, fan_in in ((block.expand, 128), (block.spatial, 16 * 9)):
                std = layer.weight.detach().std().item()
                assert std == pytest.approx(gain / math.sqrt(fan_in), rel=0.03)
            assert block.reduce.weight.detach().abs().max() == 0


def test_layers_outside_the_blocks_keep_the_variance_of_their_input() -> None:
    made = networks(DataInfo((3, 128, 128)), width=256, latent=64, blocks=1)
    inside = {id(p) for network in made.values() for b in blocks(network) for p in b.parameters()}
    seen = 0
    for network in made.values():
        for layer in network.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)) and id(layer.weight) not in inside:
                w = layer.weight.detach()
                root = math.sqrt(w[0].numel())
                # five deviations of a sample deviation
                assert w.std().item() * root == pytest.approx(1, abs=5 / math.sqrt(2 * w.numel()))
                seen += 1
    assert seen == (1 + 2 + 1) + (
        1 + 2 + 2
    )  # G: from z, two mixes, to RGB. D: also basis and logit


# Sizes of maps.


def bilinear_up(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each pixel becomes two, at a quarter of a pixel to either side; beyond the border its last pixel stays."""
    for axis in (2, 3):
        last = x.shape[axis] - 1
        place = np.arange(last + 1)
        before = np.take(x, np.maximum(place - 1, 0), axis)
        after = np.take(x, np.minimum(place + 1, last), axis)
        pairs = np.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        shape = list(x.shape)
        shape[axis] *= 2
        x = pairs.reshape(shape)
    return x


def test_upsampling_is_bilinear() -> None:
    x = torch.randn(2, 3, 4, 5)
    up = Up(3, 3)
    assert not list(up.parameters())  # it learns only where the width changes
    assert up(x).numpy() == pytest.approx(bilinear_up(x.double().numpy()), abs=1e-6)


def test_downsampling_weighs_1_3_3_1_eighths_each_way_with_the_border_repeated() -> None:
    x = torch.randn(2, 3, 6, 4)
    down = Down(3, 3)
    assert not list(down.parameters())
    padded = np.pad(x.double().numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), "edge")
    taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    expected = np.zeros((2, 3, 3, 2))
    for i, j in np.ndindex(3, 2):
        window = padded[:, :, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
        expected[:, :, i, j] = (window * taps).sum((2, 3))
    assert down(x).numpy() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("kind", "size"), [(Up, 12), (Down, 3)])
def test_a_constant_map_stays_constant_up_to_its_border(kind: type[nn.Module], size: int) -> None:
    x = torch.full((1, 2, 6, 6), 0.7)
    y = kind(2, 2)(x)
    assert y.shape == (1, 2, size, size)
    assert (y - 0.7).abs().max() < 1e-6
    mixed = kind(2, 5)(x)  # other channels, each of them still constant
    assert mixed.shape == (1, 5, size, size)
    assert (mixed - mixed[:, :, :1, :1]).abs().max() < 1e-6 and mixed.std() > 0.01


def test_downsampling_mirrors_upsampling_so_that_neither_shifts_the_image() -> None:
    rows = torch.arange(16.0)[None, None, :, None].expand(1, 1, 16, 16)
    there_and_back = Down(1, 1)(Up(1, 1)(rows))
    assert (there_and_back - rows)[:, :, 2:-2].abs().max() < 1e-5


# Generator and discriminator.


def test_at_first_an_image_is_the_scaled_basis_enlarged_and_mixed() -> None:
    generator = networks(DataInfo((3, 64, 64)), **TINY)["G"]
    assert isinstance(generator, R3Generator)
    z = torch.randn(2, 6)
    weights = {n: p.detach().double().numpy() for n, p in generator.named_parameters()}
    assert weights["basis"].shape == (8, 4, 4)
    scale = z.double().numpy() @ weights["scale.weight"].T  # (2, 8)
    x = weights["basis"][None] * scale[:, :, None, None]
    mixes = [w for n, w in weights.items() if "mix" in n]
    assert [w.shape for w in mixes] == [(4, 8, 1, 1)]  # 64 pixels alone have another width
    for stage in range(4):
        if stage == 3:
            x = np.einsum("bchw,oc->bohw", x, mixes[0][:, :, 0, 0])
        x = bilinear_up(x)
    (last,) = (w for w in weights.values() if w.shape == (3, 4, 1, 1))
    expected = np.einsum("bchw,oc->bohw", x, last[:, :, 0, 0])
    with torch.no_grad():
        assert generator(z).numpy() == pytest.approx(expected, abs=1e-4)


def test_the_output_is_linear_without_tanh() -> None:
    generator = networks(DataInfo((3, 8, 8)), **TINY)["G"]
    z = torch.randn(20, 6)
    with torch.no_grad():
        small, large = generator(z), generator(50 * z)
    assert large.abs().max() > 10
    assert torch.allclose(large, 50 * small, rtol=1e-4, atol=1e-4)  # the blocks do nothing yet


def test_the_logit_is_linear_in_a_basis_over_the_last_map() -> None:
    d = networks(DataInfo((1, 4, 4)), **TINY)["D"].double()
    weights = {n: p.detach() for n, p in d.named_parameters()}
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    (first,) = (w for w in weights.values() if w.shape == (8, 1, 1, 1))
    features = x * first[:, 0, 0, 0][None, :, None, None]  # the blocks are the identity
    assert weights["basis.weight"].shape == (8, 1, 4, 4)
    h = (features * weights["basis.weight"][:, 0]).sum((2, 3))  # one map, one number
    assert torch.allclose(d(x), h @ weights["out.weight"][0], atol=1e-12)


def test_with_labels_the_logit_is_the_product_of_features_and_the_classs_numbers() -> None:
    data = DataInfo((1, 4, 4), ("a", "b", "c"))
    d = networks(data, **TINY)["D"].double()
    weights = {n: p.detach() for n, p in d.named_parameters()}
    x, labels = torch.randn(3, 1, 4, 4, dtype=torch.float64), torch.tensor([2, 0, 2])
    (first,) = (w for w in weights.values() if w.shape == (8, 1, 1, 1))
    h = (x * first[:, 0, 0, 0][None, :, None, None] * weights["basis.weight"][:, 0]).sum((2, 3))
    table = weights["embed.weight"]
    assert table.shape == (3, 5) and weights["out.weight"].shape == (5, 8)
    expected = ((h @ weights["out.weight"].T) * table[labels]).sum(1)
    assert torch.allclose(d(x, labels), expected, atol=1e-12)


def test_a_classs_numbers_begin_as_a_linear_map_of_a_one_hot_label() -> None:
    data = DataInfo((1, 4, 4), tuple(map(str, range(200))))
    made = networks(data, **(TINY | {"embedding": 100, "projection": 400}))
    std_g, std_d = (made[n].get_parameter("embed.weight").detach().std().item() for n in "GD")
    assert std_g == pytest.approx(1 / math.sqrt(200), rel=0.03)
    assert std_d == pytest.approx(1 / math.sqrt(200 * 400), rel=0.03)  # so that the product is 1


def test_the_class_stands_beside_z() -> None:
    data = DataInfo((1, 4, 4), ("a", "b", "c"))
    g = networks(data, **TINY)["G"]
    assert g.get_parameter("scale.weight").shape == (8, 6 + 3)
    assert g.get_parameter("embed.weight").shape == (3, 3)


# Settings.


@pytest.mark.parametrize(
    ("resolution", "gamma", "batch", "augmented"),
    [(32, 0.05, 512, 0.55), (64, 2.0, 256, 0.3), (256, 150.0, 256, 0.3)],
)
def test_the_preset_is_the_published_one(
    resolution: int, gamma: float, batch: int, augmented: float
) -> None:
    o = make_options(R3GAN, DataInfo((3, resolution, resolution)), {})
    assert isinstance(o, R3GANOptions)
    assert (o.loss, o.r1, o.r2, o.penalty_every) == ("relativistic", gamma, gamma, 1)
    assert (o.optimizer, o.g_learning_rate, o.d_learning_rate) == ("adam", 2e-4, 2e-4)
    assert (o.beta1, o.first_beta2, o.beta2) == (0.0, 0.9, 0.99)
    assert (o.batch_size, o.latent, o.width, o.blocks) == (batch, 64, 768, 2)
    assert (o.expansion, o.group, o.d_moves, o.fakes) == (2, 16, 1, "fresh")
    assert (o.ada, o.ada_target, o.ada_colour, o.ada_cutout) == (augmented, 0.0, 0.5, 1.0)
    assert (o.final_rate, o.final_gamma) == (0.25, 0.1)
    assert o.g_learning_rate * o.final_rate == pytest.approx(5e-5)
    assert (o.spectral_norm, o.minibatch_deviation, o.ema_half_life) == (False, False, 500_000)


def test_gamma_grows_with_the_resolution_and_lies_between_its_published_neighbours() -> None:
    assert [gamma_for(r) for r in (32, 64, 256)] == pytest.approx([0.05, 2.0, 150.0])
    sizes = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 384, 512]
    values = [gamma_for(size) for size in sizes]
    assert all(a < b for a, b in pairwise(values))
    assert gamma_for(48) == pytest.approx(math.exp(
        math.log(0.05) + math.log(2 / 0.05) * math.log(48 / 32) / math.log(2)
    ))  # fmt: skip
    assert gamma_for(8) == gamma_for(28) == gamma_for(32)


def test_d_and_g_have_the_relativistic_loss_and_r1_and_r2_at_half_of_gamma() -> None:
    players = system().players()
    weights = {o.name: (o.weight, o.every) for o in players["D"].objectives}
    assert weights == {"adversarial": (1.0, 1), "r1": (1.0, 1), "r2": (1.0, 1)}  # gamma 2, over 2
    r, f = torch.tensor([0.3, -1.0]), torch.tensor([1.2, 0.5])
    formula = system().loss
    expected = np.log1p(np.exp(-(r.numpy() - f.numpy())))
    assert formula.discriminator(r, f).numpy() == pytest.approx(expected, abs=1e-6)
    expected = np.log1p(np.exp(-(f.numpy() - r.numpy())))
    assert formula.generator(r, f).numpy() == pytest.approx(expected, abs=1e-6)


def test_spectral_norm_which_would_divide_by_0_is_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match="Leave spectral_norm out"):
        system(**TINY, spectral_norm=True)


# Schedules.

Curve = Callable[[float], float]


def half_cosine(start: float, end: float, t: float) -> float:
    """By the half-angle formula, from `start` at 0 to `end` at 1."""
    return start + (end - start) * math.sin(math.pi * min(t, 1.0) / 2) ** 2


ENDS = {
    "learning_rate": (1.0, 0.25), "beta2": (0.9, 0.99), "weight/r1": (1.0, 0.1),
    "weight/r2": (1.0, 0.1), "ada": (0.0, 1.0), "ema_half_life": (0.0, 500_000.0),
}  # fmt: skip


@pytest.mark.parametrize("burn_in", [0.8, 0.5, 1.0])
@pytest.mark.parametrize("name", ENDS)
def test_each_schedule_is_a_half_cosine_over_the_burn_in_and_then_constant(
    name: str, burn_in: float
) -> None:
    (stage,) = system(burn_in=burn_in).stages()
    assert set(stage.schedules) == set(ENDS)
    curve, (start, end) = stage.schedules[name], ENDS[name]
    assert curve(0.0) == pytest.approx(start)
    assert curve(burn_in / 2) == pytest.approx((start + end) / 2)
    assert curve(burn_in / 3) == pytest.approx(start + (end - start) / 4)  # sin 30 degrees, squared
    for t in (burn_in, (1 + burn_in) / 2, 1.0):
        assert curve(t) == pytest.approx(end)


def test_the_schedules_ends_are_settings() -> None:
    curves = system(
        final_rate=0.5, final_gamma=0.2, first_beta2=0.5, beta2=0.6, ema_half_life=1_000
    ).schedules()
    last = {name: curves[name](1.0) for name in ENDS}
    assert last == pytest.approx({
        "learning_rate": 0.5, "beta2": 0.6, "weight/r1": 0.2, "weight/r2": 0.2, "ada": 1.0,
        "ema_half_life": 1_000.0,
    })  # fmt: skip
    assert curves["beta2"](0.0) == pytest.approx(0.5)


def test_a_last_fall_of_the_rates_multiplies_the_cosine() -> None:
    plain, falling = system().schedules(), system(decay_share=0.5).schedules()
    for t, factor in ((0.2, 1.0), (0.5, 1.0), (0.75, 0.5), (1.0, 0.0)):
        wanted = plain["learning_rate"](t) * factor
        assert falling["learning_rate"](t) == pytest.approx(wanted)


STEPS = 100


def live(options: Options | None = None, ema_decay: float | None = None, **given: Any) -> Training:
    data = images(24, 8)
    made = R3GAN(options or make_options(R3GAN, data.info, {**TINY, **given}), data.info)
    return Training(made, data, dataclasses.replace(config(STEPS), ema_decay=ema_decay), CPU)


@pytest.mark.parametrize("step", [0, 20, 40, 80, 99])
def test_the_engine_moves_each_player_with_the_scheduled_rate_and_beta2(step: int) -> None:
    run = live(ada=0.0, g_learning_rate=1e-3, d_learning_rate=3e-3)
    run.step = step
    run.run_step()
    t = step / STEPS / 0.8
    for name, rate in (("G", 1e-3), ("D", 3e-3)):
        (group,) = run.optimizers[name].param_groups
        assert isinstance(run.optimizers[name], torch.optim.Adam)
        assert group["lr"] == pytest.approx(rate * half_cosine(1.0, 0.25, t))
        assert group["betas"] == pytest.approx((0.0, half_cosine(0.9, 0.99, t)))


@pytest.mark.parametrize("step", [0, 30, 90])
def test_the_engine_weighs_r1_and_r2_by_the_scheduled_gamma(step: int) -> None:
    run = live(ada=0.0, r1=3.0, r2=5.0)

    def one(live: Live, batch: Batch) -> Tensor:
        logits = live.logits("real", batch)
        assert isinstance(logits, Tensor)
        return 1.0 + 0.0 * logits.sum()

    for objective in run.players["D"].objectives:
        objective.value = one
    run.step = step
    run.run_step()
    means, factor = run.means.take(), half_cosine(1.0, 0.1, step / STEPS / 0.8)
    assert means["loss/D/r1"] == pytest.approx(1.5 * factor)
    assert means["loss/D/r2"] == pytest.approx(2.5 * factor)
    assert means["loss/D/adversarial"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("step", "half_life", "ema_decay", "decay"),
    [
        # its own half-life, in batches of 4 images
        (90, 10, None, 0.5 ** (4 / 10)),
        (40, 10, None, 0.5 ** (4 / 5)),
        # at most a twentieth of the images seen
        (90, 1_000, None, 0.5 ** (4 / (0.05 * 91 * 4))),
        (40, 1_000, None, 0.5 ** (4 / (0.05 * 41 * 4))),
        # a decay that was chosen goes first
        (90, 10, 0.5, 0.5),
    ],
)
def test_the_engine_averages_g_by_the_scheduled_half_life(
    step: int, half_life: int, ema_decay: float | None, decay: float
) -> None:
    run = live(ada=0.0, ema_half_life=half_life, ema_decay=ema_decay)
    with torch.no_grad():
        for parameter in run.networks["G"].parameters():
            parameter.add_(1.0)  # far from its average
    run.step, run.images_seen = step, 4 * step
    before = [p.clone() for p in run.averaged["G"].parameters()]
    run.run_step()
    after, now = (list(n["G"].parameters()) for n in (run.averaged, run.networks))
    for old, new, present in zip(before, after, now, strict=True):
        expected = decay * old + (1 - decay) * present.detach()
        assert torch.allclose(new, expected, atol=1e-5)


def test_at_the_first_step_the_average_is_the_generator_itself() -> None:
    run = live(ada=0.0)
    with torch.no_grad():
        for parameter in run.networks["G"].parameters():
            parameter.add_(1.0)
    run.run_step()
    for ours, theirs in zip(
        run.averaged["G"].parameters(), run.networks["G"].parameters(), strict=True
    ):
        assert torch.allclose(ours, theirs.detach(), atol=1e-6)


def test_d_sees_plain_images_at_first_and_augmented_ones_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = live(ada=1.0)
    seen: list[bool] = []
    discriminate = run.system.discriminate

    def spy(live: Live, sample: Tensor, batch: Batch) -> Any:
        seen.append(any(sample is batch[name] for name in ("real", "fake")))
        return discriminate(live, sample, batch)

    monkeypatch.setattr(run.system, "discriminate", spy)
    run.run_step()
    assert seen and all(seen)
    seen.clear()
    run.step = 99
    run.run_step()
    assert seen and not any(seen)


def test_penalties_are_taken_at_every_step_by_the_plain_image() -> None:
    run = live(ada=1.0)
    run.step = 99
    for _ in range(2):
        run.run_step()
        means = run.means.take()
        assert means["loss/D/r1"] > 0 and means["loss/D/r2"] > 0
    objectives = {o.name: o.differentiates for o in run.players["D"].objectives}
    assert objectives["r1"] == ("real",) and objectives["r2"] == ("fake",)
