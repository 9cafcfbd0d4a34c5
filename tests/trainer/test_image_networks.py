"""U-Net, residual generator and patch discriminator: published sizes, the papers' formulas, what each place sees."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu, relu

from gan.trainer.image_networks import (
    Norm,
    PatchDiscriminator,
    ResidualBlock,
    ResNetGenerator,
    UNet,
    Up,
    doubled,
    make_norm,
)
from gan.trainer.system import parameter_count

NORMS: tuple[Norm, ...] = ("batch", "instance", "affine-instance", "none")
UPS: tuple[Up, ...] = ("transpose", "resize")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def randomised(network: nn.Module) -> nn.Module:
    """In float64 and eval mode, with all that is learnt or counted other than it begins."""
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
        elif tensor.is_floating_point():
            gain = 1.5 / tensor[0].numel() ** 0.5 if tensor.ndim > 1 else 0.5
            tensor.copy_(torch.randn(tensor.shape) * gain + (tensor.ndim == 1) * 0.5)
    return network.double().eval()


def of_type(network: nn.Module, *kinds: type[nn.Module]) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, kinds)]


def reflected(x: Tensor, by: int) -> Tensor:
    """numpy's reflection, in which the border is not repeated."""
    return torch.from_numpy(np.pad(x.numpy(), [(0, 0), (0, 0), (by, by), (by, by)], "reflect"))


def normalised(layer: nn.Module, x: Tensor) -> Tensor:
    """The formula of a norm in eval mode."""
    if isinstance(layer, nn.BatchNorm2d):
        mean, var = cast(Tensor, layer.running_mean), cast(Tensor, layer.running_var)
        x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    elif isinstance(layer, nn.InstanceNorm2d):
        var, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        x = (x - mean) / (var + 1e-5).sqrt()
    if getattr(layer, "weight", None) is not None:
        weight, bias = cast(Tensor, layer.weight), cast(Tensor, layer.bias)
        x = x * weight[:, None, None] + bias[:, None, None]
    return x


def up_by_formula(layer: nn.Module, x: Tensor) -> Tensor:
    if isinstance(layer, nn.ConvTranspose2d):
        rest = layer.kernel_size[0] % 2
        return conv_transpose2d(x, layer.weight, layer.bias, 2, 1, rest)
    (conv,) = of_type(layer, nn.Conv2d)
    x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return conv2d(x, conv.weight, conv.bias, padding=1)


# Published sizes.


def test_the_networks_have_the_published_numbers_of_parameters() -> None:
    """As the authors' code prints them: 54.414 M, 11.378 M, 7.838 M and 2.769 M."""
    with torch.device("meta"):
        assert parameter_count(UNet(3, 3, 64, 8)) == 54_413_955
        assert parameter_count(ResNetGenerator(3, 3, 64, 9)) == 11_378_179
        block = 2 * (256 * 256 * 9 + 256)
        assert parameter_count(ResNetGenerator(3, 3, 64, 6)) == 11_378_179 - 3 * block
        assert parameter_count(PatchDiscriminator(6, 64)) == 2_768_705
        assert parameter_count(PatchDiscriminator(3, 64)) == 2_768_705 - 3 * 64 * 16


def test_the_discriminator_of_256_pixels_has_30_by_30_logits_of_70_pixels_each() -> None:
    with torch.device("meta"):
        image = torch.empty(1, 6, 256, 256)
        assert PatchDiscriminator(6, 64)(image).shape == (1, 1, 30, 30)
        assert UNet(6, 3, 64, 8)(image).shape == (1, 3, 256, 256)
        assert ResNetGenerator(6, 3, 64, 9)(image).shape == (1, 3, 256, 256)


@pytest.mark.parametrize(("layers", "pixels"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_a_logit_sees_a_patch_of_so_many_pixels(layers: int, pixels: int) -> None:
    network = randomised(PatchDiscriminator(1, 4, layers, "none"))
    x = torch.zeros(1, 1, 192, 192, dtype=torch.float64, requires_grad=True)
    logits = network(x)
    middle = logits.shape[2] // 2
    (slope,) = torch.autograd.grad(logits[0, 0, middle, middle], x)
    for axis in (2, 3):
        seen = slope[0, 0].abs().amax(3 - axis).nonzero()
        assert int(seen.max() - seen.min()) + 1 == pixels


# The U-Net.


def unet_by_formula(network: UNet, x: Tensor) -> Tensor:
    """The nested form: a level halves, has the smaller levels do their part beside its own map, and doubles."""
    downs = [of_type(part, nn.Conv2d)[0] for part in network.downs]
    norms = [of_type(part, nn.BatchNorm2d, nn.InstanceNorm2d) for part in network.downs]
    ups = [list(part.children())[1] for part in reversed(network.ups)]
    up_norms = [of_type(part, nn.BatchNorm2d, nn.InstanceNorm2d) for part in reversed(network.ups)]

    def level(i: int, x: Tensor) -> Tensor:
        h = conv2d(leaky_relu(x, 0.2) if i else x, downs[i].weight, downs[i].bias, 2, 1)
        for norm in norms[i]:
            h = normalised(norm, h)
        if i < len(downs) - 1:
            h = torch.cat([h, level(i + 1, h)], 1)
        y = up_by_formula(ups[i], relu(h))
        for norm in up_norms[i]:
            y = normalised(norm, y)
        return y if i else torch.tanh(y)

    normed = norms[0] == [] and norms[-1] == [] and up_norms[0] == []
    assert normed  # neither first, last nor smallest map has one
    return level(0, x)


@pytest.mark.parametrize("up", UPS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("downs", [1, 2, 5])
@torch.no_grad()
def test_a_unet_is_its_formula(downs: int, norm: Norm, up: Up) -> None:
    network = randomised(UNet(2, 3, 4, downs, norm=norm, up=up, most=2))
    assert isinstance(network, UNet)
    x = torch.randn(2, 2, 32, 64, dtype=torch.float64)
    made = network(x)
    assert made.shape == (2, 3, 32, 64)
    torch.testing.assert_close(made, unet_by_formula(network, x), rtol=1e-9, atol=1e-9)
    count = len(of_type(network, nn.BatchNorm2d, nn.InstanceNorm2d))
    assert count == (0 if norm == "none" else max(downs - 2, 0) + downs - 1)
    assert made.std() > 0.1


def test_channels_double_up_to_eight_times_the_width() -> None:
    network = UNet(3, 1, 4, 6)
    assert [conv.weight.shape[:2] for conv in of_type(network.downs, nn.Conv2d)] == [
        (4, 3), (8, 4), (16, 8), (32, 16), (32, 32), (32, 32),
    ]  # fmt: skip
    assert [conv.weight.shape[:2] for conv in of_type(network.ups, nn.ConvTranspose2d)] == [
        (32, 32), (64, 32), (64, 16), (32, 8), (16, 4), (8, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("place", range(4))
def test_each_map_reaches_the_output_beside_the_smaller_ones(place: int) -> None:
    """A change of what is handed across, and of nothing below it, changes the output."""
    network = cast(UNet, randomised(UNet(1, 1, 4, 4, norm="none")))
    x = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    before = network(x)
    up = network.ups[len(network.ups) - 1 - place]
    width = network.downs[place](torch.zeros(1, (1, 4, 8, 16)[place], 8, 8).double()).shape[1]

    def changed(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        (h,) = given
        assert h.shape[1] == (2 * width if place < 3 else width)
        return (torch.cat([h[:, :width] + 0.5, h[:, width:]], 1),)

    with up.register_forward_pre_hook(changed):
        after = network(x)
    assert (after - before).abs().max() > 1e-3


def test_dropout_takes_half_of_the_first_three_doublings_in_training_alone() -> None:
    network = UNet(1, 1, 4, 6, norm="none")
    shares: list[float] = []
    for up in network.ups:
        up.register_forward_hook(lambda _, __, y: shares.append((y == 0).float().mean().item()))
    x = torch.randn(16, 1, 64, 64)
    first, second = network.train()(x), network(x)
    assert not torch.equal(first, second)
    for share, most in zip(shares, [0.5] * 3 + [0.0] * 3, strict=False):
        assert share == pytest.approx(most, abs=0.05)
    shares.clear()
    assert torch.equal(network.eval()(x), network(x)) and max(shares) == 0
    off = UNet(1, 1, 4, 6, norm="none", dropout=0.0).train()
    assert torch.equal(off(x), off(x))


# The residual generator.


def resnet_by_formula(network: ResNetGenerator, x: Tensor, downs: int, blocks: int) -> Tensor:
    convs = iter(of_type(network, nn.Conv2d, nn.ConvTranspose2d))
    norms = iter(of_type(network, nn.BatchNorm2d, nn.InstanceNorm2d, nn.Identity))

    def padded(h: Tensor, by: int, stride: int = 1) -> Tensor:
        conv = next(convs)
        return conv2d(reflected(h, by), conv.weight, conv.bias, stride)

    h = relu(normalised(next(norms), padded(x, 3)))
    for _ in range(downs):
        conv = next(convs)
        h = relu(normalised(next(norms), conv2d(h, conv.weight, conv.bias, 2, 1)))
    for _ in range(blocks):
        inner = relu(normalised(next(norms), padded(h, 1)))
        h = h + normalised(next(norms), padded(inner, 1))
    for _ in range(downs):
        conv = next(convs)
        if isinstance(conv, nn.ConvTranspose2d):
            h = conv_transpose2d(h, conv.weight, conv.bias, 2, 1, 1)
        else:
            h = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
            h = conv2d(h, conv.weight, conv.bias, padding=1)
        h = relu(normalised(next(norms), h))
    h = padded(h, 3)
    assert next(convs, None) is None and next(norms, None) is None
    return torch.tanh(h + x if network.residual else h)


@pytest.mark.parametrize("up", UPS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("downs", "blocks", "residual"), [(1, 2, False), (2, 1, True)])
@torch.no_grad()
def test_a_residual_generator_is_its_formula(
    downs: int, blocks: int, residual: bool, norm: Norm, up: Up
) -> None:
    network = ResNetGenerator(2, 2, 4, blocks, downs=downs, norm=norm, up=up, residual=residual)
    network = cast(ResNetGenerator, randomised(network))
    x = torch.randn(2, 2, 16, 24, dtype=torch.float64)
    made = network(x)
    assert made.shape == x.shape
    expected = resnet_by_formula(network, x, downs, blocks)
    torch.testing.assert_close(made, expected, rtol=1e-9, atol=1e-9)


def test_its_channels_double_while_it_halves_and_its_first_and_last_layer_have_kernels_of_7() -> (
    None
):
    network = ResNetGenerator(3, 1, 4, 2)
    shapes = [tuple(conv.weight.shape) for conv in of_type(network, nn.Conv2d, nn.ConvTranspose2d)]
    assert shapes == [
        (4, 3, 7, 7), (8, 4, 3, 3), (16, 8, 3, 3), *[(16, 16, 3, 3)] * 4, (16, 8, 3, 3),
        (8, 4, 3, 3), (1, 4, 7, 7),
    ]  # fmt: skip


@pytest.mark.parametrize("residual", [True, False])
def test_a_residual_one_whose_last_layer_is_0_is_the_identity_before_the_tanh(
    residual: bool,
) -> None:
    network = ResNetGenerator(3, 3, 4, 1, residual=residual)
    last = of_type(network, nn.Conv2d)[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    x = torch.rand(2, 3, 8, 8) * 2 - 1
    expected = torch.tanh(x) if residual else torch.zeros_like(x)
    torch.testing.assert_close(network(x), expected)


def test_the_dropout_of_its_blocks_acts_in_training_alone() -> None:
    network = ResNetGenerator(1, 1, 4, 2, dropout=0.5)
    x = torch.randn(2, 1, 16, 16)
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))
    assert len(of_type(network, ResidualBlock)) == 2


# Norms and doubling.


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_is_of_its_kind(norm: Norm) -> None:
    layer = make_norm(norm, 3).train()
    x = torch.randn(4, 3, 6, 6) * torch.tensor([1.0, 3.0, 9.0])[:, None, None] + 2
    y = layer(x)
    over = {"batch": (0, 2, 3), "instance": (2, 3), "affine-instance": (2, 3)}.get(norm)
    if over is None:
        assert y is x
        return
    assert y.mean(over).abs().max() < 1e-5 and (y.var(over, correction=0) - 1).abs().max() < 1e-4
    assert bool(list(layer.parameters())) == (norm != "instance")
    assert bool(list(layer.buffers())) == (norm == "batch")  # instance norm keeps no average


def test_a_layer_before_a_batch_norm_has_no_bias_of_its_own() -> None:
    """The norm's mean would take it away."""
    for network, norm in itertools.product((True, False), NORMS):
        made: nn.Module = (
            UNet(1, 1, 4, 3, norm=norm) if network else ResNetGenerator(1, 1, 4, 1, norm=norm)
        )
        convs: Sequence[Any] = of_type(made, nn.Conv2d, nn.ConvTranspose2d)
        assert {conv.bias is not None for conv in convs[:-1]} == {norm != "batch"}
        assert convs[-1].bias is not None


@pytest.mark.parametrize("kernel", [3, 4])
@pytest.mark.parametrize("up", UPS)
@torch.no_grad()
def test_both_kinds_of_doubling_give_exactly_twice_the_size(up: Up, kernel: int) -> None:
    layer = randomised(doubled(2, 3, up, kernel=kernel))
    x = torch.randn(2, 2, 5, 7, dtype=torch.float64)
    made = layer(x)
    assert made.shape == (2, 3, 10, 14)
    torch.testing.assert_close(made, up_by_formula(layer, x), rtol=1e-10, atol=1e-10)


# The discriminator.


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("layers", [1, 2, 4])
@torch.no_grad()
def test_a_discriminator_is_its_formula(layers: int, norm: Norm) -> None:
    network = randomised(PatchDiscriminator(2, 4, layers, norm))
    convs = of_type(network, nn.Conv2d)
    norms = of_type(network, nn.BatchNorm2d, nn.InstanceNorm2d)
    assert len(convs) == layers + 2 and len(norms) == (layers if norm != "none" else 0)
    assert [conv.out_channels for conv in convs] == [*[4, 8, 16, 32, 32][: layers + 1], 1]
    h = x = torch.randn(2, 2, 64, 48, dtype=torch.float64)
    for i, conv in enumerate(convs):
        h = conv2d(h, conv.weight, conv.bias, 2 if i < layers else 1, 1)
        if 0 < i <= layers:
            h = normalised(norms[i - 1] if norms else nn.Identity(), h)
        h = leaky_relu(h, 0.2) if i <= layers else h
    torch.testing.assert_close(network(x), h, rtol=1e-9, atol=1e-9)
    biased = [conv.bias is not None for conv in convs]
    assert biased == [True, *[norm != "batch"] * layers, True]
