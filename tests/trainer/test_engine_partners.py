"""The engine on data with partners: pairs stay pairs, sets have orders of their own, and what is prepared of a batch."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan.runtime.signature import Field
from gan.trainer.config import Config
from gan.trainer.dataset import Dataset
from gan.trainer.distributed import World
from gan.trainer.engine import Training
from gan.trainer.objectives import l1
from gan.trainer.options import Options
from gan.trainer.parts import (
    Arrangement,
    Augmentation,
    Batch,
    Graph,
    Live,
    Objective,
    Player,
    Schedules,
    Stage,
    Turn,
)
from gan.trainer.system import System, image_field
from gan.trainer.trees import Tree
from gan.trainer.unroll import foresee

from .conftest import CPU, PointOptions, config, same

SIZE = 8


class Shade(System):
    """Adds a number to an image; D is one linear layer on one pixel's mean."""

    name = "shade"
    arrangements = ("pairs", "unpaired", "single")

    def networks(self) -> dict[str, nn.Module]:
        return {"G": nn.Conv2d(1, 1, 1), "D": nn.Linear(1, 1)}

    def prepare(self, batch: Batch) -> Batch:
        image = batch["partner" if "partner" in batch else "real"]
        drawn = torch.rand(len(image), generator=batch["source"])
        return batch | {"image": image, "drawn": drawn}

    def generate(self, live: Live, batch: Batch) -> Batch:
        return {"fake": live.networks["G"](batch["image"])}

    def discriminate(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        return live.networks["D"](sample.mean((1, 2, 3))[:, None]).flatten()

    def graphs(self) -> dict[str, Graph]:
        image = Field("image", (1, "h", "w"), "image", range=(-1.0, 1.0))
        return {"image": Graph((image,), (image_field(self.data, "made"),), lambda nets: nets["G"])}


def numbered(
    arrangement: Arrangement = "pairs",
    count: int = 12,
    theirs: int | None = None,
    window: int | None = None,
) -> Dataset:
    """Images that say which they are, and where: 20 i + row in samples, 20 i + column beside them in partners."""
    rows = np.repeat(np.arange(SIZE, dtype=np.uint8)[:, None], SIZE, 1)
    samples = np.stack([20 * i + rows for i in range(count)]).astype(np.uint8)[:, None]
    partners = None
    if arrangement != "single":
        others = range(theirs or count)
        partners = np.stack([20 * i + rows.T for i in others]).astype(np.uint8)[:, None]
    return Dataset("numbered", samples, None, (), partners=partners, arrangement=arrangement, window=window)  # fmt: skip


def shading(
    data: Dataset | None = None,
    *,
    kind: type[Shade] = Shade,
    seed: int = 0,
    mirror: bool = False,
    zoom: float = 1.0,
    world: World | None = None,
    **options: Any,
) -> Training:
    data = data or numbered()
    chosen: Options = dataclasses.replace(PointOptions(), **options)
    settings: Config = dataclasses.replace(config(seed=seed, mirror=mirror), zoom=zoom)
    system = kind(chosen, data.info)
    return Training(system, data, settings, CPU, *([world] if world else []))


def in_bytes(x: Tree) -> Tensor:
    return (cast(Tensor, x) * 127.5 + 127.5).round()


def numbers_of(x: Tree) -> list[int]:
    """Which images these are."""
    return [int(value) for value in in_bytes(x)[:, 0, 0, 0] // 20]


def batches(run: Training, count: int) -> list[Batch]:
    """Those of the first moves of so many steps."""
    found = []
    for run.step in range(count):  # of which what is drawn is a function
        found.append(run._next_batch("0/0"))
    return found


# Orders.


def test_pairs_come_together() -> None:
    for batch in batches(shading(), 6):
        assert numbers_of(batch["real"]) == numbers_of(batch["partner"])
        assert batch["partner"].shape == (4, 1, SIZE, SIZE)


def test_unpaired_partners_have_an_order_of_their_own_each_once_an_epoch() -> None:
    run = shading(numbered("unpaired", 12, 8))
    seen = batches(run, 6)
    ours = [n for batch in seen for n in numbers_of(batch["real"])]
    theirs = [n for batch in seen for n in numbers_of(batch["partner"])]
    for epoch in (ours[:12], ours[12:]):
        assert sorted(epoch) == list(range(12))
    for start in (0, 8, 16):
        assert sorted(theirs[start : start + 8]) == list(range(8))
    assert theirs[:8] != theirs[8:16] and theirs[:8] != [n for n in ours if n < 8][:8]


def test_the_partners_order_is_a_function_of_the_seed() -> None:
    def order(seed: int) -> list[int]:
        torch.rand(3)
        run = shading(numbered("unpaired"), seed=seed)
        return [n for batch in batches(run, 3) for n in numbers_of(batch["partner"])]

    assert order(1) == order(1) and order(1) != order(2)
    run = shading(numbered("unpaired"), seed=1)
    ours = [n for batch in batches(run, 3) for n in numbers_of(batch["real"])]
    assert order(1) != ours  # though both sets are of one size


def test_a_resumed_run_goes_on_in_both_orders() -> None:
    data = numbered("unpaired", 12, 7)
    whole, first, second = (shading(data) for _ in range(3))
    for _ in range(5):
        whole.run_step()
    for _ in range(3):
        first.run_step()
    second.load_state(first.state())
    for _ in range(2):
        second.run_step()
    assert same(whole.state(), second.state())
    a, b = (run._next_batch("0/0") for run in (whole, second))
    assert numbers_of(a["partner"]) == numbers_of(b["partner"])


# Windows and mirror images.


def windowed(x: Tree) -> list[tuple[int, int]]:
    """The image's number and the row (samples) or column (partners) at which each window begins."""
    return [divmod(int(value), 20) for value in in_bytes(x)[:, 0, 0, 0]]


def test_windows_of_a_pair_are_of_one_place_and_of_all_places() -> None:
    """Samples tell the row of the place, partners the column."""
    run = shading(numbered(window=5))
    rows, columns = set(), set()
    for batch in batches(run, 60):
        assert batch["real"].shape == batch["partner"].shape == (4, 1, 5, 5)
        for image, steps in ((batch["real"], (1, 0)), (batch["partner"], (0, 1))):
            pixels = in_bytes(image)[:, 0]
            down, right = pixels.diff(dim=1), pixels.diff(dim=2)
            assert (down == steps[0]).all() and (right == steps[1]).all()
        ours, theirs = windowed(batch["real"]), windowed(batch["partner"])
        assert [n for n, _ in ours] == [n for n, _ in theirs]
        rows |= {row for _, row in ours}
        columns |= {column for _, column in theirs}
    assert rows == columns == {0, 1, 2, 3}


def identical(arrangement: Arrangement, window: int | None) -> Dataset:
    """Samples and partners of the same pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 1, SIZE, SIZE), np.uint8)
    return Dataset("same", pixels, None, (), partners=pixels.copy(), arrangement=arrangement, window=window)  # fmt: skip


@pytest.mark.parametrize("zoom", [1.0, 1.6])
@pytest.mark.parametrize("window", [None, 5])
def test_pairs_are_cut_enlarged_and_mirrored_alike(window: int | None, zoom: float) -> None:
    run = shading(identical("pairs", window), mirror=True, zoom=zoom)
    for batch in batches(run, 12):
        assert torch.equal(batch["real"], batch["partner"])


def test_unpaired_sides_are_cut_and_mirrored_each_on_its_own() -> None:
    data = numbered("unpaired", window=5)
    assert data.partners is not None
    data.partners = np.ascontiguousarray(data.partners.transpose(0, 1, 3, 2))  # they tell rows too
    run = shading(data)
    differ = [
        a != b
        for batch in batches(run, 30)
        for (_, a), (_, b) in zip(windowed(batch["real"]), windowed(batch["partner"]), strict=True)
    ]
    assert 0.6 < np.mean(differ) < 0.9  # 3/4 of places differ
    columns = numbered("unpaired")
    columns.samples = np.ascontiguousarray(columns.samples.transpose(0, 1, 3, 2))
    run = shading(columns, mirror=True)
    pairs = []
    for batch in batches(run, 30):
        flips = [in_bytes(batch[n]).diff(dim=3)[:, 0, 0, 0] < 0 for n in ("real", "partner")]
        pairs += list(zip(*(f.tolist() for f in flips), strict=True))
    assert {*pairs} == {(a, b) for a in (False, True) for b in (False, True)}
    assert 0.3 < np.mean([a == b for a, b in pairs]) < 0.7


def test_processes_have_their_slices_of_all_of_it() -> None:
    """Both draw for the whole batch, so that together they see what one alone would."""
    arrangements: tuple[Arrangement, ...] = ("pairs", "unpaired")
    for arrangement in arrangements:
        data = numbered(arrangement, 12, 12 if arrangement == "pairs" else 9, window=5)
        alone = shading(data, mirror=True, zoom=1.3)
        ranks = [shading(data, mirror=True, zoom=1.3, world=World(r, 2)) for r in range(2)]
        for purpose in ("0/0", "1/0"):
            whole = alone._next_batch(purpose)
            parts = [run._next_batch(purpose) for run in ranks]
            for name in ("real", "partner"):
                together = torch.empty_like(whole[name])
                together[0::2], together[1::2] = (part[name] for part in parts)
                assert torch.equal(together, whole[name])


def test_windows_of_single_images_are_random_and_of_the_examples_the_middle() -> None:
    run = shading(numbered("single", window=5))
    rows = {row for batch in batches(run, 30) for _, row in windowed(batch["real"])}
    assert rows == {0, 1, 2, 3}
    assert [row for _, row in windowed(run.examples["real"])] == [1] * 12


# What is prepared.


def test_every_move_and_the_examples_are_prepared() -> None:
    calls: list[Batch] = []

    class Counted(Shade):
        def prepare(self, batch: Batch) -> Batch:
            calls.append(batch)
            return super().prepare(batch)

    run = shading(kind=Counted, d_moves=2)
    for _ in range(3):
        run.run_step()
    assert len(calls) == 9
    assert all("source" in batch and "partner" in batch and "fake" not in batch for batch in calls)
    drawn = {tuple(torch.rand(2, generator=batch["source"]).tolist()) for batch in calls}
    assert len(drawn) == 9  # each move draws its own
    first = run.examples
    assert len(calls) == 10 and run.examples is first


def test_what_is_prepared_is_split_among_the_parts_of_a_batch() -> None:
    shown: list[Batch] = []

    class Spied(Shade):
        def generate(self, live: Live, batch: Batch) -> Batch:
            shown.append(batch)
            return super().generate(live, batch)

    run = shading(kind=Spied, accumulate=2)
    run.run_step()
    assert [len(batch["drawn"]) for batch in shown] == [2] * 4
    for batch in shown:
        assert len(batch["image"]) == len(batch["real"]) == len(batch["partner"]) == 2
        assert numbers_of(batch["image"]) == numbers_of(batch["real"])


@pytest.mark.parametrize("arrangement", ["pairs", "unpaired", "single"])
def test_the_examples_are_always_the_same_and_those_of_the_data(arrangement: Arrangement) -> None:
    data = numbered(arrangement)
    first, second = shading(data, seed=3), shading(data, seed=3)
    torch.rand(5)
    for _ in range(4):
        first.run_step()
    a, b = first.examples, second.examples
    assert numbers_of(a["real"]) == list(range(12)) and a.keys() == b.keys()
    for name in a.keys() - {"source"}:
        assert torch.equal(a[name], b[name])
    if arrangement == "pairs":
        assert numbers_of(a["partner"]) == numbers_of(a["real"])
    assert torch.equal(a["image"], a["real"] if arrangement == "single" else a["partner"])
    third = shading(data, seed=4).examples
    assert torch.equal(third["real"], a["real"]) and not torch.equal(third["drawn"], a["drawn"])


def test_looking_at_the_examples_changes_no_step() -> None:
    watched, unwatched = shading(), shading()
    for _ in range(3):
        watched.run_step()
        watched.examples  # noqa: B018
        unwatched.run_step()
    assert same(watched.state(), unwatched.state())


def test_of_much_data_there_are_256_examples_spread_over_all_of_it() -> None:
    pixels = np.arange(1_000, dtype=np.int64)
    samples = np.stack([pixels // 256, pixels % 256], 1).astype(np.uint8)[:, None, :, None]
    samples = np.ascontiguousarray(samples.repeat(2, 3))
    data = Dataset("many", samples, None, (), partners=samples[:300], arrangement="unpaired")
    examples = shading(data).examples
    found = in_bytes(examples["real"])[:, 0, :, 0] @ torch.tensor([256.0, 1.0])
    assert len(found) == 256 and found[0] == 0 and found[-1] == 999
    assert found.diff().min() >= 3 and found.diff().max() <= 4
    theirs = in_bytes(examples["partner"])[:, 0, :, 0] @ torch.tensor([256.0, 1.0])
    assert len(theirs) == 256 and theirs[-1] == 299


# Augmentations of fakes alone.


class Old(Augmentation):
    """All fakes are replaced by 5, and it counts how often."""

    name = "old"
    fakes_only = True

    def __init__(self) -> None:
        self.calls: list[Tensor] = []

    def __call__(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        self.calls.append(sample)
        return torch.full_like(sample, 5.0)


class Pooled(Shade):
    """What D is shown is kept: (its mean, whether it has a gradient)."""

    def __init__(self, options: Options, data: Any) -> None:
        super().__init__(options, data)
        self.old, self.shown = Old(), list[tuple[float, bool]]()

    def augmentations(self) -> list[Augmentation]:
        return [self.old, *super().augmentations()]

    def discriminate(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        self.shown.append((sample.mean().item(), sample.requires_grad))
        return super().discriminate(live, sample, batch)


@pytest.mark.parametrize("parts", [1, 2])
def test_an_augmentation_of_fakes_is_for_the_discriminators_moves_alone(parts: int) -> None:
    run = shading(kind=Pooled, d_moves=2, accumulate=parts)
    system = cast(Pooled, run.system)
    run.run_step()
    assert len(system.old.calls) == 2 * parts
    assert not any(sample.requires_grad for sample in system.old.calls)
    fives = [mean for mean, _ in system.shown if mean == 5.0]
    assert len(fives) == 2 * parts  # once a batch of D: neither reals nor G's fakes
    graded = [mean for mean, grad in system.shown if grad]
    assert len(graded) == parts and 5.0 not in graded


def test_fakes_that_are_reused_are_gs_own_and_not_those_exchanged() -> None:
    """Else G would learn nothing by them."""
    run = shading(kind=Pooled, fakes="reused")
    system = cast(Pooled, run.system)
    before = [p.clone() for p in run.networks["G"].parameters()]
    run.run_step()
    assert [mean for mean, _ in system.shown].count(5.0) == 1
    assert system.shown[-1][0] != 5.0 and system.shown[-1][1]
    assert not same(before, list(run.networks["G"].parameters()))


# Unrolling, where stages have other players.


class Stages(Shade):
    """First G alone, without D's judgement, then D and G; an encoder beside them never moves here."""

    def networks(self) -> dict[str, nn.Module]:
        return super().networks() | {"E": nn.Conv2d(1, 1, 1)}

    def players(self) -> dict[str, Player]:
        players = super().players()
        players["G"].objectives.append(Objective("l1", l1))
        players["E"] = Player(("E",), [Objective("l1", l1)], averaged=True)
        return players

    def stages(self) -> list[Stage]:
        alone: Schedules = {"weight/adversarial": lambda t: 0.0}
        return [Stage((Turn("G"),), 0.5, alone), Stage((Turn("D"), Turn("G")), 0.5)]


def test_an_unrolling_player_foresees_its_opponents_where_they_have_something_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    foreseen: list[tuple[int, tuple[str, ...]]] = []

    def spy(player: Player, *rest: Any) -> Any:
        foreseen.append((run.step, player.networks))
        return foresee(player, *rest)

    monkeypatch.setattr("gan.trainer.engine.foresee", spy)
    run = shading(kind=Stages, unroll=1)
    for _ in range(10):
        run.run_step()
    assert foreseen == [(step, ("D",)) for step in range(5, 10)]
    assert run.skipped == 0
