"""One training step: who moves, what they minimise, what they see, and what a step that fails leaves behind."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan.runtime.errors import CheckpointError, InputError, TrainingDivergedError
from gan.trainer.config import default_ema_decay, make_options
from gan.trainer.distributed import World
from gan.trainer.engine import Means, Training, gradient_norm, stage_at
from gan.trainer.objectives import r2_penalty
from gan.trainer.parts import Augmentation, Batch, DataInfo, Live, Objective, Player, Stage, Turn
from gan.trainer.system import System
from gan.trainer.systems.dcgan import DCGAN
from gan.trainer.trees import Tree

from .conftest import (
    CPU,
    TINY,
    Point,
    PointOptions,
    config,
    images,
    points,
    same,
    training,
    weights,
)


def small_dcgan(**given: Any) -> Training:
    """Batch norm in both networks, on 24 grey images of 16 pixels."""
    data = images(24, 16)
    sizes = {name: value for name, value in TINY.items() if name != "resolution"}
    return training(DCGAN, data=data, options=make_options(DCGAN, data.info, {**sizes, **given}))


def logged(target: Training, method: str) -> list[Any]:
    """The arguments of every call of a method of the system, from now on."""
    calls: list[Any] = []
    original = getattr(target.system, method)

    def spy(*arguments: Any) -> Any:
        calls.append(arguments)
        return original(*arguments)

    setattr(target.system, method, spy)
    return calls


def parameter(network: nn.Module, name: str = "weight") -> nn.Parameter:
    return network.get_parameter(name)


# Objectives.


class Lazy(Point):
    """D minimises 2 * a + 5 * b at each third step, where a and b are its weight and its bias."""

    calls: list[tuple[str, int]]

    def players(self) -> dict[str, Player]:
        self.calls = []

        def value(name: str) -> Callable[[Live, Batch], Tensor]:
            def measure(live: Live, batch: Batch) -> Tensor:
                self.calls.append((name, live.step))
                return parameter(live.networks["D"], name).sum()

            return measure

        d = [Objective("a", value("weight"), 2.0), Objective("b", value("bias"), 5.0, every=3)]
        return {"D": Player(("D",), d), "G": Player(("G",), [Objective("c", lambda *_: g(*_))])}


def g(live: Live, batch: Batch) -> Tensor:
    return live.networks["G"](batch["z"]).sum()


def test_an_objective_counts_by_its_weight_and_a_lazy_one_k_times_at_each_kth_step() -> None:
    live = training(Lazy)
    system = live.system
    assert isinstance(system, Lazy)
    for step in range(7):
        live.run_step()
        network = live.networks["D"]
        assert parameter(network).grad == 2.0
        bias = parameter(network, "bias").grad
        assert bias == 15.0 if step % 3 == 0 else bias in (None, 0.0)
    assert [step for name, step in system.calls if name == "bias"] == [0, 3, 6]
    assert [step for name, step in system.calls if name == "weight"] == list(range(7))


def test_the_losses_are_recorded_by_player_and_by_term() -> None:
    live = training(Lazy)
    start = weights(live.networks["D"])
    live.run_step()
    values = live.means.take()
    expected = {"a": 2 * start["weight"].item(), "b": 15 * start["bias"].item()}
    assert values["loss/D/a"] == pytest.approx(expected["a"])
    assert values["loss/D/b"] == pytest.approx(expected["b"])
    assert values["loss/D"] == pytest.approx(sum(expected.values()))
    assert values["gradient/D"] == pytest.approx(math.hypot(2, 15))
    assert "loss/G/c" not in values  # one term alone is the loss
    assert live.means.take() == {}


def test_a_player_with_nothing_due_does_not_move() -> None:
    class Sometimes(Lazy):
        def players(self) -> dict[str, Player]:
            both = super().players()
            both["D"].objectives.pop(0)
            return both

    live = training(Sometimes)
    for step in range(6):
        before = weights(live.networks["D"])
        live.run_step()
        assert same(before, weights(live.networks["D"])) == (step % 3 != 0)


def test_an_optimiser_gets_its_players_rates_and_betas() -> None:
    live = training(
        options=PointOptions(g_learning_rate=0.1, d_learning_rate=0.3, beta1=0.2, beta2=0.7)
    )
    live.run_step()
    rates = {name: o.param_groups[0]["lr"] for name, o in live.optimizers.items()}
    assert rates == {"D": 0.3, "G": 0.1}
    assert all(o.param_groups[0]["betas"] == (0.2, 0.7) for o in live.optimizers.values())


def test_the_first_move_is_adams() -> None:
    live = training(Lazy)
    before = weights(live.networks["D"])
    live.run_step()
    moved = weights(live.networks["D"])
    for name in ("weight", "bias"):  # Adam's first step is the rate, against the gradient's sign
        assert (moved[name] - before[name]).item() == pytest.approx(-2e-4, rel=1e-3)


# Players.


@pytest.mark.parametrize(("mover", "other"), [("D", "G"), ("G", "D")])
def test_a_move_changes_no_weight_and_no_gradient_of_the_other_player(
    mover: str, other: str
) -> None:
    live = small_dcgan(r1=1.0, loss="relativistic")
    for p in live.networks[other].parameters():
        p.grad = torch.full_like(p, 7.0)
    before = weights(live.networks[other])
    moved = weights(live.networks[mover])
    optimizer = copy.deepcopy(live.optimizers[other].state_dict()["state"])
    live.stages = [Stage((Turn(mover),))]
    live.run_step()
    buffers = {name for name, _ in live.networks[other].named_buffers()}
    assert buffers  # running statistics do follow every forward pass
    for name, tensor in live.networks[other].state_dict().items():
        if name not in buffers:
            assert torch.equal(tensor, before[name])
    for p in live.networks[other].parameters():
        assert p.grad is not None and torch.equal(p.grad, torch.full_like(p, 7.0))
    assert same(live.optimizers[other].state_dict()["state"], optimizer)
    changed = [
        not torch.equal(p, moved[name]) for name, p in live.networks[mover].named_parameters()
    ]
    assert all(changed)


def test_the_other_player_records_no_graph() -> None:
    live = small_dcgan()
    calls = logged(live, "discriminate")
    live.stages = [Stage((Turn("D"),))]
    live.run_step()
    assert not any(sample.requires_grad for _, sample, _ in calls)
    live.stages = [Stage((Turn("G"),))]
    calls.clear()
    live.run_step()
    assert all(sample.requires_grad for _, sample, _ in calls)
    assert all(p.requires_grad for n in live.networks.values() for p in n.parameters())


def test_a_player_may_own_several_networks() -> None:
    class Two(Point):
        def networks(self) -> dict[str, nn.Module]:
            return {**super().networks(), "E": nn.Linear(1, 1)}

        def generate(self, live: Live, batch: Batch) -> Batch:
            fake = live.networks["E"](live.networks["G"](batch["z"]))
            return {"fake": fake[:, :, None, None]}

        def players(self) -> dict[str, Player]:
            both = super().players()
            both["G"].networks = ("G", "E")
            return both

    live = training(Two)
    before = {name: weights(network) for name, network in live.networks.items()}
    live.run_step()
    for name in ("D", "G", "E"):
        assert not same(before[name], weights(live.networks[name]))
    assert set(live.averaged) == {"G", "E"}


def test_what_comes_after_a_move_sees_the_new_weights() -> None:
    class Clipped(Point):
        def players(self) -> dict[str, Player]:
            both = super().players()

            def clip(live: Live) -> None:
                with torch.no_grad():
                    for p in live.networks["D"].parameters():
                        p.clamp_(-0.01, 0.01)

            both["D"].after = (clip,)
            return both

    live = training(Clipped)
    for _ in range(3):
        live.run_step()
        assert all(p.abs().max() <= 0.01 for p in live.networks["D"].parameters())


# What the discriminators see.


class Logged(Augmentation):
    """Leaves its name, the sample and the step of each call in a log."""

    def __init__(self, log: list[tuple[str, Tensor, int]]) -> None:
        self.log = log

    def __call__(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        self.log.append((self.name, sample, live.step))
        return self.change(sample)

    def change(self, sample: Tensor) -> Tensor:
        raise NotImplementedError


class Double(Logged):
    name = "double"

    def change(self, sample: Tensor) -> Tensor:
        return 2 * sample


class Shift(Logged):
    name = "shift"

    def change(self, sample: Tensor) -> Tensor:
        return sample + 3


class Seen(Point):
    """Two augmentations: times 2, plus 3."""

    log: list[tuple[str, Tensor, int]]

    def augmentations(self) -> list[Augmentation]:
        self.log = []
        return [Double(self.log), Shift(self.log)]


def test_augmentations_are_applied_alike_to_real_and_fake_in_their_order() -> None:
    live = training(Seen)
    system = live.system
    assert isinstance(system, Seen)
    calls = logged(live, "discriminate")
    live.run_step()
    live.run_step()
    assert [name for name, _, _ in system.log] == ["double", "shift"] * 6
    assert [step for _, _, step in system.log] == [0] * 6 + [1] * 6
    # D: real, fake; G: fake; in each of two steps
    assert len(calls) == 6
    for (_, sample, batch), is_real in zip(calls, [True, False, False] * 2, strict=True):
        assert torch.equal(sample, 2 * batch["real" if is_real else "fake"] + 3)


class Form(Logged):
    """The form that the generators make, here by the knob: for reals only."""

    name = "form"
    reals_only = True

    def __call__(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        self.log.append((self.name, sample, live.step))
        return live.knobs["form"] * sample


class Formed(Seen):
    """Reals times the knob "form", then times 2 and plus 3 for all."""

    def augmentations(self) -> list[Augmentation]:
        others = super().augmentations()
        return [others[0], Form(self.log), others[1]]

    def schedules(self) -> dict[str, Callable[[float], float]]:
        return {"form": lambda t: 0.5 + t}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_augmentation_for_reals_only_is_applied_once_when_they_are_drawn(
    accumulate: int,
) -> None:
    options = PointOptions(loss="relativistic", r1=1.0, r2=1.0, gp=1.0, accumulate=accumulate)
    live = training(Formed, options=options)
    system = live.system
    assert isinstance(system, Formed)
    plain = training(options=options)  # draws the same data
    calls, made = logged(live, "discriminate"), logged(live, "generate")
    drawn = logged(plain, "generate")
    for step in range(3):
        for log in (calls, made, drawn, system.log):
            log.clear()
        live.run_step()
        plain.run_step()
        assert [name for name, _, _ in system.log].count("form") == 2  # once a move: D, G
        form = 0.5 + step / 10
        for (_, ours), (_, theirs) in zip(made, drawn, strict=True):
            assert torch.allclose(ours["real"], form * theirs["real"], rtol=1e-6)
            assert same(ours["z"], theirs["z"])
        assert len(calls) == 5 * accumulate  # D: real, fake, between them; G: real, fake
        seen = [next(n for n in ("real", "fake", "mixed") if n in b and is_of(x, b[n]))
                for _, x, b in calls]  # fmt: skip
        assert sorted(seen) == sorted(["real", "fake", "mixed", "real", "fake"] * accumulate)


def is_of(seen: Tensor, sample: Tensor) -> bool:
    """Whether it is the sample as the two augmentations for all make it."""
    return torch.equal(seen, 2 * sample + 3)


def test_penalties_are_taken_by_the_reals_in_their_form() -> None:
    live = training(Formed, options=PointOptions(r1=2.0, gp=1.0, d_learning_rate=0.0))
    w = 2 * parameter(live.networks["D"]).item()  # D sees twice the sample
    live.run_step()
    means = live.means.take()
    assert means["loss/D/r1"] == pytest.approx(w**2, rel=1e-5)
    assert means["loss/D/gp"] == pytest.approx((abs(w) - 1) ** 2, rel=1e-5)


@pytest.mark.parametrize(("loss", "of_g"), [("non-saturating", 1), ("relativistic", 2)])
def test_logits_are_computed_once_a_batch_however_many_terms_read_them(
    loss: str, of_g: int
) -> None:
    live = training(Seen, options=PointOptions(loss=loss, r1=1.0, r2=1.0))
    calls = logged(live, "discriminate")
    live.stages = [Stage((Turn("D"),))]
    live.run_step()
    assert len(calls) == 2
    calls.clear()
    live.stages = [Stage((Turn("G"),))]
    live.run_step()
    assert len(calls) == of_g


def test_a_term_may_differentiate_by_what_it_names_and_only_when_it_is_due() -> None:
    live = training(options=PointOptions(r1=1.0, penalty_every=2))
    calls = logged(live, "discriminate")
    live.stages = [Stage((Turn("D"),))]
    needed = []
    for _ in range(4):
        calls.clear()
        live.run_step()
        needed.append([sample.requires_grad for _, sample, _ in calls])
    assert needed == [[True, False], [False, False]] * 2
    live = training(options=PointOptions(r2=1.0))
    calls = logged(live, "discriminate")
    live.run_step()
    assert [sample.requires_grad for _, sample, _ in calls[:2]] == [False, True]


def test_a_term_of_g_that_differentiates_by_the_fakes_leaves_g_its_gradient() -> None:
    class Smooth(Point):
        def players(self) -> dict[str, Player]:
            both = super().players()
            both["G"].objectives.append(Objective("smooth", r2_penalty, 0.0, 1, ("fake",)))
            return both

    plain, smooth = training(), training(Smooth)
    for live in (plain, smooth):
        live.run_step()
    assert same(weights(plain.networks["G"]), weights(smooth.networks["G"]))


def test_a_penalty_pulls_the_discriminators_weight_to_zero() -> None:
    live = training(options=PointOptions(r1=1e4, d_learning_rate=0.01))
    with torch.no_grad():
        parameter(live.networks["D"]).fill_(0.5)
    live.stages = [Stage((Turn("D"),))]
    for _ in range(100):
        live.run_step()
    assert parameter(live.networks["D"]).abs().item() < 0.02  # gamma/2 * w^2 outweighs all else


# Data and random inputs.


def test_moves_draw_their_own_data_and_their_own_latents() -> None:
    live = training(options=PointOptions(d_moves=2))
    calls = logged(live, "generate")
    for _ in range(3):
        live.run_step()
    batches = [batch for _, batch in calls]
    assert len(batches) == 9
    assert len({tuple(batch["z"].flatten().tolist()) for batch in batches}) == 9
    noise = [torch.rand(3, generator=batch["source"]).tolist() for batch in batches]
    assert len(set(map(tuple, noise))) == 9  # what augmentations draw from
    seen = torch.cat([batch["real"].flatten() for batch in batches])  # 36 = 3 epochs of 12
    expected = sorted((points().samples / 127.5 - 1).flatten().tolist())
    for epoch in seen.split(12):
        assert sorted(epoch.tolist()) == pytest.approx(expected, abs=1e-6)
    assert live.position == 36 and live.images_seen == 12 and live.step == 3


def test_a_step_is_a_function_of_the_seed_and_its_number_alone() -> None:
    def latents(seed: int, disturb: bool = False) -> list[Tensor]:
        live = training(seed=seed)
        calls = logged(live, "generate")
        for _ in range(3):
            if disturb:
                torch.rand(5)
                np.random.default_rng().random()
            live.run_step()
        return [batch["z"] for _, batch in calls]

    assert same(latents(1), latents(1, disturb=True))
    assert not same(latents(1), latents(2))


def test_initial_weights_are_those_of_the_seed() -> None:
    torch.manual_seed(3)
    first = training(seed=5)
    torch.manual_seed(4)
    second, other = training(seed=5), training(seed=6)
    for name in ("G", "D"):
        assert same(weights(first.networks[name]), weights(second.networks[name]))
        assert not same(weights(first.networks[name]), weights(other.networks[name]))


def test_labels_come_with_their_images_where_the_system_uses_them() -> None:
    data = points()
    data.labels, data.classes = np.arange(12, dtype=np.int64), tuple("abcdefghijkl")
    for use in (True, False):
        live = training(data=data, options=PointOptions(labels=use))
        calls = logged(live, "generate")
        live.run_step()
        for _, batch in calls:
            assert ("label" in batch) == use
            if use:
                pixels = ((batch["real"] + 1) * 127.5).round().flatten().tolist()
                assert [value / 20 for value in pixels] == batch["label"].tolist()


def test_mirroring_turns_about_half_of_the_images_and_the_same_ones_again() -> None:
    data = images(24)
    straight = {image.tobytes() for image in data.samples}
    mirrored = {image[..., ::-1].tobytes() for image in data.samples}

    def run(mirror: bool) -> list[bytes]:
        sizes = {name: value for name, value in TINY.items() if name != "resolution"}
        options = make_options(DCGAN, data.info, sizes)
        live = training(DCGAN, data=data, options=options, mirror=mirror)
        calls = logged(live, "generate")
        for _ in range(6):
            live.run_step()
        rows = [((batch["real"] + 1) * 127.5).round().byte().numpy() for _, batch in calls]
        return [image.tobytes() for batch in rows for image in batch]

    first = run(mirror=True)
    assert all(image in straight or image in mirrored for image in first)
    assert 10 <= sum(image in mirrored for image in first) <= 38  # of 48
    assert run(mirror=True) == first
    assert all(image in straight for image in run(mirror=False))


# Stages and schedules.


def test_stage_boundaries_follow_the_shares() -> None:
    stages = [Stage((), share=share) for share in (1.0, 2.0, 1.0)]
    at = [stage_at(stages, step, 8) for step in range(8)]
    assert [number for number, _ in at] == [0, 0, 1, 1, 1, 1, 2, 2]
    assert [progress for _, progress in at] == [0.0, 0.5, 0.0, 0.25, 0.5, 0.75, 0.0, 0.5]


def test_boundaries_between_steps_belong_to_the_later_stage() -> None:
    stages = [Stage((), share=1.0) for _ in range(3)]
    numbers = [stage_at(stages, step, 10)[0] for step in range(10)]  # ends at 3.33 and 6.67
    assert numbers == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert all(0 <= stage_at(stages, step, 10)[1] < 1 for step in range(10))
    assert stage_at(stages, 25, 10)[0] == 2  # beyond the end: the last


def test_a_run_that_grows_keeps_its_boundaries_and_its_last_stage_takes_all_that_is_added() -> None:
    stages = [Stage((), share=share) for share in (1.0, 2.0, 1.0)]
    grown = [stage_at(stages, step, 20, 8) for step in range(20)]
    assert [number for number, _ in grown] == [0, 0, 1, 1, 1, 1] + [2] * 14
    assert grown[:6] == [stage_at(stages, step, 8) for step in range(6)]
    assert [progress for _, progress in grown[6:]] == [i / 14 for i in range(14)]
    (only, progress) = stage_at([Stage(())], 15, 20, 8)  # a run of one stage is as if planned so
    assert only == 0 and progress == 0.75


class Staged(Point):
    """First only D, 4 images a move; then D twice and G, 2 images a move, by optimisers that begin anew."""

    fresh = True

    def stages(self) -> list[Stage]:
        late = (Turn("D", 2), Turn("G"))
        knob = {"late": lambda t: t}
        return [
            Stage((Turn("D"),), share=1.0),
            Stage(late, 3.0, knob, batch_size=2, fresh_optimizers=self.fresh),
        ]


class Continued(Staged):
    fresh = False


def moments(live: Training, name: str) -> dict[str, Tensor]:
    """What a player's optimiser remembers of its first parameter."""
    first = next(live.networks[name].parameters())
    return dict(live.optimizers[name].state.get(first, {}))


def moves_remembered(live: Training, name: str) -> int:
    return int(moments(live, name).get("step", 0))


def test_a_stage_says_who_moves_and_how_often() -> None:
    live = training(Staged, steps=8)
    moves: list[str] = []
    live.players["D"].after = (lambda live: moves.append("D"),)
    live.players["G"].after = (lambda live: moves.append("G"),)
    for _ in range(8):
        live.run_step()
    assert moves == ["D"] * 2 + ["D", "D", "G"] * 6


@pytest.mark.parametrize(
    ("kind", "of_d"), [(Staged, [1, 2, 2, 4, 6]), (Continued, [1, 2, 4, 6, 8])]
)
def test_optimisers_forget_all_at_the_first_step_of_a_stage_that_says_so_and_at_no_other(
    kind: type[System], of_d: list[int]
) -> None:
    live = training(kind, steps=8)
    seen = []
    for _ in range(5):
        live.run_step()
        seen.append([moves_remembered(live, name) for name in ("D", "G")])
    assert seen == [list(pair) for pair in zip(of_d, [0, 0, 1, 2, 3], strict=True)]


def test_optimisers_forget_though_the_stage_that_says_so_is_shorter_than_a_step() -> None:
    class Brief(Point):
        def stages(self) -> list[Stage]:
            return [
                Stage(self.turns()),
                Stage(self.turns(), share=0.01, fresh_optimizers=True),
                Stage(self.turns()),
            ]

    live = training(Brief, steps=8)
    seen = []
    for _ in range(8):
        live.run_step()
        seen.append(moves_remembered(live, "D"))
    assert seen == [1, 2, 3, 4, 1, 2, 3, 4]


def test_after_its_first_move_in_such_a_stage_each_optimiser_knows_that_gradient_alone() -> None:
    class Same(Point):
        def stages(self) -> list[Stage]:
            return [Stage(self.turns()), Stage(self.turns(), fresh_optimizers=True)]

    live = training(Same, steps=8, options=PointOptions(beta1=0.5, beta2=0.75))
    for step in range(8):
        live.run_step()
        for name in ("D", "G"):
            gradient = parameter(live.networks[name]).grad
            assert gradient is not None
            only = [0.5 * gradient, 0.25 * gradient.square()]  # 1 - beta1 and 1 - beta2 of it
            known = [moments(live, name)[moment] for moment in ("exp_avg", "exp_avg_sq")]
            alone = [torch.allclose(a, b, rtol=1e-6) for a, b in zip(known, only, strict=True)]
            assert all(alone) == (step in (0, 4))


@pytest.mark.parametrize("stop", [1, 2, 3, 7])
def test_a_resumed_run_of_several_stages_ends_with_the_same_bits(stop: int) -> None:
    """2 is the boundary itself: the stage begins after the resume. From 3 on it has begun, and does not begin again."""
    whole, first, resumed = (training(Staged, steps=8) for _ in range(3))
    for _ in range(8):
        whole.run_step()
    for _ in range(stop):
        first.run_step()
    resumed.load_state(copy.deepcopy(first.state()))
    for _ in range(8 - stop):
        resumed.run_step()
    assert same(whole.state(), resumed.state())
    assert (moves_remembered(resumed, "D"), moves_remembered(resumed, "G")) == (12, 6)


@pytest.mark.parametrize("stop", [1, 3, 8])
def test_a_run_of_several_stages_that_grows_goes_on_where_it_was(stop: int) -> None:
    """With boundaries of 32 steps, which are at 8, each would fall back into the first stage."""
    live = training(Staged, steps=8)
    for _ in range(stop):
        live.run_step()
    for steps in (16, 32):  # it grows twice
        grown = training(Staged, steps=steps)
        grown.load_state(copy.deepcopy(live.state()))
        live = grown
    moves: list[str] = []
    live.players["G"].after = (lambda live: moves.append("G"),)
    progress = []
    for _ in range(stop, 12):
        live.run_step()
        progress.append(live.knobs.get("late"))
    late = [(step - 2) / 30 for step in range(max(stop, 2), 12)]
    assert progress == [None] * (12 - stop - len(late)) + late
    assert len(moves) == len(late)
    assert live.stage_number == 1 and live.state()["progress"]["planned"] == 8
    assert moves_remembered(live, "G") == 10  # at steps 2 to 11: nothing was forgotten


def test_a_batch_has_the_size_of_its_stage_and_the_images_seen_add_up() -> None:
    data = points()
    data.labels, data.classes = np.arange(12, dtype=np.int64), tuple("abcdefghijkl")
    live = training(Staged, data=data, steps=8)
    calls, seen, sizes = logged(live, "generate"), [], []
    for _ in range(8):
        sizes.append(live.batch_size)
        live.run_step()
        seen.append(live.images_seen)
    assert sizes == [4] * 2 + [2] * 6
    assert seen == [4, 8, 10, 12, 14, 16, 18, 20]  # a step's images once, however many moves
    batches = [batch for _, batch in calls]
    assert len(batches) == 2 + 6 * 3
    for name in ("real", "z", "label"):
        assert [len(batch[name]) for batch in batches] == [4] * 2 + [2] * 18
    assert live.position == 2 * 4 + 18 * 2
    labels = torch.cat([batch["label"] for batch in batches]).tolist()
    for begin in (0, 12, 24):  # each epoch goes on from one stage to the next, every image once
        assert sorted(labels[begin : begin + 12]) == list(range(12))


@pytest.mark.parametrize("sizes", [(5, 4), (4, 5), (4, None, 5)])
@pytest.mark.parametrize(("processes", "accumulate"), [(2, 1), (1, 2)])
def test_a_batch_that_cannot_be_dealt_out_is_refused_in_whichever_stage_it_is(
    sizes: tuple[int | None, ...], processes: int, accumulate: int
) -> None:
    class Sized(Point):
        def stages(self) -> list[Stage]:
            return [Stage(self.turns(), batch_size=size) for size in sizes]

    def make(kind: type[System], batch_size: int = 4) -> Training:
        options = PointOptions(batch_size=batch_size, accumulate=accumulate)
        system, world = kind(options, points().info), World(0, processes)
        return Training(system, points(), config(), CPU, world)

    with pytest.raises(InputError, match=r"cannot be dealt out evenly.*5 images"):
        make(Sized)
    with pytest.raises(InputError, match=r"cannot be dealt out evenly.*7 images"):
        make(Point, 7)
    make(Point)


def test_an_objective_with_a_weight_of_0_is_not_computed_and_others_are_multiplied() -> None:
    class Late(Lazy):
        def stages(self) -> list[Stage]:
            weights = {"weight/a": lambda t: 0.0 if t < 0.5 else 0.25, "weight/c": lambda t: t}
            return [Stage((Turn("D"), Turn("G")), schedules=weights)]

    live = training(Late, steps=10)
    system = live.system
    assert isinstance(system, Late)
    for step in range(10):
        before = weights(live.networks["G"])
        live.run_step()
        gradient = parameter(live.networks["D"]).grad
        assert gradient == 0.5 if step >= 5 else gradient in (None, 0.0)
        names = {name for name in live.means.take() if name.startswith("loss/D")}
        assert ("loss/D" in names) == (step >= 5 or step % 3 == 0)
        assert ("loss/D/a" in names) == (step == 6 or step == 9)
        # a player without any other objective does not move: t is 0 in the first step
        assert same(before, weights(live.networks["G"])) == (step == 0)
    assert [step for name, step in system.calls if name == "weight"] == [5, 6, 7, 8, 9]
    assert [step for name, step in system.calls if name == "bias"] == [0, 3, 6, 9]


def test_the_learning_rate_knob_multiplies_every_players_rate() -> None:
    options = PointOptions(decay_share=0.5, g_learning_rate=0.1, d_learning_rate=0.4)
    live = training(options=options, steps=10)
    rates = []
    for _ in range(10):
        live.run_step()
        rates.append([live.optimizers[name].param_groups[0]["lr"] for name in ("D", "G")])
    factors = [1.0] * 6 + [0.8, 0.6, 0.4, 0.2]
    assert rates == [pytest.approx([0.4 * factor, 0.1 * factor]) for factor in factors]


def test_knobs_are_functions_of_the_progress_through_their_stage() -> None:
    class Knobs(Point):
        def stages(self) -> list[Stage]:
            turns = (Turn("D"),)
            return [
                Stage(turns, schedules={"noise": lambda t: 1 - t}),
                Stage(turns, schedules={"alpha": lambda t: t}),
            ]

    live, seen = training(Knobs, steps=8), []
    for _ in range(8):
        live.run_step()
        seen.append(dict(live.knobs))
    assert seen == [{"noise": t} for t in (1.0, 0.75, 0.5, 0.25)] + [
        {"alpha": t} for t in (0.0, 0.25, 0.5, 0.75)
    ]


# The moving average.


def test_the_average_follows_its_formula_and_copies_buffers() -> None:
    live = small_dcgan()
    network, averaged = live.networks["G"], live.averaged["G"]
    names = [name for name, _ in network.named_parameters()]
    expected = {name: p.detach().double() for name, p in network.named_parameters()}
    assert same(weights(network), weights(averaged))
    for step in range(1, 31):
        live.run_step()
        decay = min(0.99, (1 + step) / (10 + step))  # the warm-up: short memory at first
        for name in names:
            now = network.get_parameter(name).detach().double()
            expected[name] = decay * expected[name] + (1 - decay) * now
            got = averaged.get_parameter(name).double()
            assert torch.allclose(got, expected[name], rtol=0, atol=2e-6)
        for (_, ours), (_, theirs) in zip(
            averaged.named_buffers(), network.named_buffers(), strict=True
        ):
            assert torch.equal(ours, theirs)
    gap = max((network.get_parameter(n) - averaged.get_parameter(n)).abs().max() for n in names)
    assert gap > 1e-4  # it is an average, not a copy
    assert not averaged.training and not any(p.requires_grad for p in averaged.parameters())
    assert set(live.averaged) == {"G"}


def test_the_decay_reaches_the_configured_one_after_its_warm_up() -> None:
    live = training(ema_decay=0.25, options=PointOptions(g_learning_rate=0.0))
    with torch.no_grad():
        for p in live.averaged["G"].parameters():
            p.add_(1.0)
    gaps = []
    for _ in range(6):
        live.run_step()
        gap = parameter(live.averaged["G"]) - parameter(live.networks["G"])
        gaps.append(gap.max().item())
    decays = [
        2 / 11,
        0.25,
        0.25,
        0.25,
        0.25,
        0.25,
    ]  # (1 + 1) / (10 + 1), then 0.25 = (1 + 2) / (10 + 2)
    assert gaps == pytest.approx([math.prod(decays[: i + 1]) for i in range(6)], rel=1e-3)


def decay_at(live: Training, step: int, seen: int | None = None) -> float:
    """What the average keeps of itself in one step of weights that do not move, after so many images."""
    live.step, live.images_seen = step, 4 * step if seen is None else seen
    with torch.no_grad():
        for ours, theirs in zip(
            live.averaged["G"].parameters(), live.networks["G"].parameters(), strict=True
        ):
            ours.copy_(theirs + 1.0)
    live.run_step()
    gap = parameter(live.averaged["G"]) - parameter(live.networks["G"])
    return gap.mean().item()


STILL = PointOptions(g_learning_rate=0.0)


def test_the_last_step_of_a_stage_averages_by_its_own_batch() -> None:
    class Shrinking(Point):
        def stages(self) -> list[Stage]:
            half_life = {"ema_half_life": lambda t: 100.0}
            return [Stage(self.turns(), schedules=half_life, batch_size=n) for n in (8, 2)]

    live = training(Shrinking, ema_decay=None, steps=100_000, options=STILL)
    for step, batch in ((49_998, 8), (49_999, 8), (50_000, 2)):
        assert decay_at(live, step) == pytest.approx(0.5 ** (batch / 100), abs=1e-6)


@pytest.mark.parametrize("steps", [100, 3000, 15_000])
def test_without_a_chosen_decay_it_is_that_of_the_length_of_the_run(steps: int) -> None:
    live = training(ema_decay=None, steps=steps, options=STILL)
    assert decay_at(live, 50_000) == pytest.approx(default_ema_decay(steps), abs=1e-6)


def test_a_run_that_grows_averages_longer_unless_its_decay_was_chosen() -> None:
    for chosen, decays in ((None, [0.99, 0.995]), (0.7, [0.7, 0.7])):
        live = training(ema_decay=chosen, steps=1000, options=STILL)
        grown = training(ema_decay=chosen, steps=3000, options=STILL)
        grown.load_state(copy.deepcopy(live.state()))
        assert [decay_at(t, 50_000) for t in (live, grown)] == pytest.approx(decays, abs=1e-6)


def test_a_half_life_in_images_is_the_decay_where_none_was_chosen() -> None:
    class Half(Point):
        def schedules(self) -> dict[str, Callable[[float], float]]:
            return {"ema_half_life": lambda t: 100.0}

    live = training(Half, ema_decay=None, options=STILL)
    assert decay_at(live, 50_000) == pytest.approx(0.5 ** (4 / 100), abs=1e-6)  # 4 images a step
    # a twentieth of the 4 * 400 images seen, where that is less
    assert decay_at(live, 399) == pytest.approx(0.5 ** (4 / 80), abs=1e-6)
    live = training(Half, ema_decay=0.7, options=STILL)
    assert decay_at(live, 50_000) == pytest.approx(0.7, abs=1e-6)


def test_a_half_life_in_images_counts_those_of_the_stages_own_batches() -> None:
    class Halves(Point):
        def stages(self) -> list[Stage]:
            half_life = {"ema_half_life": lambda t: 100.0}
            return [Stage(self.turns(), schedules=half_life, batch_size=size) for size in (2, 8)]

    live = training(Halves, ema_decay=None, options=STILL, steps=100_000)
    assert decay_at(live, 40_000) == pytest.approx(0.5 ** (2 / 100), abs=1e-6)
    assert decay_at(live, 60_000) == pytest.approx(0.5 ** (8 / 100), abs=1e-6)
    few = decay_at(live, 60_000, seen=792)  # and 8 more in this step
    assert few == pytest.approx(0.5 ** (8 / (0.05 * 800)), abs=1e-6)


# Numbers that are not finite.


def spoil_data(live: Training, at: Callable[[int], bool]) -> None:
    original = live.data.samples_of

    def spoilt(indices: Any, device: torch.device, *, whole: bool = False) -> Tensor:
        real = original(indices, device, whole=whole)
        return real * float("nan") if at(live.step) else real

    live.data.samples_of = spoilt  # type: ignore[method-assign]


def spoil_loss(live: Training, player: str, at: Callable[[int], bool], by: float) -> None:
    objective = live.players[player].objectives[0]
    original = objective.value
    objective.value = lambda l, b: original(l, b) + (by if at(live.step) else 0.0)


def spoil_gradient(live: Training, player: str, at: Callable[[int], bool]) -> None:
    p = next(live.networks[player].parameters())
    p.register_hook(lambda grad: grad * float("inf") if at(live.step) else grad)


def all_finite(live: Training) -> bool:
    networks = [*live.networks.values(), *live.averaged.values()]
    return all(
        bool(torch.isfinite(tensor).all()) for n in networks for tensor in n.state_dict().values()
    )


@pytest.mark.parametrize(
    "kind", ["data", "loss of D", "loss of G", "gradient of D", "gradient of G"]
)
def test_a_move_that_is_not_finite_is_skipped_and_counted(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    live = small_dcgan()

    def at(step: int) -> bool:
        return step == 2

    player = "D" if kind == "data" else kind[-1]
    if kind == "data":
        spoil_data(live, at)
    elif kind.startswith("loss"):
        spoil_loss(live, player, at, float("nan"))
    else:
        spoil_gradient(live, player, at)
    live.run_step()
    live.run_step()
    before = weights(live.networks[player])
    moments = copy.deepcopy(live.optimizers[player].state_dict()["state"])
    with caplog.at_level(logging.WARNING, "gan.trainer"):
        live.run_step()
    assert live.skipped == 1
    for name, p in live.networks[player].named_parameters():
        assert torch.equal(p, before[name])
    assert same(live.optimizers[player].state_dict()["state"], moments)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"Step 2: skipped a move of {player} (loss ")
    assert all_finite(live)
    for _ in range(3):
        live.run_step()
    assert live.skipped == 1 and live.skipped_in_a_row[player] == 0
    assert not same(before, weights(live.networks[player])) and all_finite(live)
    assert all(map(math.isfinite, live.means.take().values()))


@pytest.mark.parametrize("by", [float("nan"), float("inf"), -float("inf")])
def test_ten_in_a_row_end_the_training_with_finite_weights(by: float) -> None:
    live = small_dcgan()
    live.run_step()
    spoil_loss(live, "D", lambda step: True, by)
    spoil_loss(live, "G", lambda step: True, by)
    with pytest.raises(TrainingDivergedError, match="10 moves of D in a row") as caught:
        for _ in range(50):
            live.run_step()
    assert live.step == 10 and live.skipped == 19
    assert "learning rate" in caught.value.repair
    assert all_finite(live)


def test_one_player_that_never_moves_ends_the_training_though_the_other_does() -> None:
    live = small_dcgan()
    spoil_data(live, lambda step: True)  # D reads the data, G does not
    with pytest.raises(TrainingDivergedError, match="10 moves of D in a row"):
        for _ in range(50):
            live.run_step()
    assert live.step == 9 and all_finite(live)


def test_nine_in_a_row_do_not() -> None:
    live = training(steps=100)
    spoil_loss(live, "G", lambda step: step % 10 != 0, float("nan"))
    for _ in range(30):
        live.run_step()
    assert live.skipped == 27


def test_the_count_goes_on_after_a_resume() -> None:
    live = training()
    spoil_loss(live, "G", lambda step: True, float("nan"))
    for _ in range(6):
        live.run_step()
    resumed = training()
    resumed.load_state(copy.deepcopy(live.state()))
    assert resumed.skipped == 6
    spoil_loss(resumed, "G", lambda step: True, float("nan"))
    with pytest.raises(TrainingDivergedError):
        for _ in range(4):
            resumed.run_step()


# State.


class Growing(Augmentation):
    """Noise of the batch's own generator, more of it after every step."""

    name = "growing"
    adapts = True
    sigma = 1.0

    def __call__(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        return sample + self.sigma * torch.randn(sample.shape, generator=batch["source"])

    def adapt(self, live: Live, right: float) -> None:
        self.sigma += 1.0 + right

    def state(self) -> dict[str, Any]:
        return {"sigma": self.sigma}

    def load_state(self, state: dict[str, Any]) -> None:
        self.sigma = float(state["sigma"])


class Dropped(Point):
    """Draws from the global generator in D, and from the batch's own for noise that grows."""

    def augmentations(self) -> list[Augmentation]:
        return [Growing()]

    def networks(self) -> dict[str, nn.Module]:
        d = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1))
        return {"G": nn.Linear(self.options.latent, 1), "D": d}


@pytest.mark.parametrize("stop", [0, 1, 5, 11])
def test_a_resumed_training_goes_on_bit_by_bit(stop: int) -> None:
    def make() -> Training:
        options = PointOptions(r1=1.0, penalty_every=2, decay_share=0.5, d_moves=2)
        return training(Dropped, options=options, steps=12)

    whole, first, second = make(), make(), make()
    for _ in range(12):
        whole.run_step()
    for _ in range(stop):
        first.run_step()
    second.load_state(copy.deepcopy(first.state()))
    torch.rand(17)  # the global generator is somewhere else in the resumed process
    for _ in range(12 - stop):
        second.run_step()
    assert same(whole.state(), second.state())
    assert not same(whole.state(), first.state())


def test_a_state_that_does_not_fit_is_refused() -> None:
    live = training(Dropped)
    live.run_step()
    state = live.state()
    junk: list[Any] = [None, "x", [], {}]
    for section in ("networks", "averaged", "optimizers", "progress", "augmentations", "health"):
        for value in junk:
            if section == "augmentations" and value in ([], {}):
                continue  # one that was accepted just now has no state yet
            with pytest.raises(CheckpointError):
                training(Dropped).load_state(copy.deepcopy(state) | {section: value})
        for name in state[section]:
            for value in junk:
                with pytest.raises(CheckpointError):
                    training(Dropped).load_state(
                        copy.deepcopy(state) | {section: {**state[section], name: value}}
                    )
    for name in ("step", "position"):
        with pytest.raises(CheckpointError, match=f"{name} -1"):
            progress = {**state["progress"], name: -1}
            training(Dropped).load_state(copy.deepcopy(state) | {"progress": progress})
    for name, value in (("images_seen", -1), ("planned", 0), ("planned", -5)):
        with pytest.raises(CheckpointError, match="does not fit"):
            progress = {**state["progress"], name: value}
            training(Dropped).load_state(copy.deepcopy(state) | {"progress": progress})
    other = training(Dropped, options=PointOptions(latent=5))
    with pytest.raises(CheckpointError, match=r"do not fit \(G\)"):
        other.load_state(copy.deepcopy(state))


def test_optimiser_state_of_another_shape_is_refused() -> None:
    live = training()
    live.run_step()
    for spoilt in (torch.zeros(7), "x", None):
        state = copy.deepcopy(live.state())
        state["optimizers"]["D"]["state"][0]["exp_avg"] = spoilt
        with pytest.raises(CheckpointError):
            training().load_state(state)
    state = copy.deepcopy(live.state())
    del state["optimizers"]["G"]["state"][0]["exp_avg_sq"]
    with pytest.raises(CheckpointError):
        training().load_state(state)


def test_rates_and_betas_are_the_players_and_not_the_checkpoints() -> None:
    live = training(options=PointOptions(beta1=0.5))
    live.run_step()
    resumed = training(options=PointOptions(beta1=0.9, g_learning_rate=0.7))
    resumed.load_state(copy.deepcopy(live.state()))
    resumed.run_step()
    group = resumed.optimizers["G"].param_groups[0]
    assert group["betas"] == (0.9, 0.999) and group["lr"] == 0.7


# Small parts.


def test_means_are_taken_since_the_last_reading() -> None:
    means = Means()
    for value in (1.0, 2.0, 6.0):
        means.add("a", value)
    means.add("b", 5.0)
    assert means.take() == {"a": 3.0, "b": 5.0}
    means.add("a", 7.0)
    assert means.take() == {"a": 7.0}


def test_the_accuracy_of_both_sides_is_recorded() -> None:
    live = training()
    with torch.no_grad():
        parameter(live.networks["D"]).zero_()
        parameter(live.networks["D"], "bias").fill_(1.0)
    live.stages = [Stage((Turn("D"),))]
    live.run_step()
    values = live.means.take()
    assert (values["accuracy/real"], values["accuracy/fake"]) == (1.0, 0.0)


def test_the_gradient_norm_is_over_all_parameters_with_a_gradient() -> None:
    a, b, c = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    assert gradient_norm([a, b, c]) == 0.0
    a.grad, b.grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    assert gradient_norm([a, b, c]) == 5.0


def test_data_info_reaches_the_system() -> None:
    live = training()
    assert live.system.data == DataInfo((1, 1, 1)) and live.device == CPU
