"""The checkpoint: what is written is read again, in plain types alone, and nothing else is ever read or run."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import random
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan.runtime.errors import CheckpointError, GanError
from gan.runtime.signature import Signature
from gan.trainer.checkpoint import (
    SECTIONS,
    Checkpoint,
    load_weights,
    plain,
    plain_state,
    save,
    weights_digest,
)
from gan.trainer.config import Config
from gan.trainer.loop import train
from gan.trainer.parts import DataInfo
from gan.trainer.request import plan

from .conftest import Run, same, tiny_request


@pytest.fixture(scope="module")
def file(digit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an unfinished tiny cgan."""
    out = tmp_path_factory.mktemp("checkpoint") / "run"
    outcome = train(tiny_request(digit_folder, out, {"steps": 3}))
    content = torch.load(outcome.folder.checkpoint, weights_only=True)
    content["config"]["steps"] = 6
    torch.save(content, out / "unfinished.pt")
    return out / "unfinished.pt"


@pytest.fixture(scope="module")
def content(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def written(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "written.pt")
    return folder / "written.pt"


def test_what_is_saved_is_loaded(file: Path, content: dict[str, Any], tmp_path: Path) -> None:
    save(tmp_path / "model.pt", content)
    again = Checkpoint.load(tmp_path / "model.pt")
    assert same(again.content, content) and again.path == tmp_path / "model.pt"
    assert again.config == Config.from_dict(content["config"])
    assert (again.step, again.finished, again.threads) == (3, False, 1)
    assert again.data == DataInfo((1, 8, 8), ("0", "1", "2", "3"), "image")
    assert (again.data.channels, again.data.height, again.data.width) == (1, 8, 8)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("arrangement", ["pairs", "unpaired"])
def test_the_shape_of_partners_is_kept(
    content: dict[str, Any], tmp_path: Path, arrangement: Any
) -> None:
    info = DataInfo((3, 8, 8), (), "image", arrangement, (1, 8, 8))
    data = {**content["data"], "info": dataclasses.asdict(info)}
    save(tmp_path / "model.pt", {**content, "data": data})
    assert Checkpoint.load(tmp_path / "model.pt").data == info


def test_it_holds_the_whole_run(content: dict[str, Any]) -> None:
    assert set(content) == {"format", *SECTIONS}
    assert set(content["networks"]) == {"G", "D"} and set(content["averaged"]) == {"G"}
    assert set(content["optimizers"]) == {"G", "D"}
    progress = {"step": 3, "position": 24, "images_seen": 12, "stage": 0, "planned": 3}
    assert content["progress"] == progress
    assert content["health"] == {"skipped": 0, "skipped_in_a_row": {"D": 0, "G": 0}}
    assert content["data"]["count"] == 48 and content["data"]["name"] == "digits8"
    info = {"shape": [1, 8, 8], "classes": ["0", "1", "2", "3"], "kind": "image"}
    info |= {"arrangement": "single", "partner": None}
    assert content["data"]["info"] == info
    signature = Signature.from_json(content["signature"]["image"])
    assert signature.classes == ("0", "1", "2", "3")
    moments = content["optimizers"]["G"]["state"]
    assert moments and all({"exp_avg", "exp_avg_sq", "step"} == set(m) for m in moments.values())


def test_it_holds_plain_types_alone(content: dict[str, Any]) -> None:
    kinds: set[type] = set()

    def walk(value: Any) -> None:
        kinds.add(type(value))
        if isinstance(value, dict):
            for key, entry in value.items():
                assert type(key) in (str, int)
                walk(entry)
        elif isinstance(value, list):
            for entry in value:
                walk(entry)

    walk(content)
    assert kinds == {dict, list, str, int, float, bool, type(None), Tensor}


def test_it_names_no_code_but_torchs_own_for_tensors(file: Path) -> None:
    import pickletools

    with zipfile.ZipFile(file) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        opcodes = list(pickletools.genops(archive.read(name)))
    imported = {str(argument) for opcode, argument, _ in opcodes if opcode.name == "GLOBAL"}
    assert not [o for o, _, _ in opcodes if o.name == "STACK_GLOBAL"]
    assert imported == {
        "torch._utils _rebuild_tensor_v2",
        "torch FloatStorage",
        "collections OrderedDict",
    } | ({"torch LongStorage"} & imported)


def test_other_numbers_become_plain_and_other_things_are_ours_to_mend() -> None:
    odd = {"a": np.float64(0.5), "b": (np.int64(3).item(), True), "c": OrderedDict(x=None)}
    assert plain(odd) == {"a": 0.5, "b": [3, True], "c": {"x": None}}
    assert type(plain(odd)["a"]) is float and type(plain(odd)["c"]) is dict
    with pytest.raises(AssertionError, match="Path does not belong"):
        plain({"path": Path("x")})


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read"):
            Checkpoint.load(path)


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["alone", "format", "networks", "inside"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    content: dict[str, Any], tmp_path: Path, place: str, zipped: bool
) -> None:
    ran = tmp_path / "ran"
    bomb: Any = Bomb(ran)
    if place == "inside":
        bomb = {**content, "metrics": {"values": {"coverage": bomb}, "best": {}}}
    elif place != "alone":
        bomb = {**content, place: bomb}
    path = tmp_path / "model.pt"
    torch.save(bomb, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        Checkpoint.load(path)
    assert not ran.exists()
    # the bomb is a live one
    torch.load(path, weights_only=False)
    assert ran.exists()


def test_a_bare_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        Checkpoint.load(tmp_path / "model.pt")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_cut_short_is_refused_wherever_it_was_cut(file: Path, tmp_path: Path) -> None:
    whole, path = file.read_bytes(), tmp_path / "model.pt"
    dice = random.Random(0)
    lengths = {0, 1, 2, 4, 30, len(whole) // 2, len(whole) - 1, len(whole) - 22}
    lengths |= {dice.randrange(len(whole)) for _ in range(60)}
    for length in lengths:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="not a readable checkpoint"):
            Checkpoint.load(path)


def test_a_damaged_checkpoint_is_refused_or_read_and_never_a_crash(
    file: Path, tmp_path: Path
) -> None:
    whole, path = file.read_bytes(), tmp_path / "model.pt"
    with zipfile.ZipFile(file) as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith("data.pkl"))
    pickled = range(info.header_offset, info.header_offset + info.file_size)
    dice, refused = random.Random(1), 0
    for number in range(200):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            place = dice.choice(pickled) if number % 2 else dice.randrange(len(data))
            data[place] = dice.randrange(256)
        path.write_bytes(data)
        try:
            Checkpoint.load(path)
        except CheckpointError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    "foreign",
    [
        {"state_dict": {"weight": torch.zeros(2)}},
        OrderedDict(weight=torch.zeros(2)),
        [1, 2, 3],
        torch.zeros(3),
        None,
        {},
        {"format": torch.ones(2)},
        {"format": True},
        {"format": "3"},
        {"format": 3.0},
    ],
)
def test_a_foreign_save_is_refused(tmp_path: Path, foreign: Any) -> None:
    with pytest.raises(CheckpointError, match="is not a checkpoint of `gan train`"):
        Checkpoint.load(written(tmp_path, foreign))


@pytest.mark.parametrize("number", [0, 1, 2, 3, 5, None, -1])
def test_another_format_is_refused_by_its_number(
    content: dict[str, Any], tmp_path: Path, number: Any
) -> None:
    with pytest.raises(CheckpointError, match=f"format {number}.*reads format 4"):
        Checkpoint.load(written(tmp_path, {**content, "format": number}))


@pytest.mark.parametrize("section", SECTIONS)
def test_a_missing_section_is_named(content: dict[str, Any], tmp_path: Path, section: str) -> None:
    without = {name: value for name, value in content.items() if name != section}
    with pytest.raises(CheckpointError, match=f"damaged.*no section {section}"):
        Checkpoint.load(written(tmp_path, without))
    with pytest.raises(CheckpointError, match=f"damaged.*no section {section}"):
        Checkpoint.load(written(tmp_path, {**content, section: [1]}))


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("config", "steps", "many"), ("data", "info", {"channels": 1}), ("data", "info", None),
        ("progress", "step", -1), ("progress", "step", 1.5), ("progress", "step", None),
        ("threads", "count", 0), ("threads", "count", True), ("metrics", "values", [1]),
        ("metrics", "best", {"value": "high"}), ("networks", "G", 5), ("averaged", "X", {"w": 1}),
        ("signature", "image", "{"), ("signature", "image", 5), ("data", "name", None),
        ("data", "digest", 5), ("data", "count", None), ("progress", "images_seen", "x"),
        ("progress", "images_seen", -1), ("progress", "images_seen", None),
        ("threads", "processes", 0), *(("data", "info", info) for info in (
            {"shape": [1, 8, 8]}, {"shape": [1, 8, 8], "classes": [], "kind": "sound"},
            {"shape": [8, 8], "classes": [], "kind": "image"}, {"shape": [2, 2], "classes": [], "kind": "points"},
            {"shape": [1, 0, 8], "classes": []}, {"shape": [1, 8.0, 8], "classes": []}, {"shape": 8, "classes": []},
            {"shape": [1, 8, 8], "classes": [0]}, {"shape": [1, 8, 8], "classes": [], "width": 8},
            {"shape": [1, 8, 8], "classes": [], "arrangement": "triples", "partner": [1, 8, 8]},
            {"shape": [1, 8, 8], "classes": [], "arrangement": "pairs", "partner": None},
            {"shape": [1, 8, 8], "classes": [], "arrangement": "single", "partner": [1, 8, 8]},
            {"shape": [1, 8, 8], "classes": [], "arrangement": "pairs", "partner": [8, 8]},
            {"shape": [1, 8, 8], "classes": [], "arrangement": "pairs", "partner": [1, 0, 8]},
            {"shape": [1, 8, 8], "classes": [], "arrangement": "pairs", "partner": [1, 8, 8.0]},
            {"shape": [1, 8, 8], "classes": [], "arrangement": "pairs", "partner": 8},
        )),
    ],
)  # fmt: skip
def test_damage_is_found_when_a_checkpoint_is_loaded_and_not_later(
    content: dict[str, Any], tmp_path: Path, section: str, name: str, value: Any
) -> None:
    spoilt = {**content, section: {**content[section], name: value}}
    with pytest.raises(CheckpointError, match=r"damaged|configuration cannot be read"):
        Checkpoint.load(written(tmp_path, spoilt))


PLAIN_SECTIONS = ("config", "data", "progress", "health", "metrics", "threads")


def test_junk_in_any_plain_value_is_an_error_of_ours_or_harmless(
    content: dict[str, Any], digit_folder: Path, tmp_path: Path
) -> None:
    """Loading, and resuming from what could be loaded, raises nothing but a `GanError`."""
    junk: list[Any] = [None, "x", -1, torch.zeros(2)]
    out = tmp_path / "run"
    out.mkdir()
    refused = 0

    def places(value: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        deeper = value.items() if isinstance(value, dict) else ()
        return [path] + [place for key, v in deeper for place in places(v, (*path, key))]

    for place in [place for name in PLAIN_SECTIONS for place in places(content[name], (name,))]:
        for value in junk:
            spoilt = plain(content)
            target = spoilt
            for key in place[:-1]:
                target = target[key]
            target[place[-1]] = value
            torch.save(spoilt, out / "model.pt")
            try:
                train(tiny_request(digit_folder, out, {"steps": None}))
            except GanError:
                refused += 1
            finally:
                for path in out.iterdir():
                    if path.is_file():
                        path.unlink()
    assert refused > 100


def test_weights_that_do_not_fit_are_named() -> None:
    good = plain_state(nn.Linear(2, 3))
    for state, said in (
        ({**good, "weight": torch.zeros(3, 5)}, "size mismatch for weight"),
        ({"weight": good["weight"]}, "bias"),
        ({**good, "more": torch.zeros(1)}, "more"),
        ({**good, "weight": 5}, "weight"),
        (5, "dict|int"),
        (None, "dict|None"),
    ):
        with pytest.raises(CheckpointError, match=rf"do not fit \(averaged G\).*({said})"):
            load_weights(nn.Linear(2, 3), state, "averaged G")  # type: ignore[arg-type]


def test_weights_come_back_bit_by_bit() -> None:
    torch.manual_seed(0)
    first, second = (nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)) for _ in range(2))
    first(torch.randn(4, 2, 5, 5))  # the statistics move
    load_weights(second, plain_state(first), "G")
    assert same(dict(first.state_dict()), dict(second.state_dict()))
    assert not any(tensor.requires_grad for tensor in plain_state(first).values())


def test_the_averaged_networks_are_ready_for_export(run: Run) -> None:
    outcome = run()
    checkpoint = Checkpoint.load(outcome.folder.checkpoint)
    system = checkpoint.system()
    networks = checkpoint.averaged_networks(system)
    assert system.name == "cgan" and set(networks) == {"G"}
    assert same(dict(networks["G"].state_dict()), checkpoint.content["averaged"]["G"])
    assert not networks["G"].training
    assert not any(p.requires_grad for p in networks["G"].parameters())
    assert checkpoint.finished


def test_a_checkpoint_that_names_a_file_of_code_as_its_system_does_not_run_it(
    content: dict[str, Any], tmp_path: Path, digit_folder: Path
) -> None:
    code = tmp_path / "code.py"
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    spoilt = plain(content)
    spoilt["config"]["system"] = {"name": str(code), "file": None, "sha256": None}
    (tmp_path / "run").mkdir()
    torch.save(spoilt, tmp_path / "run" / "model.pt")
    with pytest.raises(CheckpointError):
        Checkpoint.load(tmp_path / "run" / "model.pt").system()
    with pytest.raises(CheckpointError):
        plan(tiny_request(digit_folder, tmp_path / "run"))
    assert not (tmp_path / "ran").exists()


# The digest of the weights.


def test_the_digest_changes_with_any_value_name_shape_or_type() -> None:
    def states() -> dict[str, dict[str, Tensor]]:
        return {
            "G": {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)},
            "E": {"w": torch.zeros(2)},
        }

    digests = [weights_digest(states())]
    for network, name, place in [
        ("G", "w", (1, 2)),
        ("G", "w", (0, 0)),
        ("G", "n", ()),
        ("E", "w", (1,)),
    ]:
        changed = states()
        changed[network][name][place] += 1
        digests.append(weights_digest(changed))
    tiny = states()
    tiny["G"]["w"][0, 1] = np.nextafter(np.float32(1), np.float32(2)).item()
    minus = states()
    minus["E"]["w"][0] = -0.0
    shape, dtype = states(), states()
    shape["G"]["w"] = shape["G"]["w"].reshape(3, 2)
    dtype["G"]["n"] = dtype["G"]["n"].int()
    renamed = {"G": states()["G"], "F": states()["E"]}
    fewer = {"G": states()["G"]}
    digests += [weights_digest(s) for s in (tiny, minus, shape, dtype, renamed, fewer)]
    assert len(set(digests)) == len(digests)


def test_the_digest_does_not_depend_on_order_or_layout_of_memory() -> None:
    w = torch.arange(6.0).reshape(2, 3)
    first = {"A": {"w": w, "b": torch.ones(2)}, "B": {"c": torch.zeros(1)}}
    second = {"B": {"c": torch.zeros(1)}, "A": {"b": torch.ones(2), "w": w.t().contiguous().t()}}
    assert weights_digest(first) == weights_digest(second)
    buffer = io.BytesIO()
    torch.save(first, buffer)
    buffer.seek(0)
    assert weights_digest(torch.load(buffer, weights_only=True)) == weights_digest(first)
