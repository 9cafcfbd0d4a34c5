"""WGAN: weights within [-c, c], a critic ahead of G, RMSprop, and a distance that is logged."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from gan.trainer.builtin import RING, points
from gan.trainer.config import make_options
from gan.trainer.dataset import Dataset
from gan.trainer.engine import Training
from gan.trainer.parts import DataInfo
from gan.trainer.progress import Status
from gan.trainer.systems.wgan import WGAN

from .conftest import images, training

CLOUD = Dataset("cloud", points(RING, 64), None, (), mixture=RING)
TINY: dict[str, Any] = {"width": 8, "latent": 4, "batch_size": 8}
ONCE: dict[str, Any] = {"warm_up": 0, "d_moves": 1}


def live(data: Dataset = CLOUD, **given: Any) -> Training:
    return training(
        WGAN, data=data, options=make_options(WGAN, data.info, {**TINY, **given}), steps=600
    )


def largest(network: nn.Module) -> float:
    return max(p.detach().abs().max().item() for p in network.parameters())


def moves_in_a_step(training: Training, player: str) -> int:
    """How often a player's optimiser steps in the next step."""
    made: list[int] = []
    hook = training.optimizers[player].register_step_post_hook(lambda *_: made.append(1))
    training.run_step()
    hook.remove()
    return len(made)


def test_the_preset_for_images_is_the_papers() -> None:
    o = make_options(WGAN, DataInfo((3, 64, 64)), {})
    assert (o.loss, o.optimizer, o.g_learning_rate, o.d_learning_rate) == (
        "wasserstein", "rmsprop", 5e-5, 5e-5,
    )  # fmt: skip
    assert (o.clip_weights, o.d_moves, o.batch_size) == (0.01, 5, 64)  # algorithm 1's defaults
    assert (o.gp, o.r1, o.r2, o.spectral_norm) == (0.0, 0.0, 0.0, False)


def test_on_points_it_is_the_same_algorithm() -> None:
    o = make_options(WGAN, CLOUD.info, {})
    assert (o.loss, o.optimizer, o.d_moves) == ("wasserstein", "rmsprop", 5)
    assert o.clip_weights > 0


def test_images_have_dcgans_networks_and_points_an_mlp() -> None:
    def kinds(data: DataInfo) -> set[type[nn.Module]]:
        networks = WGAN(make_options(WGAN, data, TINY), data).networks()
        return {type(m) for network in networks.values() for m in network.modules()}

    assert nn.ConvTranspose2d in kinds(DataInfo((1, 8, 8)))
    assert nn.Linear not in kinds(DataInfo((1, 8, 8)))
    assert nn.Linear in kinds(CLOUD.info) and nn.Conv2d not in kinds(CLOUD.info)


def test_both_players_move_by_rmsprop_with_torchs_alpha() -> None:
    for optimizer in live().optimizers.values():
        assert isinstance(optimizer, torch.optim.RMSprop)
        (group,) = optimizer.param_groups
        assert group["alpha"] == 0.99 and group["lr"] == 5e-4
        assert group["momentum"] == 0 and not group["centered"]


@pytest.mark.parametrize("data", [CLOUD, images(16)], ids=["points", "images"])
def test_after_every_step_all_weights_of_the_critic_lie_within_c_and_those_of_g_do_not(
    data: Dataset,
) -> None:
    c = 0.004
    run = live(data, clip_weights=c, d_learning_rate=1e-2, **ONCE)
    assert largest(run.networks["D"]) > 2 * c  # there is something to clip
    for _ in range(3):
        run.run_step()
        every = [p.detach().abs() for p in run.networks["D"].parameters()]
        assert all((p <= c).all() for p in every)
        assert sum((p == torch.tensor(c)).sum().item() for p in every) > 0
    assert largest(run.networks["G"]) > 2 * c


def test_with_clipping_at_0_the_critic_is_left_alone() -> None:
    run = live(clip_weights=0.0, **ONCE)
    run.run_step()
    assert largest(run.networks["D"]) > 0.1


def test_the_critic_has_100_moves_in_the_first_25_steps_and_in_every_500th_else_5() -> None:
    data = DataInfo((3, 64, 64))
    critic, g = WGAN(make_options(WGAN, data, {}), data).turns()
    assert (critic.player, g.player) == ("D", "G")
    for step in (0, 1, 24, 500, 1_000, 25_000):
        assert critic.moves(step) == 100
    for step in (25, 26, 499, 501, 999, 25_001):
        assert critic.moves(step) == 5
    assert [g.moves(step) for step in (0, 24, 25, 500)] == [1, 1, 1, 1]


def test_the_critics_moves_are_made_within_a_step_before_the_one_of_g() -> None:
    run = live(warm_up=1, warm_up_moves=7, d_moves=2)
    assert moves_in_a_step(run, "D") == 7
    assert moves_in_a_step(run, "D") == 2
    assert moves_in_a_step(run, "G") == 1
    run.step = 500
    assert moves_in_a_step(run, "D") == 7
    order: list[str] = []
    for name, optimizer in run.optimizers.items():
        optimizer.register_step_post_hook(lambda *_, name=name: order.append(name))
    run.run_step()
    assert order == ["D", "D", "G"]


def test_a_warm_up_of_0_is_none_at_all() -> None:
    data = DataInfo((2,), kind="points")
    critic, _ = WGAN(make_options(WGAN, data, {"warm_up": 0, "d_moves": 3}), data).turns()
    assert [critic.moves(step) for step in (0, 1, 24, 500, 1_000)] == [3] * 5


def test_every_move_of_the_critic_sees_new_samples() -> None:
    run = live(warm_up=0, d_moves=3)
    run.run_step()
    assert run.position == 4 * 8  # three moves of the critic and one of G


def test_the_distance_is_that_of_the_means_of_the_critics_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = live(**ONCE)
    answers: list[tuple[torch.Tensor, torch.Tensor]] = []
    readings = run.system.readings

    def spy(real: torch.Tensor, fake: torch.Tensor) -> dict[str, float]:
        answers.append((real.detach().clone(), fake.detach().clone()))
        return readings(real, fake)

    monkeypatch.setattr(run.system, "readings", spy)
    run.run_step()
    means = run.means.take()
    real, fake = answers[0]
    expected = real.double().mean().item() - fake.double().mean().item()
    assert expected != 0 and means["distance"] == pytest.approx(expected, rel=1e-4)
    assert means["loss/D"] == pytest.approx(-expected, rel=1e-4)  # what the critic minimises


def test_the_distance_grows_while_the_critic_learns_against_a_generator_that_stands() -> None:
    run = live(warm_up=0, d_moves=10, g_learning_rate=1e-12, d_learning_rate=2e-3)
    run.run_step()
    first = run.means.take()["distance"]
    for _ in range(10):
        run.run_step()
    assert run.means.take()["distance"] > 2 * abs(first) + 1e-3


def test_the_status_line_prints_the_distance_in_the_place_of_an_accuracy() -> None:
    from gan.commands.train import status_text

    values = {"loss/D": -0.1, "loss/G": 0.2, "accuracy/real": 0.7, "distance": 0.12345}
    text = status_text(Status(3, 10, 24, 5.0, 2.0, values))
    assert re.search(r"\| distance 0\.123 \|", text) and "D right" not in text
    del values["distance"]
    values["accuracy/fake"] = 0.6
    text = status_text(Status(3, 10, 24, 5.0, 2.0, values))
    assert "distance" not in text and "D right on real 70%, fake 60%" in text
