"""Shared layers: equalised rates, norms and minibatch deviation by their formulas, initial weights by their statistics."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gan.runtime.errors import InputError
from gan.trainer.layers import MinibatchDeviation, PixelNorm, channels_by_size, equalize
from gan.trainer.parts import DataInfo
from gan.trainer.systems.dcgan import initialise

# Equalised learning rates.


def layer(kind: str, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    made = nn.Linear(12, 7) if kind == "linear" else nn.Conv2d(3, 5, (3, 4))
    return equalize(made, **settings)


def an_input(kind: str) -> Tensor:
    source = torch.Generator().manual_seed(1)
    shape = (4, 12) if kind == "linear" else (4, 3, 6, 6)
    return torch.randn(shape, generator=source)


FAN_IN = {"linear": 12, "convolution": 3 * 3 * 4}
KINDS = pytest.mark.parametrize("kind", list(FAN_IN))
SETTINGS = pytest.mark.parametrize(
    "settings", [{}, {"gain": math.sqrt(2)}, {"rate": 0.01}, {"gain": 0.25, "rate": 3.0}], ids=str
)


def factor(kind: str, settings: dict[str, Any]) -> float:
    return settings.get("rate", 1.0) * settings.get("gain", 1.0) / math.sqrt(FAN_IN[kind])


def stored(made: nn.Module, name: str) -> Tensor:
    return made.get_parameter(f"parametrizations.{name}.original")


def used(made: nn.Module) -> dict[str, Tensor]:
    """Copies of the weight and the bias that the layer computes with."""
    return {name: getattr(made, name).detach().clone() for name in ("weight", "bias")}


@SETTINGS
@KINDS
def test_an_equalised_layer_uses_c_times_what_it_stores(
    kind: str, settings: dict[str, Any]
) -> None:
    made, c = layer(kind, **settings), factor(kind, settings)
    assert torch.allclose(used(made)["weight"], c * stored(made, "weight"))
    plain = nn.Linear(12, 7) if kind == "linear" else nn.Conv2d(3, 5, (3, 4))
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.copy_(used(made)[name])
    assert torch.equal(made(an_input(kind)), plain(an_input(kind)))
    assert sum(p.numel() for p in made.parameters()) == sum(p.numel() for p in plain.parameters())


@pytest.mark.parametrize("rate", [1.0, 0.01, 4.0])
@pytest.mark.parametrize("gain", [1.0, math.sqrt(2)])
def test_the_used_weights_begin_normal_with_gain_over_root_fan_in_whatever_the_rate(
    gain: float, rate: float
) -> None:
    torch.manual_seed(0)
    for made in (nn.Linear(256, 256), nn.Conv2d(64, 64, 4)):
        nn.init.constant_(made.get_parameter("bias"), 5.0)
        w = used(equalize(made, gain=gain, rate=rate))["weight"].double().flatten()  # 65,536
        std = gain / math.sqrt(256 if isinstance(made, nn.Linear) else 64 * 16)
        assert w.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * len(w)))
        assert w.mean().item() == pytest.approx(0.0, abs=5 * std / math.sqrt(len(w)))
        assert w.abs().max() > 3 * std  # normal, not uniform
        assert used(made)["bias"].abs().max() == 0


@SETTINGS
@KINDS
def test_after_a_step_of_sgd_the_used_weight_has_moved_by_c_squared_times_its_gradient(
    kind: str, settings: dict[str, Any]
) -> None:
    made = layer(kind, **settings).double()
    x, before = an_input(kind).double(), used(made)
    plain = {n: value.clone().requires_grad_() for n, value in before.items()}
    direct = torch.func.functional_call(  # the same layer on the used weights, as plain numbers
        nn.Linear(12, 7) if kind == "linear" else nn.Conv2d(3, 5, (3, 4)), plain, x
    )
    direct.square().sum().backward()
    made(x).square().sum().backward()
    torch.optim.SGD(made.parameters(), 0.01).step()
    speed = {"weight": factor(kind, settings), "bias": settings.get("rate", 1.0)}
    for name, old in before.items():
        gradient = plain[name].grad
        assert gradient is not None and gradient.abs().max() > 0.1
        moved = used(made)[name] - old
        assert torch.allclose(moved, -0.01 * speed[name] ** 2 * gradient, rtol=1e-9, atol=1e-13)


@KINDS
def test_a_step_of_adam_moves_the_used_weight_by_c_times_the_rate_whatever_the_gradient(
    kind: str,
) -> None:
    settings = {"rate": 0.1, "gain": 2.0}
    made = layer(kind, **settings).double()
    before = used(made)
    made(an_input(kind).double()).square().sum().backward()
    torch.optim.Adam(made.parameters(), 0.01, eps=0.0).step()
    speed = {"weight": factor(kind, settings), "bias": 0.1}
    for name, old in before.items():
        moved = (used(made)[name] - old).abs()
        assert torch.allclose(moved, torch.full_like(moved, 0.01 * speed[name]), rtol=1e-6)


@SETTINGS
@KINDS
def test_without_its_parametrisations_it_is_a_plain_layer_that_gives_the_same(
    kind: str, settings: dict[str, Any]
) -> None:
    made = layer(kind, **settings)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3)
    before, weights = made(an_input(kind)), used(made)
    for name in [*cast(Any, made.parametrizations)]:
        parametrize.remove_parametrizations(made, name)
    assert not parametrize.is_parametrized(made)
    plain = dict(made.named_parameters())
    assert all(torch.equal(plain.pop(name), value) for name, value in weights.items()) and not plain
    assert torch.equal(made(an_input(kind)), before)


def test_a_layer_without_bias_keeps_none() -> None:
    made = equalize(nn.Linear(3, 2, bias=False), rate=0.1)
    assert made.bias is None and len(list(made.parameters())) == 1


# Pixel norm.


@pytest.mark.parametrize("shape", [(5, 7), (1, 3), (3, 6, 4, 5), (2, 1, 3, 3)])
def test_pixel_norm_divides_by_the_root_of_the_mean_square_over_channels(
    shape: tuple[int, ...],
) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64) * 3 + 1
    v = x.numpy()
    expected = v / np.sqrt(np.square(v).mean(axis=1, keepdims=True) + 1e-8)
    assert PixelNorm()(x).numpy() == pytest.approx(expected, abs=1e-12)
    assert PixelNorm()(x.float()).numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("shape", [(4, 8), (4, 8, 2, 3)])
def test_pixel_norm_knows_no_scale_and_no_other_sample(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    assert torch.allclose(PixelNorm()(100 * x), PixelNorm()(x), atol=1e-7)
    assert torch.allclose(PixelNorm()(x).square().mean(1), torch.ones(()).double(), atol=1e-7)
    assert torch.equal(PixelNorm()(x)[2:3], PixelNorm()(x[2:3]))


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 2, 2)])
def test_pixel_norm_of_zeros_is_zero_with_the_small_number_as_its_slope(
    shape: tuple[int, ...],
) -> None:
    x = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    y = PixelNorm()(x)
    y.sum().backward()
    assert torch.equal(y, torch.zeros_like(y))
    assert x.grad is not None and torch.allclose(x.grad, torch.full_like(x, 1e4))  # 1e-8 ** -0.5


# Sizes.


@pytest.mark.parametrize("resolution", [4, 8, 64, 128, 256, 512, 1024])
@pytest.mark.parametrize("most", [512, 64])
@pytest.mark.parametrize("total", [8_192, 16_384, 32_768])
def test_channels_are_a_constant_over_the_resolution_and_at_most_so_many(
    total: int, most: int, resolution: int
) -> None:
    data = DataInfo((3, resolution, resolution))
    sizes = [r for r in (4, 8, 16, 32, 64, 128, 256, 512, 1024) if r <= resolution]
    base, channels = channels_by_size(data, total // resolution, most)
    assert base == 4 and channels == [min(total // r, most) for r in sizes]


@pytest.mark.parametrize(
    ("size", "base", "channels"),
    [
        (4, 4, [3]), (5, 5, [3]), (7, 7, [3]), (14, 7, [6, 3]), (28, 7, [10, 6, 3]),
        (24, 6, [10, 6, 3]), (20, 5, [10, 6, 3]), (48, 6, [10, 10, 6, 3]), (8, 4, [6, 3]),
    ],
)  # fmt: skip
def test_the_channels_double_from_the_image_to_a_map_of_4_to_7(
    size: int, base: int, channels: list[int]
) -> None:
    assert channels_by_size(DataInfo((1, size, size)), 3, 10) == (base, channels)
    assert base * 2 ** (len(channels) - 1) == size


@pytest.mark.parametrize(("height", "width"), [(30, 30), (3, 3), (11, 11), (36, 36), (8, 16)])
def test_sizes_that_doubling_does_not_reach_are_refused(height: int, width: int) -> None:
    with pytest.raises(InputError, match=f"{height} x {width} pixels.*28, 32, 48, 64"):
        channels_by_size(DataInfo((3, height, width)), 4, 8)


# Minibatch deviation.


def test_minibatch_deviation_is_the_mean_of_the_standard_deviations() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3, 2, 4) * 3 + 1
    y = MinibatchDeviation()(x)
    assert y.shape == (5, 4, 2, 4)
    assert torch.equal(y[:, :3], x)
    expected = np.sqrt(x.numpy().astype(np.float64).var(axis=0) + 1e-8).mean()
    assert y[:, 3].unique().numel() == 1
    assert y[0, 3, 0, 0].item() == pytest.approx(expected, rel=1e-5)


def test_minibatch_deviation_of_known_batches() -> None:
    two = torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2)
    assert MinibatchDeviation()(two)[:, 1].flatten().tolist() == pytest.approx([1.0] * 8)
    alike = torch.ones(4, 2, 3, 3)
    assert MinibatchDeviation()(alike)[:, 2].max().item() == pytest.approx(1e-4)


def test_minibatch_deviation_of_a_collapsed_batch_still_has_a_finite_gradient() -> None:
    x = torch.ones(4, 2, 3, 3, requires_grad=True)
    MinibatchDeviation()(x).sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()


@pytest.mark.parametrize(
    ("group", "batch", "size"),
    [
        (4, 8, 4), (4, 4, 4), (4, 12, 4), (4, 3, 3), (4, 2, 2), (4, 1, 1),
        (4, 6, 3), (4, 10, 2), (4, 9, 3), (4, 5, 1), (4, 7, 1), (3, 8, 2), (2, 6, 2), (1, 6, 1),
        (None, 6, 6), (None, 5, 5),
    ],
)  # fmt: skip
def test_minibatch_deviation_of_groups_is_that_of_a_loop(
    group: int | None, batch: int, size: int
) -> None:
    torch.manual_seed(0)
    x = (
        torch.randn(batch, 3, 2, 4, dtype=torch.float64)
        * torch.arange(1.0, batch + 1)[:, None, None, None]
    )
    y = MinibatchDeviation(group)(x)
    assert y.shape == (batch, 4, 2, 4) and torch.equal(y[:, :3], x)
    count = batch // size  # sample i is in group i mod count, as in the authors' code
    for i in range(batch):
        members = np.stack([x[j].numpy() for j in range(batch) if j % count == i % count])
        assert len(members) == size
        deviations = np.sqrt(np.square(members - members.mean(0)).mean(0) + 1e-8)
        assert y[i, 3].numpy() == pytest.approx(np.full((2, 4), deviations.mean()), rel=1e-12)
    assert y[:, 3, 0, 0].unique().numel() == (count if size > 1 else 1)


@pytest.mark.parametrize("group", [None, 4])
def test_minibatch_deviation_serves_vectors_too(group: int | None) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, dtype=torch.float64)
    y = MinibatchDeviation(group)(x)
    assert y.shape == (4, 4)
    expected = np.sqrt(x.numpy().var(axis=0) + 1e-8).mean()
    assert y[:, 3].numpy() == pytest.approx(np.full(4, expected), rel=1e-12)


# DCGAN's initial weights.


@pytest.mark.parametrize(
    ("layer", "deviation"),
    [
        (nn.Conv2d(64, 64, 4), 0.02),
        (nn.ConvTranspose2d(64, 64, 4), 0.02),
        (nn.Embedding(256, 256), 1.0),
    ],
)
def test_dcgan_weights_are_normal(layer: nn.Module, deviation: float) -> None:
    torch.manual_seed(0)
    initialise(layer)
    w = next(layer.parameters()).detach().double().flatten()  # 65,536 values
    assert w.mean().item() == pytest.approx(0.0, abs=5 * deviation / math.sqrt(len(w)))
    assert w.std().item() == pytest.approx(deviation, rel=5 / math.sqrt(2 * len(w)))
    assert w.abs().max() > 3 * deviation  # normal, not uniform
    bias = getattr(layer, "bias", None)
    assert bias is None or bias.abs().max() == 0


def test_batch_norm_gains_lie_around_one_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(65_536)
    nn.init.constant_(layer.bias, 3.0)
    initialise(layer)
    gain = layer.weight.detach().double()
    assert gain.mean().item() == pytest.approx(1.0, abs=5 * 0.02 / 256)
    assert gain.std().item() == pytest.approx(0.02, rel=0.02)
    assert layer.bias.abs().max() == 0
