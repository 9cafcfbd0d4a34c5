"""N1: NaN and infinity in data, latents, losses, gradients, augmentations, weights, buffers, moments.

The move is skipped and counted, the tenth in a row ends the run, the averages are finite at every moment, and no checkpoint
holds what is not finite.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan.runtime.errors import CheckpointError, TrainingDivergedError
from gan.trainer import engine, systems
from gan.trainer.augment import ImagePool
from gan.trainer.checkpoint import Checkpoint, first_bad_number, save
from gan.trainer.config import make_options
from gan.trainer.dataset import Dataset
from gan.trainer.engine import Training, all_finite
from gan.trainer.loop import train
from gan.trainer.parts import Augmentation, Batch, Live
from gan.trainer.run_folder import RunFolder
from gan.trainer.trees import Tree, tree_map

from ..faults import TORTURE
from .conftest import OWN, Point, PointOptions, content, own_request, same, tiny_request, training
from .conftest import weights as weights_of

NAN, INF = math.nan, math.inf
SMALL: dict[str, Any] = {"batch_size": 4, "width": 4, "latent": 4, "embedding": 2, "projection": 4}
SYSTEMS: dict[str, dict[str, Any]] = {
    "dcgan": {},
    "cgan": {"penalty_every": 2, "diffaugment": "color,cutout", "spectral_norm": True},
    "wgan-gp": {"d_moves": 2},
    "stylegan2": {"style": 4, "mapping_layers": 2, "path_length_every": 2, "penalty_every": 2, "r1": 1.0, "ada_target": 0.6},
    "r3gan": {"group": 4},
    "progressive": {},
    "unrolled": {"unroll": 2},
    "cyclegan": {"width": 4, "d_width": 4, "blocks": 1, "pool": 6, "batch_size": 2},
}  # fmt: skip
STEP = 4  # at which a lazy objective is due, and where pools and moments are filled


def small(name: str) -> Training:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 1, 8, 8), np.uint8)
    labels = np.arange(24, dtype=np.int64) % 2
    data = Dataset("noise", pixels, labels, ("a", "b"))
    given = SMALL | SYSTEMS[name]
    if name == "cyclegan":
        data = Dataset("noise", pixels, None, (), partners=255 - pixels, arrangement="unpaired")
        given = SYSTEMS[name]
    kind, _ = systems.load(name)
    options = make_options(kind, data.info, given)
    return training(kind, data=data, options=options, steps=40)


class Spoilt(Augmentation):
    """Spoils what the discriminators see."""

    name = "spoilt"

    def __init__(self, at: Callable[[], float]) -> None:
        self.at = at

    def __call__(self, live: Live, sample: Tree, batch: Batch) -> Tree:
        return tree_map(lambda x: x + self.at(), sample)


def spoil(live: Training, kind: str, by: Callable[[], float], patch: pytest.MonkeyPatch) -> None:
    """Add `by()` to something: 0, but where it is to be spoilt."""
    what, _, of = kind.partition(" of ")
    if what in ("samples", "partners"):
        whole = getattr(live.data, f"{what}_of")
        patch.setattr(live.data, f"{what}_of", lambda *a, **n: whole(*a, **n) + by())
    elif what == "latents":
        draw = vars(engine)["draw"]
        patch.setattr(engine, "draw", lambda *a, **n: draw(*a, **n) + by())
    elif what == "gradient":
        parameter = next(live.networks[live.players[of].networks[0]].parameters())
        parameter.register_hook(lambda gradient: gradient + by())
    elif what == "augmentation":
        live.augmentations.append(Spoilt(by))
    else:
        (objective,) = (o for o in live.players[of].objectives if o.name == what)
        original = objective.value
        objective.value = lambda l, b: original(l, b) + by()


def kinds(live: Training) -> list[str]:
    """All that can be spoilt for a step, of a training."""
    found = ["samples", "augmentation"]
    found += ["partners"] if live.data.partners is not None else ["latents"]
    for name, player in live.players.items():
        found += [f"gradient of {name}", *(f"{o.name} of {name}" for o in player.objectives)]
    return found


PASSING = [(name, kind) for name in SYSTEMS for kind in kinds(small(name))]
VALUES = itertools.cycle((NAN, INF, -INF))


def chosen(cases: list[Any]) -> list[Any]:
    """All with GAN_TORTURE=1, else every seventh: which, moves with each system."""
    valued = [(*case, next(VALUES)) for case in cases]
    return valued if TORTURE else valued[::7]


def averages(live: Training) -> bool:
    return all_finite([x for net in live.averaged.values() for x in net.state_dict().values()])


def test_there_are_enough_cases() -> None:
    """Every kind of step is among them: penalties, path length, cycle, identity."""
    assert len(PASSING) >= 50
    named = {kind.partition(" of ")[0] for _, kind in PASSING}
    assert named >= {"adversarial", "r1", "r2", "gp", "path_length", "cycle", "identity", "drift"}


@pytest.mark.torture
@pytest.mark.parametrize(("name", "kind", "value"), chosen(PASSING), ids=str)
def test_what_passes_costs_a_move_and_what_stays_ends_the_training(
    name: str, kind: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, always = small(name), False
    spoil(live, kind, lambda: value if always or live.step == STEP else 0.0, monkeypatch)
    for _ in range(STEP):
        live.run_step()
    assert live.skipped == 0
    live.run_step()
    assert live.skipped >= 1
    assert live.sound and averages(live) and first_bad_number(live.state()) is None
    skipped = live.skipped
    for _ in range(4):
        live.run_step()
    assert live.skipped == skipped and set(live.skipped_in_a_row.values()) == {0}
    assert all(map(math.isfinite, live.means.take().values()))
    always = True
    with pytest.raises(TrainingDivergedError, match=r"10 moves of .* in a row"):
        for _ in range(50):
            assert averages(live)
            live.run_step()
    assert live.skipped - skipped < 50
    assert live.sound and averages(live) and first_bad_number(live.state()) is None


def test_a_lazy_penalty_that_never_succeeds_ends_the_training_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every other move of D is good, so there are never ten in a row."""
    live = small("cgan")
    spoil(live, "r1 of D", lambda: NAN, monkeypatch)
    with pytest.raises(TrainingDivergedError, match="10 moves of D with r1 in a row"):
        for _ in range(50):
            live.run_step()
    assert live.step == 18 and live.skipped == 10 and live.sound


def tensors(live: Training, what: str, player: str) -> list[Tensor]:
    networks = [live.networks[name] for name in live.players[player].networks]
    if what == "weights":
        return [p.data for network in networks for p in network.parameters()]
    if what == "buffers":
        return [b for network in networks for b in network.buffers() if b.is_floating_point()]
    moments = live.optimizers[player].state.values()
    return [m for entry in moments for name, m in entry.items() if name != "step"]


STAYING = [
    (name, what, player)
    for name, (what, player) in itertools.product(
        SYSTEMS, itertools.product(("weights", "buffers", "moments"), ("D", "G"))
    )
    if what != "buffers" or (name != "progressive" and tensors(small(name), what, player))
]  # progressive sets its buffer anew at every step


@pytest.mark.torture
@pytest.mark.parametrize(("name", "what", "player", "value"), chosen(STAYING), ids=str)
def test_what_is_spoilt_inside_never_reaches_the_averages_and_ends_the_training(
    name: str, what: str, player: str, value: float
) -> None:
    live = small(name)
    for _ in range(STEP):
        live.run_step()
    for tensor in tensors(live, what, player):
        tensor.view(-1)[0] = value
    ended = False
    for _ in range(25):
        try:
            live.run_step()
        except TrainingDivergedError:
            ended = True
            break
        finally:
            assert averages(live)
    # Some only stop a weight from moving: the run ends where its next checkpoint would be written.
    assert ended or not live.sound or first_bad_number(live.state())
    assert ended or what == "moments"


class Norms(Point):
    """D and G with batch norm."""

    def networks(self) -> dict[str, nn.Module]:
        g = nn.Sequential(nn.Linear(self.options.latent, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        return {"G": g, "D": nn.Linear(1, 1)}


def test_a_buffer_that_overflows_costs_the_move_though_the_loss_is_finite() -> None:
    """Activations of 1e25 have an infinite variance, and normalised they are zeros: finite, and dead for ever."""
    live = training(Norms, options=PointOptions(batch_size=4))
    live.run_step()
    before = weights_of(live.networks["G"])
    first = live.networks["G"][0]  # type: ignore[index]
    kept = first.weight.data.clone()
    first.weight.data.mul_(1e25)
    live.run_step()
    assert live.skipped == 2  # D's move and G's
    assert same(before["1.running_var"], live.networks["G"][1].running_var)  # type: ignore[index]
    assert averages(live)
    first.weight.data.copy_(kept)
    live.run_step()
    assert live.skipped == 2 and live.sound


class Masked(Point):
    """G with a mask of attention: infinite by intention."""

    def networks(self) -> dict[str, nn.Module]:
        networks = super().networks()
        networks["G"].register_buffer("mask", torch.full((2, 2), -INF).triu(1))
        return networks


def test_a_mask_of_infinities_is_no_fault(tmp_path: Path) -> None:
    live = training(Masked)
    for _ in range(3):
        live.run_step()
    assert live.skipped == 0 and live.sound
    assert not same(weights_of(live.averaged["G"]), weights_of(training(Masked).averaged["G"]))
    assert first_bad_number(live.state()) is None


def test_a_pool_with_a_bad_image_gives_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    live = small("cyclegan")
    for _ in range(8):
        live.run_step()
    (pool,) = (a for a in live.augmentations if isinstance(a, ImagePool))
    for images in pool._images.values():
        images[0] = NAN
    assert first_bad_number(live.state()) is not None
    for _ in range(30):
        live.run_step()
        assert averages(live) and live.sound
    assert 1 <= live.skipped <= 2 and first_bad_number(live.state()) is None


# A run.


def broken(at: int, times: str = "float('nan')") -> str:
    """OWN, whose D is not finite from a step on."""
    return OWN.replace(
        'return live.networks["D"](sample.flatten(1)).flatten()',
        f'return live.networks["D"](sample.flatten(1)).flatten() * ({times} if live.step >= {at} else 1)',
    )


def own_run(data: Path, folder: Path, text: str, **fields: Any) -> Any:
    return train(own_request(data, folder, text, **{"steps": 30, "measure_every": 1, **fields}))


def finite(path: Path) -> bool:
    checkpoint = Checkpoint.load(path).content
    states = [state for part in ("networks", "averaged") for state in checkpoint[part].values()]
    return all_finite([tensor for state in states for tensor in state.values()])


@pytest.mark.parametrize("value", ["float('nan')", "-float('inf')"])
def test_a_run_that_diverges_names_the_checkpoint_that_is_good_and_can_go_on(
    digit_folder: Path, tmp_path: Path, value: str
) -> None:
    folder, said = RunFolder(tmp_path / "run"), []
    for _ in range(2):  # the same request ends the same way
        with pytest.raises(TrainingDivergedError, match="10 moves of D in a row") as caught:
            own_run(digit_folder, tmp_path, broken(5, value), checkpoint_every=4, keep=2)
        said.append(str(caught.value))
        step = Checkpoint.load(folder.checkpoint).step
        assert f"{folder.checkpoint} of step {step} is good" in said[-1]
        assert "--accept g-learning-rate" in said[-1] and "--force" in said[-1]
        found = [folder.checkpoint, folder.best, *folder.history.iterdir()]
        assert len(found) == 4 and all(map(finite, found))
    ended = own_run(digit_folder, tmp_path, OWN, checkpoint_every=4, accept=("system",))
    assert ended.finished and finite(folder.checkpoint)


@pytest.mark.parametrize(("network", "value"), [("networks", INF), ("averaged", NAN)])
def test_spoilt_weights_are_never_written_over_good_ones(
    digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str, value: float
) -> None:
    run_step = Training.run_step

    def spoilt(self: Training) -> None:
        run_step(self)
        if self.step == 5:
            next(getattr(self, network)["G"].parameters()).data[0] = value

    monkeypatch.setattr(Training, "run_step", spoilt)
    folder = RunFolder(tmp_path / "run")
    request = tiny_request(digit_folder, folder.path, {"steps": 20}, checkpoint_every=2, keep=2)
    with pytest.raises(TrainingDivergedError, match=r"model\.pt of step 4 is good"):
        train(request)
    assert Checkpoint.load(folder.checkpoint).step == 4
    assert all(map(finite, [folder.checkpoint, *folder.history.iterdir()]))
    monkeypatch.undo()
    assert train(request).finished  # what was in memory is forgotten
    whole = train(tiny_request(digit_folder, tmp_path / "whole", {"steps": 20}))
    assert same(content(train(request))["averaged"], content(whole)["averaged"])


SPOILT_STATE: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
    ("networks G", lambda c: next(iter(c["networks"]["G"].values())).fill_(NAN)),
    ("averaged G", lambda c: next(iter(c["averaged"]["G"].values())).view(-1)[:1].fill_(NAN)),
    ("optimizers D", lambda c: c["optimizers"]["D"]["state"][0]["exp_avg"].fill_(NAN)),
    ("augmentations ada", lambda c: c["augmentations"].update(ada={"p": NAN, "readings": []})),
]


@pytest.mark.parametrize(("name", "edit"), SPOILT_STATE, ids=[name for name, _ in SPOILT_STATE])
def test_a_checkpoint_with_what_is_no_number_is_neither_written_nor_read(
    digit_folder: Path, tmp_path: Path, name: str, edit: Callable[[dict[str, Any]], None]
) -> None:
    path = train(tiny_request(digit_folder, tmp_path / "run", {"steps": 2})).folder.checkpoint
    before, spoilt = path.read_bytes(), Checkpoint.load(path).content
    edit(spoilt)
    with pytest.raises(TrainingDivergedError, match=f"{name}.* is not finite; nothing was saved"):
        save(path, spoilt)
    assert path.read_bytes() == before
    torch.save({"format": 4, **spoilt}, path)  # as by another hand
    with pytest.raises(CheckpointError, match=rf"{name}.* is not finite.*best\.pt"):
        Checkpoint.load(path)


def test_a_stranger_may_nest_without_end() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    itself: dict[str, Any] = {}
    itself["again"] = itself
    learnt: dict[str, Any] = {"networks": {}, "averaged": {}, "augmentations": itself}
    learnt["optimizers"] = {"D": deep}
    assert first_bad_number(learnt) is None
    learnt["networks"] = {"G": {"weight": torch.empty(3, device="meta")}}
    assert first_bad_number(learnt) == "networks G weight"


def test_a_metric_that_is_not_finite_is_never_the_best(digit_folder: Path, tmp_path: Path) -> None:
    text = (
        OWN.replace("from gan.trainer import", "from gan.trainer import Metric,")
        + """
    def metrics(self):
        values = [0.1, float("inf"), float("nan"), 0.5, -float("inf"), 0.2]
        return [Metric("score", lambda live: {"score": values[live.step - 1]}, (0, 1))]
"""
    )
    outcome = own_run(digit_folder, tmp_path, text, steps=6)
    assert Checkpoint.load(outcome.folder.best).step == 4
    rows = map(json.loads, outcome.folder.metrics.read_text().splitlines())
    assert len([row for row in rows if "metric/score" in row]) == 6
