"""A run's settings as plain values: the system's preset, the user's own over it, compared name by name on resume."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args, get_origin

import numpy as np

from ..runtime.errors import CheckpointError, InputError, shown
from ..runtime.values import is_integer
from .decode import Fit
from .losses import LOSSES
from .options import Options, ranges
from .parts import DataInfo
from .system import System
from .systems import DEFAULT, SystemSource

Plain = int | float | str | bool | None


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every setting that changes the weights. All values are plain; None stands for "not chosen", or for what the
    data does not have: points have neither resolution nor channels."""

    system: SystemSource
    resolution: int | None = None
    channels: int | None = None
    fit: Fit | None = None
    crop: int | None = None
    zoom: float = 1.0
    mirror: bool = False
    swap: bool = False
    steps: int
    seed: int = 0
    ema_decay: float | None = None
    options: Mapping[str, Plain]

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "options": dict(self.options)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Config:
        """What `to_dict` gave; anything else raises `CheckpointError`."""
        try:
            source, options = SystemSource(**content["system"]), dict(content["options"])
            general = check_general(content)
            check_windows(general)
            names = all(isinstance(name, str) for name in (source.name, *options))
            texts = all(isinstance(text, str | None) for text in (source.file, source.sha256))
            plain = all(isinstance(value, Plain) for value in options.values())
            if {*GENERAL} - {*general, *NOT_CHOSEN} or not (names and texts and plain):
                raise TypeError("a setting is missing or of another kind")
            own = {f.name for f in dataclasses.fields(cls)}
            if {*content} != own:
                raise KeyError(", ".join(sorted({*content} ^ own)))
            return cls(**{**content, **general, "system": source, "options": options})
        except (TypeError, KeyError, ValueError) as error:
            raise CheckpointError(
                "The checkpoint's configuration cannot be read",
                seen=f"{error}",
                repair="Use an older copy such as best.pt, or start anew with --force",
            ) from error

    def flat(self) -> dict[str, Plain]:
        """One level of names: the options beside the rest."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        own |= {"system": self.system.name, **dict(own.pop("options"))}
        return own


GENERAL: dict[str, Any] = {
    "resolution": int,
    "channels": Literal[1, 3, 4],
    "fit": Fit,
    "crop": int,
    "zoom": float,
    "mirror": bool,
    "swap": bool,
    "steps": int,
    "seed": int,
    "ema_decay": float,
}
_types = cast(Callable[[type[Options]], dict[str, Any]], functools.cache(typing.get_type_hints))
KINDS = {"image": "images", "points": "points"}
NOT_CHOSEN = frozenset({"fit", "resolution", "channels", "crop", "ema_decay"})  # these may be None
_RANGES = {
    "resolution": (1, 16_384, "1 to 16,384"),
    "crop": (1, 16_384, "1 to 16,384"),
    "zoom": (1, 4, "1 to 4"),
    "steps": (1, 10**9, "1 to 1,000,000,000"),
    "seed": (0, 2**64 - 1, "0 to 2^64 - 1"),
}


def make_config(
    system: type[System],
    source: SystemSource,
    data: DataInfo,
    given: Mapping[str, Plain],
    *,
    steps: int,
    resolution: int | None = None,
) -> Config:
    """The system's preset for this data with the given settings over it. Raises `InputError`.

    resolution: of the prepared images, where the samples are windows of them.
    """
    options = dataclasses.asdict(make_options(system, data, given))
    general = check_general(given)
    steps = general.get("steps", steps)
    return Config(
        system=source,
        resolution=(resolution or data.height) if data.kind == "image" else None,
        channels=data.channels if data.kind == "image" else None,
        fit=general.get("fit"),
        crop=general.get("crop"),
        zoom=general.get("zoom", 1.0),
        mirror=general.get("mirror", False),
        swap=general.get("swap", False),
        steps=steps,
        seed=general.get("seed", 0),
        ema_decay=general.get("ema_decay"),
        options=options,
    )


def resume_config(stored: Config, given: Mapping[str, Plain], accepted: tuple[str, ...]) -> Config:
    """The stored settings with those given that are accepted; steps may grow without being named.

    Raises `CheckpointError` that names every other difference.
    """
    now, general = stored.flat(), check_general(given)
    own = {n: _as_plain(n, value) for n, value in given.items() if n not in GENERAL}
    changed = {n: value for n, value in (own | general).items() if value != now.get(n)}
    if changed.get("steps", 0) > stored.steps:
        accepted = (*accepted, "steps")
    refused = [name for name in changed if name not in accepted]
    if refused:
        raise CheckpointError(
            "The run was started with other settings",
            seen=", ".join(f"{name} {now.get(name)} (now {changed[name]})" for name in refused),
            repair="Leave them out, accept them with "
            + " ".join(f"--accept {name.replace('_', '-')}" for name in refused)
            + ", or start anew beside it with --force",
        )
    options = {**stored.options, **{n: v for n, v in changed.items() if n not in GENERAL}}
    return dataclasses.replace(stored, **general, options=options)


def make_options(system: type[System], data: DataInfo, given: Mapping[str, Plain]) -> Options:
    """The system's options for this data; names in `given` that are general settings are passed over."""
    if data.kind not in system.kinds:
        raise InputError(
            f"{system.name} cannot be trained on such data",
            seen=f"samples that are {KINDS[data.kind]}",
            repair=f"It takes {' or '.join(KINDS[kind] for kind in system.kinds)}: choose another system or data",
        )
    if data.arrangement not in system.arrangements:
        raise InputError(
            f"{system.name} cannot be trained on such data",
            seen=f"data arranged as {data.arrangement}",
            repair=f"It takes {' or '.join(system.arrangements)}: choose another system or data",
        )
    preset = system.preset(data)
    known = {f.name for f in dataclasses.fields(preset)}
    unknown = sorted(set(given) - known - set(GENERAL), key=str)
    if unknown:
        raise InputError(
            f"{system.name} has no setting {shown(unknown[0])}",
            seen=f"--set {unknown[0]!s:.60}=...",
            repair=f"Its settings are {', '.join(sorted(known))}",
        )
    own = {name: value for name, value in given.items() if name in known}
    hints = _types(type(preset))
    typed: dict[str, Any] = {n: check_type(n, value, hints[n]) for n, value in own.items()}
    options = dataclasses.replace(preset, **typed)
    _check_ranges(options)
    if system.needs_labels and not (options.labels and data.classes):
        raise InputError(
            f"{system.name} needs labels",
            seen="labels turned off" if data.classes else "data without classes",
            repair=f"Sort the images into one sub-folder a class, or choose --system {DEFAULT}",
        )
    return options


def parse_setting(system: type[System], text: str) -> tuple[str, Plain]:
    """("width", 32) from "width=32", typed as the system's options say. Raises `InputError`."""
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    hints = _types(system.options_type)
    if not equals or name not in hints:
        raise InputError(
            f"--set {text:.100} was refused",
            seen=f"{system.name} has no setting {shown(name)}" if equals else "no = in it",
            repair=f"Its settings are {', '.join(sorted(hints))}",
        )
    return name, check_type(name, value.strip(), hints[name])


def check_type(name: str, value: Any, hint: Any) -> Plain:
    """`value`, or the text of one, as the type that the setting has. Raises `InputError`."""
    several = (Literal, types.UnionType, typing.Union)
    wanted = get_args(hint) if get_origin(hint) in several else (hint,)
    if value is None and type(None) in wanted:
        return None
    given, value = value, plain(value)
    if value is None:
        pass
    elif get_origin(hint) is Literal:
        if value in wanted and not isinstance(value, bool):  # True is 1
            return wanted[wanted.index(value)]
    elif bool in wanted:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if isinstance(value, bool) or str(value).lower() in words:
            return value if isinstance(value, bool) else words[str(value).lower()]
    elif str in wanted:
        if isinstance(value, str):
            return value
    elif not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            number = int(value) if int in wanted else float(value)
            if math.isfinite(number) and (isinstance(value, str) or number == value):
                return number
    kinds = ", ".join(str(getattr(kind, "__name__", kind)) for kind in wanted)
    raise InputError(
        f"The setting {name} was refused", seen=shown(given), repair=f"Give one of: {kinds}"
    )


def _as_plain(name: str, value: Any) -> Plain:
    """A setting's value before its type is known."""
    known = plain(value)
    if known is None and value is not None:
        raise InputError(
            f"The setting {name} was refused", seen=shown(value), repair="Give a number or a text"
        )
    return known


def plain(value: Any) -> Plain:
    """A number or a text as Python has it, whether it was numpy's or not; None for anything else, and for numbers that
    are too large for any setting."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if is_integer(value):
        return int(value) if abs(int(value)) < 2**128 else None
    if isinstance(value, (float, np.floating)):
        return float(value)
    return str(value) if isinstance(value, str) else None


def default_ema_decay(steps: int) -> float:
    """1 - 15 / steps, within 0.99 and 0.999: an average over about the last 7 % of a short run."""
    return min(max(1.0 - 15.0 / steps, 0.99), 0.999)


def check_general(given: Mapping[str, Any]) -> dict[str, Any]:
    """The general settings among `given`, typed and within their ranges. Raises `InputError`."""
    chosen = {name: given[name] for name in GENERAL if given.get(name) is not None}
    general: dict[str, Any] = {n: check_type(n, v, GENERAL[n]) for n, v in chosen.items()}
    for name, (low, high, allowed) in _RANGES.items():
        if name in general and not low <= general[name] <= high:
            raise InputError(
                f"The setting {name} was refused",
                seen=shown(general[name]),
                repair=f"Give {allowed}",
            )
    if not 0.0 <= general.get("ema_decay", 0.0) < 1.0:
        raise InputError(
            "The setting ema_decay was refused",
            seen=f"{general['ema_decay']}",
            repair="Give a number in [0, 1)",
        )
    return general


def check_windows(general: Mapping[str, Any]) -> None:
    """Raise `InputError` for settings of windows that contradict each other."""
    if general.get("zoom", 1.0) > 1.0 and general.get("crop") is None:
        raise InputError(
            "Enlarging needs windows to cut from what was enlarged",
            seen=f"--zoom {general['zoom']:g} without --crop",
            repair="Add --crop, pixels a side of a window, or leave --zoom out",
        )


def _check_ranges(options: Options) -> None:
    if options.loss not in LOSSES:
        raise InputError(
            "There is no such loss",
            seen=f"{options.loss!r:.60}",
            repair=f"Choose one of {', '.join(LOSSES)}",
        )
    for name, interval in ranges(options).items():
        value = getattr(options, name)
        if not interval.holds(value):
            raise InputError(
                f"The setting {name} was refused", seen=shown(value), repair=f"Give {interval}"
            )
