"""`adopt`: weights that other code trained become a checkpoint of ours, recognised by names and shapes alone.

Knows no system by name: each says which layouts of its networks there are (layouts.py).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..runtime.errors import CheckpointError, InputError, shown
from ..runtime.values import check_flag, check_path, refused
from . import systems
from .checkpoint import save
from .config import Config, make_config, make_options
from .dataset import Dataset
from .engine import Training
from .layouts import Layout, Reading
from .system import System, build_on_meta
from .systems import SystemSource
from .torch_file import check_regular, load_torch_file

STEPS = 25_000  # of a run that trains on, unless it is told another number
CHANNELS = (1, 3, 4)  # of an image file
DEPTH, MOST_ENTRIES = 3, 100  # of the dicts in a file in which weights are looked for
WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile

State = dict[str, Tensor]


@dataclass(frozen=True)
class Adopted:
    """What was recognised. key: where in the file it stood, empty for the whole of it. sha256: of the file."""

    title: str
    key: str
    system: str
    network: str
    options: dict[str, Any]
    parameters: int
    sha256: str


@dataclass(frozen=True)
class Match:
    """A layout held against an entry of the file. differences: in the order of our layers, none where it fits.

    shared: how many names are of the layout. ours: our network's tensors, without values.
    """

    key: str
    state: State
    source: SystemSource
    reading: Reading
    system: System | None
    differences: list[str]
    shared: int
    ours: State


def adopt(
    weights: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    key: str | None = None,
    image_statistics: bool = False,
    overwrite: bool = False,
) -> Adopted:
    """Write a checkpoint with the weights of a published generator, to be exported, or trained on.

    key: the entry of the file that holds them, where several are recognised. image_statistics: batch norm goes by the
    statistics of each image instead of those of training. Raises `CheckpointError` for a file that is not
    recognised, `InputError` for a target that exists.
    """
    weights, output = check_path("weights", weights), check_path("output", output)
    if key is not None and not isinstance(key, str):
        raise refused("key", key, "Give the name of an entry of the file")
    image_statistics = check_flag("image_statistics", image_statistics)
    overwrite = check_flag("overwrite", overwrite)
    _check_target(weights, output, overwrite)
    content, sha256 = _load(weights)
    match = _choose(weights, _recognised(weights, content, image_statistics), key)
    if image_statistics and not match.reading.image_statistics:
        raise InputError(
            "There are no statistics to replace",
            seen=f"{match.reading.title}: without batch norm that an image's own could stand in for",
            repair="Leave --statistics out",
        )
    state = _values(match, weights.stat().st_size)  # before anything is made in these sizes
    training = _training(match, sha256)
    for networks in (training.networks, training.averaged):
        networks[match.reading.network].load_state_dict(state)
    save(output, _content(training))
    return Adopted(
        match.reading.title,
        match.key,
        match.source.name,
        match.reading.network,
        dict(match.reading.options),
        sum(p.numel() for p in training.networks[match.reading.network].parameters()),
        sha256,
    )


def known() -> list[tuple[type[System], SystemSource, Layout]]:
    """Every layout that is recognised, with the system that it belongs to."""
    found = [systems.load(name) for name in systems.names()]
    own = [(kind, source) for kind, source in found if "layouts" in vars(kind)]
    return [(kind, source, layout) for kind, source in own for layout in kind.layouts()]


def _check_target(weights: Path, output: Path, overwrite: bool) -> None:
    if output.exists() and (not overwrite or (weights.exists() and output.samefile(weights))):
        raise InputError(
            f"{output} exists",
            seen="It is the weights' own file" if overwrite else "Nothing is overwritten unasked",
            repair="Choose another name" if overwrite else "Add --force",
        )
    if not output.parent.is_dir():
        raise InputError(
            f"{output} cannot be written",
            seen=f"There is no folder {output.parent}",
            repair="Make it",
        )


# The file


def _load(path: Path) -> tuple[Any, str]:
    """The file's content on the CPU, and its SHA-256. Raises `CheckpointError`."""
    check_regular(path)
    try:
        with open(path, "rb") as file:
            head = file.read(16)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read", seen=f"{error.strerror}", repair="Check the path"
        ) from error
    if head[8:10] == b'{"' or path.suffix == ".safetensors":
        raise CheckpointError(
            f"{path} is a file of safetensors",
            seen="Weights are adopted from files of torch.save",
            repair='Convert it: python -c "import torch, safetensors.torch as s; torch.save('
            f"s.load_file('{path.name}'), '{path.stem}.pth')\"",
        )
    content = load_torch_file(
        path,
        what="file of weights",
        repair="If you trust it, save the weights alone where it was made: "
        "torch.save(model.state_dict(), 'weights.pth')",
    )
    if isinstance(content, Mapping) and {"format", "networks", "averaged"} <= content.keys():
        raise CheckpointError(
            f"{path} is a checkpoint of `gan train` already",
            seen=f"format {shown(content['format'])}",
            repair="Export it: gan export model.pt model.onnx",
        )
    return content, sha256


def _entries(content: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, State]]:
    """Every dict of tensors in the file, with the place where it stands; wrappers' prefixes are taken off the names."""
    if not isinstance(content, Mapping):
        return
    state = {name: v for name, v in content.items() if isinstance(name, str) and _is_tensor(v)}
    if state:
        yield key, _unwrapped(state)
    for name, value in content.items() if depth < DEPTH else ():
        if isinstance(name, str):
            yield from _entries(value, f"{key}/{name}" if key else name, depth + 1)


def _unwrapped(state: State) -> State:
    for wrapper in WRAPPERS:
        if all(name.startswith(wrapper) for name in state):
            return _unwrapped({name.removeprefix(wrapper): t for name, t in state.items()})
    return state


def _parts(key: str, state: State) -> Iterator[tuple[str, State]]:
    """The networks of one dict, "generator.main.0.weight", by the first word of their tensors' names."""
    parts: dict[str, State] = {}
    for name, tensor in state.items():
        first, dot, rest = name.partition(".")
        if dot:
            parts.setdefault(first, {})[rest] = tensor
    for first, part in parts.items():
        yield (f"{key}/{first}" if key else first), part


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


# Recognition


def _recognised(path: Path, content: Any, image_statistics: bool) -> list[Match]:
    """The entries that fit a layout in every name and shape. Raises `CheckpointError` where none does."""
    whole = list(_entries(content))[:MOST_ENTRIES]
    tried: list[Match] = []
    for entries in (whole, [part for entry in whole for part in _parts(*entry)][:MOST_ENTRIES]):
        for key, state in entries:
            tried += _compare(key, state, image_statistics)
        if fitting := [match for match in tried if not match.differences]:
            return fitting
    layouts = "; ".join(layout.title.format("N") for _, _, layout in known())
    raise CheckpointError(
        f"{path} was not recognised",
        seen=_nearest(tried) if tried else "No name in it is of a layout that is known",
        repair=f"Looked for: {layouts}",
    )


def _compare(key: str, state: State, image_statistics: bool) -> list[Match]:
    """The entry held against every layout that it shares a name with."""
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    found = []
    for kind, source, layout in known():
        reading = layout.read(shapes, image_statistics=image_statistics)
        shared = sum(name in shapes for name in reading.names.ours)
        if not shared:
            continue
        try:
            options = make_options(kind, reading.data, reading.options)
            system = kind(options, reading.data)
            ours = build_on_meta(system)[reading.network].state_dict()
        except InputError as error:
            found.append(
                Match(key, state, source, reading, None, [error.seen] * len(shapes), shared, {})
            )
            continue
        wanted = {name: tuple(tensor.shape) for name, tensor in ours.items()}
        differences = _differences(reading, wanted, shapes)
        found.append(Match(key, state, source, reading, system, differences, shared, ours))
    return found


def _differences(
    reading: Reading,
    wanted: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, tuple[int, ...]],
) -> list[str]:
    """What is missing or has another shape, in the order of our layers; then what is too many."""
    names, found = reading.names, []
    theirs = {ours: foreign for foreign, ours in names.ours.items()}
    for ours, shape in wanted.items():
        foreign = theirs[ours]
        if foreign not in shapes:
            if ours not in names.zeros:
                found.append(f"{foreign} {list(shape)} is missing")
        elif shapes[foreign] != shape:
            found.append(f"{foreign} is {list(shapes[foreign])}, not {list(shape)}")
    for foreign, shape in shapes.items():
        if names.ours.get(foreign) not in wanted and foreign not in names.ignored:
            found.append(f"{foreign!r:.100} {list(shape)} is one too many")
    return found


def _nearest(tried: list[Match]) -> str:
    match = min(tried, key=lambda match: (len(match.differences), -match.shared))
    others = len(match.differences) - 1
    more = f", and {others} other difference{'s' * (others > 1)}" if others else ""
    where = f" (at {match.key!r:.60})" if match.key else ""
    return f"Nearest is {match.reading.title}{where}, but {match.differences[0]}{more}"


def _choose(path: Path, matches: list[Match], key: str | None) -> Match:
    """The match that was asked for, or the only one; an average goes before what it is the average of."""
    chosen = [match for match in matches if key in (None, match.key)]
    averages = [match for match in chosen if "ema" in match.key.lower()]
    chosen = averages or chosen
    if len(chosen) != 1:
        raise CheckpointError(
            f"{path} holds several networks that are recognised"
            if key is None
            else f"{path} holds no such network",
            seen=f"Recognised at {', '.join(f'{match.key!r:.60}' for match in matches)}",
            repair="Choose one with --key",
        )
    (match,) = chosen
    sizes = {
        match.reading.data.channels,
        (match.reading.data.partner or match.reading.data.shape)[0],
    }
    if not sizes <= set(CHANNELS):
        raise CheckpointError(
            f"{path} cannot be used",
            seen=f"{match.reading.title}, of images with {max(sizes - set(CHANNELS))} channels",
            repair="Images have 1, 3 or 4: grey, colour, or colour and alpha",
        )
    return match


# The checkpoint


def _values(match: Match, most_bytes: int) -> State:
    """The file's values under our names, as our dtypes. most_bytes: the file's size, which no honest values exceed."""
    theirs = {name: foreign for foreign, name in match.reading.names.ours.items()}
    found = {name: match.state.get(theirs[name]) for name in match.ours}
    claimed = sum(t.numel() * t.element_size() for t in found.values() if t is not None)
    if claimed > most_bytes:
        raise CheckpointError(
            "The weights cannot be used",
            seen=f"{claimed} bytes of numbers in a file of {most_bytes}",
            repair="Save them again, each tensor with a .clone() of its own",
        )
    return {
        name: torch.zeros(own.shape, dtype=own.dtype)
        if (tensor := found[name]) is None
        else _value(theirs[name], tensor, own)
        for name, own in match.ours.items()
    }


def _value(name: str, tensor: Tensor, own: Tensor) -> Tensor:
    seen = ""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        seen = "It is sparse, quantised or without values"
    elif tensor.is_floating_point() != own.is_floating_point() or tensor.is_complex():
        seen = f"Its numbers are {tensor.dtype}"
    else:
        value = tensor.detach().to(own.dtype).contiguous()
        if torch.isfinite(value).all():
            return value
        seen = "It holds NaN or infinity"
    raise CheckpointError(
        f"The weights {name} cannot be used",
        seen=seen,
        repair="Save the state dict of the network as it was trained, or take an older one",
    )


def _training(match: Match, sha256: str) -> Training:
    """A run that has not begun, with fresh networks, on one black image that stands for data unknown to us."""
    system, data = match.system, match.reading.data
    assert system is not None
    partners = None if data.partner is None else np.zeros((1, *data.partner), np.uint8)
    nothing = Dataset(
        f"adopted: {match.reading.title}",
        np.zeros((1, *data.shape), np.uint8),
        None,
        (),
        partners=partners,
        arrangement=data.arrangement,
    )
    nothing.digest = sha256
    config = make_config(
        type(system), match.source, data, dataclasses.asdict(system.options), steps=STEPS
    )
    with torch.random.fork_rng(devices=[]):
        return Training(system, nothing, config, torch.device("cpu"))


def _content(training: Training) -> dict[str, Any]:
    config: Config = training.config
    return training.state() | {
        "config": config.to_dict(),
        "data": {
            "name": training.data.name,
            "count": len(training.data),
            "digest": training.data.digest,
            "info": dataclasses.asdict(training.data.info),
        },
        "signature": {
            name: graph.signature.to_json() for name, graph in training.system.graphs().items()
        },
        "metrics": {"values": {}, "best": {}},
        "threads": {"count": torch.get_num_threads(), "processes": 1},
    }
