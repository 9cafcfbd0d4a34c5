"""K4 and K5 of a run: whatever fails on the disk, each file is the old or the new one, and the same request goes on."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gan.runtime.errors import CheckpointError, GanError, StorageError
from gan.trainer.checkpoint import Checkpoint, save
from gan.trainer.data import load_dataset
from gan.trainer.engine import Training
from gan.trainer.loop import train
from gan.trainer.request import Request
from gan.trainer.run_folder import RunFolder

from ..faults import CODES, TORTURE, Fault, SmallDisk, failing, faults, limited, parts
from .conftest import same, tiny_request

SECTIONS = ("networks", "averaged", "optimizers", "progress", "health", "metrics")


def request_in(data: Path, out: Path) -> Request:
    """Six steps that use all of a run's files."""
    every = {"checkpoint_every": 2, "measure_every": 3, "sample_every": 3}
    return tiny_request(data, out, {"steps": 6}, keep=2, **every)


def half_a_run(data: Path, out: Path) -> None:
    """As after a kill in the fifth step."""
    run_step = Training.run_step

    def killed(self: Training) -> None:
        if self.step == 4:
            raise KeyboardInterrupt
        run_step(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Training, "run_step", killed)
        train(request_in(data, out))
    assert Checkpoint.load(out / "model.pt").step == 4


@pytest.fixture(scope="module")
def content(digit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A checkpoint's, with weights of more than a buffer of a file."""
    out = tmp_path_factory.mktemp("run")
    found = train(tiny_request(digit_folder, out, {"steps": 1})).folder.checkpoint
    return Checkpoint.load(found).content


def numbered(content: dict[str, Any], number: int) -> dict[str, Any]:
    weight = torch.full((100_000,), float(number))
    return content | {
        "progress": {**content["progress"], "step": number},
        "networks": {"G": {"weight": weight}},
    }


def number_of(path: Path) -> int:
    checkpoint = Checkpoint.load(path)
    weight = checkpoint.content["networks"]["G"]["weight"]
    assert torch.equal(weight, torch.full((100_000,), float(checkpoint.step)))  # never mixed
    return checkpoint.step


@pytest.mark.torture
def test_a_save_that_fails_anywhere_leaves_the_old_or_the_new_checkpoint(
    content: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"

    def run() -> None:
        save(path, numbered(content, 2))

    for fault in faults(run, tmp_path, most=12, prepare=lambda: save(path, numbered(content, 1))):
        ended = False
        with failing(fault):
            try:
                run()
                ended = True
            except StorageError as error:
                assert os.strerror(fault.code) in str(error) and str(path) in str(error)
                assert error.errno == fault.code
        assert number_of(path) == 2 if ended else number_of(path) in (1, 2)
        assert len(parts(tmp_path)) <= 1
        save(path, numbered(content, 3))
        assert number_of(path) == 3 and os.listdir(tmp_path) == ["model.pt"]


@pytest.mark.parametrize("size", [0, 1, 4095, 65_536, 300_000, 400_000])
def test_a_full_disk_while_saving_is_the_disks_own_error(
    content: dict[str, Any], tmp_path: Path, size: int
) -> None:
    """torch.save answers with an error of its own that says nothing of the disk."""
    path = tmp_path / "model.pt"
    save(path, numbered(content, 1))
    with limited(size), pytest.raises(StorageError, match=r"model\.pt was not written\. File too"):
        save(path, numbered(content, 2))
    assert number_of(path) == 1 and not parts(tmp_path)


def check_folder(folder: RunFolder) -> None:
    """All that is there is whole, but for the last line of the metrics, which a resumed run cuts."""
    found = [folder.checkpoint, folder.best, *folder.history.glob("*.pt")]
    for path in filter(Path.exists, found):
        assert Checkpoint.load(path).step <= 6
    if folder.best.exists() or folder.history.exists():
        assert folder.checkpoint.exists()
    if folder.metrics.exists():
        lines = folder.metrics.read_text().splitlines(True)
        assert [json.loads(line)["step"] for line in lines[:-1]]  == sorted(
            json.loads(line)["step"] for line in lines[:-1]
        )  # fmt: skip
    assert len(parts(folder.path)) <= 1


def check_ended(folder: RunFolder, straight: RunFolder) -> None:
    """The run is the one that nothing stopped."""
    for name in ("checkpoint", "best"):
        ours, theirs = (Checkpoint.load(getattr(f, name)).content for f in (folder, straight))
        assert [section for section in SECTIONS if not same(ours[section], theirs[section])] == []
    kept = [sorted(path.name for path in f.history.iterdir()) for f in (folder, straight)]
    assert kept[0] == kept[1] == ["000000002.pt", "000000004.pt"]
    for path in folder.history.iterdir():
        assert Checkpoint.load(path).step == int(path.stem)
    sheets = [{p.name: p.read_bytes() for p in f.samples.iterdir()} for f in (folder, straight)]
    assert sheets[0] == sheets[1] and len(sheets[0]) == 2
    told = [
        [(row["step"], "loss/D" in row, row.get("metric/coverage")) for row in map(json.loads, f.metrics.read_text().splitlines())]
        for f in (folder, straight)
    ]  # fmt: skip
    assert told[0] == told[1]
    assert not parts(folder.path)


@pytest.fixture(scope="module")
def straight(digit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(request_in(digit_folder, tmp_path_factory.mktemp("straight") / "run")).folder


@pytest.mark.torture
@pytest.mark.parametrize("resumed", [False, True], ids=["new", "resumed"])
def test_a_run_that_fails_anywhere_goes_on_by_the_same_request(
    digit_folder: Path, tmp_path: Path, straight: RunFolder, resumed: bool
) -> None:
    out, half = tmp_path / "out" / "run", tmp_path / "half"
    if resumed:
        half_a_run(digit_folder, half)
    request = request_in(digit_folder, out)

    def prepare() -> None:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        (tmp_path / "out").mkdir()
        if resumed:
            shutil.copytree(half, out)

    for fault in faults(lambda: train(request), tmp_path / "out", most=8, prepare=prepare):
        with failing(fault):
            try:
                train(request)
            except GanError as error:
                assert os.strerror(fault.code) in str(error)
        folder = RunFolder(out)
        check_folder(folder)
        if resumed:
            assert Checkpoint.load(folder.checkpoint).step >= 4
        train(request)
        check_ended(folder, straight)


NO_ROOM = [
    ("full", 0), ("full", 5_000), ("full", 20_000), ("full", 35_000),
    ("quota", 0), ("quota", 600), ("quota", 31_000), ("read-only", 0),
]  # fmt: skip
"""A checkpoint has 31,282 bytes."""


@pytest.mark.torture
@pytest.mark.parametrize(("how", "room"), NO_ROOM if TORTURE else NO_ROOM[1::3])
@pytest.mark.parametrize("resumed", [False, True], ids=["new", "resumed"])
def test_a_run_on_a_disk_without_room_goes_on_when_there_is(
    digit_folder: Path, tmp_path: Path, straight: RunFolder, how: str, room: int, resumed: bool
) -> None:
    disk = SmallDisk(tmp_path / "disk")
    try:
        folder = RunFolder(disk.place / "run")
        if resumed:
            half_a_run(digit_folder, folder.path)
        request = request_in(digit_folder, folder.path)
        with (
            disk.without(how, room),
            pytest.raises(GanError, match=r"No space left|Read-only|File too large"),
        ):
            train(request)
        check_folder(folder)
        if resumed:
            assert Checkpoint.load(folder.checkpoint).step >= 4
        train(request)
        check_ended(folder, straight)
    finally:
        disk.end()


def test_half_files_go_at_the_next_start_even_of_a_finished_run(
    digit_folder: Path, tmp_path: Path
) -> None:
    request = request_in(digit_folder, tmp_path / "run")
    train(request)
    before = {*(tmp_path / "run").rglob("*")}
    for name in (".model.pt.part", ".best.pt.part", "history/.part", "samples/.0000003.png.part"):
        (tmp_path / "run" / name).write_bytes(b"half")
    assert not train(request).new
    assert {*(tmp_path / "run").rglob("*")} == before


def test_history_is_cut_to_what_is_asked_and_later_steps_stay(
    content: dict[str, Any], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    for step in (2, 4, 6, 8):
        save(folder.checkpoint, numbered(content, step))
        folder.keep(step, 3)
    assert sorted(os.listdir(folder.history)) == [f"00000000{n}.pt" for n in (4, 6, 8)]
    save(folder.checkpoint, numbered(content, 5))  # the user went back
    folder.keep(5, 2)
    assert sorted(os.listdir(folder.history)) == [f"00000000{n}.pt" for n in (4, 5, 6, 8)]
    folder.keep(5, 2)  # saved twice at one step
    assert [number_of(folder.history / f"00000000{n}.pt") for n in (4, 5, 6, 8)] == [4, 5, 6, 8]
    assert not parts(tmp_path)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EMLINK])
def test_history_is_kept_where_a_file_has_one_name_only(
    content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    folder = RunFolder(tmp_path)
    for step in (1, 2):
        save(folder.checkpoint, numbered(content, step))
        folder.keep(step, 2)
    assert [number_of(folder.history / f"00000000{n}.pt") for n in (1, 2)] == [1, 2]
    assert not parts(tmp_path)


@pytest.mark.parametrize("code", CODES)
def test_a_checkpoint_that_cannot_be_read_is_not_called_damaged(
    content: dict[str, Any], tmp_path: Path, code: int
) -> None:
    save(tmp_path / "model.pt", content)
    with (
        failing(Fault(tmp_path, at=1, code=code)),
        pytest.raises(CheckpointError, match=f"cannot be read. {os.strerror(code)}"),
    ):
        Checkpoint.load(tmp_path / "model.pt")


# Pixels that do not fit into memory go to files.


def test_pixels_for_which_the_disk_has_no_room_are_an_error_and_not_a_crash(
    digit_folder: Path, tmp_path: Path
) -> None:
    """To write a page of a mapped file for which there is no room ends the process by SIGBUS."""
    disk = SmallDisk(tmp_path / "disk")
    try:
        load: Callable[[], Any] = lambda: load_dataset(
            str(digit_folder), resolution=256, scratch=disk.place / "data", memory_limit=1
        )
        with (
            disk.without("full", 1_000_000),
            pytest.raises(StorageError, match=r"pixels\.u8, 0\.0 GB, was not written"),
        ):
            load()
        assert np.array_equal(
            load().samples, load_dataset(str(digit_folder), resolution=256).samples
        )
    finally:
        disk.end()
