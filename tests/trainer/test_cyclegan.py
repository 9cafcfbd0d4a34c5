"""CycleGAN: the objectives of the paper, two players of two networks each, the pool for D alone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan.runtime.errors import InputError
from gan.trainer.augment import ImagePool
from gan.trainer.config import make_options
from gan.trainer.engine import Training
from gan.trainer.parts import Batch, DataInfo, Live
from gan.trainer.systems.cyclegan import CycleGAN
from gan.trainer.trees import Tree

from .conftest import same
from .translation import batch_of, dataset, live, parameters, randomise, values


def info(size: int = 16, partner: tuple[int, ...] | None = None) -> DataInfo:
    shape = (3, size, size)
    return DataInfo(shape, arrangement="unpaired", partner=partner or shape)


def options(data: DataInfo, **given: Any) -> Any:
    return make_options(CycleGAN, data, given)


def randomised(**given: Any) -> Training:
    """Networks that all differ."""
    run = live("cyclegan", **given)
    for seed, network in enumerate(run.networks.values()):
        randomise(network, seed)
    return run


def test_the_preset_is_the_papers() -> None:
    paper = options(info(256))
    assert (paper.loss, paper.cycle, paper.identity, paper.pool) == ("least-squares", 10.0, 5.0, 50)
    assert (paper.g_learning_rate, paper.d_learning_rate, paper.beta1) == (2e-4, 2e-4, 0.5)
    assert (paper.batch_size, paper.decay_share, paper.norm) == (1, 0.5, "instance")
    assert (paper.downs, paper.d_layers, paper.blocks) == (2, 3, 9)
    assert (options(info(128)).blocks, options(info(132)).blocks) == (6, 9)
    assert (options(info(8)).d_layers, options(info(14)).downs) == (1, 1)


def test_a_are_the_partners_and_b_the_samples() -> None:
    run = randomised()
    batch = batch_of(run)
    real, fake = batch["real"], batch["fake"]
    assert torch.equal(real["a"], batch["partner"]) and torch.equal(batch["image"], real["a"])
    assert not torch.equal(real["a"], real["b"])
    assert torch.equal(fake["b"], run.networks["A2B"](real["a"]))
    assert torch.equal(fake["a"], run.networks["B2A"](real["b"]))


def test_the_objectives_are_the_papers() -> None:
    run = randomised()
    batch = batch_of(run)
    g, f, da, db = (run.networks[name] for name in ("A2B", "B2A", "DA", "DB"))
    a, b = batch["real"]["a"], batch["real"]["b"]

    def mean(x: Tensor) -> float:
        return float(np.mean(x.detach().double().numpy()))

    def l1(x: Tensor, y: Tensor) -> float:
        return mean((x.double() - y.double()).abs())

    judge = sum(
        mean((d(real) - 1).square()) + mean(d(fake).square())
        for d, real, fake in ((da, a, f(b)), (db, b, g(a)))
    )
    assert values(run, "D", batch) == pytest.approx({"adversarial": judge / 2}, rel=1e-5)
    expected = {
        "adversarial": mean((db(g(a)) - 1).square()) + mean((da(f(b)) - 1).square()),
        "cycle": 10 * (l1(f(g(a)), a) + l1(g(f(b)), b)),
        "identity": 5 * (l1(g(b), b) + l1(f(a), a)),
    }
    assert values(run, "G", batch) == pytest.approx(expected, rel=1e-5)


def test_identity_and_pool_of_0_are_off() -> None:
    run = live("cyclegan", identity=0.0, pool=0)
    assert [o.name for o in run.players["G"].objectives] == ["adversarial", "cycle"]
    assert run.augmentations == []
    run.run_step()


def test_the_generators_move_first_and_each_player_moves_both_of_its_networks() -> None:
    run = live("cyclegan", d_moves=2)
    moves: list[str] = []
    before = parameters(run)
    for name, optimizer in run.optimizers.items():
        optimizer.register_step_post_hook(lambda *_, name=name: moves.append(name))
    run.run_step()
    assert moves == ["G", "D", "D"]
    after = parameters(run)
    assert {name for name in before if not same(before[name], after[name])} == {
        "A2B", "B2A", "DA", "DB",
    }  # fmt: skip


def spied(run: Training) -> list[tuple[str, dict[str, Tensor]]]:
    """All that the discriminators are shown from now on, with the mover whose graph it has."""
    shown: list[tuple[str, dict[str, Tensor]]] = []
    judge = run.system.discriminate

    def spy(live: Live, sample: Tree, batch: Batch) -> Tree:
        shown.append(("G" if sample["a"].requires_grad else "D", copy.copy(sample)))
        return judge(live, sample, batch)

    run.system.discriminate = spy  # type: ignore[method-assign]
    return shown


def test_the_pool_is_for_the_discriminators_moves_alone() -> None:
    """The generators' gradient comes by their own fakes."""
    run = live("cyclegan", pool=1, batch_size=1)
    shown = spied(run)
    made: list[dict[str, Tensor]] = []
    generate = run.system.generate

    def record(live: Live, batch: Batch) -> Batch:
        found = generate(live, batch)
        made.append(found["fake"])
        return found

    run.system.generate = record  # type: ignore[method-assign]
    for _ in range(40):
        run.run_step()
    of_g = [sample for mover, sample in shown if mover == "G"]
    fresh_of_g, fresh_of_d = made[::2], made[1::2]
    assert len(of_g) == 40
    for seen, fake in zip(of_g, fresh_of_g, strict=True):
        assert torch.equal(seen["a"], fake["a"]) and torch.equal(seen["b"], fake["b"])
    fakes = [sample for mover, sample in shown if mover == "D"][1::2]  # after the reals
    assert len(fakes) == 40
    for leaf in ("a", "b"):
        old = [
            not torch.equal(seen[leaf], fake[leaf].detach())
            for seen, fake in zip(fakes, fresh_of_d, strict=True)
        ]
        assert 8 <= sum(old) <= 32  # about half, and not always both leaves alike
        earlier = [fake[leaf].detach() for fake in fresh_of_d]
        for step, (seen, stale) in enumerate(zip(fakes, old, strict=True)):
            assert not stale or any(torch.equal(seen[leaf], x) for x in earlier[:step])
    assert any(
        (not torch.equal(s["a"], f["a"])) != (not torch.equal(s["b"], f["b"]))
        for s, f in zip(fakes, fresh_of_d, strict=True)
    )


def test_the_two_graphs_are_the_two_directions() -> None:
    run = randomised()
    for seed, network in enumerate(run.averaged.values()):
        randomise(network, seed)
    graphs = run.system.graphs()
    assert list(graphs) == ["a2b", "b2a"]
    x = torch.rand(2, 3, 4, 6) * 2 - 1
    for direction, name in (("a2b", "A2B"), ("b2a", "B2A")):
        graph = graphs[direction]
        assert graph.inputs[0].shape == graph.outputs[0].shape == (3, "2*h", "2*w")
        assert (graph.inputs[0].name, graph.outputs[0].name) == ("image", "translated")
        assert graph.least == 2 and graph.radius is None
        assert torch.equal(graph.build(run.averaged)(x), run.averaged[name](x))
    assert not torch.equal(run.averaged["A2B"](x), run.averaged["B2A"](x))


def test_the_averages_are_of_the_generators() -> None:
    assert set(live("cyclegan").averaged) == {"A2B", "B2A"}
    assert live("cyclegan").system.discriminators() == ["DA", "DB"]


def test_the_metric_is_of_the_examples_there_and_back() -> None:
    run = randomised()
    for network in run.averaged.values():  # all is grey
        last = [m for m in network.modules() if isinstance(m, nn.Conv2d)][-1]
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, 0.5) if last.bias is not None else None
    (metric,) = run.system.metrics() or []
    found = metric.measure(run)
    a = run.examples["real"]["a"]
    assert found["cycle"] == pytest.approx((a - np.tanh(0.5)).abs().mean().item(), rel=1e-5)
    run.averaged["A2B"] = run.averaged["B2A"] = nn.Identity()
    run.examples["real"]["b"] = a
    same_sets = metric.measure(run)
    assert same_sets["coverage"] == 1.0 and same_sets["cycle"] == 0.0


REFUSED: list[tuple[DataInfo, dict[str, Any], str]] = [
    (info(7), {}, r"7 x 7 pixels.*Use a multiple of 2"),
    (info(8), {"downs": 3}, r"8 x 8 pixels, halved 3 times\. Use a multiple of 8, at least 16"),
    (info(16), {"d_layers": 3}, "too deep"),
    (info(16, (1, 16, 16)), {}, r"of different kinds\. \(1, 16, 16\) and \(3, 16, 16\)"),
]


@pytest.mark.parametrize(("data", "given", "said"), REFUSED)
def test_data_that_does_not_fit_is_refused(
    data: DataInfo, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        CycleGAN(options(data, **given), data)


@pytest.mark.parametrize(("size", "given"), [(6, {"downs": 1}), (8, {"downs": 2, "d_layers": 1})])
def test_the_smallest_that_fit_train(size: int, given: dict[str, Any]) -> None:
    for norm in ("batch", "instance"):
        data = dataset("cyclegan", size=size)
        run = live("cyclegan", data, batch_size=1, norm=norm, d_norm=norm, **given)
        run.run_step()
        assert run.skipped == 0


def test_the_pool_has_as_many_images_as_it_is_asked_for() -> None:
    (pool,) = live("cyclegan", pool=7).augmentations
    assert isinstance(pool, ImagePool) and pool.size == 7 and pool.fakes_only
