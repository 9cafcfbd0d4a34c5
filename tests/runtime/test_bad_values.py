"""Every parameter of the public API against every odd value: it is taken where it must be, else refused by name.

What a parameter takes is said here in words of its own, so that both a value taken in silence and a good one refused
are seen. GAN_TORTURE=1 draws 2,000 more cases instead of 150.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gan import runtime
from gan.runtime import (
    CudaOptions,
    DeviceUnavailableError,
    Draw,
    Field,
    GanError,
    Generator,
    InputError,
    ModelFileError,
    Signature,
)

from .. import odd
from ..odd import ODD
from . import test_search, test_styles
from .conftest import IMAGE_BYTES, TORTURE, tiny_model
from .translating import translating_model

ROOT = Path(__file__).parents[2]
LAST = 2**64 - 1
MOST = 40 * IMAGE_BYTES  # bytes of output, so that few images are many
LIMIT = 5.0  # seconds of a call
Takes = Callable[[Any], bool]

# What is taken, in words of our own


def integers(low: int, high: int) -> Takes:
    kinds = (int, np.signedinteger, np.unsignedinteger)
    return lambda v: (
        isinstance(v, kinds) and not isinstance(v, (bool, np.timedelta64)) and low <= int(v) <= high
    )


def numbers(low: float, high: float, *, above: bool = False) -> Takes:
    whole, kinds = integers(-(2**1000), 2**1000), (float, np.floating)
    return lambda v: (
        (whole(v) or isinstance(v, kinds)) and low <= float(v) <= high and not (above and v == low)
    )


def words(*choices: str) -> Takes:
    return lambda v: isinstance(v, str) and v in choices


def or_none(takes: Takes) -> Takes:
    return lambda v: v is None or takes(v)


def row_of(takes: Takes, count: int) -> Takes:
    kinds = (list, tuple, range, np.ndarray)
    return lambda v: (
        isinstance(v, kinds) and np.ndim(v if isinstance(v, np.ndarray) else [0]) > 0
        and len(v) == count and all(map(takes, v))
    )  # fmt: skip


def either(*several: Takes) -> Takes:
    return lambda v: any(takes(v) for takes in several)


def nothing(value: Any) -> bool:
    return False


def flag(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


def labels(*names: str) -> Takes:
    one = either(words(*names), integers(0, len(names) - 1))
    return or_none(either(one, row_of(one, 1)))


def rows(*shape: int, floats: bool = True, low: float = -3.4e38, high: float = 3.4e38) -> Takes:
    """A batch of numbers of one shape."""

    def takes(v: Any) -> bool:
        if not isinstance(v, (list, tuple, range, np.ndarray)) or len(v) > 1000:
            return False
        try:
            a = np.asarray(v)
        except Exception:
            return False
        fits = a.dtype.kind in ("iuf" if floats else "iu") and a.shape[1:] == shape and len(a) > 0
        return fits and not np.ma.isMaskedArray(v) and bool(((a >= low) & (a <= high)).all())

    return takes


def pictures(value: Any) -> bool:
    array = isinstance(value, np.ndarray) and value.dtype in (np.uint8, np.bool_)
    return array and value.ndim in (2, 3) and 0 < value.size < MOST and value.shape[2:] != (5,)


# The models


@cache
def opened(kind: str) -> Generator:
    about: dict[str, Callable[[], bytes]] = {
        "labelled": tiny_model,
        "plain": lambda: tiny_model(labels=False),
        "truncated": lambda: tiny_model(truncation=True),
        "noisy": lambda: tiny_model(noise=True, shared=True),
        "translates": lambda: translating_model(),
        "paints": lambda: translating_model(mask=True),
        "dusk": lambda: translating_model(label=True, latent=True),
        "fixed": lambda: translating_model(size=(8, 8)),
        "mapping": test_styles.mapping_model,
        "synthesis": test_styles.synthesis_model,
    }
    return Generator(about[kind](), device="cpu", threads=1, max_output_bytes=MOST)


@cache
def trio() -> tuple[Generator, Generator, Generator]:
    return test_search.graphs()


@cache
def tiny() -> bytes:
    return tiny_model()


def reopened(**given: Any) -> Generator:
    return Generator(**({"model": tiny(), "device": "cpu", "threads": 1} | given))


def search_with(**given: Any) -> Any:
    encode, generate, embed = trio()
    good = {"encode": encode, "generate": generate, "embed": embed, "images": test_search.truths()[:1],
            "label": "young", "steps": 1}  # fmt: skip
    return runtime.search(**(good | given))


def mix_with(**given: Any) -> Any:
    good = {
        "mapping": opened("mapping"),
        "synthesis": opened("synthesis"),
        "seeds": [3, 9],
        "layers": [1],
    }
    return runtime.mix(**(good | given))  # fmt: skip


def way_with(**given: Any) -> Any:
    good = {
        "mapping": opened("mapping"),
        "synthesis": opened("synthesis"),
        "first": 3,
        "last": 9,
        "frames": 2,
    }
    return runtime.interpolate(**(good | given))  # fmt: skip


def translated(kind: str = "translates", **given: Any) -> Any:
    return opened(kind).translate(**({"image": np.zeros((2, 4), np.uint8)} | given))


def there_and_back(**given: Any) -> Any:
    """A signature is a plain record: it is judged where it is written and where it is read."""
    draw = replace(Draw("normal"), **given.pop("draw", {}))
    field = replace(Field("z", (4,), draw=draw), **given.pop("field", {}))
    image = Field("image", (8, 8, 3), "image", "uint8")
    signature = replace(Signature((field,), (image,)), **given)
    return Signature.from_json(signature.to_json())


@dataclass(frozen=True)
class Case:
    """A parameter. takes: what must work; all else is refused. None: whatever, but for an error that is not ours.

    word: by which a message names the parameter. slow: a large value that is taken is not tried.
    """

    call: Callable[[Any], Any]
    takes: Takes | None = nothing
    word: str = ""
    errors: tuple[type[GanError], ...] = (InputError,)
    slow: bool = False


SEED, CLASSES, DUSK = integers(0, LAST), labels("1", "2", "10"), labels("dusk", "night")
CUDA = "CudaOptions"


def sampled(name: str, call: Callable[..., Any], *, most: int) -> dict[str, Case]:
    """The parameters that sample, stream, sample_dlpack and images share. call: (generator, **given)."""
    good = {"count": 1, "seed": 0}

    def run(kind: str, parameter: str) -> Callable[[Any], Any]:
        return lambda value: call(opened(kind), **(good | {parameter: value}))

    return {
        f"{name}.count": Case(run("labelled", "count"), integers(1, most), "count|Too many images"),
        f"{name}.seed": Case(run("labelled", "seed"), or_none(SEED), "seed"),
        f"{name}.start": Case(run("labelled", "start"), SEED, "start"),
        f"{name}.label": Case(run("labelled", "label"), CLASSES, "label"),
        f"{name}.truncation": Case(
            run("truncated", "truncation"), or_none(numbers(0, 1)), "truncation"
        ),
        f"{name}.noise": Case(run("noisy", "noise"), words("shared", "drawn"), "noise"),
    }


def way(name: str, call: Callable[..., Any], *, most: int, slow: bool) -> dict[str, Case]:
    """The parameters of the ways from one image to another. call: (**given)."""
    return {
        f"{name}.first": Case(lambda v: call(first=v), SEED, "first seed"),
        f"{name}.last": Case(lambda v: call(last=v), SEED, "last seed"),
        f"{name}.frames": Case(
            lambda v: call(frames=v), integers(1, most), "number of frames|Too many", slow=slow
        ),
        f"{name}.label": Case(lambda v: call(label=v), CLASSES, "label"),
        f"{name}.truncation": Case(
            lambda v: call(truncation=v), or_none(numbers(0, 1)), "truncation"
        ),
    }


def between(method: Callable[..., Any]) -> Callable[..., Any]:
    good = {"first": 3, "last": 9, "frames": 2}
    return lambda **given: method(opened("truncated"), **(good | given))


LARGE = 2**63 - 1
CASES: dict[str, Case] = {
    "Generator.model": Case(lambda v: reopened(model=v), errors=(ModelFileError, InputError)),
    "Generator.device": Case(
        lambda v: reopened(device=v), words("auto", "cpu"), "device", (InputError, DeviceUnavailableError)
    ),
    "Generator.threads": Case(
        lambda v: reopened(threads=v), or_none(integers(1, 1024)), "thread", slow=True
    ),
    "Generator.micro_batch": Case(
        lambda v: reopened(micro_batch=v), or_none(integers(1, 4096)), "micro-batch"
    ),
    "Generator.max_output_bytes": Case(
        lambda v: reopened(max_output_bytes=v), integers(IMAGE_BYTES, LARGE), "max_output_bytes"
    ),
    "Generator.cuda": Case(lambda v: reopened(cuda=v), lambda v: v is None, "CUDA options"),
    "Generator.metadata.section": Case(
        lambda v: opened("labelled").metadata(v), lambda v: isinstance(v, str), "section"
    ),
    **sampled("Generator.sample", lambda g, **given: g.sample(**given), most=40),
    **sampled("Generator.stream", lambda g, **given: next(g.stream(**given)), most=LARGE),
    **sampled("Generator.sample_dlpack", lambda g, **given: next(g.sample_dlpack(**given)), most=LARGE),
    **sampled("Generator.images", lambda g, **given: g.images(**given), most=40),
    **way("Generator.interpolate", between(Generator.interpolate), most=40, slow=False),
    **way("Generator.walk", lambda **given: next(between(Generator.walk)(**given)), most=LARGE, slow=False),
    **way("interpolate", way_with, most=MOST // 48, slow=False),
    "Generator.__call__.inputs": Case(lambda v: opened("plain")(z=v), rows(4), "z|No input|Too many"),
    "Generator.__call__.inputs: label": Case(
        lambda v: opened("labelled")(z=np.zeros((1, 4)), label=v),
        lambda v: rows(floats=False, low=0, high=2)(v) and len(v) == 1, "label|inputs disagree",
    ),
    "Generator.__call__.inputs: image": Case(
        lambda v: opened("translates")(image=v),
        either(pictures, lambda v: isinstance(v, np.ndarray) and v.ndim == 4 and 0 < v.size < MOST), "image",
    ),
    "Generator.translate.image": Case(lambda v: translated(image=v), pictures),
    "Generator.translate.mask": Case(
        lambda v: translated("paints", mask=v),
        lambda v: pictures(v) and v.shape[:2] == (2, 4),
    ),
    "Generator.translate.label": Case(lambda v: translated("dusk", label=v), DUSK, "label"),
    "Generator.translate.seed": Case(lambda v: translated("dusk", seed=v), SEED, "seed"),
    "Generator.translate.tile": Case(lambda v: translated(tile=v), or_none(integers(1, 2**20)), "tile"),
    "Generator.translate.overlap": Case(
        lambda v: translated(tile=2, overlap=v), or_none(integers(0, 2**20)), "overlap"
    ),
    "Generator.translate.resize": Case(lambda v: translated("fixed", resize=v), lambda v: flag(v) and bool(v),
                                       "resize|size"),
    "mix.mapping": Case(lambda v: mix_with(mapping=v), word="mapping"),
    "mix.synthesis": Case(lambda v: mix_with(synthesis=v), word="synthesis"),
    "mix.seeds": Case(
        lambda v: mix_with(seeds=v), row_of(either(SEED, row_of(SEED, 1), row_of(SEED, 2)), 2), "seed|layers"
    ),
    "mix.layers": Case(lambda v: mix_with(layers=v), row_of(integers(1, 3), 1), "layer"),
    "mix.label": Case(lambda v: mix_with(label=v), CLASSES, "label"),
    "mix.truncation": Case(lambda v: mix_with(truncation=v), or_none(numbers(0, 1)), "truncation"),
    "interpolate.mapping": Case(lambda v: way_with(mapping=v), word="mapping"),
    "interpolate.synthesis": Case(lambda v: way_with(synthesis=v), word="synthesis"),
    "search.encode": Case(lambda v: search_with(encode=v), word="encode"),
    "search.generate": Case(lambda v: search_with(generate=v), word="generate"),
    "search.embed": Case(lambda v: search_with(embed=v), word="embed"),
    "search.images": Case(lambda v: search_with(images=v), word="image"),
    "search.label": Case(
        lambda v: search_with(label=v), lambda v: v is not None and labels("young", "old")(v), "label"
    ),
    "search.steps": Case(lambda v: search_with(steps=v), integers(1, 100_000), "steps", slow=True),
    "search.rate": Case(lambda v: search_with(rate=v), numbers(0, 1e3, above=True), "rate"),
    "search.h": Case(lambda v: search_with(h=v), numbers(1e-6, 1e3), "h was refused"),
    "search.identity": Case(lambda v: search_with(identity=v), numbers(0, 1e6), "identity"),
    "search.pixels": Case(lambda v: search_with(pixels=v), numbers(0, 1e6), "pixels"),
    "search.prior": Case(lambda v: search_with(prior=v), numbers(0, 1e6), "prior"),
    f"{CUDA}.memory_limit": Case(
        lambda v: CudaOptions(memory_limit=v), or_none(integers(2**20, LARGE)), "memory limit"
    ),
    f"{CUDA}.tf32": Case(lambda v: CudaOptions(tf32=v), flag, "tf32"),
    f"{CUDA}.graphs": Case(lambda v: CudaOptions(graphs=v), flag, "graphs"),
    f"{CUDA}.prefer_nhwc": Case(lambda v: CudaOptions(prefer_nhwc=v), flag, "prefer_nhwc"),
    f"{CUDA}.search": Case(
        lambda v: CudaOptions(search=v), words("heuristic", "exhaustive", "default"), "search"
    ),
    f"{CUDA}.tensorrt": Case(lambda v: CudaOptions(tensorrt=v), flag, "tensorrt"),
    f"{CUDA}.tensorrt_cache": Case(
        lambda v: CudaOptions(tensorrt=True, tensorrt_cache=v), lambda v: v is None, "tensorrt_cache"
    ),
    "Signature.from_json.text": Case(Signature.from_json, word="signature", errors=(ModelFileError,)),
}  # fmt: skip
RECORDS = {"draw": Draw, "field": Field, "": Signature}
for part, kind in RECORDS.items():
    for parameter in inspect.signature(kind).parameters:

        def record(value: Any, part: str = part, parameter: str = parameter) -> Any:
            return there_and_back(**({part: {parameter: value}} if part else {parameter: value}))

        CASES[f"{kind.__name__}.{parameter}"] = Case(
            record, None, "signature", (ModelFileError, InputError)
        )

# Not called by an application: they take what is checked already, or made by us.
INNER = {
    "Generator.run", "Generator.run_stream", "Generator.bounded", "Generator.labels", "Generator.drawn",
    "DeviceArray", "Signature.input", "Field.shape_at",
}  # fmt: skip


def parameters() -> Iterator[str]:
    """Each parameter of the public API, by a dotted name."""
    for name in runtime.__all__:
        thing = getattr(runtime, name)
        if isinstance(thing, type) and issubclass(thing, GanError):
            continue  # raised by us, and read
        yield from _of(name, thing)
        if isinstance(thing, type):
            for member, function in inspect.getmembers(thing, callable):
                if not member.startswith("_") or member == "__call__":
                    yield from _of(f"{name}.{member}", function)


def _of(name: str, function: Any) -> Iterator[str]:
    if name not in INNER and inspect.getmodule(function) is not None:
        yield from (f"{name}.{p}" for p in inspect.signature(function).parameters if p != "self")


def test_every_public_parameter_has_a_case() -> None:
    assert {name.partition(":")[0] for name in CASES} == set(parameters())


def outcome(case: Case, value: Any) -> str:
    """ "" for what a call may do with a value, else what it did."""
    wanted = None if case.takes is None else case.takes(value)
    if wanted and case.slow and isinstance(value, int) and value > 50:
        return ""
    begin = time.monotonic()
    try:
        case.call(value)
    except case.errors as error:
        told = f"{error}"
        if wanted:
            return f"refused: {told}"
        named = not case.word or any(word in told for word in case.word.split("|"))
        if not (named and told.isprintable() and len(told) < 1_000 and error.repair):
            return f"is told as: {told[:200]}"
    except BaseException as error:
        return f"raised {type(error).__name__}: {error!s:.200}"
    else:
        if wanted is False:
            return "was taken"
    seconds = time.monotonic() - begin
    return f"took {seconds:.1f} s" if seconds > LIMIT else ""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[None]:
    """Nothing is written there, and nothing is printed."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", CASES)
def test_a_parameter_takes_what_it_should_and_refuses_the_rest_by_name(name: str) -> None:
    case = CASES[name]
    found = {what: outcome(case, make()) for what, make in ODD.items()}
    assert {what: told for what, told in found.items() if told} == {}


@pytest.mark.torture
@settings(
    deadline=None,
    derandomize=not TORTURE,
    max_examples=2_000 if TORTURE else 150,
    suppress_health_check=list(HealthCheck),
)
@given(st.sampled_from(sorted(CASES)), odd.values)
def test_any_value_for_any_parameter(name: str, value: Any) -> None:
    assert outcome(CASES[name], value) == ""


def sweep() -> dict[str, float]:
    """All odd values for all parameters, and what it took. In a process of its own: a peak of memory only grows."""
    for case in CASES.values():  # load and warm what any use would
        outcome(case, None)
        outcome(case, 1)
    before, begin, calls = odd.peak_megabytes(), time.monotonic(), 0
    for case in CASES.values():
        for make in ODD.values():
            outcome(case, make())
            calls += 1
    return {
        "calls": calls,
        "seconds": time.monotonic() - begin,
        "megabytes": odd.peak_megabytes() - before,
    }


def test_no_value_costs_memory(tmp_path: Path) -> None:
    code = (
        "import json; from tests.runtime.test_bad_values import sweep; print(json.dumps(sweep()))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["calls"] == len(CASES) * len(ODD)
    assert found["megabytes"] < 50, found
