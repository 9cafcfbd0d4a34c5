"""A machine that dies: the n-th operation below a folder fails, once or from then on; small, read-only and limited disks."""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import itertools
import os
import resource
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TORTURE = os.environ.get("GAN_TORTURE") == "1"
CODES = (errno.ENOSPC, errno.EIO, errno.EACCES)
BY_PATH = ("open", "mkdir", "unlink", "remove", "rmdir", "replace", "rename", "link", "truncate")
BY_DESCRIPTOR = ("fsync", "posix_fallocate", "ftruncate")
real_open = builtins.open


class Fault:
    """Counts the operations below `folders`; the `at`-th fails with `code`, and where it is lasting all after it."""

    def __init__(
        self, *folders: Path, at: int = 0, code: int = errno.ENOSPC, lasting: bool = False
    ) -> None:
        self.folders = tuple(os.path.realpath(folder) + os.sep for folder in folders)
        self.at, self.code, self.lasting = at, code, lasting
        self.count, self._one = 0, threading.Lock()

    def meet(self) -> None:
        with self._one:
            self.count += 1
            now = self.count
        if self.at and (now == self.at or (self.lasting and now > self.at)):
            raise OSError(self.code, os.strerror(self.code))

    def concerns(self, path: Any) -> bool:
        if isinstance(path, int):
            return False
        return os.path.realpath(os.fsdecode(path)).startswith(self.folders)


class FaultyFile(io.FileIO):
    """A file whose every write is an operation."""

    fault: Fault

    def write(self, data: Any) -> int:
        self.fault.meet()
        return super().write(data)


@contextlib.contextmanager
def failing(fault: Fault) -> Iterator[None]:
    """All that Python opens, writes, syncs, renames, links, makes and removes meets `fault`."""

    def opened(path: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
        if not fault.concerns(path):
            return real_open(path, mode, buffering, *rest, **named)
        fault.meet()
        if not set(mode) & set("wax+"):
            return real_open(path, mode, buffering, *rest, **named)
        raw = FaultyFile(path, mode.replace("b", "").replace("t", ""))
        raw.fault = fault
        file = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return file if "b" in mode else io.TextIOWrapper(file, *rest, **named)

    def met(function: Callable[..., Any], always: bool) -> Callable[..., Any]:
        def call(first: Any, *rest: Any, **named: Any) -> Any:
            if always or fault.concerns(first):
                fault.meet()
            return function(first, *rest, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", opened)
        patch.setattr(io, "open", opened)
        for names, always in ((BY_PATH, False), (BY_DESCRIPTOR, True)):
            for name in names:
                patch.setattr(os, name, met(getattr(os, name), always))
        yield


def faults(
    run: Callable[[], object], *folders: Path, most: int, prepare: Callable[[], object] = int
) -> Iterator[Fault]:
    """A fault for every operation of `run`, once and from then on, with every code; `most` of them in normal runs.

    prepare: makes the state that `run` finds. It is called before each fault is given.
    """
    prepare()
    counted = Fault(*folders)
    with failing(counted):
        run()
    assert counted.count > 2
    numbers = range(1, counted.count + 1)
    every = list(itertools.product(numbers, (False, True), CODES))
    if not TORTURE:  # evenly, the number and the code prime to one another
        step = max(1, len(every) // most) | 1
        every = every[:: step + 2 * (step % 3 == 0)]
    for at, lasting, code in every:
        prepare()
        yield Fault(*folders, at=at, lasting=lasting, code=code)


@contextlib.contextmanager
def limited(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes, as by a quota."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class SmallDisk:
    """A file system of 8 MB at `place`, where one may be mounted; else `place` and faults that act like it."""

    def __init__(self, place: Path) -> None:
        self.place, self._filler = place, place / ".filler"
        place.mkdir()
        self._mounted = self._mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place))

    @staticmethod
    def _mount(*arguments: str) -> bool:
        try:
            done = subprocess.run(["mount", *arguments], check=False, capture_output=True)
            return not done.returncode
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def without(self, how: str, room: int) -> Iterator[None]:
        """full: all but `room` bytes are taken, in whole pages. quota: no file may be larger. Or read-only."""
        with contextlib.ExitStack() as stack:
            if how == "quota" or (how == "full" and not self._mounted):
                stack.enter_context(limited(room))
            elif how == "full":
                status = os.statvfs(self.place)
                with real_open(self._filler, "wb") as file:
                    file.write(bytes(max(status.f_bavail * status.f_frsize - room, 0)))
                stack.callback(self._filler.unlink)
            elif self._mounted:
                assert self._mount("-o", "remount,ro", str(self.place))
                stack.callback(self._mount, "-o", "remount,rw", str(self.place))
            else:
                stack.enter_context(
                    failing(Fault(self.place, at=1, lasting=True, code=errno.EROFS))
                )
            yield

    def end(self) -> None:
        if self._mounted:
            subprocess.run(["umount", "-l", str(self.place)], check=True)


def parts(folder: Path) -> list[Path]:
    """What half files are left."""
    return [*folder.rglob("*.part")]
