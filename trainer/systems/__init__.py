"""The systems: one file each, found by its name; a file of the user's own works the same way."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ...runtime.errors import CheckpointError, GanError, InputError, shown
from ...runtime.values import refused
from ..parts import DataKind
from ..system import System

DEFAULT, DEFAULT_LABELLED, DEFAULT_POINTS = "dcgan", "cgan", "gan"


@dataclass(frozen=True)
class SystemSource:
    """Where a system comes from, as the checkpoint records it. sha256: of a user's own file, else None."""

    name: str
    file: str | None = None
    sha256: str | None = None


def names() -> list[str]:
    """Names of the built-in systems."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def default(kind: DataKind, *, labelled: bool) -> str:
    """The system's name for such data, where none is chosen."""
    if kind != "image":
        return DEFAULT_POINTS
    return DEFAULT_LABELLED if labelled else DEFAULT


def load(reference: str | os.PathLike[str]) -> tuple[type[System], SystemSource]:
    """A system's class by its name, or by the path of a Python file that defines one.

    Raises `InputError` for an unknown name and for a file that defines no system. A user's file is run as code.
    """
    if isinstance(reference, os.PathLike):
        reference = os.fspath(reference)
    if not isinstance(reference, str):
        raise refused("system", reference, "Give a name, or the path of a .py file")
    if reference.endswith(".py"):
        return _load_file(Path(reference))
    if reference not in names():
        raise InputError(
            "There is no such system",
            seen=shown(reference),
            repair=f"Choose one of {', '.join(names())}, or give the path of your own .py file",
        )
    module = importlib.import_module(f".{reference.replace('-', '_')}", __name__)
    return _only_system(module, reference), SystemSource(reference)


def load_recorded(
    source: SystemSource, *, file: str | None, accept_changed: bool = False
) -> type[System]:
    """The system that a checkpoint records. A user's own needs `file` again, unchanged.

    Raises `CheckpointError`. Never loads a file that only the checkpoint names.
    """
    if source.file is None:
        if source.name not in names():
            raise CheckpointError(
                "The checkpoint's system is not one of this version",
                seen=f"{source.name!r:.60}",
                repair=f"Its systems are {', '.join(names())}",
            )
        return load(source.name)[0]
    if file is None:
        raise CheckpointError(
            f"The checkpoint's system {source.name} is a file of your own",
            seen=f"{source.file}, which a checkpoint does not carry",
            repair=f"Add --system {source.file}",
        )
    system, found = load(file)
    if found.sha256 != source.sha256 and not accept_changed:
        raise CheckpointError(
            f"{file} is not the file that the checkpoint was trained with",
            seen=f"SHA-256 {found.sha256!s:.16}, recorded {source.sha256!s:.16}",
            repair="Give the original file, or accept the change with --accept system",
        )
    return system


def _load_file(path: Path) -> tuple[type[System], SystemSource]:
    try:
        code = path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read", seen=f"{error}", repair="Check the path"
        ) from error
    digest = hashlib.sha256(code).hexdigest()
    name = f"gan_user_system_{digest[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except GanError:
        raise
    except Exception as error:
        raise InputError(
            f"{path} failed while it was loaded",
            seen=f"{type(error).__name__}: {error}",
            repair="Mend it: it must load by itself",
        ) from error
    system = _only_system(module, str(path))
    return system, SystemSource(system.name, path.name, digest)


def _only_system(module: ModuleType, reference: str) -> type[System]:
    found = {
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, System) and not inspect.isabstract(member)
        if member.__module__ == module.__name__
    }
    if len(found) != 1:
        raise InputError(
            f"{reference} does not define a system",
            seen=f"{len(found)} final subclasses of gan.trainer.System",
            repair="Define exactly one",
        )
    system = found.pop()
    name = getattr(system, "name", None)
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(
            f"The system of {reference} has no usable name",
            seen=f"name {name!r:.60}",
            repair=f'Add to class {system.__name__}: name = "my-gan"',
        )
    return system
