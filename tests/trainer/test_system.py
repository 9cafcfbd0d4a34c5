"""What every system has unless it says otherwise: two players, penalties, a schedule; and fields of images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from gan.runtime.signature import Draw
from gan.trainer.objectives import r1_penalty, r2_penalty
from gan.trainer.parts import Augmentation, Batch, DataInfo, Graph, Live, Player
from gan.trainer.system import System, build_on_meta, image_field, parameter_count
from gan.trainer.trees import Tree

from .conftest import Point, PointOptions, training

DATA = DataInfo((1, 1, 1))


def players(**options: float | str) -> dict[str, Player]:
    return Point(PointOptions(**options), DATA).players()  # type: ignore[arg-type]


def terms(player: Player) -> list[tuple[str, float, int, tuple[str, ...]]]:
    return [(o.name, o.weight, o.every, o.differentiates) for o in player.objectives]


def test_d_and_g_play_with_the_chosen_rates_and_g_is_averaged() -> None:
    both = players(g_learning_rate=0.1, d_learning_rate=0.2, beta1=0.3, beta2=0.4)
    assert list(both) == ["D", "G"]
    assert both["D"].networks == ("D",) and both["G"].networks == ("G",)
    assert (both["D"].learning_rate, both["G"].learning_rate) == (0.2, 0.1)
    assert both["D"].betas == both["G"].betas == (0.3, 0.4)
    assert both["G"].averaged and not both["D"].averaged


def test_penalties_are_d_objectives_only_where_they_weigh_something() -> None:
    adversarial = ("adversarial", 1.0, 1, ())
    assert terms(players()["D"]) == terms(players()["G"]) == [adversarial]
    both = players(r1=3.0, r2=0.5, penalty_every=4)
    assert terms(both["D"]) == [
        adversarial,
        ("r1", 1.5, 4, ("real",)),  # gamma / 2
        ("r2", 0.25, 4, ("fake",)),
    ]
    assert terms(both["G"]) == [adversarial]


def test_penalties_of_a_linear_discriminator_are_its_squared_weight() -> None:
    class Twice(Augmentation):
        name = "twice"

        def __call__(self, live: Live, sample: Tree, batch: Batch) -> Tree:
            return 2 * sample

    class Doubled(Point):
        """D sees twice the image, so its gradient by the image is twice its weight."""

        def augmentations(self) -> list[Augmentation]:
            return [Twice()]

    live = training(Doubled)
    weight = next(live.networks["D"].parameters()).item()
    for name, penalty in (("real", r1_penalty), ("fake", r2_penalty)):
        batch: Batch = {name: torch.randn(5, 1, 1, 1, requires_grad=True)}
        assert penalty(live, batch).item() == pytest.approx((2 * weight) ** 2, rel=1e-5)


def test_turns_are_d_then_g_and_d_may_move_more_often() -> None:
    (stage,) = Point(PointOptions(d_moves=5), DATA).stages()
    assert [(turn.player, turn.times) for turn in stage.turns] == [("D", 5), ("G", 1)]
    assert stage.schedules == {} and stage.batch_size is None and not stage.fresh_optimizers


def test_the_learning_rate_falls_linearly_over_the_last_share() -> None:
    (stage,) = Point(PointOptions(decay_share=0.25), DATA).stages()
    curve = stage.schedules["learning_rate"]
    assert [curve(t) for t in (0.0, 0.5, 0.75)] == [1.0, 1.0, 1.0]
    assert [curve(t) for t in (0.8, 0.9, 1.0)] == pytest.approx([0.8, 0.4, 0.0])


def test_labels_can_be_turned_off() -> None:
    labelled = DataInfo((1, 1, 1), ("a", "b"))
    assert Point(PointOptions(), labelled).classes == ("a", "b")
    assert Point(PointOptions(labels=False), labelled).classes == ()


def test_a_system_without_networks_cannot_be_made() -> None:
    class Half(System):
        def generate(self, live: Live, batch: Batch) -> Batch:
            return {}

        def discriminate(self, live: Live, sample: Tree, batch: Batch) -> Tree:
            return sample

        def graphs(self) -> dict[str, Graph]:
            return {}

    with pytest.raises(TypeError, match="networks"):
        Half(PointOptions(), DATA)  # type: ignore[abstract]


class Plain(System):
    """Networks alone: what they are called with is what they give, so that it can be looked at."""

    name = "plain"

    def networks(self) -> dict[str, nn.Module]:
        return {"G": Told(), "D": Told()}


class Told(nn.Module):
    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        return arguments


def test_a_system_that_says_no_more_runs_g_on_z_and_d_on_samples_with_the_label_beside() -> None:
    z, sample, label = torch.zeros(2, 3), torch.ones(2, 1, 1, 1), torch.tensor([1, 0])
    for classes, more in (((), ()), (("a", "b"), (label,))):
        system = Plain(PointOptions(), DataInfo((1, 1, 1), classes))
        live = cast(Live, SimpleNamespace(networks=system.build()))
        batch: Batch = {"z": z, "real": sample} | ({"label": label} if classes else {})
        assert system.generate(live, batch) == {"fake": (z, *more)}
        assert system.discriminate(live, sample, batch) == (sample, *more)


def test_a_system_that_says_no_more_exports_g_from_z_and_label_to_a_sample() -> None:
    system = Plain(PointOptions(), DataInfo((3, 8, 4), ("a", "b", "c")))
    (graph,) = system.graphs().values()
    z, label = graph.inputs
    assert (z.name, z.shape, z.kind, z.draw) == ("z", (3,), "latent", Draw("normal"))
    assert (label.name, label.dtype, label.range) == ("label", "int64", (0.0, 2.0))
    assert list(system.graphs()) == ["image"] and graph.outputs == (image_field(system.data),)
    assert graph.classes == ("a", "b", "c")
    networks = system.build()
    assert graph.build(networks) is networks["G"]


def test_a_system_that_says_no_more_gives_points_for_points() -> None:
    options = PointOptions(latents="uniform", labels=False)
    system = Plain(options, DataInfo((5,), ("a", "b"), "points"))
    (graph,) = system.graphs().values()
    (z,), (output,) = graph.inputs, graph.outputs
    assert z.draw == Draw("uniform", low=-1.0, high=1.0) and graph.classes == ()
    assert list(system.graphs()) == ["points"]
    assert (output.name, output.shape, output.kind, output.range) == (
        "points",
        (5,),
        "points",
        None,
    )


def test_an_image_field_is_what_networks_give() -> None:
    field = image_field(DataInfo((3, 32, 64)))
    assert (field.name, field.shape, field.kind) == ("image", (3, 32, 64), "image")
    assert field.dtype == "float32" and field.range == (-1.0, 1.0) and field.draw is None


def test_a_graphs_signature_is_its_fields_and_classes() -> None:
    field = image_field(DATA)
    graph = Graph((field,), (field, field), lambda nets: nn.Identity(), ("a",))
    signature = graph.signature
    assert signature.inputs == (field,) and len(signature.outputs) == 2
    assert signature.classes == ("a",)


def test_parameters_are_counted_without_memory() -> None:
    class Huge(Point):
        def networks(self) -> dict[str, nn.Module]:
            return {"G": nn.Linear(1_000_000, 1_000_000), "D": nn.BatchNorm2d(7)}

    networks = build_on_meta(Huge(PointOptions(), DATA))
    assert parameter_count(networks["G"]) == 10**12 + 10**6
    assert parameter_count(networks["D"]) == 14  # running statistics are no parameters
    assert next(networks["G"].parameters()).device.type == "meta"
    first: Tensor = nn.Linear(1, 1).weight
    assert first.device.type == "cpu"  # and nothing after is built there
