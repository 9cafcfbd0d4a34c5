"""Unrolled GAN: the paper's toy networks, orthogonal at first, and a generator that looks five moves ahead."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan.runtime.errors import InputError
from gan.trainer.builtin import RING, points
from gan.trainer.checks import check
from gan.trainer.config import make_options
from gan.trainer.dataset import Dataset
from gan.trainer.engine import Training
from gan.trainer.parts import DataInfo
from gan.trainer.system import build_on_meta
from gan.trainer.systems.unrolled import Unrolled

from .conftest import images, same, training, weights

CLOUD = Dataset("cloud", points(RING, 64), None, (), mixture=RING)
DATA = {"points": CLOUD, "images": images(16)}
TINY: dict[str, Any] = {"width": 8, "latent": 4, "batch_size": 8}


def live(data: Dataset, **given: Any) -> Training:
    o = make_options(Unrolled, data.info, {**TINY, **given})
    return training(Unrolled, data=data, options=o)


def linear(network: nn.Module) -> list[nn.Linear]:
    return [m for m in network.modules() if isinstance(m, nn.Linear)]


def test_on_points_both_networks_have_two_hidden_layers_of_128_tanh_units() -> None:
    networks = build_on_meta(Unrolled(make_options(Unrolled, CLOUD.info, {}), CLOUD.info))
    sizes = {
        name: [(m.in_features, m.out_features) for m in linear(network)]
        for name, network in networks.items()
    }
    assert sizes == {
        "G": [(256, 128), (128, 128), (128, 2)], "D": [(2, 128), (128, 128), (128, 1)],
    }  # fmt: skip
    for network in networks.values():
        computing = [m for m in network.modules() if not list(m.children())]
        kinds = [type(m) for m in computing if not isinstance(m, nn.Flatten)]
        assert kinds == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]


def test_on_points_the_weights_are_orthogonal_of_gain_1_4_without_bias() -> None:
    torch.manual_seed(0)
    networks = Unrolled(make_options(Unrolled, CLOUD.info, {}), CLOUD.info).networks()
    for network in networks.values():
        for layer in linear(network):
            w = layer.weight.detach().double()
            short = w if len(w) <= w.shape[1] else w.T
            product = short @ short.T  # the rows, or the columns, are at right angles
            assert torch.allclose(product, 1.96 * torch.eye(len(short)).double(), atol=1e-5)
            assert layer.bias.detach().abs().max() == 0


def test_the_preset_for_points_is_the_papers() -> None:
    o = make_options(Unrolled, CLOUD.info, {})
    assert (o.unroll, o.latent, o.batch_size) == (5, 256, 512)
    assert (o.optimizer, o.g_learning_rate, o.d_learning_rate) == ("adam", 1e-3, 1e-4)
    assert (o.beta1, o.beta2, o.loss, o.d_moves) == (0.5, 0.999, "non-saturating", 1)


def test_images_have_dcgans_networks_with_no_batch_norm_in_d() -> None:
    data = DataInfo((3, 32, 32))
    system = Unrolled(make_options(Unrolled, data, {}), data)
    assert system.options.unroll == 5
    networks = build_on_meta(system)
    kinds = {name: {type(m) for m in n.modules()} for name, n in networks.items()}
    assert nn.ConvTranspose2d in kinds["G"] and nn.BatchNorm2d in kinds["G"]
    assert nn.Conv2d in kinds["D"] and nn.BatchNorm2d not in kinds["D"]


def test_batch_norm_in_an_unrolled_d_is_refused_with_the_way_out() -> None:
    data = DataInfo((3, 32, 32))
    with pytest.raises(InputError, match=r"cannot be unrolled.*d_norm=none"):
        check(Unrolled(make_options(Unrolled, data, {"d_norm": "batch"}), data))


@pytest.mark.parametrize("kind", DATA)
def test_g_alone_looks_ahead_as_many_moves_as_are_chosen(kind: str) -> None:
    data = DATA[kind].info
    for moves in (5, 2):
        players = Unrolled(make_options(Unrolled, data, {"unroll": moves}), data).players()
        assert (players["G"].unroll, players["D"].unroll) == (moves, 0)


def step_of(kind: str, unroll: int) -> tuple[dict[str, dict[str, Tensor]], Training]:
    """The weights of a fresh run after one step."""
    run = live(DATA[kind], unroll=unroll)
    run.run_step()
    assert run.skipped == 0
    return {name: weights(network) for name, network in run.networks.items()}, run


@pytest.mark.parametrize("kind", DATA)
def test_looking_ahead_changes_gs_move_and_leaves_ds_own_an_ordinary_one(kind: str) -> None:
    ahead, _ = step_of(kind, 5)
    plain, _ = step_of(kind, 0)
    assert same(ahead["D"], plain["D"])
    assert not same(ahead["G"], plain["G"])


@pytest.mark.parametrize("kind", DATA)
def test_g_is_judged_by_a_d_that_has_learnt_more(kind: str) -> None:
    losses = [step_of(kind, unroll)[1].means.take()["loss/G"] for unroll in (0, 5, 20)]
    assert losses[0] < losses[1] < losses[2]
