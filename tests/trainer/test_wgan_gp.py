"""WGAN-GP: a critic without batch norm, whose gradient between reals and fakes is drawn to norm 1."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gan.trainer.builtin import RING, points
from gan.trainer.config import make_options
from gan.trainer.dataset import Dataset
from gan.trainer.engine import Training
from gan.trainer.parts import DataInfo
from gan.trainer.system import build_on_meta
from gan.trainer.systems.wgan_gp import WGANGP

from .conftest import training

CLOUD = Dataset("cloud", points(RING, 256), None, (), mixture=RING)
NORMS = (
    nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm,
)  # fmt: skip


def test_the_preset_for_images_is_the_papers() -> None:
    o = make_options(WGANGP, DataInfo((3, 64, 64)), {})
    assert (o.loss, o.gp, o.d_moves, o.batch_size) == ("wasserstein", 10.0, 5, 64)
    assert (o.optimizer, o.g_learning_rate, o.d_learning_rate) == ("adam", 1e-4, 1e-4)
    assert (o.beta1, o.beta2, o.clip_weights, o.penalty_every) == (0.5, 0.9, 0.0, 1)


def test_the_preset_for_points_has_the_toys_lambda_batch_and_betas() -> None:
    o = make_options(WGANGP, CLOUD.info, {})
    assert (o.loss, o.gp, o.d_moves, o.batch_size) == ("wasserstein", 0.1, 5, 256)
    assert (o.optimizer, o.beta1, o.beta2) == ("adam", 0.5, 0.9)


@pytest.mark.parametrize(
    "data", [DataInfo((3, 64, 64)), DataInfo((1, 28, 28), ("a", "b")), CLOUD.info]
)
def test_the_critic_has_no_normalisation_at_all(data: DataInfo) -> None:
    networks = build_on_meta(WGANGP(make_options(WGANGP, data, {}), data))
    assert not any(isinstance(m, NORMS) for m in networks["D"].modules())
    normed = any(isinstance(m, nn.BatchNorm2d) for m in networks["G"].modules())
    assert normed == (data.kind == "image")  # G keeps it


def test_the_critic_has_the_penalty_with_lambda_as_its_weight_in_each_of_five_moves() -> None:
    data = DataInfo((3, 64, 64))
    system = WGANGP(make_options(WGANGP, data, {}), data)
    players = system.players()
    assert {o.name: (o.weight, o.every) for o in players["D"].objectives} == {
        "adversarial": (1.0, 1), "gp": (10.0, 1),
    }  # fmt: skip
    assert [o.name for o in players["G"].objectives] == ["adversarial"]
    assert [(t.player, t.moves(0), t.moves(500)) for t in system.turns()] == [
        ("D", 5, 5),
        ("G", 1, 1),
    ]


def slope_error(live: Training) -> float:
    """E |(||grad D|| - 1)| on the lines between fresh fakes and the reals, with our own draw and derivative."""
    source = torch.Generator().manual_seed(3)
    reals = torch.from_numpy(CLOUD.samples)
    with torch.no_grad():
        z = torch.randn(len(reals), live.system.options.latent, generator=source)
        fakes = live.networks["G"](z)
    e = torch.rand(len(reals), 1, generator=source)
    x = (e * reals + (1 - e) * fakes).requires_grad_()
    (gradient,) = torch.autograd.grad(live.networks["D"](x).sum(), x)
    return (gradient.norm(dim=1) - 1).abs().mean().item()


@pytest.mark.parametrize(("gp", "drawn"), [(10.0, True), (0.0, False)])
def test_the_gradients_norm_is_drawn_towards_1_by_the_penalty_alone(gp: float, drawn: bool) -> None:
    given: dict[str, Any] = {"width": 32, "depth": 2, "batch_size": 32, "gp": gp}
    o = make_options(WGANGP, CLOUD.info, given)
    live = training(WGANGP, data=CLOUD, options=o, steps=1_000)
    before = slope_error(live)
    for _ in range(60):
        live.run_step()
    after = slope_error(live)
    assert before > 0.6  # a fresh critic is nearly flat
    assert after < 0.15 if drawn else after > 0.6


def test_images_train_with_the_penalty_too() -> None:
    data = Dataset("noise", (torch.rand(16, 1, 8, 8) * 255).byte().numpy(), None, ())
    o = make_options(WGANGP, data.info, {"width": 4, "latent": 4, "batch_size": 4})
    live = training(WGANGP, data=data, options=o)
    live.run_step()
    means = live.means.take()
    assert live.skipped == 0 and means["loss/D/gp"] > 0 and "distance" in means
