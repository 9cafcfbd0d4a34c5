"""A run's folder: one process at a time, a free one beside it on --force, and metrics cut back to the checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gan.runtime.errors import CheckpointError
from gan.trainer.run_folder import RunFolder, choose_folder

HOLD = """
import sys
from pathlib import Path
from gan.trainer.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_folder_held_by_another_process_is_refused_until_that_one_ends(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdin is not None and other.stdout is not None
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match=r"is in use.*--out"), folder.locked():
            pass
        other.kill()  # even a process that is killed lets go
        other.wait()
        with folder.locked():
            pass
    finally:
        other.kill()
        other.communicate()


def test_a_folder_can_be_locked_again_after_an_error_inside(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(RuntimeError, match="inside"), folder.locked():
        raise RuntimeError("inside")
    with folder.locked():
        pass


def test_two_locks_in_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path).locked(),
        pytest.raises(CheckpointError, match="in use"),
        RunFolder(tmp_path).locked(),
    ):
        pass


def test_a_folder_that_cannot_be_made_or_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = RunFolder(tmp_path / "file" / "run")
    with pytest.raises(CheckpointError, match=r"file/run cannot be made.*--out"):
        folder.make()
    with pytest.raises(CheckpointError, match=r"cannot be written.*--out"), folder.locked():
        pass


def test_making_a_folder_twice_keeps_its_content(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "b")
    folder.make()
    folder.checkpoint.write_bytes(b"x")
    folder.make()
    assert folder.checkpoint.read_bytes() == b"x"


def test_a_run_lives_where_it_is_told_or_under_runs(tmp_path: Path) -> None:
    assert choose_folder(None, "cgan-digits", force=False).path == Path("runs/cgan-digits")
    assert choose_folder(tmp_path / "x", "cgan-digits", force=False).path == tmp_path / "x"


@pytest.mark.parametrize("named", [True, False])
def test_force_takes_the_next_free_folder_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "mine" if named else None
    base = Path("runs/cgan-digits") if out is None else out

    def chosen() -> Path:
        return choose_folder(out, "cgan-digits", force=True).path

    assert chosen() == base  # nothing is there yet
    for expected in (base.with_name(f"{base.name}-2"), base.with_name(f"{base.name}-3")):
        taken = RunFolder(chosen())
        taken.make()
        taken.checkpoint.write_bytes(b"")
        assert chosen() == expected
    assert choose_folder(out, "cgan-digits", force=False).path == base


def test_force_finds_the_folder_beside_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "mine"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "model.pt").write_bytes(b"")
    assert choose_folder(Path(), "any", force=True).path == tmp_path / "mine-2"


def rows(folder: RunFolder) -> list[int]:
    return [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines()]


def test_metrics_are_one_line_a_reading(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.append_metrics({"step": 1, "loss/D": 0.5})
    folder.append_metrics({"step": 2, "loss/D": 0.25, "metric/coverage": 1.0})
    lines = folder.metrics.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "loss/D": 0.5},
        {"step": 2, "loss/D": 0.25, "metric/coverage": 1.0},
    ]


@pytest.mark.parametrize(
    ("step", "kept"), [(0, []), (1, []), (2, [2]), (5, [2, 4, 4]), (99, [2, 4, 4, 6])]
)
def test_metrics_after_a_step_are_cut(tmp_path: Path, step: int, kept: list[int]) -> None:
    folder = RunFolder(tmp_path)
    folder.cut_metrics(step)  # nothing there: nothing to do
    assert not folder.metrics.exists()
    for number in (2, 4, 4, 6):
        folder.append_metrics({"step": number})
    folder.cut_metrics(step)
    assert rows(folder) == kept
    folder.append_metrics({"step": 7})
    assert rows(folder) == [*kept, 7]


@pytest.mark.parametrize(
    "tail",
    [
        b'{"step": 3, "loss',
        b'{"step": 3}',
        b'{"step": 3',
        b"{",
        b"\x00\xff\x00",
        b'["step", 3]\n',
        b'{"loss": 1}\n',
        b"3\n",
        b"\n",
    ],
)
def test_a_half_written_last_line_is_dropped(tmp_path: Path, tail: bytes) -> None:
    folder = RunFolder(tmp_path)
    folder.append_metrics({"step": 1})
    folder.append_metrics({"step": 2})
    with open(folder.metrics, "ab") as file:
        file.write(tail)
    folder.cut_metrics(3)
    folder.append_metrics({"step": 4})
    assert rows(folder) == [1, 2, 4]


def test_cutting_metrics_replaces_the_file_whole(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.append_metrics({"step": 1})
    before = os.stat(folder.metrics).st_ino
    folder.cut_metrics(0)
    assert os.stat(folder.metrics).st_ino != before and rows(folder) == []
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
