"""Unrolled discriminators: by hand, and against differences of what torch's own optimiser does to a copy of D."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus as sp

from gan.trainer.engine import Training
from gan.trainer.options import Options
from gan.trainer.parts import Batch, Live, Objective, Player, Stage, Turn
from gan.trainer.system import System
from gan.trainer.unroll import Foreseen, foresee, without_logits

from .conftest import Point, PointOptions, same, training, weights

STEP = 1e-5  # of central differences


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Smooth(Point):
    """D is curved and twice differentiable."""

    def networks(self) -> dict[str, nn.Module]:
        d = nn.Sequential(nn.Linear(1, 4), nn.Softplus(), nn.Linear(4, 1))
        g = nn.Sequential(nn.Linear(self.options.latent, 1), nn.Tanh())
        return {"G": g, "D": d}


class Scalar(Point):
    """G(z) = a z and D(x) = w x: one number each."""

    def networks(self) -> dict[str, nn.Module]:
        return {name: nn.Linear(1, 1, bias=False) for name in ("G", "D")}


def doubled(kind: type[System], options: Options) -> Training:
    """A training in float64."""
    live = training(kind, options=options)
    original = live.data.samples_of

    def double(indices: Any, device: torch.device, *, whole: bool = False) -> Tensor:
        return original(indices, device, whole=whole).double()

    live.data.samples_of = double  # type: ignore[method-assign]
    return live


def only_g(training: Training) -> tuple[Batch, Tensor]:
    """Let G alone move once; the batch that it generated from, and the state of the batch's source then."""
    seen: list[tuple[Batch, Tensor]] = []
    original = training.system.generate

    def spy(live: Live, batch: Batch) -> Batch:
        seen.append((dict(batch), batch["source"].get_state()))
        return original(live, batch)

    training.system.generate = spy  # type: ignore[method-assign]
    training.stages = [Stage((Turn("G"),))]
    training.run_step()
    ((batch, source),) = seen
    return batch, source


def options(**given: Any) -> PointOptions:
    """D moves far, so that its later weights are far from its present ones."""
    rates = {"d_learning_rate": 0.1, "g_learning_rate": 0.05}
    return PointOptions(**{**rates, **given})


# By hand.


def test_one_unrolled_step_of_a_scalar_gan_has_the_gradient_derived_by_hand() -> None:
    """G(z) = a z, D(x) = w x, Wasserstein's loss, SGD with rate n and weight decay l.

    With m the mean of z and x the mean of the reals:

        L_D(w) = E D(G(z)) - E D(x) = w (a m - x)          dL_D / dw = a m - x
        w1     = w - n (a m - x + l w)                     dw1 / da  = -n m
        L_G    = -E D1(G(z)) = -w1 a m
        dL_G / da = -w1 m - a m dw1 / da = -w1 m + n a m^2
    """
    n, decay = 0.3, 0.2
    live = doubled(
        Scalar,
        options(loss="wasserstein", unroll=1, optimizer="sgd", d_learning_rate=n, latent=1,
                d_weight_decay=decay, batch_size=1),
    )  # fmt: skip
    a, w = (next(live.networks[name].parameters()) for name in ("G", "D"))
    for p, value in ((a, 0.8), (w, -1.3)):
        p.data.fill_(value)
    batch, _ = only_g(live)
    m, x = batch["z"].mean().item(), batch["real"].mean().item()
    w1 = -1.3 - n * (0.8 * m - x + decay * -1.3)
    assert a.grad is not None
    assert a.grad.item() == pytest.approx(-w1 * m + n * 0.8 * m**2, rel=1e-12)
    assert live.means.take()["loss/G"] == pytest.approx(-w1 * 0.8 * m, rel=1e-12)
    assert abs(n * 0.8 * m**2) > 1e-3  # what flows through w1 is seen


def test_without_unrolling_the_gradient_is_the_plain_one() -> None:
    """Of the same GAN: L_G = -w a m, so dL_G / da = -w m."""
    live = doubled(Scalar, options(loss="wasserstein", optimizer="sgd", latent=1))
    a, w = (next(live.networks[name].parameters()) for name in ("G", "D"))
    w.data.fill_(-1.3)
    batch, _ = only_g(live)
    assert a.grad is not None
    assert a.grad.item() == pytest.approx(1.3 * batch["z"].mean().item(), rel=1e-12)


def test_no_steps_ahead_is_the_present_network() -> None:
    live = doubled(Smooth, options())
    x = torch.linspace(-1, 1, 5)[:, None].requires_grad_()

    def never(networks: Mapping[str, nn.Module]) -> Tensor:
        raise AssertionError("no loss is needed")

    later = foresee(live.players["D"], live.networks, live.optimizers["D"], never, 0)
    assert set(later) == {"D"}
    ours, plain = later["D"](x), live.networks["D"](x)
    assert torch.equal(ours, plain)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, plain)]
    assert torch.equal(*gradients)


# Against differences.


def adversarial(loss: str, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """What D and what G minimise, by the papers' formulas."""
    if loss == "relativistic":
        return sp(-(real - fake)).mean(), sp(-(fake - real)).mean()
    assert loss == "non-saturating"
    return (sp(-real) + sp(fake)).mean(), sp(-fake).mean()


class Reference:
    """G's loss after k moves that torch's own optimiser makes of a copy of D, as a function of G's weights."""

    def __init__(self, live: Training) -> None:
        """A copy of the training's players as they are."""
        together = (live.networks, live.optimizers)  # in one copy, so that they stay connected
        self.networks, self.optimizers = copy.deepcopy(together)
        self.step = live.step
        self.options = live.system.options

    def loss(self, batch: Batch, source: Tensor, k: int) -> float:
        """source: the state of the generator that the objectives draw from."""
        g = self.networks["G"]
        d, optimizer = copy.deepcopy((self.networks["D"], self.optimizers["D"]))
        x = batch["real"].flatten(1)
        draws = torch.Generator()
        draws.set_state(source)
        o = self.options
        due = self.step % o.penalty_every == 0
        with torch.no_grad():
            y = g(batch["z"])
        for _ in range(k):
            loss = adversarial(o.loss, d(x), d(y))[0]
            if o.r1 and due:
                inputs = x.clone().requires_grad_()
                (slope,) = torch.autograd.grad(d(inputs).sum(), inputs, create_graph=True)
                loss = loss + o.penalty_every * o.r1 / 2 * slope.square().sum(1).mean()
            if o.gp and due:
                e = torch.rand((len(x), 1, 1, 1), generator=draws).flatten(1)
                inputs = (e * x + (1 - e) * y).requires_grad_()
                (slope,) = torch.autograd.grad(d(inputs).sum(), inputs, create_graph=True)
                norms = slope.square().sum(1).sqrt()
                loss = loss + o.penalty_every * o.gp * (norms - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            return adversarial(o.loss, d(x), d(y))[1].item()


def differences(function: Callable[[], float], parameter: Tensor) -> Tensor:
    """A central difference of `function` for each entry of a parameter."""
    result = torch.zeros_like(parameter)
    for place in map(tuple, torch.ones_like(parameter).nonzero().tolist()):
        before = parameter.data[place].item()
        parameter.data[place] = before + STEP
        high = function()
        parameter.data[place] = before - STEP
        low = function()
        parameter.data[place] = before
        result[place] = (high - low) / (2 * STEP)
    return result.detach()


def compare(given: dict[str, Any], steps_before: int = 3) -> None:
    """G's gradient and loss in a training with those of the reference."""
    live = doubled(Smooth, options(**given))
    for _ in range(steps_before):
        live.run_step()  # so that the optimisers remember something
    live.means.take()
    reference = Reference(live)
    k = live.system.options.unroll
    batch, source = only_g(live)
    value = reference.loss(batch, source, k)
    assert live.means.take()["loss/G"] == pytest.approx(value, rel=1e-12)
    for other in {0, k - 1, k + 1} - {k}:  # taken at the k-th weights and at no others
        assert abs(reference.loss(batch, source, other) - value) > 1e-4
    theirs = list(reference.networks["G"].parameters())
    plain = [differences(lambda: reference.loss(batch, source, k), p) for p in theirs]
    for ours, expected in zip(live.networks["G"].parameters(), plain, strict=True):
        assert ours.grad is not None
        assert torch.allclose(ours.grad, expected, rtol=1e-6, atol=1e-9)
    assert max(p.abs().max().item() for p in plain) > 1e-3


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("loss", ["non-saturating", "relativistic"])
def test_the_unrolled_gradient_is_that_of_differences_after_k_real_steps_of_adam(
    loss: str, k: int
) -> None:
    compare({"loss": loss, "unroll": k})


def test_the_unrolled_gradient_holds_for_an_optimiser_that_has_not_moved_yet() -> None:
    compare({"unroll": 2}, steps_before=0)


@pytest.mark.parametrize("optimizer", ["rmsprop", "sgd"])
def test_the_unrolled_gradient_follows_the_other_optimisers(optimizer: str) -> None:
    compare({"unroll": 3, "optimizer": optimizer, "d_weight_decay": 0.1})


@pytest.mark.parametrize("k", [1, 2])
def test_the_unrolled_loss_of_d_has_its_r1_penalty(k: int) -> None:
    compare({"unroll": k, "r1": 2.0})


@pytest.mark.parametrize("steps_before", [3, 4])  # not due, and due
def test_a_lazy_penalty_counts_in_the_unrolled_loss_where_it_is_due(steps_before: int) -> None:
    compare({"unroll": 2, "r1": 1.0, "penalty_every": 2}, steps_before)


def test_the_unrolled_loss_of_d_has_its_gradient_penalty_which_depends_on_g_too() -> None:
    """x^ lies between the reals and G's fakes."""
    compare({"unroll": 1, "gp": 1.0, "optimizer": "sgd"})


# What unrolling leaves alone.


def test_d_itself_moves_by_one_ordinary_step() -> None:
    plain, unrolled = (doubled(Smooth, options(unroll=k, r1=1.0)) for k in (0, 3))
    for live in (plain, unrolled):
        live.run_step()
    assert same(weights(plain.networks["D"]), weights(unrolled.networks["D"]))
    assert same(plain.optimizers["D"].state_dict(), unrolled.optimizers["D"].state_dict())
    assert not same(weights(plain.networks["G"]), weights(unrolled.networks["G"]))
    assert plain.position == unrolled.position


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_gs_unrolled_move_touches_neither_ds_weights_nor_gradients_nor_state(
    optimizer: str,
) -> None:
    live = doubled(Smooth, options(unroll=3, r1=1.0, optimizer=optimizer))
    for _ in range(2):
        live.run_step()
    network = live.networks["D"]
    for p in network.parameters():
        p.grad = torch.full_like(p, 7.0)
    before = weights(network)
    state = copy.deepcopy(live.optimizers["D"].state_dict())
    of_g = weights(live.networks["G"])
    only_g(live)
    assert live.networks["D"] is network and same(weights(network), before)
    assert same(live.optimizers["D"].state_dict(), state)
    assert all(p.grad is not None and bool((p.grad == 7.0).all()) for p in network.parameters())
    assert all(p.requires_grad for p in network.parameters())
    assert not same(weights(live.networks["G"]), of_g)


def test_only_the_unrolling_player_sees_the_later_networks_and_only_during_its_move() -> None:
    seen: list[tuple[str, bool, bool]] = []

    class Watched(Smooth):
        def players(self) -> dict[str, Player]:
            both = super().players()
            for name, player in both.items():
                player.objectives.append(Objective("watch", self.watch(name)))
            return both

        @staticmethod
        def watch(player: str) -> Callable[[Live, Batch], Tensor]:
            def value(live: Live, batch: Batch) -> Tensor:
                later = {name for name, net in live.networks.items() if isinstance(net, Foreseen)}
                seen.append((player, "D" in later, "G" in later))
                return live.logits("fake", batch).sum() * 0.0

            return value

    live = doubled(Watched, options(unroll=2))
    live.run_step()
    ordinary = ("D", False, False)
    # D's own move; its loss at theta^(0) and theta^(1), by G's move; then G's own, at theta^(2)
    assert seen == [ordinary, ("D", True, False), ("D", True, False), ("G", True, False)]
    assert not any(isinstance(network, Foreseen) for network in live.networks.values())


def test_the_present_networks_come_back_when_an_objective_fails() -> None:
    class Broken(Smooth):
        def players(self) -> dict[str, Player]:
            both = super().players()
            both["G"].objectives.append(Objective("broken", self.fail))
            return both

        @staticmethod
        def fail(live: Live, batch: Batch) -> Tensor:
            raise RuntimeError("broken")

    live = doubled(Broken, options(unroll=2))
    network = live.networks["D"]
    with pytest.raises(RuntimeError, match="broken"):
        live.run_step()
    assert live.networks["D"] is network
    assert all(p.requires_grad for net in live.networks.values() for p in net.parameters())


def test_a_foreseen_network_has_no_weights_of_its_own() -> None:
    network = nn.Linear(2, 1)
    later = Foreseen(network, {"weight": torch.full((1, 2), 3.0), "bias": torch.ones(1)})
    assert list(later.parameters()) == [] and later.state_dict() == {}
    assert torch.equal(later(torch.tensor([[1.0, 2.0]])), torch.tensor([[10.0]]))
    assert not torch.equal(network(torch.tensor([[1.0, 2.0]])), torch.tensor([[10.0]]))


def test_a_batch_without_its_logits_is_otherwise_the_same() -> None:
    batch: Batch = {"real": torch.ones(1), "real logits": torch.ones(2), "fake logits": [], "z": 3}
    fresh = without_logits(batch)
    assert set(fresh) == {"real", "z"} and fresh["real"] is batch["real"]
    assert cast(Any, batch)["fake logits"] == []  # the batch itself keeps them
