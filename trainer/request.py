"""A request resolved into a plan: preset, the user's settings, the data, and an earlier checkpoint. Trains nothing."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..runtime.driver import ask_driver
from ..runtime.errors import CheckpointError, DeviceUnavailableError, InputError, shown
from ..runtime.repairs import cuda_repair
from ..runtime.values import check_flag, check_integer, check_number, check_path, refused
from . import builtin, systems
from .checkpoint import Checkpoint
from .checks import check
from .config import (
    Config,
    Plain,
    check_general,
    check_windows,
    make_config,
    make_options,
    parse_setting,
    resume_config,
)
from .data import check_classes, classes_of, load_dataset, source_name
from .dataset import Dataset
from .distributed import local_device
from .parts import Arrangement
from .run_folder import RunFolder, choose_folder
from .system import System
from .systems import SystemSource

logger = logging.getLogger("gan.trainer")

DEFAULT_STEPS = 25_000
WHOLE = {
    "threads": 1024,
    "workers": 256,
    "checkpoint_every": 10**9,
    "sample_every": 10**9,
    "measure_every": 10**9,
}  # fields that are integers from 1, with the largest


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks of `train`.

    data: a folder, a zip, the name of built-in data, or None for the embedded digits. source: a folder or a zip of
    the images that samples are made from, where the system takes them. given: the settings chosen by name, the rest is the
    preset's. settings: the same as NAME=VALUE texts. keep: so many of the checkpoints before the last stay in
    history/. The other fields change no weights, but for threads, whose number is part of a checkpoint.
    """

    data: str | None = None
    source: str | None = None
    system: str | None = None
    given: Mapping[str, Plain] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    minutes: float | None = None
    out: Path | None = None
    force: bool = False
    accept: tuple[str, ...] = ()
    threads: int | None = None
    device: str = "auto"
    workers: int = 2
    checkpoint_every: int | None = None
    keep: int = 0
    sample_every: int | None = None
    measure_every: int | None = None

    def __post_init__(self) -> None:
        """Every field as the type that it is meant to be. Raises `InputError` that names it."""
        checked: dict[str, Any] = {}
        for name in ("data", "source", "system", "out"):
            value = getattr(self, name)
            if value is not None:
                path = check_path(name, value)
                checked[name] = path if name == "out" else os.fspath(value)
        for name, high in WHOLE.items():
            value = getattr(self, name)
            if value is not None or name == "workers":
                told = f"number of {name}" if name in ("threads", "workers") else name
                checked[name] = check_integer(told, value, 1, high)
        checked["keep"] = check_integer("keep", self.keep, 0, 10**9)
        if self.minutes is not None:
            checked["minutes"] = check_number("number of minutes", self.minutes, 0, 1e7, above=0)
        checked["force"] = check_flag("force", self.force)
        for name in ("settings", "accept"):
            checked[name] = _texts(name, getattr(self, name))
        if not isinstance(self.given, Mapping) or not all(isinstance(n, str) for n in self.given):
            raise refused("given", self.given, "Give a dict of settings by their names")
        if not isinstance(self.device, str):
            raise refused("device", self.device, "Give auto, cpu, cuda or cuda:N")
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def _texts(name: str, values: Any) -> tuple[str, ...]:
    if isinstance(values, (list, tuple)) and all(isinstance(value, str) for value in values):
        return tuple(values)
    raise refused(name, values, f"Give a list of texts as {name}")


@dataclass
class Plan:
    """A request resolved against preset, data and an earlier checkpoint."""

    config: Config
    folder: RunFolder
    system: System
    data: Dataset
    device: torch.device
    checkpoint: Checkpoint | None


def plan(request: Request) -> Plan:
    """Resolve a request, reading the data but training nothing. Raises any `GanError`."""
    device = choose_device(local_device(request.device))
    known = builtin.find(request.data)
    labelled = classes_of(request.data) and request.given.get("labels") is not False
    default = systems.default(known.kind if known else "image", labelled=bool(labelled))
    kind, source = systems.load(request.system or default)
    given = dict(request.given) | dict(parse_setting(kind, text) for text in request.settings)
    general = check_general(given)
    folder = choose_folder(
        request.out, f"{source.name}-{source_name(request.data)}", force=request.force
    )
    checkpoint = Checkpoint.load(folder.checkpoint) if folder.checkpoint.exists() else None
    stored = None
    if checkpoint is not None:
        accepted = tuple(name.replace("-", "_") for name in request.accept)
        kind, source = _resumed_system(checkpoint.config.system, request.system, accepted)
        stored = resume_config(checkpoint.config, given, accepted)
        general = stored.flat()
    elif known is None and given.get("fit") is None:
        given["fit"] = general["fit"] = kind.fit
    check_windows(general)
    data = load_dataset(
        request.data,
        source=request.source,
        arrangement=choose_arrangement(kind, request.data, request.source),
        resolution=general.get("resolution"),
        channels=general.get("channels") or "auto",
        partner_channels=kind.partner_channels,
        fit=general.get("fit"),
        window=general.get("crop"),
        swap=general.get("swap", False),
        workers=request.workers,
        scratch=folder.scratch,
    )
    steps = known.steps if known else DEFAULT_STEPS
    size = data.samples.shape[-1]
    config = stored or make_config(kind, source, data.info, given, steps=steps, resolution=size)
    options = make_options(kind, data.info, config.options)
    config = dataclasses.replace(config, system=source, options=dataclasses.asdict(options))
    if checkpoint:
        _check_data(checkpoint, data, request.accept)
    system = kind(options, data.info)
    if checkpoint:
        checkpoint.check_fit(system)
    if system.classes:
        check_classes(data)
    check(system, mirror=config.mirror)
    if len(data) < options.batch_size:
        logger.warning(
            "%d images, fewer than the %d of a batch: some come more than once in one",
            len(data),
            options.batch_size,
        )
    return Plan(config, folder, system, data, device, checkpoint)


WANTED: dict[Arrangement, str] = {
    "single": "single images",
    "pairs": "pairs of images (two folders with DATA and --source, or side by side in each file)",
    "unpaired": "two sets of images (DATA and --source, or two sub-folders)",
}


def choose_arrangement(
    system: type[System], data: str | None, source: str | None = None
) -> Arrangement:
    """How this system takes the data. Raises `InputError` where it does not."""
    known = builtin.find(data)
    if known and not _fits(system, known):
        names = [
            other.name
            for other in builtin.BUILTIN.values()
            if other.kind in system.kinds and _fits(system, other)
        ]
        raise InputError(
            f"{system.name} cannot be trained on {known.name}",
            seen=f"built-in data of {WANTED[known.arrangement].partition(' (')[0]}",
            repair=f"It takes {' or '.join(WANTED[a] for a in system.arrangements)}; of the built-in data "
            f"{', '.join(names) or 'none'}; `gan systems` lists other systems",
        )
    if known:
        return known.arrangement
    if source is None:
        return system.arrangements[0]
    sided = [name for name in system.arrangements if name != "single"]
    if not sided:
        raise InputError(
            f"{system.name} takes no source",
            seen=f"--source {source}",
            repair=f"It takes {WANTED['single']}: leave --source out, or choose another system",
        )
    return sided[0]


def _fits(system: type[System], known: builtin.Builtin) -> bool:
    if known.arrangement == "single" or system.partner_channels is None:
        return known.arrangement in system.arrangements
    return (known.arrangement in system.arrangements) and system.partner_channels == known.partner


def choose_device(name: str) -> torch.device:
    """The torch device of "auto", "cpu", "cuda" or "cuda:N". Raises `DeviceUnavailableError` or `InputError`."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,4})?", name):
        raise InputError(
            "The device was refused", seen=shown(name), repair="Give auto, cpu, cuda or cuda:N"
        )
    device = torch.device(name)
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise DeviceUnavailableError(
            "CUDA cannot be used for training",
            seen=f"torch {torch.__version__} sees {count} CUDA devices",
            repair=_torch_repair(count),
        )
    return device


def _torch_repair(count: int) -> str:
    if count:
        return f"Give one of: {', '.join(f'cuda:{index}' for index in range(count))}"
    if torch.version.cuda is None:
        return (
            "Install a CUDA build of torch, as pip's for Linux is: pip install --force-reinstall torch; "
            "or use --device cpu"
        )
    driver = ask_driver()
    known = cuda_repair(driver.reason, "", driver) if driver.reason else "Update the NVIDIA driver"
    return f"{known}; or use --device cpu"


def _resumed_system(
    stored: SystemSource, wanted: str | None, accepted: tuple[str, ...]
) -> tuple[type[System], SystemSource]:
    """The stored system, from the user's own file where it was one. Raises `CheckpointError` for any other."""
    found = systems.load(wanted)[1] if wanted else stored
    if found.name != stored.name or (found.file and not stored.file):
        raise CheckpointError(
            "The run was started with another system",
            seen=f"{stored.file or stored.name}, now {wanted}",
            repair="Leave --system out, or start anew beside it with --force",
        )
    file = wanted if found.file else None
    return systems.load_recorded(stored, file=file, accept_changed="system" in accepted), found


def _check_data(checkpoint: Checkpoint, data: Dataset, accept: tuple[str, ...]) -> None:
    stored = checkpoint.content["data"]
    if str(stored.get("digest")) != data.digest and "data" not in accept:
        raise CheckpointError(
            "The run was started with other data",
            seen=f"{len(data)} images of digest {data.digest[:12]}, stored {stored.get('count')} of "
            f"{stored.get('digest')!s:.12}",
            repair="Restore the data, accept it with --accept data, or start anew beside it with --force",
        )
