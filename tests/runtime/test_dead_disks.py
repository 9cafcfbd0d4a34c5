"""K4 of runtime/files.py: whatever fails, by Python's calls and by the system's, files are old or new, together and whole."""

from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gan.runtime import files
from gan.runtime.errors import StorageError
from gan.runtime.files import atomic_file, atomic_files, link, make_folder, work_folder

from ..faults import CODES, TORTURE, failing, faults, parts

NAMES = ("a.bin", "b.bin", "c.bin")
CONTENT = [bytes([n]) * 200_000 for n in range(3)]


def write(folder: Path, content: list[bytes]) -> None:
    with atomic_files([folder / name for name in NAMES]) as opened:
        for file, data in zip(opened, content, strict=True):
            file.write(data)


@pytest.mark.torture
def test_files_that_belong_together_are_replaced_together_or_it_is_said_which(
    tmp_path: Path,
) -> None:
    old, mixed = [b"old"] * 3, 0

    def run() -> None:
        write(tmp_path, CONTENT)

    for fault in faults(run, tmp_path, most=40, prepare=lambda: write(tmp_path, old)):
        said = ""
        with failing(fault):
            try:
                run()
            except StorageError as error:
                said = str(error)
                assert os.strerror(fault.code) in said and error.errno == fault.code
        found = [(tmp_path / name).read_bytes() for name in NAMES]
        assert all(data in (b"old", new) for data, new in zip(found, CONTENT, strict=True))
        new = [name for name, data in zip(NAMES, found, strict=True) if data != b"old"]
        if said and 0 < len(new) < 3:
            mixed += 1
            assert f"; {', '.join(str(tmp_path / name) for name in new)} was." in said
            assert all(f"{tmp_path / name}" in said for name in NAMES)
        assert said or found == CONTENT
        assert fault.lasting or not parts(tmp_path)  # a disk that recovers is tidied at once
        run()
        assert [(tmp_path / name).read_bytes() for name in NAMES] == CONTENT
        assert not parts(tmp_path)
    assert mixed  # a rename that failed after another


def test_none_is_replaced_where_the_block_fails(tmp_path: Path) -> None:
    write(tmp_path, [b"old"] * 3)
    with (
        pytest.raises(ValueError, match="planted"),
        atomic_files([tmp_path / n for n in NAMES]) as [a, b, _],
    ):
        a.write(b"new")
        b.write(b"new")
        raise ValueError("planted")
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"old"}


@pytest.mark.torture
def test_a_second_name_is_there_or_not_and_never_half(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "history" / "1"
    source.write_bytes(CONTENT[1])
    target.parent.mkdir()

    def run() -> None:
        link(source, target)

    def prepare() -> None:
        target.unlink(missing_ok=True)

    for fault in faults(run, tmp_path, most=9, prepare=prepare):
        with failing(fault):
            try:
                run()
            except StorageError as error:
                assert os.strerror(fault.code) in str(error)
        assert not target.exists() or target.read_bytes() == CONTENT[1]
        run()
        assert target.samefile(source) and not parts(tmp_path)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
def test_a_folder_that_cannot_be_synced_at_all_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """As on some network file systems, and where a folder may be written to but not read."""
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    with atomic_file(tmp_path / "x") as file:
        file.write(b"new")
    assert (tmp_path / "x").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("code", "repair"),
    [
        (errno.ENOSPC, "Free space there or raise the quota, or choose another path"),
        (errno.EDQUOT, "Free space there or raise the quota, or choose another path"),
        (errno.EFBIG, "Free space there or raise the quota, or choose another path"),
        (errno.EROFS, "Allow that, or choose another path"),
        (errno.EACCES, "Allow that, or choose another path"),
        (errno.EIO, "Look at the disk: it may be failing"),
        (errno.ENOENT, "Check that the folder is there"),
        (errno.ENXIO, "Choose another path"),
    ],
)
def test_the_error_says_what_the_system_said_and_what_to_do(code: int, repair: str) -> None:
    error = files.not_written("x.png", OSError(code, os.strerror(code)))
    assert str(error) == f"x.png was not written. {os.strerror(code)}. {repair}."
    assert error.errno == code and isinstance(error, OSError)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"file/run was not written\. Not a directory"):
        make_folder(tmp_path / "file" / "run")
    assert make_folder(make_folder(tmp_path / "a" / "b")) == tmp_path / "a" / "b"


# Work folders.


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_work_folder_goes_at_the_end_and_with_an_error(temporary: Path) -> None:
    with work_folder("gan-try") as folder:
        (folder / "x").write_bytes(b"x")
    with pytest.raises(ValueError, match="planted"), work_folder("gan-try"):
        raise ValueError("planted")
    assert not os.listdir(temporary)


def test_a_disk_without_room_for_it_is_told_as_that(temporary: Path) -> None:
    with (
        pytest.raises(
            StorageError, match=r"temporary file was not .*No space.*set TMPDIR"
        ) as caught,
        work_folder("gan-try"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.errno == errno.ENOSPC and not os.listdir(temporary)


HOLD = """
import sys, tempfile
from gan.runtime.files import work_folder
tempfile.tempdir = sys.argv[1]
with work_folder("gan-try"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_those_of_killed_processes_go_with_the_next_and_no_other(temporary: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(temporary)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        (held,) = temporary.iterdir()
        for name in ("gan-try-old", "gan-try-new", "gan-other-old", "mine"):
            (temporary / name).mkdir()
            (temporary / name / "x").write_bytes(b"x")
        (temporary / "gan-try-link").symlink_to(temporary / "mine")
        for path in temporary.iterdir():
            if not path.name.endswith("new"):
                os.utime(path, (time.time() - 100,) * 2, follow_symlinks=False)
        with work_folder("gan-try"):
            pass
        left = {"gan-try-new", "gan-other-old", "mine", "gan-try-link"}
        assert set(os.listdir(temporary)) == left | {held.name}
        assert (temporary / "mine" / "x").exists()
        holder.kill()
        holder.wait()
        with work_folder("gan-try"):
            pass
        assert set(os.listdir(temporary)) == left
    finally:
        holder.kill()
        holder.communicate()


# The same by the system's own calls, as C code makes them too.

STRACE = shutil.which("strace")
WRITE = """
import sys
from gan.runtime.errors import GanError
from gan.runtime.files import atomic_files, link, make_folder
from pathlib import Path
root = Path(sys.argv[1])
try:
    make_folder(root / "made")
    with atomic_files([root / "a.bin", root / "b.bin"]) as opened:
        for file in opened:
            for _ in range(4):
                file.write(b"new" * 5_000)
    link(root / "a.bin", root / "made" / "a.bin")
except GanError as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(1)
"""
CALLS = ("openat", "write", "fsync", "rename", "unlink", "mkdir", "link")
NEW = b"new" * 20_000


def inject(root: Path, call: str, code: str, when: str) -> subprocess.CompletedProcess[str]:
    """WRITE below `root`, with the calls of that name that concern it failing."""
    names = ["", "a.bin", "b.bin", ".a.bin.part", ".b.bin.part", "made", "made/.part", "made/a.bin"]
    paths = itertools.chain.from_iterable(("-P", str(root / name)) for name in names)
    assert STRACE is not None
    return subprocess.run(
        [
            STRACE, "-f", "-qq", "-o", str(root.parent / "trace"), *paths, "-e", f"trace={call}",
            "-e", f"inject={call}:error={code}:when={when}", sys.executable, "-c", WRITE, str(root),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.torture
@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
@pytest.mark.parametrize(
    "code", [errno.errorcode[code] for code in CODES] if TORTURE else ["ENOSPC"]
)
@pytest.mark.parametrize("call", CALLS if TORTURE else ["rename"])
def test_every_system_call_may_fail(tmp_path: Path, call: str, code: str) -> None:
    root, failed = tmp_path / "root", 0
    for lasting in ("", "+"):
        for n in itertools.count(1):
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            for name in ("a.bin", "b.bin"):
                (root / name).write_bytes(b"old")
            done = inject(root, call, code, f"{n}{lasting}")
            assert done.returncode in (0, 1) and not done.stderr, done.stderr
            found = [(root / name).read_bytes() for name in ("a.bin", "b.bin")]
            assert all(data in (b"old", NEW) for data in found)
            assert len(parts(root)) <= 2
            if found[0] != found[1]:
                assert re.match(
                    r"StorageError: .*b\.bin was not written; .*a\.bin was\.", done.stdout
                )
            if "INJECTED" not in (tmp_path / "trace").read_text():
                assert found == [NEW, NEW] and (root / "made" / "a.bin").read_bytes() == NEW
                break
            failed += done.returncode
            assert not done.stdout or done.stdout.startswith("StorageError: ")
    assert failed or call == "unlink"  # what is removed was not needed
