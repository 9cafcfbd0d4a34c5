"""Every option reaches the training: by hand, by a closed form, or by what another option would have done."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from gan.runtime.errors import InputError
from gan.runtime.signature import Draw
from gan.trainer import systems
from gan.trainer.augment import AdaptiveAugmentation, DiffAugment, InstanceNoise, pipeline
from gan.trainer.distributed import World
from gan.trainer.engine import Training
from gan.trainer.layers import MinibatchDeviation
from gan.trainer.options import Interval, Options, cosine, described, ranges, setting
from gan.trainer.parts import Batch, DataInfo, Live, Stage, Turn
from gan.trainer.system import System
from gan.trainer.systems.dcgan import DCGAN, DCGANOptions
from gan.trainer.systems.gan import GAN, GANOptions
from gan.trainer.systems.r3gan import R3GAN, R3GANOptions

from .conftest import CPU, PointOptions, config, images, same, training, weights

SIZES: dict[str, Any] = {"width": 4, "latent": 3, "batch_size": 4}
IMAGE, POINTS = DataInfo((1, 32, 32), ("a", "b")), DataInfo((2,), (), "points")


def gan(*, steps: int = 10, classes: int = 0, **given: Any) -> Training:
    """Two small layers a network, without dropout, on grey images of 8 pixels."""
    options = GANOptions(**{**SIZES, "depth": 1, "dropout": 0.0, **given})
    return training(GAN, data=images(24, 8, classes), options=options, steps=steps)


def dcgan(*, classes: int = 0, **given: Any) -> Training:
    sizes = {**SIZES, "d_norm": "none", "embedding": 2, "projection": 4}
    return training(DCGAN, data=images(24, 8, classes), options=DCGANOptions(**{**sizes, **given}))


def point(*, steps: int = 10, **given: Any) -> Training:
    return training(options=PointOptions(**given), steps=steps)


def turn(live: Training, *names: str) -> Training:
    """From now on a step is one move of each of these players."""
    live.stages = [Stage(tuple(Turn(name) for name in names), schedules=live.system.schedules())]
    return live


@dataclass
class Call:
    arguments: tuple[Any, ...]
    batch: Batch  # as it was when the call began
    result: Any


def calls(live: Training, method: str) -> list[Call]:
    """Every call of a method of the system, from now on."""
    found: list[Call] = []
    original = getattr(live.system, method)

    def spy(*arguments: Any) -> Any:
        batch = dict(arguments[-1])
        result = original(*arguments)
        found.append(Call(arguments, batch, result))
        return result

    setattr(live.system, method, spy)
    return found


def flat(network: nn.Module) -> Tensor:
    """A copy of all its weights in one vector, in float64."""
    return torch.cat([p.detach().double().flatten() for p in network.parameters()])


def gradient(network: nn.Module) -> Tensor:
    """All its gradients in one vector, in float64."""
    return torch.cat([cast(Tensor, p.grad).double().flatten() for p in network.parameters()])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


# All of them.

ADAPTIVE: dict[str, Any] = {"ada": 0.5, "ada_target": 0.5, "loss": "relativistic"}
# For each option: another value of it, and what it needs beside it to mean anything.
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "loss": ("hinge", {}),
    "label_smoothing": (0.2, {}),
    "r1": (10.0, {}),
    "r2": (10.0, {}),
    "gp": (10.0, {}),
    "roth": (10.0, {}),
    "drift": (10.0, {}),
    "penalty_every": (3, {"r1": 10.0}),
    "clip_weights": (0.01, {}),
    "d_weight_decay": (0.5, {}),
    "spectral_norm": (True, {}),
    "minibatch_deviation": (True, {}),
    "instance_noise": (0.5, {}),
    "instance_noise_share": (0.9, {"instance_noise": 0.5}),
    "diffaugment": ("translation", {}),
    "ada": (0.9, {}),
    "ada_target": (0.5, ADAPTIVE | {"ada_target": 0.0, "ada_images": 40}),
    "ada_images": (40, ADAPTIVE),
    "ada_colour": (0.0, {"ada": 0.9}),
    "ada_cutout": (1.0, {"ada": 0.9}),
    "optimizer": ("sgd", {}),
    "g_learning_rate": (0.1, {}),
    "d_learning_rate": (0.1, {}),
    "beta1": (0.1, {}),
    "beta2": (0.5, {}),
    "decay_share": (0.9, {}),
    "d_moves": (2, {}),
    "skip_d_below": (100.0, {}),
    "unroll": (2, {}),
    "fakes": ("reused", {}),
    "clip_gradient": (1e-3, {"optimizer": "sgd"}),
    "accumulate": (2, {"minibatch_deviation": True}),  # otherwise it only rounds differently
    "batch_size": (8, {}),
    "labels": (False, {}),
    "latents": ("uniform", {}),
    "latent": (5, {}),
    "width": (5, {}),
    "embedding": (3, {}),
    "projection": (5, {}),
}


def test_every_option_has_a_case_below() -> None:
    assert list(CASES) == [f.name for f in dataclasses.fields(Options)]


@pytest.mark.parametrize("name", CASES)
def test_every_option_changes_the_weights(name: str) -> None:
    value, beside = CASES[name]
    make = dcgan if name in ("embedding", "projection") else gan

    def trained(**given: Any) -> dict[str, Any]:
        live = make(classes=3, **given)
        for _ in range(6):
            live.run_step()
        assert live.skipped == 0
        return cast(dict[str, Any], live.state()["networks"])

    assert getattr(make(classes=3, **beside).system.options, name) != value
    assert not same(trained(**beside), trained(**{**beside, name: value}))


# What D minimises.


def seen_by_d(live: Training) -> tuple[list[float], list[float]]:
    """The logits of reals and of fakes in D's next move."""
    looks = calls(live, "discriminate")
    turn(live, "D").run_step()
    real, fake = (look.result.detach().double().tolist() for look in looks[:2])
    return real, fake


def test_label_smoothing_reaches_ds_loss_and_not_gs() -> None:
    live = point(label_smoothing=0.2)
    real, fake = seen_by_d(live)
    on_reals = [0.8 * softplus(-r) + 0.2 * softplus(r) for r in real]
    expected = mean(on_reals) + mean([softplus(f) for f in fake])
    assert live.means.take()["loss/D"] == pytest.approx(expected, rel=1e-5)
    looks = calls(live, "discriminate")
    turn(live, "G").run_step()
    (look,) = looks
    expected = mean([softplus(-f) for f in look.result.tolist()])
    assert live.means.take()["loss/G"] == pytest.approx(expected, rel=1e-5)


def slope(function: Any, x: float) -> float:
    """A central difference, of functions in plain Python."""
    return cast(float, (function(x + 1e-6) - function(x - 1e-6)) / 2e-6)


@pytest.mark.parametrize("name", ["r1", "r2", "gp", "roth", "drift"])
def test_a_penalty_adds_the_gradient_of_its_closed_form(name: str) -> None:
    """D(x) = w x + b on one pixel, at the first step: the gradient by w with the penalty less that without it."""
    size = 3.0
    chosen: dict[str, Any] = {name: size}
    plain, live = point(), point(**chosen)
    looks = calls(plain, "discriminate")
    for one in (plain, live):
        turn(one, "D").run_step()
    start = weights(point().networks["D"])
    w, b = start["weight"].item(), start["bias"].item()
    x, y = (look.arguments[1].double().flatten().tolist() for look in looks)

    def penalty(w: float) -> float:
        if name in ("r1", "r2"):
            return size / 2 * w**2
        if name == "gp":
            return size * (abs(w) - 1) ** 2
        if name == "drift":
            return size * mean([(w * a + b) ** 2 for a in x])
        real = mean([(1 - sigmoid(w * a + b)) ** 2 * w**2 for a in x])
        return size / 2 * (real + mean([sigmoid(w * a + b) ** 2 * w**2 for a in y]))

    difference = gradient(live.networks["D"]) - gradient(plain.networks["D"])
    assert difference[0].item() == pytest.approx(slope(penalty, w), rel=1e-4)
    assert abs(slope(penalty, w)) > 1e-2
    assert live.means.take()[f"loss/D/{name}"] == pytest.approx(penalty(w), rel=1e-5)


def test_roths_penalty_falls_to_a_hundredth_over_the_run() -> None:
    live = point(roth=2.0, d_learning_rate=0.0)
    w = weights(live.networks["D"])["weight"].item()
    for step in range(10):
        real, fake = seen_by_d(live)
        terms = [(1 - sigmoid(r)) ** 2 + sigmoid(f) ** 2 for r, f in zip(real, fake, strict=True)]
        expected = 0.01 ** (step / 10) * 2.0 / 2 * mean(terms) * w**2
        assert live.means.take()["loss/D/roth"] == pytest.approx(expected, rel=1e-5)


def test_the_drift_term_is_never_lazy() -> None:
    live = point(drift=1.0, r1=1.0, penalty_every=4)
    every = {o.name: o.every for o in live.players["D"].objectives}
    assert every == {"adversarial": 1, "r1": 4, "drift": 1}


def test_a_critic_of_wasserstein_tells_its_distance_and_no_other_does() -> None:
    live = point(loss="wasserstein")
    real, fake = seen_by_d(live)
    assert live.means.take()["distance"] == pytest.approx(mean(real) - mean(fake), rel=1e-5)
    for loss in ("non-saturating", "relativistic"):
        live = point(loss=loss)
        live.run_step()
        assert "distance" not in live.means.take()


# D.


def test_ds_weights_are_clipped_after_every_move_and_gs_are_not() -> None:
    live = point(clip_weights=0.05, d_moves=3, optimizer="sgd", d_learning_rate=1.0)
    after: list[Tensor] = []
    live.players["D"].after += (lambda live: after.append(flat(live.networks["D"])),)
    for _ in range(3):
        live.run_step()
    assert len(after) == 9
    for moved in after:
        assert moved.abs().max() <= torch.tensor(0.05).double()  # in float32
    assert any((moved.abs() >= 0.05 - 1e-8).any() for moved in after)
    assert flat(live.networks["G"]).abs().max() > 0.05
    assert point().players["D"].after == ()


def test_ds_weight_decay_adds_lambda_times_each_weight_to_its_gradient() -> None:
    plain, decayed = (
        turn(gan(d_weight_decay=decay, optimizer="sgd", d_learning_rate=0.5), "D")
        for decay in (0.0, 0.1)
    )
    start = flat(plain.networks["D"])
    for live in (plain, decayed):
        live.run_step()
    difference = flat(decayed.networks["D"]) - flat(plain.networks["D"])
    assert torch.allclose(difference, -0.5 * 0.1 * start, rtol=0, atol=1e-7)
    (group,) = decayed.optimizers["G"].param_groups
    assert group["weight_decay"] == 0.0  # of D alone


def layers(network: nn.Module) -> list[nn.Module]:
    kinds = (nn.Linear, nn.Embedding, nn.Conv2d, nn.ConvTranspose2d)
    return [layer for layer in network.modules() if isinstance(layer, kinds)]


def norms(network: nn.Module) -> list[float]:
    """The largest singular value of each layer's weight, as a matrix with a row for each output."""
    network.eval()
    found = [cast(Tensor, layer.weight).detach().double().flatten(1) for layer in layers(network)]
    network.train()
    return [torch.linalg.matrix_norm(weight, 2).item() for weight in found]


@pytest.mark.parametrize("make", [gan, dcgan])
@pytest.mark.parametrize("classes", [0, 3])
def test_spectral_norm_keeps_every_layer_of_d_at_a_largest_singular_value_of_1(
    make: Any, classes: int
) -> None:
    plain, live = (
        make(classes=classes, spectral_norm=chosen, d_learning_rate=0.01)
        for chosen in (False, True)
    )
    for one in (plain, live):
        for _ in range(20):
            one.run_step()
        for player in one.players.values():
            player.learning_rate = 0.0
        for _ in range(60):  # the estimate follows by one power iteration a look: let it arrive
            one.run_step()
    found = norms(live.networks["D"])
    assert len(found) == len(layers(plain.networks["D"]))
    assert found == pytest.approx([1.0] * len(found), abs=0.01)
    assert not all(abs(norm - 1) < 0.01 for norm in norms(plain.networks["D"]))


def test_spectral_norm_leaves_g_and_its_average_plain_and_resumes_bit_by_bit() -> None:
    plain, whole, first, second = (gan(spectral_norm=n) for n in (False, True, True, True))
    assert list(whole.averaged["G"].state_dict()) == list(plain.averaged["G"].state_dict())
    assert list(whole.networks["G"].state_dict()) == list(plain.networks["G"].state_dict())
    assert list(whole.networks["D"].state_dict()) != list(plain.networks["D"].state_dict())
    assert list(whole.averaged) == ["G"]
    for _ in range(6):
        whole.run_step()
    for _ in range(3):
        first.run_step()
    second.load_state(copy.deepcopy(first.state()))
    for _ in range(3):
        second.run_step()
    assert same(whole.state(), second.state())


def r3gan(**given: Any) -> Training:
    sizes = {"width": 16, "latent": 3, "batch_size": 4, "embedding": 2, "projection": 4}
    options = R3GANOptions(**{**sizes, "loss": "relativistic", **given})
    return training(R3GAN, data=images(24, 8), options=options)


@pytest.mark.parametrize("make", [gan, dcgan, r3gan])
def test_with_minibatch_deviation_d_compares_the_samples_of_a_batch(make: Any) -> None:
    x, y = torch.randn(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    y[0] = x[0]  # one sample alike, in other company
    for chosen in (False, True):
        d = make(minibatch_deviation=chosen).networks["D"]
        assert sum(isinstance(m, MinibatchDeviation) for m in d.modules()) == int(chosen)
        with torch.no_grad():
            alike = torch.allclose(d(x)[0], d(y)[0], rtol=0, atol=1e-6)
        assert alike == (not chosen)


# What D sees.


def test_reals_and_fakes_go_through_ada_then_diffaugment_then_noise() -> None:
    live = gan(instance_noise=0.1, ada=0.5, diffaugment="cutout,color")
    kinds = [type(augment) for augment in live.augmentations]
    assert kinds == [AdaptiveAugmentation, DiffAugment, InstanceNoise]
    assert gan().augmentations == []


@pytest.mark.parametrize("given", [{"instance_noise": 0.1}, {"diffaugment": "color"}, {"ada": 0.9}])
def test_an_augmentation_stands_between_every_sample_and_d(given: dict[str, Any]) -> None:
    live = gan(**given)
    looks = calls(live, "discriminate")
    live.run_step()
    assert len(looks) == 3
    for look, name in zip(looks, ("real", "fake", "fake"), strict=True):
        assert look.arguments[1].shape == look.batch[name].shape
        assert not torch.equal(look.arguments[1], look.batch[name])


@pytest.mark.parametrize("policies", ["color", "translation", "cutout", "cutout,translation"])
def test_the_policies_are_those_of_the_option(policies: str) -> None:
    (ours,) = gan(diffaugment=policies).augmentations
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    source, result = torch.Generator().manual_seed(1), x
    for policy in policies.split(","):
        result = getattr(DiffAugment, policy)(result, {"source": source})
    batch = {"source": torch.Generator().manual_seed(1)}
    assert torch.equal(ours(cast(Live, None), x, batch), result)


def test_ada_has_the_options_probability_multiples_target_and_speed() -> None:
    live = gan(ada=0.5, ada_target=0.5, ada_images=64, ada_colour=0.25, ada_cutout=0.75)
    (ours,) = live.augmentations
    assert isinstance(ours, AdaptiveAugmentation) and ours.p == 0.5
    x = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    seen = ours(live, x, {"source": torch.Generator().manual_seed(1)})
    source = torch.Generator().manual_seed(1)
    assert torch.equal(seen, pipeline(x, {"source": source}, 0.5, 0.25, 0.75))
    for right, expected in ((0.75, 0.5), (0.76, 0.75), (0.74, 0.5)):  # 4 * 4 / 64 = 1/4
        for _ in range(4):
            ours.adapt(live, right)
        assert ours.p == expected


def test_the_noise_has_the_options_sigma_and_share() -> None:
    live = point(instance_noise=0.4, instance_noise_share=0.8)
    sigmas = []
    for _ in range(10):
        live.run_step()
        sigmas.append(live.knobs["instance_noise"])
    assert sigmas == pytest.approx([0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.0, 0.0])
    assert sigmas[8:] == [0.0, 0.0]


# The moves.

RATES = {"D": 0.03, "G": 0.007}


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_both_players_first_move_is_that_of_the_optimizer_at_their_own_rate(optimizer: str) -> None:
    live = gan(
        optimizer=optimizer, d_learning_rate=RATES["D"], g_learning_rate=RATES["G"], beta2=0.75
    )
    for name in ("D", "G"):
        before = flat(live.networks[name])
        turn(live, name).run_step()
        g = gradient(live.networks[name])
        unit = {
            "adam": g / (g.abs() + 1e-8),  # its moments are corrected
            "rmsprop": g / (0.5 * g.abs() + 1e-8),  # the root of (1 - alpha) g^2, alpha = beta2
            "sgd": g,
        }[optimizer]
        moved = flat(live.networks[name]) - before
        assert torch.allclose(moved, -RATES[name] * unit, rtol=1e-4, atol=1e-7)
        assert moved.abs().max() > 1e-5


def test_adams_betas_are_the_options() -> None:
    """Of two moves: the second one's moments are mixed from both gradients by the betas."""
    live = turn(gan(beta1=0.25, beta2=0.75, d_learning_rate=0.01), "D")
    live.run_step()
    first, before = gradient(live.networks["D"]), flat(live.networks["D"])
    live.run_step()
    second = gradient(live.networks["D"])
    m = (0.25 * 0.75 * first + 0.75 * second) / (1 - 0.25**2)
    v = (0.75 * 0.25 * first**2 + 0.25 * second**2) / (1 - 0.75**2)
    expected = -0.01 * m / (v.sqrt() + 1e-8)
    moved = flat(live.networks["D"]) - before
    assert torch.allclose(moved, expected, rtol=1e-3, atol=1e-7)


def test_the_rates_fall_over_the_last_share_of_the_run() -> None:
    live = point(decay_share=0.4, d_learning_rate=0.5, g_learning_rate=0.1)
    rates = []
    for _ in range(10):
        live.run_step()
        rates.append([live.optimizers[name].param_groups[0]["lr"] for name in ("D", "G")])
    factors = [1.0] * 7 + [0.75, 0.5, 0.25]
    assert rates == [pytest.approx([0.5 * f, 0.1 * f]) for f in factors]


def test_d_makes_its_number_of_moves_a_step_each_with_data_of_its_own() -> None:
    live = point(d_moves=3)
    made = calls(live, "generate")
    live.run_step()
    live.run_step()
    assert len(made) == 8 and live.position == 8 * 4 and live.images_seen == 2 * 4
    steps = {
        name: {state["step"].item() for state in optimizer.state.values()}
        for name, optimizer in live.optimizers.items()
    }
    assert steps == {"D": {6}, "G": {2}}


def adversarial_loss(**given: Any) -> float:
    """D's at its first move."""
    live = turn(point(**given), "D")
    live.run_step()
    means = live.means.take()
    return means.get("loss/D/adversarial", means["loss/D"])


def test_d_does_not_move_where_its_loss_is_below_the_threshold_and_g_does() -> None:
    at = adversarial_loss()
    live = point(skip_d_below=at * 1.001, clip_weights=1e-3)
    before = {name: weights(network) for name, network in live.networks.items()}
    live.run_step()
    assert same(weights(live.networks["D"]), before["D"])  # not even clipped
    assert live.optimizers["D"].state_dict()["state"] == {}
    assert not same(weights(live.networks["G"]), before["G"])
    values = live.means.take()
    assert values["moved/D"] == 0.0 and values["loss/D"] == pytest.approx(at)
    assert "moved/G" not in values and live.skipped == 0


def test_d_moves_where_its_loss_is_above_the_threshold() -> None:
    at = adversarial_loss()
    live, plain = point(skip_d_below=at * 0.999), point()
    for one in (live, plain):
        one.run_step()
    assert same(live.state()["networks"], plain.state()["networks"])
    assert live.means.take()["moved/D"] == 1.0
    assert "moved/D" not in plain.means.take()


def test_penalties_do_not_keep_a_d_moving_whose_adversarial_loss_is_low() -> None:
    at = adversarial_loss(drift=100.0)
    live = turn(point(skip_d_below=at * 1.001, drift=100.0), "D")
    before = weights(live.networks["D"])
    live.run_step()
    assert live.means.take()["loss/D"] > at * 1.01
    assert same(weights(live.networks["D"]), before)


def test_unrolling_is_gs_alone() -> None:
    both = point(unroll=3).players
    assert (both["G"].unroll, both["D"].unroll) == (3, 0)
    plain, unrolled = point(d_learning_rate=0.1), point(d_learning_rate=0.1, unroll=3)
    for live in (plain, unrolled):
        live.run_step()
    assert same(weights(plain.networks["D"]), weights(unrolled.networks["D"]))
    assert not torch.equal(gradient(plain.networks["G"]), gradient(unrolled.networks["G"]))


# Reused fakes.


@pytest.mark.parametrize("loss", ["non-saturating", "relativistic"])
def test_reused_fakes_are_those_of_ds_move_and_give_g_the_gradient_of_fresh_computation(
    loss: str,
) -> None:
    live = gan(fakes="reused", loss=loss, d_learning_rate=0.05)
    made, looks = calls(live, "generate"), calls(live, "discriminate")
    g = copy.deepcopy(live.networks["G"])
    live.run_step()
    (generated,) = made  # once a step
    assert live.position == 4
    assert len(looks) == (4 if loss == "relativistic" else 3)
    of_d, of_g = looks[1], looks[2]  # after the reals in D's move; the fakes come first in G's
    assert torch.equal(of_d.arguments[1], of_g.arguments[1])
    assert of_g.arguments[1].requires_grad and not of_d.arguments[1].requires_grad
    # D does not move any more in this step, and G was what it was when the step began
    f = live.networks["D"](g(generated.batch["z"]))
    r = live.networks["D"](generated.batch["real"])
    value = (1 + (-f if loss == "non-saturating" else r - f).exp()).log().mean()
    value.backward()
    assert torch.allclose(gradient(live.networks["G"]), gradient(g), rtol=0, atol=1e-7)
    assert gradient(g).abs().max() > 1e-4
    assert live.means.take()["loss/G"] == pytest.approx(value.item(), rel=1e-5)


def test_of_several_moves_of_d_g_reuses_the_last() -> None:
    live = gan(fakes="reused", d_moves=3)
    made, looks = calls(live, "generate"), calls(live, "discriminate")
    live.run_step()
    live.run_step()
    assert len(made) == 6 and len(looks) == 14 and live.position == 6 * 4
    for last, of_g in ((2, 6), (5, 13)):
        assert torch.equal(made[last].result["fake"], looks[of_g].arguments[1])


def test_reused_fakes_leave_d_the_move_that_it_would_have_made() -> None:
    fresh, reused = gan(), gan(fakes="reused")
    for live in (fresh, reused):
        live.run_step()
    assert same(weights(fresh.networks["D"]), weights(reused.networks["D"]))
    assert not same(weights(fresh.networks["G"]), weights(reused.networks["G"]))


def test_g_makes_its_own_fakes_where_ds_move_came_to_nothing() -> None:
    live = gan(fakes="reused")
    original = live.players["D"].objectives[0].value
    live.players["D"].objectives[0].value = lambda *both: original(*both) * float("nan")
    made = calls(live, "generate")
    before = weights(live.networks["G"])
    live.run_step()
    assert live.skipped == 1 and len(made) == 2
    assert not torch.equal(made[0].batch["z"], made[1].batch["z"])
    assert not same(weights(live.networks["G"]), before)


def test_g_reuses_the_fakes_of_a_d_that_was_too_good_to_move() -> None:
    live = gan(fakes="reused", skip_d_below=100.0)
    made = calls(live, "generate")
    before = weights(live.networks["G"])
    live.run_step()
    assert len(made) == 1 and not same(weights(live.networks["G"]), before)


class Every2nd(GAN):
    """D moves in every second step only."""

    def turns(self) -> tuple[Turn, ...]:
        _, g = super().turns()
        return Turn("D", lambda step: 1 - step % 2), g


def test_g_makes_its_own_fakes_in_a_step_without_a_move_of_d() -> None:
    options = GANOptions(**{**SIZES, "depth": 1, "fakes": "reused"})
    live = training(Every2nd, data=images(24, 8), options=options)
    made = calls(live, "generate")
    latents = []
    for _ in range(4):
        live.run_step()
        latents.append(made[-1].batch["z"])
    assert len(made) == 4 and live.position == 4 * 4
    assert len({tuple(z.flatten().tolist()) for z in latents}) == 4
    assert {state["step"].item() for state in live.optimizers["G"].state.values()} == {4}


# Limits of a move.


@pytest.mark.parametrize("name", ["D", "G"])
def test_a_long_gradient_is_shortened_to_the_limit_and_keeps_its_direction(name: str) -> None:
    def moved(**given: Any) -> Tensor:
        live = turn(gan(optimizer="sgd", d_learning_rate=1.0, g_learning_rate=1.0, **given), name)
        before = flat(live.networks[name])
        live.run_step()
        assert live.means.take()[f"gradient/{name}"] == pytest.approx(full, rel=1e-4)
        return flat(live.networks[name]) - before

    plain = turn(gan(), name)
    plain.run_step()
    full = gradient(plain.networks[name]).norm().item()  # over all weights
    whole, short = moved(), moved(clip_gradient=full / 3)
    # weights of about 1 move by about 0.1, in float32; torch divides by the norm + 1e-6
    assert short.norm().item() == pytest.approx(full / 3, rel=1e-4)
    assert short.norm().item() <= full / 3 * (1 + 1e-6)
    assert torch.allclose(short, whole / 3, rtol=0, atol=1e-6)
    assert torch.equal(moved(clip_gradient=full * 1.1), whole)


@pytest.mark.parametrize("loss", ["non-saturating", "relativistic"])
def test_an_accumulated_batch_gives_the_whole_ones_gradients_losses_and_counts(loss: str) -> None:
    given: dict[str, Any] = {"batch_size": 8, "r1": 1.0, "r2": 0.5, "loss": loss}
    whole, parts = gan(**given, classes=3), gan(**given, classes=3, accumulate=4)
    made, looks = calls(parts, "generate"), calls(parts, "discriminate")
    for name in ("D", "G"):
        made.clear()
        for live in (whole, parts):
            turn(live, name).run_step()
        assert [len(call.batch["z"]) for call in made] == [2] * 4
        assert [len(call.batch["label"]) for call in made] == [2] * 4
        ours, theirs = (gradient(live.networks[name]) for live in (parts, whole))
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)
        assert theirs.abs().max() > 1e-3
    assert all(len(look.arguments[1]) == 2 for look in looks)
    assert (parts.position, parts.images_seen) == (whole.position, whole.images_seen) == (16, 16)
    ours_read, theirs_read = parts.means.take(), whole.means.take()
    assert set(ours_read) == set(theirs_read) and "accuracy/real" in ours_read
    for key, value in theirs_read.items():
        assert ours_read[key] == pytest.approx(value, rel=1e-5, abs=1e-6)


def test_parts_that_a_process_cannot_cut_its_slice_into_are_refused() -> None:
    """accumulate divides the batch of 8, but not each process's 2 samples."""
    options = GANOptions(**{**SIZES, "batch_size": 8, "accumulate": 4})
    data = images(24, 8)
    with pytest.raises(InputError, match="accumulate"):
        Training(GAN(options, data.info), data, config(), CPU, World(0, 4))


# The samples.


def test_uniform_latents_are_in_the_batches_and_in_the_signature() -> None:
    live = gan(latents="uniform", batch_size=4096)
    made = calls(live, "generate")
    live.run_step()
    for call in made:
        z = call.batch["z"].double()
        assert -1 <= z.min() < -0.99 and 0.99 < z.max() < 1
        assert z.mean().item() == pytest.approx(0, abs=5 / math.sqrt(3 * z.numel()))
        assert z.var().item() == pytest.approx(1 / 3, abs=5 * math.sqrt(4 / 45 / z.numel()))
    for graph in live.system.graphs().values():
        assert graph.signature.inputs[0].draw == Draw("uniform", low=-1.0, high=1.0)
    assert gan().graph.inputs[0].draw == Draw("normal")


def test_normal_latents_are_normal() -> None:
    live = gan(batch_size=4096)
    made = calls(live, "generate")
    live.run_step()
    z = made[0].batch["z"].double()
    assert z.shape == (4096, 3) and z.abs().max() > 3
    assert z.var().item() == pytest.approx(1, abs=5 * math.sqrt(2 / z.numel()))


# Their texts and ranges.


def each_options_type() -> list[type[Options]]:
    return [Options, *(systems.load(name)[0].options_type for name in systems.names())]


def test_every_setting_of_every_system_has_a_meaning() -> None:
    for kind in each_options_type():
        texts = described(kind)
        assert [name for name, _, _ in texts] == [f.name for f in dataclasses.fields(kind)]
        assert all(meaning.strip() for _, meaning, _ in texts)
    by_name = {name: (meaning, source) for name, meaning, source in described(Options)}
    assert "Gulrajani" in by_name["gp"][1] and "lambda" in by_name["gp"][0]


def test_a_users_own_setting_may_have_no_meaning_or_range() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Own(Options):
        strength: float = 2.0

    assert described(Own)[-1] == ("strength", "", "")
    assert "strength" not in ranges(Own())


def test_every_default_and_every_preset_is_within_its_ranges() -> None:
    everything: list[Options] = [kind() for kind in each_options_type()]
    for name in systems.names():
        kind: type[System] = systems.load(name)[0]
        for data in (IMAGE, POINTS):
            if data.kind in kind.kinds:
                everything.append(kind.preset(data))
    for options in everything:
        for setting_name, interval in ranges(options).items():
            assert interval.holds(getattr(options, setting_name)), setting_name


def test_numbers_have_ranges_and_texts_and_choices_have_none() -> None:
    found = ranges(Options())
    numbers = {
        f.name for f in dataclasses.fields(Options) if type(f.default) in (int, float)
    }  # True and False are no numbers
    assert set(found) == numbers
    assert not {"loss", "spectral_norm", "optimizer", "diffaugment"} & set(found)


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        (Interval(0.0, None, 1e9, None), (0, 1e9), (-1e-9, 1.1e9, math.nan)),
        (Interval(0.0, 0, 1e9, None), (1e-9, 1), (0, -1, math.nan)),
        (Interval(1.0, None, 32, None), (1, 32), (0, 33)),
        (Interval(0.0, None, 1e9, 0.5), (0, 0.49), (0.5, -0.1)),
        (Interval(0.0, 0, 1e9, 8), (1, 7), (0, 8)),
        (Interval(0.0, 0, 1, None), (0.1, 1), (0, 1.1)),
    ],
)
def test_an_interval_holds_what_lies_within_it(
    interval: Interval, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    assert all(interval.holds(value) for value in inside)
    assert not any(interval.holds(value) for value in outside)


def test_an_interval_says_what_it_holds() -> None:
    def text(**limits: Any) -> str:
        limited = dataclasses.make_dataclass("Limited", [("x", float, setting(1.0, "x", **limits))])
        return str(dataclasses.fields(limited)[0].metadata["range"])

    assert text() == "0 or more"
    assert text(low=1) == "1 or more"
    assert text(above=0) == "a number above 0"
    assert text(high=1) == "a number in [0, 1]"
    assert text(low=1, high=32) == "a number in [1, 32]"
    assert text(below=0.5) == "a number in [0, 0.5)"


def test_an_intervals_text_is_true_at_its_ends() -> None:
    for kind in each_options_type():
        for name, interval in ranges(kind()).items():
            text = str(interval)
            if both := re.fullmatch(r"a number in ([\[(])(.+), (.+)([\])])", text):
                opening, low, high, closing = both.groups()
                assert interval.holds(float(low)) == (opening == "["), (name, text)
                assert interval.holds(float(high)) == (closing == "]"), (name, text)
            elif above := re.search(r"above (\S+)", text):
                assert not interval.holds(float(above[1])), (name, text)
            elif least := re.fullmatch(r"(.+) or more", text):
                assert interval.holds(float(least[1])), (name, text)


# A curve for schedules.


def test_a_cosine_goes_from_its_start_to_its_end_and_stays_there() -> None:
    assert cosine(2.0, 10.0, 0.0) == 2.0 and cosine(2.0, 10.0, 1.0) == 10.0
    assert cosine(2.0, 10.0, 0.5) == pytest.approx(6.0)
    assert cosine(2.0, 10.0, 1 / 3) == pytest.approx(2 + 8 / 4)  # (1 - cos 60 degrees) / 2
    assert cosine(2.0, 10.0, 1.7) == 10.0 and cosine(2.0, 10.0, -1.0) == 2.0
