"""Every option of `export` and `export_all` against every odd value: refused by name before anything is read."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan.export import export, export_all
from gan.runtime import GanError, InputError

from ..odd import ODD, Case, flag, integers, never, or_none, outcome, words

TAKES: dict[str, Callable[[Any], bool | None]] = {
    "checkpoint": never,
    "output": never,
    "graph": or_none(lambda v: isinstance(v, str) and v != "all"),
    "image": words("uint8", "float"),
    "opset": integers(18, 23),
    "max_batch": or_none(integers(1, 4096)),
    "target": or_none(words("any", "cpu")),
    "precision": words("fp32", "fp16", "mixed", "int8"),
    "samples": integers(1, 1_000_000),
    "system_file": or_none(lambda v: None if isinstance(v, str) else False),
    "accept_changed_system": flag,
    "overwrite": flag,
}
WORDS = {
    "max_batch": "largest batch",
    "samples": "number of samples",
    "system_file": "system file",
    "graph": "graph",
}


def reach(function: Callable[..., Any], **given: Any) -> None:
    """Call it for a checkpoint that is not there: an error about that is what a good option leads to."""
    with pytest.raises(GanError) as caught:
        function(**({"checkpoint": "nowhere.pt", "output": "new.onnx"} | given))
    if "nowhere.pt cannot be read" not in f"{caught.value}":
        raise caught.value


@pytest.mark.parametrize("function", [export, export_all])
def test_every_option_has_a_case(function: Callable[..., Any]) -> None:
    wanted = set(TAKES) - ({"graph"} if function is export_all else set())
    assert set(inspect.signature(function).parameters) == wanted


@pytest.mark.parametrize("function", [export, export_all])
@pytest.mark.parametrize("name", TAKES)
def test_an_option_takes_what_it_should_and_refuses_the_rest_by_name(
    function: Callable[..., Any], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name not in inspect.signature(function).parameters:
        return
    monkeypatch.chdir(tmp_path)
    if name == "checkpoint":  # any name of a file that is not there is read, and told

        def call(value: Any) -> None:
            function(value, "new.onnx")
    elif name == "output":

        def call(value: Any) -> None:
            function("nowhere.pt", value)
    else:

        def call(value: Any) -> None:
            reach(function, **{name: value})

    case = Case(
        call, TAKES[name], WORDS.get(name, "" if name in ("checkpoint", "output") else name)
    )
    found = {what: outcome(case, make()) for what, make in ODD.items()}
    assert {what: told for what, told in found.items() if told} == {}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"opset": 17}, r"The opset was refused\. 17 of type int\. Give an integer opset from 18 to 23"),
        ({"opset": 2**64}, "The opset was refused"),
        ({"opset": "20"}, "The opset was refused. '20' of type str"),
        ({"opset": 20.0}, "The opset was refused"),
        ({"opset": True}, "The opset was refused"),
        ({"max_batch": -1}, "The largest batch was refused. -1 of type int. .*from 1 to 4096"),
        ({"max_batch": 10**18}, "The largest batch was refused"),
        ({"max_batch": float("nan")}, "The largest batch was refused. nan of type float"),
        ({"samples": 0}, "The number of samples was refused. 0 of type int. .*from 1 to 1000000"),
        ({"samples": 1e309}, "The number of samples was refused. inf"),
        ({"image": "jpeg"}, "The image was refused. 'jpeg' of type str. Give \"uint8\" or \"float\""),
        ({"image": b"uint8"}, "The image was refused"),
        ({"precision": "fp8"}, 'The precision was refused. .*Give "fp32", "fp16", "mixed" or "int8"'),
        ({"precision": None}, "The precision was refused. None of type NoneType"),
        ({"target": "gpu"}, 'The target was refused. .*Give "any" or "cpu"'),
        ({"target": ["cpu"]}, "The target was refused"),
        ({"overwrite": "no"}, "The overwrite was refused. 'no' of type str. Give True or False"),
        ({"accept_changed_system": 1}, "The accept_changed_system was refused"),
        ({"graph": 3}, "The graph was refused"),
        ({"system_file": "a\0.py"}, "The system file was refused"),
        ({"checkpoint": None}, "The checkpoint was refused. None of type NoneType. Give a path"),
        ({"output": ""}, "The output was refused"),
        ({"output": "x" * 10**6}, "The output was refused"),
    ],
)  # fmt: skip
def test_a_message_names_the_option_shows_the_value_and_says_what_is_allowed(
    given: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        reach(export, **given)


def test_integers_of_numpy_and_paths_of_any_kind_are_taken(tmp_path: Path) -> None:
    reach(export, opset=np.int64(20), max_batch=np.uint16(8), samples=np.int32(9), overwrite=np.bool_(True),
          output=tmp_path / "new.onnx", system_file="own.py")  # fmt: skip
