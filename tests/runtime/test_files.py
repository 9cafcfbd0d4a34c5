"""Atomic files: the old or the new one, whole, whatever happens in between."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gan.runtime.errors import StorageError
from gan.runtime.files import atomic_file, sibling


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    return path


def test_a_block_that_ends_well_replaces_the_file(target: Path) -> None:
    with atomic_file(target) as file:
        file.write(b"new")
        file.flush()
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert names(target.parent) == ["model.onnx"]


def test_a_new_file_appears_only_at_the_end(tmp_path: Path) -> None:
    with atomic_file(str(tmp_path / "new.bin")) as file:
        file.write(b"new")
        assert "new.bin" not in names(tmp_path)
    assert (tmp_path / "new.bin").read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_inside_leaves_the_old_file_alone(
    target: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error), atomic_file(target) as file:
        file.write(b"half")
        raise error
    assert target.read_bytes() == b"old"
    assert names(target.parent) == ["model.onnx"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_at_the_end_leaves_the_old_file_alone(
    target: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), atomic_file(target) as file:
        file.write(b"new")
        monkeypatch.setattr(os, call, fail)
    assert target.read_bytes() == b"old"
    assert names(target.parent) == ["model.onnx"]


def test_a_missing_folder_is_an_error_and_stays_missing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"), atomic_file(tmp_path / "nowhere" / "x"):
        pytest.fail("there is nothing to write to")
    assert names(tmp_path) == []


def test_the_content_is_on_disk_before_the_rename_and_the_folder_after_it(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        folder = stat.S_ISDIR(status.st_mode)
        steps.append("sync folder" if folder else f"sync file of {status.st_size} bytes")
        if folder:
            assert os.path.samestat(status, os.stat(target.parent))
        fsync(descriptor)

    def watched_replace(source: Path, destination: Path) -> None:
        steps.append("rename")
        replace(source, destination)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    with atomic_file(target) as file:
        file.write(b"x" * 1000)
    assert steps == ["sync file of 1000 bytes", "rename", "sync folder"]


def test_a_kill_leaves_the_old_file_and_the_next_write_cleans_up(target: Path) -> None:
    code = (
        "import os, sys; from gan.runtime.files import atomic_file\n"
        "with atomic_file(sys.argv[1]) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    assert names(target.parent) == [".model.onnx.part", "model.onnx"]
    with atomic_file(target) as file:
        file.write(b"new")
    assert target.read_bytes() == b"new"
    assert names(target.parent) == ["model.onnx"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("model.onnx", "model.mapping.onnx"),
        ("a/b/model.onnx", "a/b/model.mapping.onnx"),
        ("runs.1/model.v2.onnx", "runs.1/model.v2.mapping.onnx"),
        ("model", "model.mapping"),
        ("/x/.hidden", "/x/.hidden.mapping"),
    ],
)
def test_a_sibling_has_the_graphs_name_before_the_suffix(path: str, expected: str) -> None:
    assert sibling(path, "mapping") == sibling(Path(path), "mapping") == Path(expected)


def test_siblings_of_several_graphs_and_models_are_all_different() -> None:
    graphs, models = ("mapping", "synthesis", "b_to_a"), ("a.onnx", "b.onnx", "c/a.onnx")
    assert (
        len({sibling(model, graph) for model in models for graph in graphs} | {*map(Path, models)})
        == 12
    )


@pytest.mark.parametrize("length", [1, 244, 245, 246, 251])
def test_a_name_of_any_length_is_written(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("\u00e9" * (length // 2) + "x" * (length % 2) + ".png")
    assert len(os.fsencode(path.name)) == length + 4
    for data in (b"old", b"new"):
        with atomic_file(path) as file:
            file.write(data)
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == [path.name]
