"""`train` as a user meets it: folders, resuming, differences, threads, minutes, signals, metrics, systems of one's own."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gan.trainer
from gan.runtime.errors import (
    CheckpointError,
    TrainingDivergedError,
)
from gan.trainer import engine as engine_module
from gan.trainer import loop as module
from gan.trainer import request as request_module
from gan.trainer.checkpoint import Checkpoint
from gan.trainer.checkpoint import save as save_checkpoint
from gan.trainer.config import default_ema_decay
from gan.trainer.data import load_dataset
from gan.trainer.engine import Training
from gan.trainer.loop import Outcome, steps_in, train
from gan.trainer.probe import Probe
from gan.trainer.progress import Journal, Status
from gan.trainer.request import Request
from gan.trainer.run_folder import RunFolder

from .conftest import OWN, Run, content, own_request, same, tiny_request

WEIGHTS = ("networks", "averaged", "optimizers", "progress")


def stop_at(step: int) -> Callable[[Status], None]:
    """A status callback that sends SIGTERM to this process so that `step` is its last, and no second one."""
    sent: list[int] = []

    def on_status(status: Status) -> None:
        if status.step == step - 1 and not sent:
            sent.append(step)
            os.kill(os.getpid(), signal.SIGTERM)

    return on_status


def rows(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in outcome.folder.metrics.read_text().splitlines()]


@pytest.fixture
def every_step_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statuses come after every step, not twice a second."""
    times = iter(range(0, 10**9, 10))

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return float(next(times))

    monkeypatch.setattr(module, "time", Clock)
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 1e12)


# A run.


def test_a_run_leaves_its_checkpoint_metrics_samples_and_board(run: Run) -> None:
    outcome = run({"steps": 12})
    assert (outcome.step, outcome.finished, outcome.signal, outcome.new) == (12, True, None, True)
    folder = outcome.folder
    checkpoint = Checkpoint.load(folder.checkpoint)
    assert checkpoint.finished and checkpoint.step == 12
    assert checkpoint.content["progress"]["images_seen"] == 48
    assert checkpoint.config == outcome.config and outcome.config.steps == 12
    assert Checkpoint.load(folder.best).step == 12
    assert sorted(path.name for path in folder.samples.iterdir()) == [
        f"{step:07d}.png" for step in range(1, 13)
    ]
    assert list(folder.tensorboard.iterdir())
    (losses, metrics) = rows(outcome)
    assert losses["step"] == metrics["step"] == 12 and losses["images"] == 48
    assert {"loss/D", "loss/G", "accuracy/real", "accuracy/fake", "gradient/D"} <= set(losses)
    assert metrics["metric/coverage"] == checkpoint.metrics["values"]["coverage"]
    assert {"coverage", "density", "class_coverage", "worst_class_coverage"} == set(
        checkpoint.metrics["values"]
    )
    assert not (folder.path / ".model.pt.part").exists()


def test_the_same_request_twice_is_the_same_run(digit_folder: Path, tmp_path: Path) -> None:
    first, second = (train(tiny_request(digit_folder, tmp_path / name)) for name in "ab")
    other = train(tiny_request(digit_folder, tmp_path / "c", {"seed": 1}))
    for section in WEIGHTS:
        assert same(content(first)[section], content(second)[section])
    assert not same(content(first)["networks"], content(other)["networks"])


def test_a_finished_run_says_so_and_trains_nothing(run: Run) -> None:
    first = run()
    before = {path: path.stat().st_mtime_ns for path in first.folder.path.rglob("*")}
    again = run()
    assert (again.finished, again.new, again.step) == (True, False, 6)
    assert {path: path.stat().st_mtime_ns for path in first.folder.path.rglob("*")} == before


def test_statuses_tell_where_the_run_is(
    digit_folder: Path, tmp_path: Path, every_step_told: None
) -> None:
    told: list[Status] = []
    train(tiny_request(digit_folder, tmp_path, {"steps": 4}), told.append)
    assert [status.step for status in told] == [1, 2, 3, 4, 4]
    assert [status.images for status in told] == [4, 8, 12, 16, 16]
    assert all(status.steps == 4 and status.images_per_second > 0 for status in told)
    assert told[0].metric is None and told[0].seconds_left > 0
    assert told[-1].seconds_left == 0 and told[-1].metric is not None
    name, value = told[-1].metric
    assert name == "coverage" and value >= 0 and "loss/D" in told[-1].values


def test_readings_samples_measures_and_checkpoints_come_when_asked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[tuple[str, int]] = []
    original = save_checkpoint

    def save(path: Path, content: Mapping[str, Any]) -> None:
        saved.append((path.name, content["progress"]["step"]))
        original(path, content)

    monkeypatch.setattr(module, "save", save)
    monkeypatch.setattr(module, "LOG_EVERY", 4)
    outcome = run({"steps": 10}, sample_every=5, measure_every=3, checkpoint_every=2)
    steps = {"loss/D": [4, 8, 10], "metric/coverage": [3, 6, 9, 10]}
    for name, expected in steps.items():
        assert [row["step"] for row in rows(outcome) if name in row] == expected
    samples = sorted(path.name for path in outcome.folder.samples.iterdir())
    assert samples == ["0000005.png", "0000010.png"]
    assert [step for name, step in saved if name == "model.pt"] == [0, 2, 4, 6, 8, 10]


def test_checkpoints_are_written_every_two_minutes_unless_asked_otherwise(
    digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 0.0

        @classmethod
        def monotonic(cls) -> float:
            return cls.now

    saved: list[int] = []
    original = save_checkpoint

    def save(path: Path, content: Mapping[str, Any]) -> None:
        if path.name == "model.pt":
            saved.append(content["progress"]["step"])
        original(path, content)

    def minute(status: Status) -> None:
        Clock.now += 60.0

    monkeypatch.setattr(module, "time", Clock)
    monkeypatch.setattr(module, "save", save)
    Clock.now = 1000.0
    train(tiny_request(digit_folder, tmp_path, {"steps": 8}), minute)
    assert saved == [0, 4, 7, 8]  # the first time above 120 s is after the third minute


def test_the_public_names_are_these() -> None:
    assert sorted(gan.trainer.__all__) == [
        "Augmentation", "Batch", "Checkpoint", "DataInfo", "Graph", "Live", "Metric", "Objective",
        "Options", "Outcome", "Player", "Request", "Stage", "System", "Tree", "Turn", "image_field",
        "sample_field", "setting", "train",
    ]  # fmt: skip
    assert all(hasattr(gan.trainer, name) for name in gan.trainer.__all__)


# Where it lives.


def test_without_out_it_lives_under_runs_by_system_and_data(
    digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = dataclasses.replace(tiny_request(digit_folder, tmp_path), out=None)
    assert train(request).folder.path == Path("runs/cgan-digits8")
    assert (tmp_path / "runs/cgan-digits8/model.pt").exists()
    labelless = dataclasses.replace(request, given={**request.given, "labels": False})
    assert train(labelless).folder.path == Path("runs/dcgan-digits8")
    forced = dataclasses.replace(request, force=True)
    assert train(forced).folder.path == Path("runs/cgan-digits8-2")


def test_force_starts_anew_beside_and_never_over(run: Run) -> None:
    first = run()
    before = first.folder.checkpoint.read_bytes()
    second = run(force=True)
    assert second.folder.path == first.folder.path.with_name("run-2") and second.new
    assert first.folder.checkpoint.read_bytes() == before
    assert run(force=True).folder.path == first.folder.path.with_name("run-3")


def test_a_folder_in_use_is_refused(run: Run, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.make()
    with folder.locked(), pytest.raises(CheckpointError, match="is in use"):
        run()
    assert not folder.checkpoint.exists()
    assert run().finished


@pytest.mark.parametrize("steps", [6, 7])
def test_a_run_that_another_process_finished_meanwhile_is_not_written_over(
    digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    request = tiny_request(digit_folder, tmp_path / "run")
    if steps == 7:
        train(request)
    original = load_dataset

    def slow(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(request_module, "load_dataset", original)
        train(tiny_request(digit_folder, tmp_path / "run", {"steps": steps}))
        return original(*arguments, **options)

    monkeypatch.setattr(request_module, "load_dataset", slow)
    with pytest.raises(CheckpointError, match="has changed since"):
        train(dataclasses.replace(request, given={**request.given, "steps": 9}))
    assert Checkpoint.load(tmp_path / "run" / "model.pt").step == steps
    assert train(request).new is False if steps == 6 else True


# Resuming.


@pytest.mark.parametrize("stops", [(2,), (3, 5, 9)])
def test_an_interrupted_run_ends_with_the_same_bits(
    digit_folder: Path, tmp_path: Path, every_step_told: None, stops: tuple[int, ...]
) -> None:
    settings = {"steps": 12, "r1": 1.0, "penalty_every": 2, "decay_share": 0.5, "mirror": True}
    fields = {"measure_every": 4, "sample_every": 5}
    whole = train(tiny_request(digit_folder, tmp_path / "a", settings, **fields))
    request = tiny_request(digit_folder, tmp_path / "b", settings, **fields)
    for stop in stops:
        stopped = train(request, stop_at(stop))
        assert (stopped.step, stopped.finished, stopped.new) == (stop, False, True)
        assert stopped.signal == signal.SIGTERM
        assert Checkpoint.load(stopped.folder.checkpoint).step == stop
        torch.rand(3)
    ended = train(request)
    assert ended.finished and ended.signal is None
    for section in (*WEIGHTS, "metrics", "health", "config"):
        assert same(content(whole)[section], content(ended)[section])
    metrics = [[row for row in rows(o) if "metric/coverage" in row] for o in (whole, ended)]
    assert metrics[0] == metrics[1] and len(metrics[0]) == 3
    for name in ("best.pt", "samples/0000005.png", "samples/0000010.png"):
        assert (tmp_path / "a" / name).exists() == (tmp_path / "b" / name).exists() is True


OF_SEVERAL_STAGES = {"steps": 10}  # 8 pixels: 6 steps of 4 pixels, 2 while fading in, 2 after


@pytest.mark.parametrize("system", ["msg-gan", "progressive", "stylegan2"])
def test_an_interrupted_run_with_stages_scales_or_styles_ends_with_the_same_bits(
    digit_folder: Path, tmp_path: Path, every_step_told: None, system: str
) -> None:
    settings = OF_SEVERAL_STAGES | {"mirror": True, "minibatch_deviation": True}
    if system == "stylegan2":
        settings |= {"style": 4, "mapping_layers": 2, "path_length_every": 2, "penalty_every": 3}
    fields: dict[str, Any] = {"measure_every": 5, "sample_every": 5, "system": system}
    whole = train(tiny_request(digit_folder, tmp_path / "a", settings, **fields))
    request = tiny_request(digit_folder, tmp_path / "b", settings, **fields)
    for stop in (3, 6, 9):  # in the first stage, at its end, in the last one
        assert train(request, stop_at(stop)).step == stop
        torch.rand(3)
    ended = train(request)
    assert ended.finished
    for section in (*WEIGHTS, "metrics", "health", "config"):
        assert same(content(whole)[section], content(ended)[section])
    assert content(ended)["progress"]["images_seen"] == 40
    for name in ("samples/0000005.png", "samples/0000010.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_grown_network_does_not_shrink_when_the_steps_grow(
    digit_folder: Path, tmp_path: Path, every_step_told: None
) -> None:
    """With 40 steps planned, step 10 would be one of 4 pixels."""
    request = tiny_request(digit_folder, tmp_path, OF_SEVERAL_STAGES, system="progressive")
    ends = [content(train(request, stop_at(3))), content(train(request))]
    for part in ("networks", "averaged"):
        assert [int(end[part]["G"]["level"]) for end in ends] == [0, 1]
    levels: list[tuple[int, float]] = []
    original = Training.run_step

    def told(training: Training) -> None:
        original(training)
        levels.append((int(training.knobs["level"]), training.knobs["alpha"]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "run_step", told)
        grown = train(dataclasses.replace(request, given={**request.given, "steps": 40}))
    assert levels == [(1, 1.0)] * 30
    progress = content(grown)["progress"]
    assert (progress["step"], progress["planned"], progress["stage"]) == (40, 10, 2)


def test_a_signal_before_the_first_step_finishes_that_one_and_saves(
    digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Journal

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(module, "Journal", interrupted)
    outcome = train(tiny_request(digit_folder, tmp_path))
    assert (outcome.step, outcome.signal, outcome.finished) == (1, signal.SIGINT, False)
    assert Checkpoint.load(outcome.folder.checkpoint).step == 1


def test_steps_may_grow_and_the_run_goes_on(digit_folder: Path, tmp_path: Path) -> None:
    grown = tiny_request(digit_folder, tmp_path / "a", {"steps": 9, "decay_share": 0.0})
    train(dataclasses.replace(grown, given={**grown.given, "steps": 4}))
    outcome = train(grown)
    assert (outcome.step, outcome.finished, outcome.new) == (9, True, True)
    straight = train(dataclasses.replace(grown, out=tmp_path / "b"))
    grown_run, straight_run = content(outcome), content(straight)
    planned = [run["progress"].pop("planned") for run in (grown_run, straight_run)]
    assert planned == [4, 9]  # the steps for which the stages were laid out
    for section in WEIGHTS:
        assert same(grown_run[section], straight_run[section])
    with pytest.raises(CheckpointError, match=r"steps 9 \(now 5\)"):
        train(dataclasses.replace(grown, given={**grown.given, "steps": 5}))


# Threads.


def test_the_thread_count_is_stored_and_kept(
    digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module, "choose_threads", lambda wanted, make, device: Probe(wanted or 2, 1)
    )
    free = tiny_request(digit_folder, tmp_path / "run", {"steps": 1}, threads=None)
    assert content(train(free))["threads"]["count"] == 2 and torch.get_num_threads() == 2
    torch.set_num_threads(1)
    monkeypatch.setattr(module, "choose_threads", lambda wanted, make, device: pytest.fail("again"))
    more = dataclasses.replace(free, given={**free.given, "steps": 2})
    assert content(train(more))["threads"]["count"] == 2 and torch.get_num_threads() == 2


def test_another_thread_count_is_refused_unless_accepted(run: Run) -> None:
    run({"steps": 1})
    with pytest.raises(
        CheckpointError, match=r"another thread count.*2 by.*stored 1.*--accept threads"
    ):
        run({"steps": 2}, threads=2)
    outcome = run({"steps": 2}, threads=2, accept=("threads",))
    assert content(outcome)["threads"]["count"] == 2 and torch.get_num_threads() == 2
    with pytest.raises(CheckpointError, match="stored 2"):
        run({"steps": 3}, threads=1)


def test_the_environments_thread_count_is_honoured(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module, "choose_threads", lambda wanted, make, device: pytest.fail("probed")
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert content(run({"steps": 1}, threads=None))["threads"]["count"] == 2
    assert torch.get_num_threads() == 2
    assert run({"steps": 2}, threads=None).step == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(CheckpointError, match=r"OMP_NUM_THREADS.*stored 2"):
        run({"steps": 3}, threads=None)
    assert content(run({"steps": 3}, threads=2))["threads"]["count"] == 2  # the flag goes first
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert run({"steps": 4}, threads=None).step == 4


# Minutes.


def test_minutes_become_steps_once_and_are_stored(
    digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_step_told: None
) -> None:
    probed: list[float] = []

    def choose_threads(wanted: int | None, make: Any, device: Any) -> Probe:
        make().run_step()  # what it is given can be trained
        probed.append(0.5)
        return Probe(wanted or 1, 0.5)

    monkeypatch.setattr(module, "choose_threads", choose_threads)
    request = tiny_request(digit_folder, tmp_path / "run", {"steps": None}, minutes=0.05)
    stopped = train(request, stop_at(2))
    assert stopped.config.steps == 6 and stopped.step == 2 and probed == [0.5]
    assert Checkpoint.load(stopped.folder.checkpoint).config.steps == 6
    assert stopped.config.ema_decay is None  # so it follows from the 6 steps
    ended = train(request)
    assert (ended.step, ended.finished, probed) == (6, True, [0.5])
    assert train(request).new is False
    straight = train(tiny_request(digit_folder, tmp_path / "straight", {"steps": 6}))
    for section in (*WEIGHTS, "config"):
        assert same(content(ended)[section], content(straight)[section])


def test_a_given_decay_outlives_the_minutes(
    digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "choose_threads", lambda *_: Probe(1, 1.0))
    given = {"steps": None, "ema_decay": 0.5}
    outcome = train(tiny_request(digit_folder, tmp_path / "run", given, minutes=0.05))
    assert (outcome.config.steps, outcome.config.ema_decay) == (3, 0.5)


def test_steps_that_fit_in_minutes() -> None:
    assert steps_in(1, 0.5) == 120
    assert steps_in(0.5, 0.7) == 42  # 30 / 0.7 = 42.86
    assert steps_in(0.001, 10) == 1


# Systems.


def test_a_system_that_makes_neither_images_nor_points_has_no_sheet_and_no_coverage(
    digit_folder: Path, tmp_path: Path
) -> None:
    text = OWN.replace("image_field(self.data)", 'Field("x", (1, 8, 8), "scalar")')
    outcome = train(own_request(digit_folder, tmp_path, text))
    assert outcome.finished and not list(outcome.folder.samples.iterdir())
    assert content(outcome)["metrics"] == {"values": {}, "best": {}}
    assert not outcome.folder.best.exists()


def test_points_are_trained_on_drawn_as_a_plot_and_measured_by_their_modes(tmp_path: Path) -> None:
    given = {"steps": 2, "batch_size": 4, "width": 4}
    outcome = train(Request(data="ring", given=given, out=tmp_path / "run", threads=1))
    assert outcome.finished and outcome.config.system.name == "gan"
    assert outcome.config.resolution is None and outcome.config.channels is None
    info = {"shape": [2], "classes": [], "kind": "points", "arrangement": "single", "partner": None}
    assert content(outcome)["data"]["info"] == info
    with Image.open(outcome.folder.samples / "0000002.png") as plot:
        assert plot.size == (384, 384) and plot.mode == "L"
        assert len(np.unique(np.asarray(plot))) > 2
    assert {"modes", "near", "coverage", "density"} == set(content(outcome)["metrics"]["values"])
    again = train(Request(data="ring", given={**given, "steps": 3}, out=tmp_path / "run"))
    assert again.step == 3


def test_too_few_images_to_measure_are_trained_without_a_metric(
    digit_folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "few"
    data.mkdir()
    for path in sorted((digit_folder / "0").iterdir())[:3]:
        shutil.copy(path, data)
    outcome = train(tiny_request(data, tmp_path / "run"))  # batches of 4 from 3 images
    assert outcome.finished and content(outcome)["metrics"]["values"] == {}


# The best checkpoint.


def metric_system(values: str, good: bool) -> str:
    """OWN with a metric that takes its values from a list."""
    return (
        OWN.replace(
            "from gan.trainer import", "import numpy as np\nfrom gan.trainer import Metric,"
        )
        + f"""
    def metrics(self):
        values = {values}

        def measure(live):
            return {{"score": values[live.step - 1], "beside": np.float32(live.step)}}

        return [Metric("score", measure, (0, 1), higher_is_better={good})]
"""
    )


@pytest.mark.parametrize(
    ("values", "higher", "best"),
    [
        ("[0.1, 0.7, 0.3, 0.7]", True, 2),
        ("[0.1, 0.7, 0.3, 0.05]", False, 4),
        ("[float('nan'), 0.2, float('nan'), 0.1]", True, 2),
        ("[np.float64(0.1), np.float64(0.2), np.float64(0.9), np.float64(0.3)]", True, 3),
    ],
)
def test_the_best_checkpoint_is_that_of_the_best_first_metric(
    digit_folder: Path, tmp_path: Path, values: str, higher: bool, best: int
) -> None:
    text = metric_system(values, higher)
    outcome = train(own_request(digit_folder, tmp_path, text, measure_every=1))
    checkpoint = Checkpoint.load(outcome.folder.best)
    assert checkpoint.step == best
    scores = eval(values, {"np": np})
    assert checkpoint.metrics["best"] == {"value": scores[best - 1]}
    assert content(outcome)["metrics"]["best"] == {"value": scores[best - 1]}
    assert content(outcome)["metrics"]["values"] == pytest.approx(
        {"score": scores[3], "beside": 4.0}, nan_ok=True
    )


def test_the_best_is_remembered_over_a_resume(digit_folder: Path, tmp_path: Path) -> None:
    text = metric_system("[0.1, 0.7, 0.3, 0.5]", True)
    train(own_request(digit_folder, tmp_path, text, steps=2, measure_every=1))
    outcome = train(own_request(digit_folder, tmp_path, text, steps=4, measure_every=1))
    assert Checkpoint.load(outcome.folder.best).step == 2


# Faults.


def test_a_run_that_diverges_keeps_its_last_checkpoint(digit_folder: Path, tmp_path: Path) -> None:
    text = OWN.replace(
        'return live.networks["D"](sample.flatten(1)).flatten()',
        "return live.networks[\"D\"](sample.flatten(1)).flatten() * (float('nan') if live.step >= 5 else 1)",
    )
    with pytest.raises(TrainingDivergedError, match="Training diverged"):
        train(own_request(digit_folder, tmp_path, text, steps=50, checkpoint_every=2))
    checkpoint = Checkpoint.load(tmp_path / "run" / "model.pt")
    assert 4 <= checkpoint.step < 16 and not checkpoint.finished
    for state in checkpoint.content["networks"].values():
        assert all(torch.isfinite(tensor).all() for tensor in state.values())
    with RunFolder(tmp_path / "run").locked():
        pass  # nobody holds it


def test_what_was_measured_is_stored_before_the_first_step(
    digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: Training) -> None:
        raise KeyboardInterrupt  # as a kill before the first periodic checkpoint

    monkeypatch.setattr(module, "choose_threads", lambda wanted, make, device: Probe(2, 0.5))
    request = dataclasses.replace(
        tiny_request(digit_folder, tmp_path / "run", {}), minutes=1.0, threads=None
    )
    with monkeypatch.context() as patch:
        patch.setattr(Training, "run_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(request)
    checkpoint = Checkpoint.load(tmp_path / "run" / "model.pt")
    assert (checkpoint.step, checkpoint.config.steps, checkpoint.threads) == (0, 120, 2)


def test_a_folder_whose_checkpoint_is_gone_is_left_alone(run: Run) -> None:
    outcome = run({"steps": 2})
    outcome.folder.checkpoint.unlink()
    before = outcome.folder.metrics.read_bytes()
    with pytest.raises(CheckpointError, match=r"without its model\.pt"):
        run({"steps": 2})
    assert outcome.folder.metrics.read_bytes() == before


def test_another_number_of_processes_is_refused_unless_accepted(run: Run) -> None:
    outcome = run({"steps": 2})
    stored = dict(Checkpoint.load(outcome.folder.checkpoint).content)
    stored["threads"] = {"count": 1, "processes": 2}
    save_checkpoint(outcome.folder.checkpoint, stored)
    with pytest.raises(CheckpointError, match="--accept processes"):
        run({"steps": 3})
    assert run({"steps": 3}, accept=("processes",)).finished


def test_the_averages_decay_follows_steps_that_grow_unless_it_was_given(
    digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def decay(steps: int) -> float:
        asked.append(steps)
        return default_ema_decay(steps)

    monkeypatch.setattr(engine_module, "default_ema_decay", decay)
    for given, expected in ((None, [2, 2, 4, 4]), (0.5, [])):
        asked.clear()
        out = tmp_path / f"run-{given}"
        train(tiny_request(digit_folder, out, {"steps": 2, "ema_decay": given}))
        outcome = train(tiny_request(digit_folder, out, {"steps": 4, "ema_decay": None}))
        assert outcome.step == 4 and outcome.config.ema_decay == given
        assert content(outcome)["config"]["ema_decay"] == given
        assert asked == expected
