"""Promise 5: a kill at any instant loses at most the work since the last checkpoint, and a resumed run ends the same.

GAN_TORTURE=1 raises the number of kills from 5 to 20 (trainings) and from 20 to 100 (checkpoints). The processes that
are killed are forked from one that has only imported: to start Python and torch for each would take most of the time.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from gan.trainer.checkpoint import Checkpoint, plain, save
from gan.trainer.loop import train
from gan.trainer.request import Request

from .conftest import TINY, same, tiny_request

TORTURE = os.environ.get("GAN_TORTURE") == "1"
TRAINING_KILLS, TRAINING_STEPS = (20, 200) if TORTURE else (5, 50)
SAVING_KILLS = 100 if TORTURE else 20
SELDOM: dict[str, Any] = {"sample_every": 10**9, "measure_every": 10**9}

NURSERY = """
import json, logging, os, sys, time, traceback
from pathlib import Path
import torch, torch._dynamo, torch.utils.tensorboard
from gan.trainer.checkpoint import Checkpoint, save
from gan.trainer.engine import Training
from gan.trainer import loop as module

def train(data, out, given, seconds):
    "As `gan train`; says each step that is done, and then waits."
    run_step = Training.run_step
    def told(self):
        run_step(self)
        print(self.step, flush=True)
        time.sleep(seconds)
    Training.run_step = told
    module.LOG_EVERY = 5
    logging.basicConfig(format="%(message)s")
    outcome = module.train(module.Request(
        data=data, out=Path(out), given=given, threads=1, checkpoint_every=2,
        sample_every=10**9, measure_every=10**9))
    return 0 if outcome.finished else 128 + outcome.signal

def save_for_ever(path):
    "Checkpoint after checkpoint, each with its number as the step and as every weight."
    content = dict(Checkpoint.load(path).content)
    while True:
        step = content["progress"]["step"] + 1
        content["progress"] = {**content["progress"], "step": step}
        content["networks"] = {"G": {"weight": torch.full((300_000,), float(step))}}
        save(Path(path), content)

torch.set_num_threads(1)
for line in sys.stdin:
    name, arguments, out, err = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        try:
            code = globals()[name](*arguments)
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Child:
    """A process of the nursery, of two minutes at most. lines: what it says."""

    def __init__(self, nursery: IO[str], lines: IO[str], err: Path) -> None:
        self._nursery, self.lines, self.err = nursery, lines, err
        self._number = int(nursery.readline())
        self._limit = threading.Timer(120, self.send, [signal.SIGKILL])
        self._limit.start()

    def send(self, number: signal.Signals) -> None:
        os.kill(self._number, number)

    def wait(self) -> int:
        """Its exit code, or the negative number of the signal that ended it."""
        code = int(self._nursery.readline())
        self._limit.cancel()
        return code


class Nursery:
    """A Python process that has imported the trainer, and forks a child for each job: one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, itertools.count()
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def start(self, job: str, *arguments: Any) -> Child:
        stem = self._folder / f"child{next(self._numbers)}"
        out, err = stem.with_suffix(".out"), stem.with_suffix(".err")
        os.mkfifo(out)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        print(json.dumps([job, arguments, str(out), str(err)]), file=stdin, flush=True)
        return Child(stdout, open(out, encoding="utf-8"), err)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.end()


def given(steps: int) -> dict[str, Any]:
    return {
        **TINY,
        "r1": 1.0,
        "penalty_every": 4,
        "mirror": True,
        "decay_share": 0.5,
        "steps": steps,
    }


def content(folder: Path) -> dict[str, Any]:
    return Checkpoint.load(folder / "model.pt").content


@pytest.mark.torture
def test_a_training_killed_again_and_again_ends_with_the_same_bits(
    digit_folder: Path, tmp_path: Path, nursery: Nursery
) -> None:
    dice = random.Random(0)
    killed, killed_at = tmp_path / "killed", []
    job = ("train", str(digit_folder), str(killed), given(TRAINING_STEPS), 0.0)
    done = 0
    for _ in range(TRAINING_KILLS):
        with (training := nursery.start(*job)).lines as lines:
            for _ in range(dice.randint(3, 9)):
                done = int(lines.readline())
            time.sleep(dice.random() * 0.01)  # into the next steps and their checkpoints
            training.send(signal.SIGKILL)
            assert training.wait() == -signal.SIGKILL, training.err.read_text()
        kept = Checkpoint.load(killed / "model.pt")
        assert done - 2 <= kept.step < TRAINING_STEPS  # at most the work since the last checkpoint
        killed_at.append(done)
    assert len(set(killed_at)) >= TRAINING_KILLS // 2
    with (training := nursery.start(*job)).lines as lines:
        assert int(lines.readlines()[-1]) == TRAINING_STEPS
        assert training.wait() == 0, training.err.read_text()

    request = Request(
        data=str(digit_folder), out=tmp_path / "straight", given=given(TRAINING_STEPS), threads=1,
        **SELDOM,
    )  # fmt: skip
    assert train(request).finished
    assert same(content(killed), content(tmp_path / "straight"))
    metrics = (killed / "metrics.jsonl").read_text().splitlines()
    steps = [row["step"] for row in map(json.loads, metrics) if "loss/D" in row]
    assert steps == list(range(5, TRAINING_STEPS + 1, 5))  # each reading once, for all the kills
    assert not list(killed.glob(".*.part"))


@pytest.mark.torture
def test_no_kill_leaves_an_unreadable_checkpoint(
    digit_folder: Path, tmp_path: Path, nursery: Nursery
) -> None:
    start = plain(content(train(tiny_request(digit_folder, tmp_path / "run")).folder.path))
    start["progress"]["step"] = 0
    start["networks"] = {"G": {"weight": torch.zeros(300_000)}}
    path, part = tmp_path / "saved" / "model.pt", tmp_path / "saved" / ".model.pt.part"
    path.parent.mkdir()
    save(path, start)
    dice, within, step = random.Random(0), 0, 0
    for number in range(SAVING_KILLS):
        begin = path.stat().st_mtime_ns
        with (saver := nursery.start("save_for_ever", str(path))).lines:
            while path.stat().st_mtime_ns == begin:  # until it is at work
                pass
            time.sleep(dice.random() * 0.02)
            if number % 4:  # most while the new file is being written, some at any moment
                while not part.exists():
                    pass
                time.sleep(dice.random() * 0.002)
            saver.send(signal.SIGKILL)
            assert saver.wait() == -signal.SIGKILL, saver.err.read_text()
        within += part.exists()
        loaded = Checkpoint.load(path)
        assert loaded.step > step
        step = loaded.step
        weight = loaded.content["networks"]["G"]["weight"]
        assert torch.equal(weight, torch.full((300_000,), float(step)))  # old or new, but whole
        assert {file.name for file in path.parent.iterdir()} <= {path.name, part.name}
    assert within >= SAVING_KILLS // 2
    save(path, start)
    assert [file.name for file in path.parent.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_tells(
    digit_folder: Path, tmp_path: Path, nursery: Nursery, number: signal.Signals
) -> None:
    job = ("train", str(digit_folder), str(tmp_path / "run"), given(10**6), 0.3)
    with (training := nursery.start(*job)).lines as lines:
        steps = [int(lines.readline()) for _ in range(3)]
        training.send(number)
        steps += map(int, lines.readlines())
        assert training.wait() == 128 + number
    assert steps == list(range(1, len(steps) + 1)) and len(steps) <= 6  # it stopped soon
    checkpoint = Checkpoint.load(tmp_path / "run" / "model.pt")
    assert checkpoint.step == steps[-1] and not checkpoint.finished
    assert f"{number.name}: finishing the step, then saving" in training.err.read_text()


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)]
)
def test_a_second_signal_exits_at_once(
    digit_folder: Path,
    tmp_path: Path,
    nursery: Nursery,
    first: signal.Signals,
    second: signal.Signals,
) -> None:
    job = ("train", str(digit_folder), str(tmp_path / "run"), given(100), 600.0)
    with (training := nursery.start(*job)).lines as lines:
        assert lines.readline() == "1\n"  # and now it is busy for ten minutes
        training.send(first)
        until = time.monotonic() + 60
        while "finishing the step" not in training.err.read_text():
            assert time.monotonic() < until
        training.send(second)
        begin = time.monotonic()
        assert training.wait() == 128 + second
        assert time.monotonic() - begin < 5
    assert Checkpoint.load(tmp_path / "run" / "model.pt").step == 0  # the step was not finished
