"""Systems are found by name, or in a file of the user's own, which a checkpoint records but never runs."""

from __future__ import annotations

import hashlib
import inspect
import sys
from pathlib import Path

import pytest

from gan.runtime.errors import CheckpointError, InputError
from gan.trainer import systems
from gan.trainer.system import System
from gan.trainer.systems import SystemSource, load, load_recorded

BODY = """
    def networks(self):
        return {}

    def generate(self, live, batch):
        return {}

    def discriminate(self, live, sample, batch):
        return sample

    def graphs(self):
        return {}
"""
OWN = f'''"""My own."""
from gan.trainer import System

class Mine(System):
    name = "mine"
{BODY}'''


def write(folder: Path, text: str, name: str = "my_gan.py") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_every_file_of_the_folder_is_a_system_of_that_name() -> None:
    files = {path.stem for path in Path(systems.__file__).parent.glob("*.py")} - {"__init__"}
    assert {name.replace("-", "_") for name in systems.names()} == files
    assert {systems.DEFAULT, systems.DEFAULT_LABELLED, systems.DEFAULT_POINTS} <= {*systems.names()}
    for name in systems.names():
        kind, source = load(name)
        assert kind.name == name and source == SystemSource(name)
        assert issubclass(kind, System) and not inspect.isabstract(kind) and kind.__doc__
        assert load_recorded(source, file=None) is kind


def test_the_default_is_a_system_that_can_be_trained_on_such_data() -> None:
    for data_kind, labelled in (("image", True), ("image", False), ("points", False)):
        kind, _ = load(systems.default(data_kind, labelled=labelled))  # type: ignore[arg-type]
        assert data_kind in kind.kinds and kind.needs_labels == labelled


@pytest.mark.parametrize("name", ["biggan", "", "__init__", "../systems/dcgan", "DCGAN"])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match=", ".join(systems.names())):
        load(name)


def test_a_file_of_ones_own_is_recorded_by_name_and_hash(tmp_path: Path) -> None:
    kind, source = load(write(tmp_path, OWN))
    assert kind.name == "mine" and issubclass(kind, System)
    digest = hashlib.sha256(OWN.encode()).hexdigest()
    assert source == SystemSource("mine", "my_gan.py", digest)


def test_a_file_that_names_its_networks_alone_is_a_system(tmp_path: Path) -> None:
    text = OWN.replace(BODY, "\n    def networks(self):\n        return {}\n")
    assert "generate" not in text and load(write(tmp_path, text))[0].name == "mine"


def test_options_of_a_file_with_postponed_annotations_are_understood(tmp_path: Path) -> None:
    from gan.trainer.config import parse_setting

    head = """from __future__ import annotations
from dataclasses import dataclass
from typing import Literal
from gan.trainer import Options, System

@dataclass(frozen=True, kw_only=True)
class MineOptions(Options):
    depth: int = 3
    kind: Literal["a", "b"] = "a"

class Mine(System):
    name = "mine"
    options_type = MineOptions
"""
    kind, _ = load(write(tmp_path, head + BODY))
    assert parse_setting(kind, "depth=5") == ("depth", 5)
    assert parse_setting(kind, "kind=b") == ("kind", "b")


def test_a_file_may_build_on_a_system_of_ours_and_give_its_own_a_second_name(
    tmp_path: Path,
) -> None:
    text = 'from gan.trainer.systems.dcgan import DCGAN\n\nclass Mine(DCGAN):\n    name = "mine"\n'
    kind, _ = load(write(tmp_path, text + "\nAlias = Mine\n"))
    assert kind.__name__ == "Mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "0 final subclasses"),
        ("from gan.trainer import System\n", "0 final subclasses"),
        ("from gan.trainer import System\nclass A(System):\n    name = 'a'\n", "0 final"),
        (OWN + f"\nclass Other(System):\n    name = 'other'\n{BODY}", "2 final subclasses"),
        ("class Broken(:\n", "SyntaxError"),
        ("import nothing_of_this_name\n", "ModuleNotFoundError"),
        ("1 / 0\n", "ZeroDivisionError"),
        (OWN.replace('name = "mine"', "pass"), "no usable name"),
        (OWN.replace('"mine"', '"../mine"'), "no usable name"),
        (OWN.replace('"mine"', "3.5j"), "no usable name"),
    ],
)
def test_a_file_that_defines_no_system_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load(write(tmp_path, text))
    assert "my_gan.py" in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load(str(tmp_path / "none.py"))
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        load(str(tmp_path / "folder.py"))


def test_a_recorded_file_is_needed_again_and_unchanged(tmp_path: Path) -> None:
    path = write(tmp_path, OWN)
    _, source = load(path)
    assert load_recorded(source, file=path).name == "mine"
    with pytest.raises(CheckpointError, match=r"Add --system my_gan\.py"):
        load_recorded(source, file=None)
    write(tmp_path, OWN + "# changed\n")
    with pytest.raises(CheckpointError, match="--accept system"):
        load_recorded(source, file=path)
    assert load_recorded(source, file=path, accept_changed=True).name == "mine"


@pytest.mark.parametrize("inside", ["code.py", "../code.py", "/code.py"])
def test_a_checkpoint_that_names_a_file_as_built_in_never_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    text = f"import sys\nsys.ran_by_checkpoint = True\n{OWN}"
    write(tmp_path, text, "code.py")
    write(tmp_path / "here", text, "code.py")
    name = str(tmp_path / "code.py") if inside.startswith("/") else inside
    with pytest.raises(CheckpointError, match="not one of this version"):
        load_recorded(SystemSource(name), file=None)
    assert not hasattr(sys, "ran_by_checkpoint")
