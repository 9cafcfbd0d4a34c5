"""A model's contenders make the images that they are timed for; a bench holds one row for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from gan.runtime import Generator, InputError
from gan.runtime import bench as benching
from gan.runtime.bench import BARE, BY_HAND, OURS, PLAIN, Bench, Row, Subject, bench, example_inputs
from gan.runtime.measure import Contender, Fresh, machine, run_fresh
from gan.runtime.model_file import ModelFile

from .conftest import bare_run, edited, reference_inputs, tiny_model, tiny_signature
from .translating import Translating


@pytest.fixture(scope="module")
def subject(labelled_path: Path) -> Subject:
    return Subject(labelled_path, device="cpu", threads=1)


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    path = tmp_path_factory.mktemp("models") / "translate.onnx"
    path.write_bytes(Translating(factor=4, scale=2, label=True).file)
    return Subject(path, device="cpu", threads=1)


class Slower:
    """A rival that makes nothing."""

    missing: Mapping[str, str] = {"another": "not here"}
    versions: Mapping[str, str] = {"slower": "1.0"}

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int]] = []

    def contenders(self, count: int, *, calls: int, threads: int) -> Sequence[Contender]:
        self.asked.append((count, calls, threads))
        return [Contender("slower", count * calls, lambda: sum(range(300_000)))]

    def first_image(self, out: Path, threads: int) -> Mapping[str, str]:
        return {"slower": "pass"}


def test_the_inputs_are_those_of_seed_0(labelled: bytes) -> None:
    expected = reference_inputs(tiny_signature(), 0, range(3))
    inputs = example_inputs(ModelFile.read(labelled), 3)
    assert list(inputs) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(inputs[name], values)


def test_a_plain_session_runs_the_file_that_it_is_given(
    labelled_path: Path, labelled: bytes, tmp_path: Path
) -> None:
    def negated(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                values = -onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))

    (tmp_path / "plain.onnx").write_bytes(edited(labelled, negated))
    own = Subject(labelled_path, device="cpu", threads=1)
    other = Subject(labelled_path, device="cpu", threads=1, plain=tmp_path / "plain.onnx")
    np.testing.assert_array_equal(own.plain(3).call(), own.bare(3).call())
    made = [np.asarray(contender.call()) for contender in (other.plain(3), other.bare(3))]
    assert not np.array_equal(made[0], made[1])


def test_inputs_that_all_images_share_are_arrays_of_their_own() -> None:
    model = ModelFile.read(tiny_model(noise=True, shared=True))
    for count in (1, 3):
        inputs = example_inputs(model, count)
        assert len(inputs["noise"]) == count and (inputs["noise"] == inputs["noise"][0]).all()
        assert all(array.flags.writeable and array.flags.c_contiguous for array in inputs.values())


def test_all_contenders_make_the_same_images(subject: Subject, labelled: bytes) -> None:
    expected = bare_run(labelled, reference_inputs(tiny_signature(), 0, range(5)))
    for contender in (subject.ours(5), subject.bare(5), subject.plain(5)):
        assert contender.images == 5
        np.testing.assert_array_equal(contender.call(), expected)


def test_the_bare_run_has_the_chunks_of_ours(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []

    class Native:
        def run(self, names: Any, inputs: Mapping[str, Any]) -> list[Any]:
            ran.append(len(inputs["z"]))
            return [np.zeros((len(inputs["z"]), 8, 8, 3), np.uint8)]

    session = subject.generator.session
    monkeypatch.setattr(session._engine, "native", Native())
    for count in (1, 16, 40):
        for make in (subject.ours, subject.bare):
            ran.clear()
            assert len(make(count).call()) == count  # type: ignore[arg-type]
            assert ran == [16] * (count // 16) + [count % 16] * bool(count % 16)


def test_a_stream_makes_all_its_images_and_keeps_none(subject: Subject) -> None:
    contender = subject.streaming(50)
    assert contender.images == 50 and contender.call() is None


def test_a_model_that_takes_images_is_called_with_stand_ins(translator: Subject) -> None:
    assert not translator.draws
    made: Any = translator.ours(3).call()
    bare: Any = translator.bare(3).call()
    plain: Any = translator.plain(3).call()
    assert made["made"].shape == (3, 64, 64, 3)
    np.testing.assert_array_equal(bare, made["made"])
    np.testing.assert_array_equal(plain, made["made"])
    assert translator.streaming(5).images % translator.generator.micro_batch == 0


def test_fresh_processes_leave_the_first_image_on_the_disk(
    subject: Subject, translator: Subject, tmp_path: Path
) -> None:
    for number, one in enumerate((subject, translator)):
        out = tmp_path / f"{number}"
        codes = one.first_image(out)
        assert list(codes) == [OURS, BY_HAND]
        ours: Any = one.ours(1).call()
        expected = (ours if one.draws else ours["made"])[0]
        for name, code in codes.items():
            run_fresh({name: code}, repeats=1)
            (file,) = tmp_path.glob(f"{number}*")
            with Image.open(file) as image:
                seen = np.asarray(image)
            assert seen.shape == expected.shape
            if name == OURS:
                np.testing.assert_array_equal(seen, expected)
            file.unlink()


def test_a_bench_holds_every_contender_at_every_batch(subject: Subject) -> None:
    rival, told = Slower(), list[str]()
    found = bench(
        subject, batches=[1, 3], seconds=0.02, rivals=rival, stream=40, starts=0, tell=told.append
    )
    assert [(row.name, row.batch, row.stream) for row in found.rows] == [
        (name, batch, stream)
        for batch, stream in ((1, False), (3, False), (40, True))
        for name in (OURS, BARE, PLAIN, "slower")
    ]
    assert rival.asked == [(1, 1, 1), (3, 1, 1), (40, 1, 1)]
    assert told == ["batch 1", "batch 3", "stream of 40"]
    for row in found.rows:
        assert row.calls >= 3 and 0 < row.p50_ms <= row.p99_ms
        assert (row.name != OURS) or row.ratio == 1
    slowest = min(found.rows[:4], key=lambda row: row.images_per_second)
    assert slowest.name == "slower" and slowest.ratio > 2
    assert found.missing == {"another": "not here"} and found.versions == {"slower": "1.0"}
    assert (found.device, found.threads, found.micro_batch) == ("cpu", 1, 16)
    assert found.fresh == {} and found.machine == machine()


def test_start_up_is_measured_of_all(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(codes: Mapping[str, str], *, repeats: int) -> dict[str, Fresh]:
        assert repeats == 4
        return {name: Fresh(len(code), 1.0) for name, code in codes.items()}

    monkeypatch.setattr(benching, "run_fresh", run)
    found = bench(subject, batches=[1], seconds=0.01, rivals=Slower(), stream=0, starts=4)
    assert list(found.fresh) == [OURS, BY_HAND, "slower"]
    assert found.fresh["slower"].seconds == 4


def test_a_long_stream_of_a_slow_model_is_cut(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = bench(subject, batches=[1], seconds=0.01, stream=10_000_000, starts=0)
    (row,) = (row for row in found.rows if row.stream and row.name == OURS)
    assert 16 <= row.batch < 1_000_000


@pytest.mark.parametrize("batch", [2, 64])
def test_a_batch_beyond_the_bound_is_refused_before_anything_is_timed(
    subject: Subject, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject.generator, "max_output_bytes", 8 * 8 * 3)
    monkeypatch.setattr(benching, "compare", lambda *_, **__: pytest.fail("timed"))
    with pytest.raises(InputError, match="Too many images"):
        bench(subject, batches=[1, batch], starts=0)


def test_the_best_other_is_neither_ours_nor_our_own_session() -> None:
    def row(name: str, speed: float, batch: int = 8) -> Row:
        return Row(name, batch, speed, 1.0, 1.0, 1.0, 1)

    rows = (row(OURS, 9), row(BARE, 10), row(PLAIN, 3), row("a", 5), row("b", 4), row("b", 50, 64))
    found = Bench("m", "cpu", 1, 16, machine(), rows, {}, {}, {})
    assert found.best_other(8) == rows[3]
    assert found.best_other(64) == rows[5]
    assert found.best_other(1) is None and found.best_other(8, stream=True) is None


def test_a_model_is_measured_on_the_threads_asked_for(labelled_path: Path) -> None:
    assert Subject(labelled_path, device="cpu", threads=3).threads == 3
    assert isinstance(Subject(labelled_path, device="cpu").generator, Generator)
