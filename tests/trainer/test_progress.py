"""What a run tells: speed, sheets of fixed latents, and the same numbers in metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from gan.runtime.images import scatter
from gan.runtime.inputs import draw_field
from gan.trainer import progress
from gan.trainer.config import make_options
from gan.trainer.dataset import Dataset
from gan.trainer.engine import Training
from gan.trainer.progress import Journal, Sheet, Speed
from gan.trainer.run_folder import RunFolder
from gan.trainer.systems.dcgan import DCGAN
from gan.trainer.systems.gan import GAN

from .conftest import TINY, images, training


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


def tiny(classes: int = 0, seed: int = 0) -> Training:
    data = images(24, 8, classes)
    sizes = {name: value for name, value in TINY.items() if name != "resolution"}
    return training(DCGAN, data=data, options=make_options(DCGAN, data.info, sizes), seed=seed)


def test_speed_is_steps_a_second_over_the_last_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    speed = Speed(10)  # a resumed run begins at step 10
    clock.now += 2
    assert speed.mark(20) == pytest.approx(5.0)
    for second in range(1, 101):  # then one step a second
        clock.now += 1
        last = speed.mark(20 + second)
    assert last == pytest.approx(1.0)


def test_a_sheet_shows_the_averaged_generator_at_the_seeds_first_latents() -> None:
    live = tiny(seed=7)
    live.run_step()
    pixels = Sheet(live).draw()
    assert pixels.shape == (8 * 10 - 2, 10 * 10 - 2, 1) and pixels.dtype == np.uint8
    z = torch.from_numpy(draw_field(live.graph.inputs[0], 7, range(80)))
    with torch.no_grad():
        values = live.averaged["G"](z)[:, 0].double().numpy()
    for index in (0, 9, 10, 79):
        top, left = index // 10 * 10, index % 10 * 10
        shown = pixels[top : top + 8, left : left + 8, 0]
        assert np.abs(shown - np.clip(127.5 * values[index] + 127.5, 0, 255)).max() <= 0.51


def test_a_sheet_has_a_column_for_each_class() -> None:
    live = tiny(classes=3)
    live.run_step()
    pixels = Sheet(live).draw()
    assert pixels.shape == (8 * 10 - 2, 3 * 10 - 2, 1)
    z = torch.from_numpy(draw_field(live.graph.inputs[0], 0, range(24)))
    with torch.no_grad():
        values = live.averaged["G"](z, torch.arange(24) % 3)[:, 0].double().numpy()
    shown = pixels[10:18, 20:28, 0]  # second row, third column: class 2
    assert np.abs(shown - np.clip(127.5 * values[5] + 127.5, 0, 255)).max() <= 0.51


def test_a_sheet_of_points_is_a_plot_of_the_seeds_first_2000() -> None:
    data = Dataset(
        "pairs", np.random.default_rng(0).normal(size=(24, 2)).astype(np.float32), None, ()
    )
    options = make_options(GAN, data.info, {"batch_size": 4, "width": 4})
    live = training(GAN, data=data, options=options, seed=7)
    live.run_step()
    z = torch.from_numpy(draw_field(live.graph.inputs[0], 7, range(2_000)))
    with torch.no_grad():
        expected = scatter(live.averaged["G"](z).numpy())
    assert np.array_equal(Sheet(live).draw(), expected) and expected.shape == (384, 384, 1)


def test_a_sheet_changes_with_the_weights_and_with_nothing_else() -> None:
    live = tiny()
    sheet = Sheet(live)
    first = sheet.draw()
    torch.rand(9)
    assert np.array_equal(sheet.draw(), first)
    for _ in range(5):
        live.run_step()
    assert not np.array_equal(sheet.draw(), first)


def events(folder: RunFolder) -> EventAccumulator:
    board = EventAccumulator(str(folder.tensorboard))
    board.Reload()
    return board


def test_readings_go_to_the_file_and_to_tensorboard(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    journal = Journal(folder, 0)
    journal.scalars(50, {"loss/D": 0.5})
    journal.scalars(100, {"loss/D": 0.25})
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    journal.sheet(100, picture)
    journal.close()
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert lines == [{"step": 50, "loss/D": 0.5}, {"step": 100, "loss/D": 0.25}]
    with Image.open(folder.samples / "0000100.png") as image:
        assert np.array_equal(np.asarray(image), picture)
    board = events(folder)
    scalars = [(e.step, e.value) for e in board.Scalars("loss/D")]
    assert scalars == [(50, 0.5), (100, 0.25)]
    assert [e.step for e in board.Images("samples")] == [100]


@pytest.mark.parametrize(("step", "kept"), [(100, [50.5, 100.5]), (75, [50.5]), (0, [])])
def test_a_resumed_run_takes_back_what_came_after_its_checkpoint(
    tmp_path: Path, step: int, kept: list[float]
) -> None:
    folder = RunFolder(tmp_path)
    first = Journal(folder, 0)
    for number in (50, 100, 150):
        first.scalars(number, {"loss/D": number + 0.5})
    first.close()
    second = Journal(folder, step)
    for number in (150, 200):
        second.scalars(number, {"loss/D": number + 0.25})
    second.close()
    lines = [json.loads(line)["loss/D"] for line in folder.metrics.read_text().splitlines()]
    assert lines == [*kept, 150.25, 200.25]
    scalars = events(folder).Scalars("loss/D")
    assert [event.value for event in scalars] == lines
