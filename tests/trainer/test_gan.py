"""GAN: the fully connected networks of the seed's notebook on 28 x 28 digits, and the usual small ones on points."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan.runtime.errors import InputError
from gan.trainer.builtin import RING, points
from gan.trainer.config import make_options
from gan.trainer.dataset import Dataset
from gan.trainer.metrics import modes
from gan.trainer.options import Options
from gan.trainer.parts import DataInfo
from gan.trainer.system import build_on_meta, parameter_count
from gan.trainer.systems.gan import GAN, GANOptions

from .conftest import training

DIGITS = DataInfo((1, 28, 28))
CLOUD = DataInfo((2,), kind="points")


def system(data: DataInfo = DIGITS, **given: Any) -> GAN:
    return GAN(make_options(GAN, data, given), data)


def layers(network: nn.Module) -> list[nn.Module]:
    """The layers that compute something, in the order in which they run."""
    return [m for m in network.modules() if not list(m.children())]


def widths(network: nn.Module) -> list[int]:
    """Units from the input to the output of a network of linear layers, each fed by the one before."""
    linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
    assert all(a.out_features == b.in_features for a, b in pairwise(linear))
    return [linear[0].in_features, *(m.out_features for m in linear)]


def test_on_digits_the_networks_are_100_256_512_1024_784_and_its_reverse_to_one_logit() -> None:
    networks = build_on_meta(system())
    assert widths(networks["G"]) == [100, 256, 512, 1024, 784]
    assert widths(networks["D"]) == [784, 1024, 512, 256, 1]
    assert parameter_count(networks["G"]) == sum(
        (a + 1) * b for a, b in pairwise([100, 256, 512, 1024, 784])
    )


def test_g_has_leaky_relu_0_2_between_its_layers_and_tanh_at_its_end() -> None:
    found = layers(build_on_meta(system())["G"])
    kinds = [type(layer) for layer in found]
    assert kinds == [nn.Linear, nn.LeakyReLU] * 3 + [nn.Linear, nn.Tanh]
    assert {m.negative_slope for m in found if isinstance(m, nn.LeakyReLU)} == {0.2}


def test_d_leaves_out_0_3_of_its_units_after_each_hidden_layer_and_ends_in_a_raw_logit() -> None:
    found = layers(build_on_meta(system())["D"])
    kinds = [type(layer) for layer in found]
    assert kinds == [nn.Flatten, *[nn.Linear, nn.LeakyReLU, nn.Dropout] * 3, nn.Linear]
    assert {m.p for m in found if isinstance(m, nn.Dropout)} == {0.3}
    assert {m.negative_slope for m in found if isinstance(m, nn.LeakyReLU)} == {0.2}


def test_on_points_g_ends_in_a_linear_layer_and_d_has_no_dropout() -> None:
    networks = build_on_meta(system(CLOUD))
    assert widths(networks["G"]) == [2, 128, 128, 128, 2]
    assert widths(networks["D"]) == [2, 128, 128, 128, 1]
    kinds = {type(m) for network in networks.values() for m in layers(network)}
    assert kinds == {nn.Flatten, nn.Linear, nn.LeakyReLU}


def test_the_preset_for_images_is_the_notebooks() -> None:
    o = make_options(GAN, DIGITS, {})
    assert (o.loss, o.optimizer, o.g_learning_rate, o.d_learning_rate) == (
        "non-saturating", "adam", 2e-4, 2e-4,
    )  # fmt: skip
    assert (o.beta1, o.beta2) == (0.9, 0.999)  # torch's own
    assert (o.batch_size, o.latent, o.d_moves, o.r1) == (100, 100, 1, 0.0)


def test_the_preset_for_points_is_small_and_its_rates_fall_to_0() -> None:
    o = make_options(GAN, CLOUD, {})
    assert 2 <= o.latent <= 256 and 64 <= o.width <= 128 and o.batch_size >= 128
    fall = system(CLOUD).schedules()["learning_rate"]
    assert fall(0.0) == 1.0 and fall(0.75) == pytest.approx(0.5) and fall(1.0) == 0.0


@pytest.mark.parametrize(
    ("given", "g", "d"),
    [
        ({"width": 8, "depth": 2}, [100, 8, 16, 784], [784, 16, 8, 1]),
        ({"width": 8, "depth": 1}, [100, 8, 784], [784, 8, 1]),
        ({"width": 8, "growth": 3, "latent": 5}, [5, 8, 24, 72, 784], [784, 72, 24, 8, 1]),
    ],
)
def test_width_depth_and_growth_shape_both_networks(
    given: dict[str, Any], g: list[int], d: list[int]
) -> None:
    networks = build_on_meta(system(**given))
    assert widths(networks["G"]) == g and widths(networks["D"]) == d


def test_without_dropout_d_has_no_such_layer() -> None:
    found = layers(build_on_meta(system(dropout=0.0))["D"])
    assert not any(isinstance(m, nn.Dropout) for m in found)


def test_a_label_adds_its_embedding_to_z_and_its_product_over_the_root_to_the_logit() -> None:
    torch.manual_seed(0)
    data = DataInfo((1, 8, 8), ("a", "b", "c"))
    networks = system(data, width=4, depth=2, latent=6, embedding=3, dropout=0.0).networks()
    assert widths(networks["G"]) == [9, 4, 8, 64] and widths(networks["D"]) == [64, 8, 4, 1]
    d, x, labels = networks["D"], torch.randn(5, 1, 8, 8), torch.tensor([0, 2, 1, 1, 0])
    (table,) = (m for m in d.modules() if isinstance(m, nn.Embedding))
    last = [m for m in d.modules() if isinstance(m, nn.Linear)][-1]
    seen: list[Tensor] = []
    last.register_forward_hook(lambda module, inputs, out: seen.append(inputs[0].detach()))
    logits = d(x, labels).detach().double().numpy()
    h, v = seen[0].double().numpy(), table.weight[labels].detach().double().numpy()
    w, b = last.weight.detach().double().numpy()[0], last.bias.detach().double().numpy()
    expected = [hi @ w + b[0] + hi @ vi / 2.0 for hi, vi in zip(h, v, strict=True)]  # 2 = root of 4
    assert logits == pytest.approx(np.array(expected), abs=1e-5)


def test_the_papers_own_loss_can_be_chosen() -> None:
    logits = torch.tensor([-1.0, 0.0, 2.0])
    sigmoid = 1 / (1 + np.exp(-logits.numpy()))
    minimax = system(loss="minimax").loss.generator(logits, logits)
    assert minimax.numpy() == pytest.approx(np.log(1 - sigmoid), abs=1e-6)  # eq. 1
    chosen = system().loss.generator(logits, logits)
    assert chosen.numpy() == pytest.approx(-np.log(sigmoid), abs=1e-6)  # section 3


def test_dropout_is_on_while_d_trains() -> None:
    torch.manual_seed(0)
    d = system(width=16).networks()["D"].train()
    x = torch.randn(1, 1, 28, 28).expand(8, -1, -1, -1)
    assert d(x).std() > 0 and d.eval()(x).std() < 1e-6


@pytest.mark.parametrize("given", [{"depth": 0}, {"depth": 33}, {"growth": 0}, {"dropout": 1.0}])
def test_networks_that_cannot_be_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="was refused"):
        make_options(GAN, DIGITS, given)


def test_a_short_training_finds_modes_of_the_ring() -> None:
    data = Dataset("ring", points(RING, 2_000), None, (), mixture=RING)
    o = make_options(GAN, data.info, {"width": 64, "depth": 2, "batch_size": 64, "r1": 0.1})
    live = training(GAN, data=data, options=o, steps=400)
    z = torch.randn(400, o.latent, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert modes(live.averaged["G"](z), RING, within=0.2)[0] <= 2
    for _ in range(400):
        live.run_step()
    with torch.no_grad():
        assert modes(live.averaged["G"](z), RING, within=0.2)[0] >= 5


def test_the_hidden_layers_of_the_options_go_from_z_to_the_sample() -> None:
    o = make_options(GAN, DIGITS, {})
    assert isinstance(o, Options) and isinstance(o, GANOptions)
    assert o.hidden == [256, 512, 1024]
