"""Every parameter of the public API against every odd value: it is taken where it must be, else refused by name.

What a parameter takes is said here in words of its own, so that both a value taken in silence and a good one refused
are seen. GAN_TORTURE=1 draws 2,000 more cases instead of 150.
"""

from __future__ import annotations

import inspect
import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
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
from ..odd import (
    ENORMOUS,
    INF,
    NAN,
    ODD,
    Case,
    either,
    flag,
    integers,
    labels,
    numbers,
    or_none,
    outcome,
    row_of,
    rows,
    words,
)  # fmt: skip
from . import test_latent_search, test_styles
from .conftest import IMAGE_BYTES, TORTURE, tiny_model
from .translating import translating_model

ROOT = Path(__file__).parents[2]
LAST = 2**64 - 1
MOST = 40 * IMAGE_BYTES  # bytes of output, so that few images are many
MOST_OF_PICTURES = 1 << 20

# What images take


def pictures(value: Any) -> bool:
    array = isinstance(value, np.ndarray) and value.dtype in (np.uint8, np.bool_)
    return (
        array
        and value.ndim in (2, 3)
        and 0 < value.size < MOST_OF_PICTURES
        and value.shape[2:] != (5,)
    )


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
    most = MOST_OF_PICTURES if kind in ("translates", "paints", "dusk", "fixed") else MOST
    return Generator(about[kind](), device="cpu", threads=1, max_output_bytes=most)


@cache
def trio() -> tuple[Generator, Generator, Generator]:
    return test_latent_search.graphs()


@cache
def tiny() -> bytes:
    return tiny_model()


def reopened(**given: Any) -> Generator:
    good: dict[str, Any] = {"model": tiny(), "device": "cpu", "threads": 1}
    return Generator(**(good | given))


def search_with(**given: Any) -> Any:
    encode, generate, embed = trio()
    good: dict[str, Any] = {"encode": encode, "generate": generate, "embed": embed, "images": test_latent_search.truths()[:1],
            "label": "young", "steps": 1}  # fmt: skip
    return runtime.search(**(good | given))


def mix_with(**given: Any) -> Any:
    good: dict[str, Any] = {
        "mapping": opened("mapping"),
        "synthesis": opened("synthesis"),
        "seeds": [3, 9],
        "layers": [1],
    }
    return runtime.mix(**(good | given))


def way_with(**given: Any) -> Any:
    good: dict[str, Any] = {
        "mapping": opened("mapping"),
        "synthesis": opened("synthesis"),
        "first": 3,
        "last": 9,
        "frames": 2,
    }
    return runtime.interpolate(**(good | given))


def translated(kind: str = "translates", **given: Any) -> Any:
    return opened(kind).translate(**({"image": np.zeros((2, 4), np.uint8)} | given))


def there_and_back(**given: Any) -> Any:
    """A signature is a plain record: it is judged where it is written and where it is read."""
    draw = replace(Draw("normal"), **given.pop("draw", {}))
    field = replace(Field("z", (4,), draw=draw), **given.pop("field", {}))
    image = Field("image", (8, 8, 3), "image", "uint8")
    signature = replace(Signature((field,), (image,)), **given)
    return Signature.from_json(signature.to_json())


SEED, CLASSES, DUSK = integers(0, LAST), labels("1", "2", "10"), labels("dusk", "night")
CUDA = "CudaOptions"


def sampled(name: str, call: Callable[..., Any], *, most: int) -> dict[str, Case]:
    """The parameters that sample, stream, sample_dlpack and images share. call: (generator, **given)."""
    good: dict[str, Any] = {"count": 1, "seed": 0}

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
    good: dict[str, Any] = {"first": 3, "last": 9, "frames": 2}
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
    "Generator.side_by_side": Case(lambda v: reopened(side_by_side=v), flag, "side_by_side"),
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
        either(pictures, lambda v: isinstance(v, np.ndarray) and v.ndim == 4 and 0 < v.size < MOST_OF_PICTURES), "image",
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
    "Generator.run", "Generator.run_stream", "Generator.bounded", "Generator.at_once", "Generator.labels", "Generator.drawn",
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


# The same in plain words: where, value, a part of the message.

INTEGER, NUMBER = "Give an integer", "Give a number"
SMALL, WIDE = np.zeros((2, 4), np.float32), np.broadcast_to(np.zeros(4, np.float32), (10**12, 4))
TABLE: list[tuple[str, Any, str]] = [
    ("Generator.sample.count", 0, "The count was refused. 0 of type int. Give an integer count from 1 to 2^63 - 1."),
    ("Generator.sample.count", -1, "The count was refused. -1 of type int."),
    ("Generator.sample.count", 2.0, "The count was refused. 2.0 of type float."),
    ("Generator.sample.count", NAN, "The count was refused. nan of type float."),
    ("Generator.sample.count", INF, "The count was refused. inf of type float."),
    ("Generator.sample.count", True, "The count was refused. True of type bool."),
    ("Generator.sample.count", "16", "The count was refused. '16' of type str."),
    ("Generator.sample.count", "٣", "The count was refused. '٣' of type str."),
    ("Generator.sample.count", b"1", "The count was refused. b'1' of type bytes."),
    ("Generator.sample.count", None, "The count was refused. None of type NoneType."),
    ("Generator.sample.count", np.timedelta64(1, "s"), "The count was refused."),
    ("Generator.sample.count", np.array(1), "The count was refused. array(1) of type ndarray."),
    ("Generator.sample.count", 10**9, "Too many images for one call. 1000000000 of 192 bytes, the limit is 7680 bytes. Use stream()"),
    ("Generator.sample.count", ENORMOUS, "Too many images for one call. 1000000000000000000 of 192 bytes"),
    ("Generator.sample.count", 2**64, "The count was refused. 18446744073709551616 of type int."),
    ("Generator.sample.count", 10**5000, "The count was refused. an enormous int of type int."),
    ("Generator.images.count", 41, "Too many images for one call. 41 of 192 bytes"),
    ("Generator.stream.count", 2**63, "The count was refused."),
    ("Generator.sample_dlpack.count", 0, "The count was refused."),
    ("Generator.sample.seed", -1, "The seed was refused. -1 of type int. Give an integer seed from 0 to 2^64 - 1."),
    ("Generator.sample.seed", 2**64, "The seed was refused. 18446744073709551616"),
    ("Generator.sample.seed", 0.0, "The seed was refused. 0.0 of type float."),
    ("Generator.sample.seed", float("1e309"), "The seed was refused. inf of type float."),
    ("Generator.sample.seed", "x" * 10**6, "The seed was refused. 'xxxxxxxxx"),
    ("Generator.sample.seed", np.timedelta64(1, "s"), "The seed was refused."),
    ("Generator.stream.seed", "a\nb", r"The seed was refused. 'a\nb' of type str."),
    ("Generator.sample.start", LAST + 1, "The start was refused."),
    ("Generator.sample.start", None, "The start was refused."),
    ("Generator.sample.label", "7", "The label was refused. '7'. Give a class index from 0 to 2, or one of: 1, 2, 10."),
    ("Generator.sample.label", 3, "The label was refused. 3. Give a class index from 0 to 2"),
    ("Generator.sample.label", -1, "The label was refused. -1."),
    ("Generator.sample.label", True, "The label was refused. True."),
    ("Generator.sample.label", 1.0, "The label was refused. 1.0."),
    ("Generator.sample.label", b"\0", "The label was refused. b'\\x00'."),
    ("Generator.sample.label", memoryview(b"\0"), "The label was refused. <memory at"),
    ("Generator.sample.label", "٣", "The label was refused. '٣'."),
    ("Generator.sample.label", {1: 2}, "The label was refused. {1: 2}."),
    ("Generator.sample.label", [], "The labels were refused. 0 labels for 1 images."),
    ("Generator.sample.label", range(ENORMOUS), "The labels were refused. 1000000000000000000 labels for 1 images."),
    ("Generator.sample.label", [None], "The label was refused. None."),
    ("Generator.sample.label", np.array([0.5]), "The label was refused. np.float64(0.5)."),
    ("Generator.sample.label", odd.deep(), "The label was refused. [[[[[["),
    ("Generator.sample.label", odd.Unshowable(), "The label was refused. <Unshowable instance at"),
    ("Generator.sample.truncation", 1.5, "The truncation was refused. 1.5 of type float. Give a number truncation from 0 to 1."),
    ("Generator.sample.truncation", NAN, "The truncation was refused. nan of type float."),
    ("Generator.sample.truncation", -INF, "The truncation was refused. -inf of type float."),
    ("Generator.sample.truncation", 10**400, "The truncation was refused. 1000000000"),
    ("Generator.sample.truncation", "0.5", "The truncation was refused. '0.5' of type str."),
    ("Generator.sample.truncation", [0.5], "The truncation was refused. [0.5] of type list."),
    ("Generator.sample.truncation", 1j, "The truncation was refused. 1j of type complex."),
    ("Generator.sample.noise", "loud", "The noise was refused. 'loud' of type str. Give \"shared\" or \"drawn\"."),
    ("Generator.sample.noise", np.array(["shared"] * 2), "The noise was refused. array("),
    ("Generator.sample.noise", None, "The noise was refused. None of type NoneType."),
    ("Generator.model", None, "The model was refused. None of type NoneType. Give a path, or the bytes of a file."),
    ("Generator.model", 3, "The model was refused. 3 of type int."),
    ("Generator.model", "", "cannot be read. It is not a file."),
    ("Generator.model", b"", "<bytes> was refused."),
    ("Generator.model", "a\0b", r"a\u0000b cannot be read."),
    ("Generator.model", "x" * 10**6, "xxx cannot be read."),
    ("Generator.model", "nowhere.onnx", "nowhere.onnx cannot be read. There is no such file."),
    ("Generator.device", "gpu", 'The device was refused. device=\'gpu\'. Give "auto", "cpu", "cuda" or "cuda:N".'),
    ("Generator.device", "cuda:٣", "The device was refused. device='cuda:٣'."),
    ("Generator.device", 0, "The device was refused. device=0."),
    ("Generator.threads", 0, "The thread count was refused. 0 of type int. Give an integer thread count from 1 to 1024."),
    ("Generator.threads", 10**9, "The thread count was refused."),
    ("Generator.threads", NAN, "The thread count was refused. nan of type float."),
    ("Generator.micro_batch", 4097, "The micro-batch was refused. 4097 of type int."),
    ("Generator.micro_batch", 1.0, "The micro-batch was refused. 1.0 of type float."),
    ("Generator.max_output_bytes", NAN, "The max_output_bytes was refused. nan of type float."),
    ("Generator.max_output_bytes", INF, "The max_output_bytes was refused. inf of type float."),
    ("Generator.max_output_bytes", "1GB", "The max_output_bytes was refused. '1GB' of type str."),
    ("Generator.max_output_bytes", -1, "The max_output_bytes was refused. -1 of type int."),
    ("Generator.max_output_bytes", 191, "One sample has 192 bytes, the limit is 191. Raise max_output_bytes"),
    ("Generator.cuda", {"tf32": True}, "The CUDA options were refused. {'tf32': True}."),
    ("Generator.metadata.section", 3, "The section was refused. 3 of type int. Give one of: signature, latents"),
    ("Generator.interpolate.first", None, "The first seed was refused. None of type NoneType."),
    ("Generator.interpolate.last", 2**64, "The last seed was refused."),
    ("Generator.interpolate.frames", 10**9, "Too many images for one call. 1000000000"),
    ("Generator.walk.frames", 0, "The number of frames was refused. 0 of type int."),
    ("Generator.__call__.inputs", SMALL * NAN, "Input z was refused. values that are not finite. Give float32 [batch, 4]."),
    ("Generator.__call__.inputs", SMALL + 1j, "Input z was refused. dtype complex64."),
    ("Generator.__call__.inputs", SMALL.astype("m8[s]"), "Input z was refused. dtype timedelta64[s]."),
    ("Generator.__call__.inputs", SMALL.astype("M8[s]"), "Input z was refused. dtype datetime64[s]."),
    ("Generator.__call__.inputs", SMALL.astype(object), "Input z was refused. dtype object."),
    ("Generator.__call__.inputs", SMALL.astype(str), "Input z was refused. dtype <U"),
    ("Generator.__call__.inputs", SMALL > 0, "Input z was refused. dtype bool."),
    ("Generator.__call__.inputs", SMALL[:, :3], "Input z was refused. shape [2, 3]. Give float32 [batch, 4]."),
    ("Generator.__call__.inputs", SMALL[:0], "No input was given. an empty batch."),
    ("Generator.__call__.inputs", odd.masked(), "Input z was refused. a masked array, whose masked values are unknown."),
    ("Generator.__call__.inputs", WIDE, "Input z was refused. 4000000000000 values, the limit is 7680 bytes. Give fewer at once"),
    ("Generator.__call__.inputs", range(10**9), "Input z was refused."),
    ("Generator.__call__.inputs", None, "Input z was refused. None, dtype object."),
    ("Generator.__call__.inputs", {}, "Input z was refused. {}, dtype object."),
    ("Generator.__call__.inputs", odd.Unshowable(), "Input z was refused. no array."),
    ("Generator.translate.image", "nowhere.png", "nowhere.png cannot be read."),
    ("Generator.translate.image", 3, "A picture was refused. 3 of type int."),
    ("Generator.translate.image", b"", "The picture cannot be read. empty file."),
    ("Generator.translate.image", np.zeros((2, 2, 3)), "An array is not a picture. float64 of shape [2, 2, 3]."),
    ("Generator.translate.image", ODD["a picture of 2^40 pixels"](), "The image is too large. It has 3298534883328 bytes"),
    ("Generator.translate.mask", ODD["a bool picture of 2^40 pixels"](), "The image is too large."),
    ("Generator.translate.tile", 0, "The tile was refused. 0 of type int."),
    ("Generator.translate.overlap", -1, "The overlap was refused. -1 of type int."),
    ("Generator.translate.resize", "no", "The resize was refused. 'no' of type str. Give True or False as resize."),
    ("mix.seeds", 3, "The seeds were refused. 3 of type int."),
    ("mix.seeds", iter([3, 9]), "The seeds were refused. <list_iterator"),
    ("mix.seeds", [itertools.count(), 9], "The seeds were refused. count(0) of type count."),
    ("mix.seeds", [range(ENORMOUS), 9], "Too many images for one call. 1000000000000000000"),
    ("mix.seeds", [3, 2**64], "The seed was refused. 18446744073709551616"),
    ("mix.layers", 1, "The layers were refused. 1 for 2 styles. Give rising layers from 1 to 3"),
    ("mix.layers", [4], "The layer was refused. 4 of type int."),
    ("mix.layers", range(ENORMOUS), "The layers were refused. range(0, 1000000000000000000) for 2 styles."),
    ("mix.mapping", None, "The mapping was refused. None of type NoneType. Give a Generator."),
    ("interpolate.frames", 10**9, "Too many images for one call. 1000000000 of 240 bytes"),
    ("search.encode", "encoder.onnx", "The encode was refused. 'encoder.onnx' of type str. Give a Generator."),
    ("search.images", [[1.0]], "The images were refused. [[1.0]]."),
    ("search.h", 0.0, "The h was refused. 0.0 of type float. Give a number h from 1e-06 to 1000."),
    ("search.rate", 0, "The rate was refused. 0 of type int. Give a number rate above 0, up to 1000."),
    ("search.identity", NAN, "The weight identity was refused. nan of type float."),
    ("search.pixels", "1", "The weight pixels was refused. '1' of type str."),
    ("search.prior", -1.0, "The weight prior was refused. -1.0 of type float."),
    ("search.steps", 10**9, "The number of steps was refused."),
    ("search.label", None, "The label is missing."),
    ("CudaOptions.memory_limit", 1.5e9, "The memory limit was refused. 1500000000.0 of type float."),
    ("CudaOptions.tf32", 1, "The tf32 was refused. 1 of type int. Give True or False as tf32."),
    ("CudaOptions.search", np.array(["default"] * 2), "The search was refused. array("),
    ("CudaOptions.tensorrt_cache", "a\0b", "The tensorrt_cache was refused. 'a\\x00b' of type str."),
    ("Signature.from_json.text", None, "The model's signature cannot be read. It holds signature of type NoneType."),
    ("Signature.from_json.text", "[" * 10**5, "The model's signature cannot be read. It holds signature that is not JSON (RecursionError)."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "told"), TABLE, ids=[f"{i}-{row[0]}" for i, row in enumerate(TABLE)]
)
def test_a_message_names_the_parameter_shows_the_value_and_says_what_is_allowed(
    name: str, value: Any, told: str
) -> None:
    case = CASES[name]
    with pytest.raises(case.errors) as caught:
        case.call(value)
    assert told in f"{caught.value}"


# Odd, and good


def test_odd_values_that_mean_something_are_taken(tmp_path: Path) -> None:
    generator = opened("labelled")
    same = generator.sample(3, seed=2**64 - 1, label=["10", 0, 1])
    several: list[Any] = [
        np.array([2, 0, 1], np.uint8),
        (np.str_("10"), np.int8(0), "2"),
        np.array(["10", "1", "2"]),
    ]
    for count in (np.int64(3), np.uint8(3)):
        for named in several:
            odd_ones: dict[str, Any] = {
                "count": count,
                "seed": np.uint64(LAST),
                "start": np.int16(0),
            }
            made = generator.sample(label=named, **odd_ones)
            np.testing.assert_array_equal(made, same)
    np.testing.assert_array_equal(
        generator.sample(3, seed=5, label=range(3)), generator.sample(3, seed=5, label=[0, 1, 2])
    )
    lone: Any = np.array(1)
    np.testing.assert_array_equal(
        generator.sample(1, seed=5, label=lone), generator.sample(1, seed=5, label=1)
    )
    path = tmp_path / "日本 \n.onnx"
    path.write_bytes(tiny())
    try:
        for model in (path, os.fspath(path), tiny(), bytearray(tiny()), memoryview(tiny())):
            reopened(
                model=model,
                threads=np.int32(1),
                micro_batch=np.uint16(4),
                max_output_bytes=np.int64(10**6),
            )
    finally:
        path.unlink()


@pytest.mark.parametrize(
    "truncation", [0, 1, -0.0, 5e-324, np.float16(0.5), np.float64(1), np.int8(1), True - 0]
)
def test_numbers_of_any_kind_are_truncations(truncation: Any) -> None:
    generator = opened("truncated")
    made = generator.sample(1, seed=3, truncation=truncation)
    np.testing.assert_array_equal(made, generator.sample(1, seed=3, truncation=float(truncation)))


@pytest.mark.parametrize(
    "z",
    [
        odd.big_endian(2, 4), odd.big_endian(4, 2).T, np.asfortranarray(odd.big_endian(2, 4)),
        odd.big_endian(4, 8)[::2, ::2], odd.big_endian(2, 4).view(np.matrix), odd.big_endian(2, 4).tolist(),
        odd.big_endian(2, 4).astype(np.longdouble), odd.big_endian(2, 4).astype(np.float16),
        np.full((2, 4), 5e-324), np.full((2, 4), 1e-45, np.float32), np.full((2, 4), -0.0), np.ones((2, 4), np.uint64),
        np.ma.MaskedArray(np.ones((2, 4)), mask=False), np.broadcast_to(np.float32(0.5), (2, 4)),
        tuple(map(tuple, np.ones((2, 4)).tolist())),
    ],
    ids=["big-endian", "transposed", "Fortran's order", "every other", "matrix", "lists", "longdouble", "float16",
         "subnormal", "subnormal float32", "-0.0", "uint64", "nothing masked", "read-only", "tuples"],
)  # fmt: skip
def test_arrays_of_any_layout_are_the_numbers_that_they_hold(z: Any) -> None:
    generator = opened("plain")
    plain = np.array(np.asarray(z).tolist(), np.float32)
    np.testing.assert_array_equal(generator(z=z)["image"], generator(z=plain)["image"])


def test_a_way_that_is_a_pathlike_is_a_picture(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "in.png"
    Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6)).save(path)
    made = [translated(image=image) for image in (path, os.fspath(path), path.read_bytes())]
    path.unlink()
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])


@pytest.mark.torture
@settings(
    deadline=None,
    derandomize=not TORTURE,
    max_examples=2_000 if TORTURE else 150,
    suppress_health_check=list(HealthCheck),
)
@given(st.sampled_from(sorted(CASES)), odd.any_values)
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
    found = odd.in_a_child(code, tmp_path)
    assert found["calls"] == len(CASES) * len(ODD)
    assert found["megabytes"] < 50, found
