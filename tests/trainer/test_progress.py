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
from torch import Tensor

from gan.runtime.images import scatter
from gan.runtime.inputs import draw_field
from gan.trainer import progress
from gan.trainer.config import make_options
from gan.trainer.dataset import Dataset
from gan.trainer.engine import Training
from gan.trainer.metrics import run_averaged
from gan.trainer.progress import Journal, Sheet, Speed, fitted
from gan.trainer.run_folder import RunFolder
from gan.trainer.systems.dcgan import DCGAN
from gan.trainer.systems.gan import GAN

from .conftest import TINY, images, training
from .translation import dataset, live


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
    second = Journal(folder, step)
    for number in (150, 200):
        second.scalars(number, {"loss/D": number + 0.25})
    lines = [json.loads(line)["loss/D"] for line in folder.metrics.read_text().splitlines()]
    assert lines == [*kept, 150.25, 200.25]
    scalars = events(folder).Scalars("loss/D")
    assert [event.value for event in scalars] == lines


# Of a generator that takes images: what it was given, what it made, and the truth.


def tiles(pixels: np.ndarray, size: int) -> list[list[np.ndarray]]:
    """The images of a sheet, which are 2 pixels apart, row by row."""
    rows, columns = ((side + 2) // (size + 2) for side in pixels.shape[:2])
    step = size + 2
    return [
        [pixels[r * step : r * step + size, c * step : c * step + size] for c in range(columns)]
        for r in range(rows)
    ]


def in_bytes(x: Tensor) -> np.ndarray:
    """[C, H, W] of [-1, 1] as [H, W, C]."""
    return np.rint(np.clip(x.double().numpy() * 127.5 + 127.5, 0, 255)).transpose(1, 2, 0)


def groups(pixels: np.ndarray, size: int, count: int) -> list[list[np.ndarray]]:
    """One list an example: the sheet has two in each row."""
    return [
        row[i * count : (i + 1) * count] for row in tiles(pixels, size) for i in range(2)
    ]  # fmt: skip


@pytest.mark.parametrize("partner", [1, 3])
def test_a_sheet_of_pairs_shows_input_output_and_truth(partner: int) -> None:
    run = live("pix2pix", dataset("pix2pix", partner=partner))
    run.run_step()
    pixels = Sheet(run).draw()
    assert pixels.shape == (6 * 18 - 2, 6 * 18 - 2, 3)  # 12 examples of three
    examples = run.examples
    made = run_averaged(run.graph, run, examples)
    found = groups(pixels, 16, 3)
    assert len(found) == 12
    for i, shown in enumerate(found):
        given = in_bytes(examples["image"][i].expand(3, -1, -1))
        for image, expected in zip(
            shown, (given, in_bytes(made[i]), in_bytes(examples["real"][i])), strict=True
        ):
            assert np.abs(image - expected).max() <= 1


def test_a_small_image_is_shown_large_by_its_own_pixels() -> None:
    run = live("srgan")
    run.run_step()
    found = groups(Sheet(run).draw(), 16, 3)
    small = in_bytes(run.examples["image"][5]).repeat(4, 0).repeat(4, 1)
    assert np.abs(found[5][0] - small).max() <= 1
    assert np.abs(found[5][2] - in_bytes(run.examples["real"][5])).max() <= 1


def test_a_hole_is_shown_grey() -> None:
    run = live("inpainting")
    run.run_step()
    found = groups(Sheet(run).draw(), 16, 3)
    for i, (given, made, truth) in enumerate(found[:12]):
        hole = run.examples["mask"][i, 0].numpy() == 1
        assert (np.abs(given[hole].astype(int) - 127.5) <= 0.5).all() and hole.any()
        assert np.array_equal(given[~hole], truth[~hole])
        assert np.array_equal(made[~hole], truth[~hole])
        assert not np.array_equal(made[hole], truth[hole])


def test_of_unpaired_images_there_is_no_truth_and_of_rgba_an_alpha() -> None:
    run = live("cyclegan", dataset("cyclegan", channels=4, count=30))
    run.run_step()
    pixels = Sheet(run).draw()
    assert pixels.shape == (8 * 18 - 2, 4 * 18 - 2, 4)  # at most 16 examples of two
    found = groups(pixels, 16, 2)
    made = run_averaged(run.graph, run, run.examples)
    for i in (0, 7, 15):
        assert np.abs(found[i][0] - in_bytes(run.examples["image"][i])).max() <= 1
        assert np.abs(found[i][1] - in_bytes(made[i])).max() <= 1


def test_images_are_fitted_to_one_size_and_one_number_of_channels() -> None:
    grey, colour = torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4)
    assert torch.equal(fitted(grey, (4, 4), 3), grey.expand(-1, 3, -1, -1))
    assert torch.equal(fitted(colour, (4, 4), 3), colour)
    clear = fitted(colour, (8, 4), 4)
    assert clear.shape == (2, 4, 8, 4) and (clear[:, 3] == 1).all()
    assert torch.equal(clear[:, :3], colour.repeat_interleave(2, 2))
    half = fitted(grey, (2, 2), 1)
    assert torch.equal(half, grey[:, :, ::2, ::2])


@pytest.mark.parametrize("partner", [1, 4])
def test_a_sheet_has_the_most_channels_of_what_it_shows(partner: int) -> None:
    run = live("pix2pix", dataset("pix2pix", channels=1, partner=partner, count=9))
    pixels = Sheet(run).draw()
    assert pixels.shape[2] == partner
    found = groups(pixels, 16, 3)
    truth = in_bytes(run.examples["real"][0])
    assert np.array_equal(found[0][2][..., :3], truth.repeat(min(partner, 3), 2))
    assert (found[0][2][..., 3:] == 255).all()  # opaque
