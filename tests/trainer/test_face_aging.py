"""Face aging: the contrast by its formula, who learns when and from whom, and the graphs that come of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gan.runtime.errors import InputError
from gan.trainer.config import make_options
from gan.trainer.engine import Training
from gan.trainer.parts import Batch, DataInfo
from gan.trainer.systems.face_aging import Encoder, FaceAging, contrast, view

from .conftest import same
from .translation import batch_of, dataset, live, parameters, randomise, values

AGES = ("10", "30", "50")


def info(size: int = 16, classes: tuple[str, ...] = AGES) -> DataInfo:
    return DataInfo((3, size, size), classes)


def options(data: DataInfo, **given: Any) -> Any:
    return make_options(FaceAging, data, given)


def randomised(arrangement: Any = "single", **given: Any) -> Training:
    """Live and averaged networks that all differ."""
    run = live("face-aging", dataset("face-aging", arrangement=arrangement), **given)
    for seed, network in enumerate([*run.networks.values(), *run.averaged.values()]):
        randomise(network, seed)
    return run


# The contrast.


def by_loops(a: NDArray[np.float64], b: NDArray[np.float64], temperature: float) -> float:
    """Chen et al. 2020, eq. 1, term by term."""
    x = np.concatenate([a, b])
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    n, total = len(a), 0.0
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = sum(math.exp(float(x[i] @ x[k]) / temperature) for k in range(2 * n) if k != i)
        total -= math.log(math.exp(float(x[i] @ x[j]) / temperature) / others)
    return total / (2 * n)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("count", [2, 7])
def test_the_contrast_is_nt_xent(count: int, temperature: float) -> None:
    source = np.random.default_rng(count)
    a, b = source.normal(size=(2, count, 5))
    ours = contrast(torch.from_numpy(a), torch.from_numpy(b), temperature).item()
    assert ours == pytest.approx(by_loops(a, b, temperature), rel=1e-10)
    assert contrast(torch.from_numpy(a), torch.from_numpy(a), temperature).item() < ours


def test_the_contrast_knows_neither_lengths_nor_order() -> None:
    a, b = torch.randn(2, 6, 4, dtype=torch.float64)
    lengths = torch.rand(6, 1, dtype=torch.float64) + 0.1
    order = torch.randperm(6)
    expected = contrast(a, b, 0.3)
    for x, y in ((a * lengths, b), (b, a), (a[order], b[order])):
        assert torch.allclose(contrast(x, y, 0.3), expected)
    assert not torch.allclose(contrast(a, b[order], 0.3), expected)


# The networks.


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (16, 3), (28, 4), (24, 3)])
def test_an_encoder_reads_images_of_every_resolution_of_g(size: int, channels: int) -> None:
    encoder = Encoder(DataInfo((channels, size, size)), 4, 7)
    assert encoder(torch.rand(3, channels, size, size)).shape == (3, 7)


def test_an_embedding_has_length_1() -> None:
    x = torch.rand(5, 3, 16, 16)
    embedder = Encoder(info(), 4, 7, unit=True)
    assert torch.allclose(embedder(x).norm(dim=1), torch.ones(5), atol=1e-5)
    plain = Encoder(info(), 4, 7)
    plain.load_state_dict(embedder.state_dict())
    direction = plain(x) / plain(x).norm(dim=1, keepdim=True)
    assert torch.allclose(embedder(x), direction, atol=1e-4)
    assert (plain(x).norm(dim=1) - 1).abs().min() > 1e-3


def test_a_view_is_the_same_face_elsewhere_and_noisy_in_the_same_light() -> None:
    x = torch.zeros(200, 1, 32, 32)
    x[:, :, 10:20, 12:22] = 1.0
    source = torch.Generator().manual_seed(0)
    seen = view(x, source)
    assert seen.shape == x.shape
    assert seen[:, 0, :8, :8].mean((1, 2)).abs().max() < 0.03  # 64 pixels of noise 0.05
    assert seen[:, 0, :8, :8].std() == pytest.approx(0.05, abs=0.005)
    places = {tuple((view(x[:1], source) > 0.5).nonzero()[0, 2:].tolist()) for _ in range(200)}
    assert {row for row, _ in places} == {8, 9, 10, 11, 12}  # a sixteenth is 2
    assert {column for _, column in places} == {10, 11, 12, 13, 14}


# The objectives.


def numbers(*xs: Tensor) -> list[NDArray[np.float64]]:
    return [x.detach().double().numpy() for x in xs]


def test_the_encoders_objectives_are_by_their_formulas() -> None:
    run = randomised(latent_weight=2.0, identity=3.0, pixels=0.5)
    batch = batch_of(run)
    g, fr = run.averaged["G"], run.averaged["FR"]
    z, y, x = batch["z"], batch["label"], batch["real"]
    with torch.no_grad():
        face = g(z, y)
        for name in ("E", "A"):
            code, wanted = numbers(run.networks[name](face), z)
            latent = 2.0 * float(np.square(code - wanted).mean())
            assert values(run, name, batch)["latent"] == pytest.approx(latent, rel=1e-5)
        rebuilt = g(run.networks["A"](x), y)
        made, true = numbers(fr(rebuilt), fr(x))
        identity = 3.0 * float(np.square(made - true).sum(1).mean())
        pixels = 0.5 * (rebuilt - x).abs().double().mean().item()
    found = values(run, "A", batch)
    assert set(values(run, "E", batch)) == {"latent"}
    assert found["identity"] == pytest.approx(identity, rel=1e-4)
    assert found["pixels"] == pytest.approx(pixels, rel=1e-5)


def seeded(batch: Batch) -> Batch:
    batch["source"].manual_seed(9)
    return dict(batch)


def test_without_partners_the_embedder_contrasts_one_z_at_two_ages_and_two_views() -> None:
    run = randomised(temperature=0.4)
    batch = batch_of(run)
    (objective,) = run.players["FR"].objectives
    found = objective.value(run, seeded(batch)).item()
    fr, g, source = run.networks["FR"], run.averaged["G"], batch["source"]
    source.manual_seed(9)
    other = (batch["label"] + torch.randint(1, 3, (4,), generator=source)) % 3
    with torch.no_grad():
        here, there = g(batch["z"], batch["label"]), g(batch["z"], other)
        views = [fr(view(x, source)) for x in (here, there, batch["real"], batch["real"])]
    a, b, c, d = numbers(*views)
    assert found == pytest.approx(by_loops(a, b, 0.4) + by_loops(c, d, 0.4), rel=1e-4)


def test_with_partners_the_embedder_contrasts_two_photographs_of_each_person() -> None:
    run = randomised("pairs", temperature=0.4)
    batch = batch_of(run)
    (objective,) = run.players["FR"].objectives
    found = objective.value(run, seeded(batch)).item()
    source = batch["source"].manual_seed(9)
    with torch.no_grad():
        views = [run.networks["FR"](view(batch[n], source)) for n in ("real", "partner")]
    a, b = numbers(*views)
    assert found == pytest.approx(by_loops(a, b, 0.4), rel=1e-4)


def test_with_partners_g_is_held_to_one_person_for_each_z() -> None:
    run = randomised("pairs", one_person=2.0)
    batch = batch_of(run)
    objective = next(o for o in run.players["G"].objectives if o.name == "person")
    assert objective.weight == 2.0
    found = objective.value(run, seeded(batch)).item()
    source = batch["source"].manual_seed(9)
    other = (batch["label"] + torch.randint(1, 3, (4,), generator=source)) % 3
    fr = run.averaged["FR"]
    with torch.no_grad():
        a, b = numbers(fr(batch["fake"]), fr(run.networks["G"](batch["z"], other)))
    assert found == pytest.approx(float(np.square(a - b).sum(1).mean()), rel=1e-3)
    for arrangement, given in (("pairs", {"one_person": 0.0}), ("single", {})):
        names = [o.name for o in randomised(arrangement, **given).players["G"].objectives]
        assert names == ["adversarial"]


def test_another_age_is_never_the_same_and_every_other_one() -> None:
    run = randomised()
    assert isinstance(run.system, FaceAging)
    label = torch.arange(300) % 3
    other = run.system.another_age({"label": label, "source": torch.Generator().manual_seed(0)})
    pairs = set(zip(label.tolist(), other.tolist(), strict=True))
    assert pairs == {(a, b) for a in range(3) for b in range(3) if a != b}


# The stages.


@pytest.mark.parametrize("arrangement", ["single", "pairs"])
def test_who_moves_when(arrangement: Any) -> None:
    data = dataset("face-aging", arrangement=arrangement)
    run = live("face-aging", data, steps=10, gan_share=0.4, embedder_share=0.3)
    movers, averages = [], []
    for _ in range(10):
        before = parameters(run)
        averaged = {n: [p.clone() for p in net.parameters()] for n, net in run.averaged.items()}
        run.run_step()
        after = parameters(run)
        movers.append({n for n in before if not same(before[n], after[n])})
        averages.append(
            {n for n, net in run.averaged.items() if not same(averaged[n], list(net.parameters()))}
        )
    gan, embedder, encoders = [{"G", "D"}] * 4, [{"FR"}] * 3, [{"E", "A"}] * 3
    assert movers == [*(embedder + gan if arrangement == "pairs" else gan + embedder), *encoders]
    assert run.skipped == 0 and set(run.averaged) == {"G", "FR", "E", "A"}
    assert all({"E", "A"} <= seen for seen in averages[7:])


def test_only_the_mover_has_gradients() -> None:
    """The averages of the others are read, never trained."""
    run = live("face-aging", steps=4, gan_share=0.25, embedder_share=0.25)
    for _ in range(4):
        run.run_step()
    for network in run.averaged.values():
        assert all(p.grad is None and not p.requires_grad for p in network.parameters())


# The graphs.


def test_the_four_graphs_take_and_give_what_they_say() -> None:
    run = randomised()
    graphs = run.system.graphs()
    assert list(graphs) == ["generate", "encode", "embed", "age"]
    fields = {
        name: ([f.name for f in g.inputs], [(f.name, f.kind, f.shape) for f in g.outputs])
        for name, g in graphs.items()
    }
    face = ("face", "image", (3, 16, 16))
    assert fields == {
        "generate": (["z", "label"], [face]),
        "encode": (["image"], [("z", "latent", (6,))]),
        "embed": (["image"], [("embedding", "embedding", (5,))]),
        "age": (["image", "label"], [face]),
    }
    assert graphs["generate"].classes == graphs["age"].classes == AGES
    assert graphs["age"].inputs[0].draw is None and graphs["generate"].inputs[0].draw is not None
    x, z, y = torch.rand(3, 3, 16, 16), torch.randn(3, 6), torch.arange(3)
    nets = run.averaged
    with torch.no_grad():
        made = {name: graph.build(nets) for name, graph in graphs.items()}
        assert torch.equal(made["generate"](z, y), nets["G"](z, y))
        assert torch.equal(made["encode"](x), nets["E"](x))
        assert torch.equal(made["embed"](x), nets["FR"](x))
        assert torch.equal(made["age"](x, y), nets["G"](nets["A"](x), y))
        assert not torch.equal(made["age"](x, y), nets["G"](nets["E"](x), y))


# What does not fit.


def test_data_without_labels_is_refused() -> None:
    with pytest.raises(InputError, match="face-aging needs labels"):
        options(info(classes=()))
    with pytest.raises(InputError, match=r"face-aging needs labels\. labels turned off"):
        options(info(), labels=False)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"gan_share": 0.7, "embedder_share": 0.3}, r"gan_share 0\.7 and embedder_share 0\.3"),
    ({"batch_size": 1}, "Give --batch-size 2"),
    ({"batch_size": 4, "accumulate": 4}, "4 images in 4 parts"),
]


@pytest.mark.parametrize(("given", "said"), REFUSED)
def test_what_leaves_a_network_nothing_to_learn_is_refused(
    given: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        FaceAging(options(info(), **given), info())


def test_unpaired_sets_and_other_resolutions_are_refused() -> None:
    with pytest.raises(InputError, match="It takes single or pairs"):
        options(DataInfo((3, 16, 16), AGES, arrangement="unpaired", partner=(3, 16, 16)))
    with pytest.raises(InputError, match="17 x 17 pixels"):
        FaceAging(options(info(17)), info(17)).networks()


def test_the_networks_are_initialised_apart() -> None:
    """E and A begin with other weights, or one would do for both."""
    made = FaceAging(options(info(), width=4, e_width=4), info()).networks()
    e, a = (nn.utils.parameters_to_vector(made[name].parameters()) for name in ("E", "A"))
    assert not torch.equal(e, a)
