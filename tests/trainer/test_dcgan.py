"""DCGAN: the paper's sizes and rules, labels, resolutions, and the checkerboard that resizing avoids."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan.runtime.errors import InputError
from gan.trainer.config import make_options
from gan.trainer.layers import MinibatchDeviation
from gan.trainer.parts import DataInfo
from gan.trainer.system import build_on_meta, parameter_count
from gan.trainer.systems.dcgan import DCGAN, Upsample, plan

COLOUR = DataInfo((3, 64, 64))


def system(data: DataInfo = COLOUR, **given: Any) -> DCGAN:
    kind = make_options(DCGAN, data, given)
    return DCGAN(kind, data)


def small(data: DataInfo | None = None, **given: Any) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    sizes = {"width": 4, "latent": 6, "embedding": 3, "projection": 5}
    return system(data or DataInfo((1, 8, 8)), **{**sizes, **given}).networks()


def flat(network: nn.Module) -> list[nn.Module]:
    """The layers that compute something, in the order in which they run."""
    return [module for module in network.modules() if not list(module.children())]


def test_parameters_at_64_pixels_are_those_of_the_reference() -> None:
    networks = build_on_meta(system())
    assert parameter_count(networks["G"]) == 3_576_704
    assert parameter_count(networks["D"]) == 2_765_568


def test_the_preset_is_the_papers() -> None:
    o = make_options(DCGAN, COLOUR, {})
    assert (o.loss, o.g_learning_rate, o.d_learning_rate) == ("non-saturating", 2e-4, 2e-4)
    assert (o.beta1, o.beta2, o.latent, o.d_moves, o.r1) == (0.5, 0.999, 100, 1, 0.0)
    assert 64 <= o.batch_size <= 128


@pytest.mark.parametrize("data", [COLOUR, DataInfo((1, 28, 28)), DataInfo((1, 28, 28), ("a", "b"))])
@pytest.mark.parametrize("up", ["transpose", "resize"])
def test_no_pooling_and_no_fully_connected_layer(data: DataInfo, up: str) -> None:
    for network in build_on_meta(system(data, up=up)).values():
        allowed = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU, nn.LeakyReLU, nn.Tanh)
        labels = (nn.Embedding, nn.Identity)
        assert all(isinstance(m, (*allowed, *labels, nn.Upsample)) for m in flat(network))


@pytest.mark.parametrize("size", [8, 28, 64])
@pytest.mark.parametrize("up", ["transpose", "resize"])
def test_the_generator_normalises_everywhere_but_at_its_output(size: int, up: str) -> None:
    layers = flat(build_on_meta(system(DataInfo((3, size, size)), up=up))["G"])
    kinds = [type(layer) for layer in layers if not isinstance(layer, nn.Upsample)]
    convolution = nn.ConvTranspose2d if up == "transpose" else nn.Conv2d
    hidden = kinds.count(nn.ReLU)
    assert kinds[:3] == [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU]
    assert kinds[3:] == [convolution, nn.BatchNorm2d, nn.ReLU] * (hidden - 1) + [
        convolution,
        nn.Tanh,
    ]
    assert {8: 1, 28: 2, 64: 4}[size] == hidden


@pytest.mark.parametrize("size", [8, 28, 64])
def test_the_discriminator_normalises_everywhere_but_at_its_input_and_logit(size: int) -> None:
    kinds = [type(layer) for layer in flat(build_on_meta(system(DataInfo((3, size, size))))["D"])]
    kinds = [kind for kind in kinds if kind is not nn.Identity]
    halvings = kinds.count(nn.LeakyReLU)
    first, middle, last = kinds[:2], kinds[2:-1], kinds[-1]
    assert first == [nn.Conv2d, nn.LeakyReLU] and last is nn.Conv2d
    assert middle == [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU] * (halvings - 1)
    for layer in flat(build_on_meta(system())["D"]):
        if isinstance(layer, nn.LeakyReLU):
            assert layer.negative_slope == 0.2


def test_without_batch_norm_the_discriminator_has_biases_instead() -> None:
    with_norm, without = (
        flat(build_on_meta(system(d_norm=norm))["D"]) for norm in ("batch", "none")
    )
    assert any(isinstance(m, nn.BatchNorm2d) for m in with_norm)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in without)
    assert all(m.bias is None for m in with_norm if isinstance(m, nn.Conv2d))
    assert all(m.bias is not None for m in without if isinstance(m, nn.Conv2d))


def test_minibatch_deviation_is_there_when_asked_for() -> None:
    for wanted in (False, True):
        modules = list(build_on_meta(system(minibatch_deviation=wanted))["D"].modules())
        assert any(isinstance(m, MinibatchDeviation) for m in modules) == wanted
    assert small(minibatch_deviation=True)["D"](torch.zeros(3, 1, 8, 8)).shape == (3,)


@pytest.mark.parametrize(
    ("size", "base", "channels"),
    [
        (64, 4, [512, 256, 128, 64]), (28, 7, [128, 64]), (8, 4, [64]), (12, 6, [64]), (10, 5, [64]),
        (32, 4, [256, 128, 64]), (48, 6, [256, 128, 64]), (256, 4, [1024, 1024, 512, 256, 128, 64]),
    ],
)  # fmt: skip
def test_a_resolution_is_a_small_map_and_doublings(
    size: int, base: int, channels: list[int]
) -> None:
    assert plan(DataInfo((3, size, size)), 64) == (base, channels)
    assert base * 2 ** len(channels) == size


@pytest.mark.parametrize("size", [8, 12, 14, 20, 28, 48])
@pytest.mark.parametrize("up", ["transpose", "resize"])
def test_images_have_the_wanted_size_and_one_logit_each(size: int, up: str) -> None:
    networks = small(DataInfo((3, size, size)), up=up)
    images = networks["G"](torch.randn(2, 6))
    assert images.shape == (2, 3, size, size)
    assert images.abs().max() <= 1
    assert networks["D"](images).shape == (2,)


@pytest.mark.parametrize(
    ("height", "width"), [(30, 30), (7, 7), (4, 4), (3, 3), (11, 11), (36, 36), (32, 64)]
)
def test_other_resolutions_are_refused(height: int, width: int) -> None:
    with pytest.raises(InputError, match=f"{height} x {width} pixels.*28, 32, 48, 64"):
        build_on_meta(system(DataInfo((1, height, width))))


def test_labels_enter_both_networks_and_the_signature_where_the_data_has_them() -> None:
    data = DataInfo((1, 8, 8), ("cat", "dog", "eel"))
    graph = system(data).graphs()["image"]
    assert [(f.name, f.dtype, f.range) for f in graph.inputs] == [
        ("z", "float32", None),
        ("label", "int64", (0.0, 2.0)),
    ]
    assert graph.classes == data.classes and graph.signature.label is not None
    streams = [field.draw.stream for field in graph.inputs if field.draw]
    assert streams == [0, 1]
    networks = small(data)
    z, x, labels = torch.randn(2, 6), torch.randn(2, 1, 8, 8), torch.tensor([0, 2])
    assert networks["G"](z, labels).shape == (2, 1, 8, 8)
    assert networks["D"](x, labels).shape == (2,)
    assert any(isinstance(m, nn.Embedding) for m in networks["G"].modules())


def test_labels_can_be_left_out() -> None:
    data = DataInfo((1, 8, 8), ("cat", "dog", "eel"))
    assert [f.name for f in system(data, labels=False).graphs()["image"].inputs] == ["z"]
    for networks in (small(data, labels=False), small(DataInfo((1, 8, 8)))):
        assert not any(isinstance(m, nn.Embedding) for n in networks.values() for m in n.modules())
        assert networks["G"](torch.randn(2, 6)).shape == (2, 1, 8, 8)
    graph = system(data, labels=False).graphs()["image"]
    assert graph.classes == () and graph.inputs[0].shape == (100,)


def test_the_graph_is_the_generator_itself() -> None:
    networks = small()
    assert system(DataInfo((1, 8, 8))).graphs()["image"].build(networks) is networks["G"]


def test_samples_of_a_trained_generator_do_not_depend_on_their_batch() -> None:
    network = small()["G"].eval()
    z = torch.randn(5, 6)
    whole = network(z)
    for i in range(5):
        assert torch.allclose(network(z[i : i + 1]), whole[i : i + 1], atol=1e-5)


# The checkerboard (Odena et al. 2016), measured before any training.


def grid_energy(up: str, size: int) -> float:
    """Share of the images' energy at the three frequencies of the stride-2 grid, over 6 networks and 16 samples."""
    shares = []
    for seed in range(6):
        torch.manual_seed(seed)
        network = system(DataInfo((1, size, size)), width=8, latent=16, up=up).networks()["G"]
        with torch.no_grad():
            images = network(torch.randn(16, 16))[:, 0].double().numpy()
        energy = np.abs(np.fft.fft2(images)) ** 2
        half = size // 2
        at_grid = energy[:, half, half] + energy[:, half, 0] + energy[:, 0, half]
        shares.append(at_grid.sum() / energy.sum())
    return float(np.mean(shares))


@pytest.mark.parametrize("size", [16, 32])
def test_resizing_leaves_no_checkerboard_where_transposing_does(size: int) -> None:
    white = 3 / size**2  # the share in white noise
    assert grid_energy("transpose", size) > 5 * white
    assert grid_energy("resize", size) < white


def test_upsampling_doubles_without_a_bias() -> None:
    for up in ("transpose", "resize"):
        layer = Upsample(2, 3, up)
        assert layer(torch.zeros(1, 2, 5, 5)).shape == (1, 3, 10, 10)
        assert layer(torch.zeros(1, 2, 5, 5)).abs().max() == 0  # no bias: batch norm follows
    flat_map = torch.ones(1, 2, 6, 6)
    inside = Upsample(2, 1, "resize")(flat_map)[0, 0, 2:-2, 2:-2]
    assert inside.std().item() == pytest.approx(0.0, abs=1e-6)  # a flat map stays flat


def test_widths_halve_towards_the_image() -> None:
    convolutions = [
        m for m in flat(build_on_meta(system())["G"]) if isinstance(m, nn.ConvTranspose2d)
    ]
    assert [m.out_channels for m in convolutions] == [512, 256, 128, 64, 3]
    assert all(a.out_channels == b.in_channels for a, b in pairwise(convolutions))
    weights: list[Tensor] = [m.weight for m in convolutions]
    assert [tuple(w.shape[2:]) for w in weights] == [(4, 4)] * 5


@pytest.mark.parametrize(
    "widths", ["8", "8,4,2", "8,", "8,x", "8,0", "8,-4", "8,65536", "8,4.0", " ", "8,²", ","]
)
def test_widths_that_are_not_one_for_each_map_are_refused(widths: str) -> None:
    with pytest.raises(InputError, match="Give 2 numbers"):
        plan(DataInfo((3, 16, 16)), 8, widths)


def test_widths_are_those_of_both_networks() -> None:
    assert plan(DataInfo((3, 16, 16)), 8, " 9, 5") == (4, [9, 5])
    data = DataInfo((3, 16, 16))
    networks = system(data, widths="9,5").networks()
    shapes = {
        name: [p.shape[1] for p in n.parameters() if p.ndim == 4] for name, n in networks.items()
    }
    assert shapes == {"G": [9, 5, 3], "D": [3, 5, 9]}
    with pytest.raises(InputError, match="The setting widths was refused"):
        system(data, widths="9")
