"""The tree of errors, the three parts of a message, and that errors travel between processes."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from gan.runtime import errors
from gan.runtime.errors import GanError

TREE: dict[str, type[Exception]] = {
    "ModelFileError": ValueError,
    "DeviceUnavailableError": RuntimeError,
    "InputError": ValueError,
    "DatasetError": ValueError,
    "CheckpointError": ValueError,
    "ExportError": RuntimeError,
    "ParityError": RuntimeError,
    "StorageError": OSError,
    "TrainingDivergedError": RuntimeError,
}
KINDS = [getattr(errors, name) for name in TREE]


@pytest.mark.parametrize("name", TREE)
def test_an_error_is_a_gan_error_and_a_builtin_one(name: str) -> None:
    assert getattr(errors, name).__bases__ == (GanError, TREE[name])


def test_the_tree_drawn_at_the_top_of_the_file_is_the_tree() -> None:
    drawn = re.findall(r"[├└]── (\w+) \((\w+)\)", errors.__doc__ or "")
    assert {name: base.__name__ for name, base in TREE.items()} == dict(drawn)
    assert set(TREE) == {kind.__name__ for kind in GanError.__subclasses__()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_says_what_failed_what_was_seen_and_how_to_repair_it(
    kind: type[GanError],
) -> None:
    error = kind("It failed", seen="seven", repair="Run `gan doctor`")
    assert str(error) == "It failed. seven. Run `gan doctor`."
    assert (error.failed, error.seen, error.repair) == ("It failed", "seven", "Run `gan doctor`")


def test_parts_that_are_empty_or_end_with_a_full_stop_leave_one_full_stop() -> None:
    assert str(GanError("It failed.", repair="Retry.")) == "It failed. Retry."
    assert str(GanError("It failed")) == "It failed."


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_pickling_and_copying(kind: type[GanError]) -> None:
    error = kind("It failed", seen="seven", repair="Retry")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is kind
        assert (twin.failed, twin.seen, twin.repair) == ("It failed", "seven", "Retry")
        assert str(twin) == str(error)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        ("x" * 500, "'" + "x" * 59),
        (10**70, "1" + "0" * 59),
        (10**5000, "an enormous int"),
    ],
    ids=["None", "long text", "long number", "number that Python does not print"],
)
def test_a_refused_value_is_shown_in_at_most_60_characters(value: object, text: str) -> None:
    assert errors.shown(value) == text
