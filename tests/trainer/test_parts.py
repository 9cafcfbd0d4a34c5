"""The declarations of a training: schedules of a run are cut into those of its stages."""

from __future__ import annotations

import pytest
import torch

from gan.trainer.engine import stage_at
from gan.trainer.parts import Schedules, Stage, part_of

from .conftest import Point, PointOptions, training

WHOLE: Schedules = {"square": lambda t: t**2, "falling": lambda t: 1 - t}


@pytest.mark.parametrize(("begin", "end"), [(0.0, 1.0), (0.25, 0.75), (0.9, 1.0)])
def test_a_part_of_a_schedule_goes_from_its_begin_to_its_end(begin: float, end: float) -> None:
    part = part_of(WHOLE, begin, end)
    assert list(part) == ["square", "falling"]
    assert [part["square"](t) for t in (0.0, 1.0)] == pytest.approx([begin**2, end**2])
    assert [part["falling"](t) for t in (0.0, 1.0)] == pytest.approx([1 - begin, 1 - end])
    middle = (begin + end) / 2
    assert part["square"](0.5) == pytest.approx(middle**2)
    assert part_of({}, begin, end) == {}


def test_a_part_of_a_part_is_a_part() -> None:
    once, twice = part_of(WHOLE, 0.3, 0.4), part_of(part_of(WHOLE, 0.2, 0.7), 0.2, 0.4)
    for name in WHOLE:
        for t in torch.linspace(0, 1, 7).tolist():
            assert once[name](t) == pytest.approx(twice[name](t))


@pytest.mark.parametrize("shares", [(1.0,), (1.0, 3.0), (0.5, 0.3, 1.2)])
def test_stages_with_their_parts_follow_the_schedule_of_the_whole_run(
    shares: tuple[float, ...],
) -> None:
    total, done, stages = sum(shares), 0.0, []
    for share in shares:
        knobs = part_of(WHOLE, done / total, (done + share) / total)
        stages.append(Stage((), share, knobs))
        done += share
    for step in range(40):
        number, progress = stage_at(stages, step, 40)
        for name, curve in WHOLE.items():
            assert stages[number].schedules[name](progress) == pytest.approx(curve(step / 40))


def test_a_training_in_parts_has_the_rates_of_a_training_in_one() -> None:
    class Cut(Point):
        def stages(self) -> list[Stage]:
            return [
                Stage(self.turns(), share, part_of(self.schedules(), begin, begin + share))
                for begin, share in ((0.0, 0.3), (0.3, 0.5), (0.8, 0.2))
            ]

    options = PointOptions(decay_share=0.6, d_learning_rate=0.5)
    rates = []
    for kind in (Point, Cut):
        live = training(kind, options=options, steps=10)
        for _ in range(10):
            live.run_step()
            rates.append(live.optimizers["D"].param_groups[0]["lr"])
    assert rates[10:] == pytest.approx(rates[:10]) and len(set(rates[:10])) == 6
