"""Promise 5: a kill at any instant loses at most the work since the last checkpoint, and a resumed run ends the same; a
killed export, sampling or translation leaves whole files only, and the same command goes on.

GAN_TORTURE=1 raises the number of kills from 5 to 30 (trainings), from 20 to 100 (checkpoints), and from 4 to 30 each
(exports, samplings, translations). The processes that are killed are forked from one that has only imported: to start
Python and torch for each would take most of the time.
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from PIL import Image

from gan.export import gate
from gan.runtime import Generator
from gan.trainer.checkpoint import Checkpoint, plain, save
from gan.trainer.loop import train
from gan.trainer.request import Request

from ..export.conftest import trace_here
from ..runtime.conftest import tiny_model
from ..runtime.translating import translating_model
from .conftest import TINY, same, tiny_request

TORTURE = os.environ.get("GAN_TORTURE") == "1"
TRAINING_KILLS, TRAINING_STEPS = (30, 300) if TORTURE else (5, 50)
SAVING_KILLS = 100 if TORTURE else 20
WRITING_KILLS, FILES = (30, 4_000) if TORTURE else (4, 600)
SELDOM: dict[str, Any] = {"sample_every": 10**9, "measure_every": 10**9}

NURSERY = """
import json, logging, os, sys, tempfile, time, traceback
from pathlib import Path
import onnxruntime, pickle, torch, torch._dynamo, torch.utils.tensorboard
from PIL import Image
from gan.cli import app
from gan.export import gate
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

def gan(*words):
    try:
        app(words)
    except SystemExit as end:
        return end.code or 0

def export_for_ever(checkpoint, output, proven, temporary):
    "Export after export of all graphs, whose proof is at hand; says where it is."
    tempfile.tempdir = temporary
    proof = pickle.loads(Path(proven).read_bytes())
    gate._prove_graph = lambda kept, content, graph, settings: proof[graph]
    replace = os.replace
    def slow(source, target):
        print("renaming", flush=True)
        time.sleep(0.02)
        replace(source, target)
    os.replace = slow
    while True:
        gate.export_all(checkpoint, output, overwrite=True)

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

    def stop(self) -> None:
        """Leave it standing wherever it is: a kill comes there."""
        self.send(signal.SIGSTOP)
        while Path(f"/proc/{self._number}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            pass

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
            saver.stop()
            while number % 4 and not part.exists():  # most within a file, some at any moment
                saver.send(signal.SIGCONT)
                time.sleep(dice.random() * 0.005)
                saver.stop()
            saver.send(signal.SIGKILL)
            assert saver.wait() == -signal.SIGKILL, saver.err.read_text()
        within += part.exists()
        loaded = Checkpoint.load(path)
        assert loaded.step > step
        step = loaded.step
        weight = loaded.content["networks"]["G"]["weight"]
        assert torch.equal(weight, torch.full((300_000,), float(step)))  # old or new, but whole
        assert {file.name for file in path.parent.iterdir()} <= {path.name, part.name}
    assert within >= SAVING_KILLS * 3 // 4
    save(path, start)
    assert [file.name for file in path.parent.iterdir()] == ["model.pt"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    (root / "sampled.onnx").write_bytes(tiny_model())
    (root / "plain.onnx").write_bytes(translating_model(scale=2))
    return root


def killed_until_done(
    nursery: Nursery, words: list[str], again: str, out: Path, dice: random.Random
) -> None:
    """Kill a command that writes FILES files WRITING_KILLS times, at any moment of its work; then let it end."""
    done = 0
    for _ in range(WRITING_KILLS):
        with (command := nursery.start("gan", *words)).lines:
            goal = done + dice.randint(1, FILES // (2 * WRITING_KILLS))
            until = time.monotonic() + 60
            while len(visible(out)) < goal:
                assert time.monotonic() < until, command.err.read_text()
            command.send(signal.SIGKILL)
            assert command.wait() == -signal.SIGKILL, command.err.read_text()
        found = visible(out)
        assert done < len(found) < FILES
        done = len(found)
        for path in dice.sample(found, 20) if done > 20 else found:
            with Image.open(path) as image:
                image.load()  # whole
        assert len([*out.rglob(".*.part")]) <= 8
        if again not in words:
            words = [*words, again]
    with (command := nursery.start("gan", *words)).lines:
        assert command.wait() == 0, command.err.read_text()
    assert len(visible(out)) == FILES and not [*out.rglob(".*")]


def visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.png") if path.name[0] != ".")


@pytest.mark.torture
def test_a_killed_sampling_leaves_whole_files_and_goes_on(
    models: Path, tmp_path: Path, nursery: Nursery
) -> None:
    words = f"sample {models}/sampled.onnx --count {FILES} --seed 5 --threads 1 --out {tmp_path}/out".split()
    killed_until_done(nursery, words, "--skip-existing", tmp_path / "out", random.Random(1))
    expected = Generator(models / "sampled.onnx", device="cpu", threads=1).sample(FILES, seed=5)
    for number, path in enumerate(visible(tmp_path / "out")):
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), expected[number]), path


@pytest.mark.torture
def test_a_killed_translation_leaves_whole_files_and_goes_on(
    models: Path, tmp_path: Path, nursery: Nursery
) -> None:
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    first = source / "sub" / "first.png"
    Image.effect_noise((32, 24), 50).convert("RGB").save(first)
    for number in range(1, FILES):
        os.link(first, source / f"{number}.png")
    words = f"translate {models}/plain.onnx {source} {tmp_path}/out --threads 1".split()
    killed_until_done(nursery, words, "--skip-existing", tmp_path / "out", random.Random(2))
    made = {path.read_bytes() for path in visible(tmp_path / "out")}
    assert len(made) == 1 and len([*(tmp_path / "out" / "sub").iterdir()]) == 1


@pytest.mark.torture
def test_a_killed_export_leaves_whole_files_and_no_temporary_ones(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch, digit_folder: Path
) -> None:
    """Those of a process that was killed go with the next export, a minute later."""
    given = {**TINY, "steps": 1, "style": 4, "mapping_layers": 2, "max_width": 8}
    request = Request(data=str(digit_folder), system="stylegan2", out=tmp_path / "run", given=given, threads=1)  # fmt: skip
    checkpoint, out = train(request).folder.checkpoint, tmp_path / "out"
    temporary = tmp_path / "temporary"
    for folder in (out, temporary):
        folder.mkdir()
    proof = prove(checkpoint, tmp_path / "proven.pkl", monkeypatch)
    paths = (checkpoint, out / "m.onnx", tmp_path / "proven.pkl", temporary)
    job = ("export_for_ever", *map(str, paths))
    dice, left = random.Random(3), 0
    for _ in range(WRITING_KILLS // 2 if not TORTURE else WRITING_KILLS):
        with (command := nursery.start(*job)).lines as lines:
            for _ in range(dice.randint(0, 4)):
                assert lines.readline() == "renaming\n", command.err.read_text()
            time.sleep(dice.random() * 0.1)
            command.send(signal.SIGKILL)
            assert command.wait() == -signal.SIGKILL, command.err.read_text()
        for path in out.iterdir():
            graph = {"m.onnx": "image"}.get(path.name, path.name.split(".")[1])
            assert path.name[0] == "." or path.read_bytes() == proof[graph]
        assert len([*out.glob(".*.part")]) <= 3
        found = [*temporary.iterdir()]
        assert (
            len(found) <= 3
        )  # they do not pile up: of this one, and of such as were killed before they swept
        left += len(found)
        for folder in found:
            os.utime(folder, (time.time() - 100,) * 2)
    assert left >= 1
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    gate.export_all(checkpoint, out / "m.onnx", overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "m.mapping.onnx", "m.onnx", "m.synthesis.onnx",
    ]  # fmt: skip
    assert not [*temporary.iterdir()]


@pytest.mark.torture
@pytest.mark.skipif(not TORTURE, reason="each export takes seconds: GAN_TORTURE=1")
def test_a_command_that_exports_is_killed_in_any_of_its_steps(
    tmp_path: Path, digit_folder: Path
) -> None:
    given = {**TINY, "steps": 1, "style": 4, "mapping_layers": 2, "max_width": 8}
    request = Request(data=str(digit_folder), system="stylegan2", out=tmp_path / "run", given=given, threads=1)  # fmt: skip
    checkpoint, out = train(request).folder.checkpoint, tmp_path / "out"
    temporary = tmp_path / "temporary"
    for folder in (out, temporary):
        folder.mkdir()
    words = f"export {checkpoint} {out}/m.onnx --graph all --max-batch 2 --force".split()
    command = [sys.executable, "-m", "gan.cli", *words]
    environment = os.environ | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip

    begin = time.monotonic()
    assert start().wait() == 0
    seconds, whole = time.monotonic() - begin, {p.name: p.read_bytes() for p in out.iterdir()}
    dice = random.Random(4)
    for _ in range(6):
        process = start()
        time.sleep(dice.random() * seconds)
        process.kill()
        process.wait()
        assert {p.name: p.read_bytes() for p in out.iterdir() if p.name[0] != "."} == whole
        for folder in temporary.glob("gan-export-*"):
            os.utime(folder, (time.time() - 100,) * 2)
    time.sleep(10)  # what traced for the last one ends by itself
    for folder in temporary.glob("gan-export-*"):
        os.utime(folder, (time.time() - 100,) * 2)
    assert start().wait() == 0
    assert {p.name: p.read_bytes() for p in out.iterdir()} == whole
    assert not [*temporary.glob("gan-export-*")]


def prove(checkpoint: Path, path: Path, patch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The proof of each graph, kept in `path` and for this process: the file of each graph."""
    prove_graph, proof = vars(gate)["_prove_graph"], dict[str, Any]()
    patch.setattr(gate, "trace", trace_here)
    patch.setattr(
        gate, "_prove_graph", lambda kept, content, graph, settings: proof.setdefault(
            graph, proof.get(graph) or prove_graph(kept, content, graph, settings)
        )
    )  # fmt: skip
    (path.parent / "first").mkdir()
    gate.export_all(checkpoint, path.parent / "first" / "m.onnx", max_batch=2)
    path.write_bytes(pickle.dumps(proof))
    return {graph: data for graph, (_, data, _) in proof.items()}


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
