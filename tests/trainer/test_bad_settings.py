"""Every field of a request and every option of every system against every odd value: taken as what it is, or refused by name."""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import time
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gan.runtime.errors import CheckpointError, GanError, InputError
from gan.runtime.text import is_unseen
from gan.trainer import Checkpoint, Request, checks, systems
from gan.trainer.adopt import adopt
from gan.trainer.builtin import BUILTIN
from gan.trainer.checks import check
from gan.trainer.config import GENERAL, check_general, make_options, parse_setting
from gan.trainer.engine import Training
from gan.trainer.loop import train
from gan.trainer.options import Interval
from gan.trainer.parts import DataInfo
from gan.trainer.request import plan
from gan.trainer.system import System

from .. import odd
from ..odd import ODD, TEXTS, Case, Takes, flag, integers, numbers, or_none, outcome, words
from .conftest import tiny_request

ROOT = Path(__file__).parents[2]
TORTURE = os.environ.get("GAN_TORTURE") == "1"
NO, YES = ("false", "no", "0"), ("true", "yes", "1")
WORST = ("nan", "-infinity", "-1", "2^64", "10^5000", "True", "1j", "None", "an empty text", "a line break",
         "10^6 characters", "an Arabic digit", "a number as text", "a deep list", "objects",
         "what cannot be shown")  # fmt: skip


def data_of(kind: type[System]) -> DataInfo:
    if "image" not in kind.kinds:
        return DataInfo((2,), ("a", "b"), "points")
    partner = None if kind.arrangements[0] == "single" else (kind.partner_channels or 3, 64, 64)
    return DataInfo((3, 64, 64), ("a", "b"), "image", kind.arrangements[0], partner)


@cache
def known() -> dict[str, tuple[type[System], DataInfo, Mapping[str, Any]]]:
    """Each system with data that it takes, and the types of its options."""
    found: dict[str, tuple[type[System], DataInfo, Mapping[str, Any]]] = {}
    for name in systems.names():
        kind, _ = systems.load(name)
        data = data_of(kind)
        hints = typing.get_type_hints(type(kind.preset(data)))
        found[name] = (kind, data, {n: hints[n] for n in hints})
    return found


def settings_of_systems() -> Iterator[tuple[str, str]]:
    """(system, option): each option once for each type and range that it has anywhere."""
    seen = set()
    for name, (kind, data, hints) in known().items():
        for f in dataclasses.fields(kind.preset(data)):
            about = (f.name, str(hints[f.name]), str(f.metadata.get("range")))
            if about not in seen:
                seen.add(about)
                yield name, f.name


def interval_of(system: str, option: str) -> Interval | None:
    kind, data, _ = known()[system]
    (found,) = (f for f in dataclasses.fields(kind.preset(data)) if f.name == option)
    return found.metadata.get("range")


def is_taken_as(value: Any, text: Any, hint: Any, interval: Interval | None) -> bool:
    """Whether `value` is what `text`, a value of the caller's, means as an option of this type."""
    if get_origin(hint) is Literal:
        return type(value) in {type(choice) for choice in get_args(hint)} and value in get_args(
            hint
        )
    if hint is bool:
        return type(value) is bool and str(text).lower() in (YES if value else NO)
    if hint is str:
        return type(value) is str and value == str(text)
    within = interval is None or interval.holds(value)
    return type(value) is hint and math.isfinite(value) and within and value == hint(text)


def must_take(hint: Any, interval: Interval | None) -> Takes:
    """What no option may refuse: its own type, in its range, by Python or by numpy."""
    if interval is None or hint not in (int, float):
        return (
            flag
            if hint is bool
            else words(*get_args(hint))
            if get_origin(hint) is Literal
            else odd.never
        )
    low = interval.low if interval.above is None else interval.above
    high = interval.high if interval.below is None else interval.below
    inside = (integers if hint is int else numbers)(
        *((int(low), int(high)) if hint is int else (low, high))
    )
    return lambda v: inside(v) and interval.holds(v)


def trouble(system: str, option: str, value: Any) -> str:
    """What is wrong with what becomes of an option's value; "" for nothing."""
    kind, data, hints = known()[system]
    hint, interval = hints[option], interval_of(system, option)
    try:
        options = make_options(kind, data, {option: value})
    except InputError as error:
        told = f"{error}"
        if must_take(hint, interval)(value) and "needs labels" not in told:
            return f"refused: {told}"
        named = (
            option in told
            or "There is no such loss" in told
            or (option == "labels" and "needs labels" in told)
        )
        return (
            ""
            if named and not any(map(is_unseen, told)) and len(told) < 2_000
            else f"is told as {told:.200}"
        )
    except Exception as error:
        return f"raised {type(error).__name__}: {error!s:.200}"
    made = getattr(options, option)
    return "" if is_taken_as(made, value, hint, interval) else f"was taken as {made!r:.60}"


@pytest.mark.parametrize(("system", "option"), list(settings_of_systems()))
def test_an_option_takes_what_it_means_and_refuses_the_rest_by_name(
    system: str, option: str
) -> None:
    found = {what: trouble(system, option, make()) for what, make in ODD.items()}
    assert {what: told for what, told in found.items() if told} == {}


@pytest.mark.parametrize("system", systems.names())
def test_every_option_of_every_system_meets_the_worst(system: str) -> None:
    kind, data, _ = known()[system]
    for f in dataclasses.fields(kind.preset(data)):
        found = {what: trouble(system, f.name, ODD[what]()) for what in WORST}
        assert {(f.name, what): told for what, told in found.items() if told} == {}


@pytest.mark.parametrize("system", systems.names())
def test_texts_of_settings_are_typed_or_refused_by_name(system: str) -> None:
    kind, _, hints = known()[system]
    for what, make in TEXTS.items():
        for text in (make(), f"nosuch={make()}"):
            if "=" not in text or text.startswith("nosuch"):
                with pytest.raises(InputError, match=r"--set.*refused"):
                    parse_setting(kind, text)
        for option, hint in hints.items():
            try:
                name, value = parse_setting(kind, f"{option}={make()}")
            except InputError as error:
                assert option in f"{error}" and len(f"{error}") < 1_000, what
            else:
                assert name == option and is_taken_as(value, make().strip(), hint, None), what


def numbers_at_their_ends() -> Iterator[tuple[str, str, int]]:
    for name, (kind, data, hints) in known().items():
        for f in dataclasses.fields(kind.preset(data)):
            interval = f.metadata.get("range")
            if hints[f.name] is int and interval is not None:
                yield (
                    name,
                    f.name,
                    int(interval.high if interval.below is None else interval.below - 1),
                )


def test_a_size_at_its_largest_fits_or_is_refused_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a machine of 8 GB: within 5 s and 50 MB, since a child would be killed for more."""
    monkeypatch.setattr(checks, "memory", lambda: 8_000_000_000)
    before = odd.peak_megabytes()
    refused = set()
    for name, option, value in numbers_at_their_ends():
        kind, data, _ = known()[name]
        begin = time.monotonic()
        try:
            check(kind(make_options(kind, data, {option: value}), data))
        except InputError as error:
            refused.add((name, option))
            assert not any(map(is_unseen, f"{error}")) and error.repair
        assert time.monotonic() - begin < odd.LIMIT, (name, option)
    assert {
        ("cyclegan", "width"),
        ("dcgan", "batch_size"),
        ("stylegan2", "style"),
        ("gan", "growth"),
    } <= refused
    assert odd.peak_megabytes() - before < 300  # torch loads what it needs for the meta device


def test_sizes_that_are_usual_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        checks, "parameter_count", lambda network: pytest.fail("the networks were counted")
    )
    for name, (kind, data, _) in known().items():
        if name != "srgan":
            check(kind(kind.preset(data), data))


def test_what_does_not_fit_is_told_with_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "memory", lambda: 8_000_000_000)
    kind, data, _ = known()["dcgan"]
    with pytest.raises(InputError, match=r"The networks would not fit.*need \d+\.\d GB of 8\.0 GB"):
        check(kind(make_options(kind, data, {"embedding": 65_535}), data))
    with pytest.raises(
        InputError, match=r"The batch would not fit.*1000000 samples.* larger accumulate"
    ):
        check(kind(make_options(kind, data, {"batch_size": 1_000_000}), data))
    split = {"batch_size": 1_000_000, "accumulate": 10_000}
    check(kind(make_options(kind, data, split), data))


TORCH = "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError(TORCH), RuntimeError("not enough memory: 9 bytes")]
)
def test_memory_that_runs_out_in_a_run_is_told_with_the_ways_out(
    error: Exception, digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(training: Training) -> None:
        raise error

    monkeypatch.setattr(Training, "run_step", fails)
    with pytest.raises(InputError, match=r"does not fit in memory.*--batch-size.*accumulate=2"):
        train(tiny_request(digit_folder, tmp_path / "run"))


def test_another_fault_in_a_run_stays_what_it_is(
    digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(training: Training) -> None:
        raise RuntimeError("the sizes of two tensors differ")

    monkeypatch.setattr(Training, "run_step", fails)
    with pytest.raises(RuntimeError, match="two tensors differ"):
        train(tiny_request(digit_folder, tmp_path / "run"))


@pytest.mark.parametrize("name", [name for name, known in BUILTIN.items() if known.kind == "image"])
def test_built_in_data_of_a_size_that_no_memory_holds_are_refused(
    name: str, tmp_path: Path
) -> None:
    for resolution in (2**14, 2_000):
        with pytest.raises(
            InputError, match=rf"{name} would not fit in memory.*smaller --resolution"
        ):
            BUILTIN[name].load(resolution, None)


# The settings that all runs have


def general_case(name: str) -> Case:
    hint = GENERAL[name]
    ranges = {
        "resolution": (1, 16_384),
        "crop": (1, 16_384),
        "steps": (1, 10**9),
        "seed": (0, 2**64 - 1),
    }
    takes: dict[Any, Any] = {
        bool: flag,
        float: numbers(1, 4) if name == "zoom" else numbers(0, 1 - 1e-12),
    }
    if hint is int:
        takes[int] = integers(*ranges[name])
    choices = get_args(hint)
    whole = integers(1, 4) if 1 in choices else words(*map(str, choices))
    must = or_none(takes.get(hint, lambda v: whole(v) and v in choices))
    meant = {int: int, float: float}

    def call(value: Any) -> Any:
        made = check_general({name: value}).get(name)
        if value is None:
            assert made is None
        elif hint in meant:
            assert type(made) is hint and made == meant[hint](value) and math.isfinite(made)
        return made

    def maybe(value: Any) -> bool | None:
        return True if must(value) else None

    return Case(call, maybe, name)


@pytest.mark.parametrize("name", GENERAL)
def test_a_general_setting_takes_what_it_means_and_refuses_the_rest(name: str) -> None:
    case = general_case(name)
    found = {what: outcome(case, make()) for what, make in ODD.items()}
    assert {what: told for what, told in found.items() if told} == {}


def test_true_is_no_number_of_channels() -> None:
    with pytest.raises(InputError, match="The setting channels was refused"):
        check_general({"channels": True})


# A request


def places(value: Any) -> bool:
    """What may be the name of a file that is not there."""
    fits = (
        isinstance(value, str)
        and 0 < len(value) < 200
        and "\0" not in value
        and value.isprintable()
    )
    return bool(fits)


def asked(**given: Any) -> Request:
    return Request(**given)


def names(value: Any) -> bool:
    return isinstance(value, str)


FIELDS: dict[str, Callable[[Any], bool | None]] = {
    "data": or_none(lambda v: True if places(v) else None if isinstance(v, str) else False),
    "threads": or_none(integers(1, 1024)),
    "workers": integers(1, 256),
    "checkpoint_every": or_none(integers(1, 10**9)),
    "keep": integers(0, 10**9),
    "sample_every": or_none(integers(1, 10**9)),
    "measure_every": or_none(integers(1, 10**9)),
    "minutes": or_none(numbers(0, 1e7, above=True)),
    "force": flag,
    "device": names,
    "settings": lambda v: isinstance(v, (list, tuple)) and all(isinstance(s, str) for s in v),
    "accept": lambda v: isinstance(v, (list, tuple)) and all(isinstance(s, str) for s in v),
    "given": lambda v: isinstance(v, dict) and all(isinstance(s, str) for s in v),
}  # fmt: skip
FIELDS |= dict.fromkeys(("source", "system", "out"), FIELDS["data"])


def test_every_field_of_a_request_has_a_case() -> None:
    assert set(FIELDS) == {f.name for f in dataclasses.fields(Request)}


def request_case(name: str) -> Case:
    return Case(lambda v: Request(**{name: v}), FIELDS[name], name)


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_a_request_takes_what_it_should_and_refuses_the_rest(name: str) -> None:
    found = {what: outcome(request_case(name), make()) for what, make in ODD.items()}
    assert {what: told for what, told in found.items() if told} == {}


@pytest.mark.parametrize("name", ["data", "source", "system", "device"])
def test_a_plan_of_any_text_is_refused_and_writes_nothing(
    name: str, digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for what, make in TEXTS.items():
        if name == "source" and what == "a digit":
            continue
        with pytest.raises(GanError) as caught:
            plan(
                dataclasses.replace(tiny_request(digit_folder, tmp_path / "run"), **{name: make()})
            )
        assert len(f"{caught.value}") < 2_000 and not any(map(is_unseen, f"{caught.value}")), what
    assert not list(tmp_path.iterdir())


def test_paths_and_numbers_of_any_kind_are_taken(digit_folder: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "steps": np.int64(3), "width": np.int32(4), "r1": np.float32(0.5), "resolution": np.uint16(8),
        "mirror": np.bool_(True),
    }  # fmt: skip
    fields: dict[str, Any] = {
        "data": digit_folder, "out": os.fspath(tmp_path / "run"), "threads": np.int64(1), "workers": np.uint8(2),
        "minutes": np.float32(0.5),
    }  # fmt: skip
    request = Request(**fields, given=given)
    ready = plan(request)
    assert request.out == tmp_path / "run" and type(request.threads) is int
    flat = ready.config.flat()
    assert {n: flat[n] for n in ("steps", "width", "r1", "resolution", "mirror")} == {
        "steps": 3, "width": 4, "r1": 0.5, "resolution": 8, "mirror": True,
    }  # fmt: skip
    assert all(type(value) in (int, float, str, bool, type(None)) for value in flat.values())


# The other functions that take a path


OTHERS = {
    "Checkpoint.load": lambda v: Checkpoint.load(v),
    "adopt.weights": lambda v: adopt(v, "model.pt"),
    "adopt.output": lambda v: adopt("nowhere.pth", v),
    "adopt.key": lambda v: adopt("nowhere.pth", "model.pt", key=v),
    "adopt.image_statistics": lambda v: adopt("nowhere.pth", "model.pt", image_statistics=v),
    "adopt.overwrite": lambda v: adopt("nowhere.pth", "model.pt", overwrite=v),
}  # fmt: skip


def test_every_parameter_of_adopt_is_tried() -> None:
    assert {n.partition(".")[2] for n in OTHERS if n.startswith("adopt")} == set(
        inspect.signature(adopt).parameters
    )


@pytest.mark.parametrize("name", OTHERS)
def test_whatever_is_no_file_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    case = Case(OTHERS[name], errors=(InputError, CheckpointError))
    found = {what: outcome(case, make()) for what, make in ODD.items()}
    assert {what: told for what, told in found.items() if told} == {}
    assert not list(tmp_path.iterdir())


@pytest.mark.torture
@settings(
    deadline=None,
    derandomize=not TORTURE,
    max_examples=1_000 if TORTURE else 100,
    suppress_health_check=list(HealthCheck),
)
@given(st.sampled_from(list(settings_of_systems())), odd.any_values)
def test_any_value_for_any_option(where: tuple[str, str], value: Any) -> None:
    assert trouble(*where, value) == ""


def sweep() -> dict[str, float]:
    places = list(settings_of_systems())
    for place in places:
        trouble(*place, 1)
    before, begin, calls = odd.peak_megabytes(), time.monotonic(), 0
    for make in ODD.values():
        for place in places:
            trouble(*place, make())
        for name in FIELDS:
            outcome(request_case(name), make())
        calls += len(places) + len(FIELDS)
    return {
        "calls": calls,
        "seconds": time.monotonic() - begin,
        "megabytes": odd.peak_megabytes() - before,
    }


def test_no_setting_costs_memory(tmp_path: Path) -> None:
    code = (
        "import json; from tests.trainer.test_bad_settings import sweep; print(json.dumps(sweep()))"
    )
    found = odd.in_a_child(code, tmp_path)
    assert found["calls"] > 5_000 and found["megabytes"] < 50, found
