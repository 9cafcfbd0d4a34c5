"""Promise 4 on files made to hurt: each is refused with a reason, before onnxruntime sees it or a network is made of it.

The attacks are live ones where that can be shown: the same file without our refusal reads the secret, runs the code,
takes the memory.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from gan.cli import app
from gan.runtime import Generator, ModelFileError, session
from gan.runtime.errors import CheckpointError, GanError
from gan.trainer import Request, train
from gan.trainer.adopt import adopt
from gan.trainer.checkpoint import Checkpoint

from .runtime.conftest import Edit, edited, tiny_model, tiny_signature, with_metadata

SECRET = np.full(1536, 7.25, np.float32)  # 8 * 192 values, as many as the weights have


@pytest.fixture(scope="module")
def good() -> bytes:
    return tiny_model()


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any step towards onnxruntime fails the test."""
    monkeypatch.setattr(session, "load_onnxruntime", lambda: pytest.fail("onnxruntime saw it"))


# Weights in another file


def with_weights_at(data: bytes, **place: str) -> bytes:
    """The model with its largest weights said to lie elsewhere."""

    def edit(model: onnx.ModelProto) -> None:
        (tensor,) = (t for t in model.graph.initializer if t.name == "w")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in place.items():
            tensor.external_data.add(key=key, value=value)

    return edited(data, edit)


def beside(folder: Path) -> dict[str, str]:
    SECRET.tofile(folder / "weights.bin")
    return {"location": "weights.bin"}


def above(folder: Path) -> dict[str, str]:
    SECRET.tofile(folder.parent / "secret.bin")
    return {"location": "../secret.bin"}


def absolute(folder: Path) -> dict[str, str]:
    SECRET.tofile(folder.parent / "secret.bin")
    return {"location": str(folder.parent / "secret.bin")}


def link(folder: Path) -> dict[str, str]:
    above(folder)
    (folder / "weights.bin").symlink_to("../secret.bin")
    return {"location": "weights.bin"}


def link_to_a_folder(folder: Path) -> dict[str, str]:
    above(folder)
    (folder / "inside").symlink_to("..")
    return {"location": "inside/secret.bin"}


def hard_link(folder: Path) -> dict[str, str]:
    above(folder)
    os.link(folder.parent / "secret.bin", folder / "weights.bin")
    return {"location": "weights.bin"}


def in_memory(folder: Path) -> dict[str, str]:
    return {"location": "*/_ORT_MEM_ADDR_/*", "offset": "4096", "length": "6144"}


def device(folder: Path) -> dict[str, str]:
    return {"location": "/dev/zero"}


def with_more_keys(folder: Path) -> dict[str, str]:
    """onnx once set whatever attribute was named here (CVE-2026-34445)."""
    return {**beside(folder), "__class__": "x", "basepath": "/etc", "length": str(2**62)}


PLACES: dict[str, Callable[[Path], dict[str, str]]] = {
    "beside the model": beside,
    "above its folder": above,
    "at an absolute path": absolute,
    "behind a symbolic link": link,
    "behind a link to a folder": link_to_a_folder,
    "behind a hard link": hard_link,
    "at an address in memory": in_memory,
    "in a device": device,
    "with keys of an attacker": with_more_keys,
}


@pytest.mark.parametrize("where", PLACES)
def test_weights_elsewhere_are_refused(
    good: bytes, tmp_path: Path, unseen: None, where: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "model.onnx"
    path.write_bytes(with_weights_at(good, **PLACES[where](folder)))
    for source in (path, path.read_bytes()):
        with pytest.raises(ModelFileError, match=r"weights in another file \(external data\)"):
            Generator(source, device="cpu")


def test_bytes_that_name_a_file_of_the_current_folder_are_refused(
    good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unseen: None
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFileError, match="external data"):
        Generator(with_weights_at(good, **beside(tmp_path)), device="cpu")


@pytest.mark.parametrize("where", ["beside the model", "behind a hard link"])
def test_onnxruntime_alone_would_read_them(good: bytes, tmp_path: Path, where: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "model.onnx"
    path.write_bytes(with_weights_at(good, **PLACES[where](folder)))
    plain = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (image,) = plain.run(None, {"z": np.ones((1, 4), np.float32), "label": np.array([0])})
    other = onnxruntime.InferenceSession(good, providers=["CPUExecutionProvider"])
    (ours,) = other.run(None, {"z": np.ones((1, 4), np.float32), "label": np.array([0])})
    assert (image != ours).any()


# Graphs


def node(operator: str, *inputs: str, **attributes: Any) -> Edit:
    return lambda model: model.graph.node.append(
        helper.make_node(operator, inputs, ["odd"], **attributes)
    )


def body() -> onnx.GraphProto:
    inner = helper.make_node("Identity", ["go"], ["on"])
    boolean = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go", "on")]
    count = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    return helper.make_graph([inner], "body", [count, boolean[0]], [boolean[1]])


def loop_in_a_branch(model: onnx.ModelProto) -> None:
    loop = helper.make_node("Loop", ["times", ""], [], body=body())
    branch = helper.make_graph([loop], "branch", [], [])
    model.graph.node.append(
        helper.make_node("If", ["c"], [], then_branch=branch, else_branch=branch)
    )


GRAPHS: dict[str, tuple[str, Edit]] = {
    "a loop without end": ("'Loop' is a loop", node("Loop", "times", "", body=body())),
    "a scan": ("'Scan' is a loop", node("Scan", "z", body=body(), num_scan_inputs=1)),
    "a map": ("'SequenceMap' is a loop", node("SequenceMap", "z", body=body())),
    "a loop in a branch": ("'Loop' is a loop", loop_in_a_branch),
    "a library's operator": ("foreign domain 'com.microsoft'", node("Gelu", "z", domain="com.microsoft")),
    "an operator of Python": ("foreign domain 'ai.onnx.contrib'", node("PyOp", "z", domain="ai.onnx.contrib")),
    "a domain with a zero byte": (r"foreign domain '\\x00'", node("Relu", "z", domain="\0")),
    "a domain of spaces": ("foreign domain ' '", node("Relu", "z", domain=" ")),
    "a domain in capitals": ("foreign domain 'AI.ONNX'", node("Relu", "z", domain="AI.ONNX")),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_made_to_hurt_is_refused(good: bytes, unseen: None, name: str) -> None:
    seen, edit = GRAPHS[name]
    with pytest.raises(ModelFileError, match=seen):
        Generator(edited(good, edit), device="cpu")


# Metadata


def signature(**about: Any) -> dict[str, Any]:
    """A good signature, but for the field `image` and what is given for the whole."""
    made = tiny_signature()
    image = about.pop("image", {})
    made["outputs"][0] |= image
    return made | about


SECTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "JSON 100,000 deep": ("RecursionError", {"signature": "[" * 100_000}),
    "JSON 500 deep": ("more than 16 deep", {"signature": signature(more=json.loads("[" * 500 + "]" * 500))}),
    "2 MiB of JSON": ("2097152 characters", {"signature": " " * 2**21}),
    "a number of 5,000 digits": ("not JSON", {"signature": '{"format": ' + "9" * 5000 + "}"}),
    "NaN": ("not JSON", {"signature": '{"format": NaN}'}),
    "an image of 2^50 bytes": ("of shape", {"signature": signature(image={"shape": [2**25, 2**25, 3]})}),
    "nine axes": ("of shape", {"signature": signature(image={"shape": [1] * 9})}),
    "a size of 0": ("an axis 0", {"signature": signature(image={"shape": [8, 0, 3]})}),
    "a size of 1.5": ("an axis 1.5", {"signature": signature(image={"shape": [8, 1.5, 3]})}),
    "200,000 classes": ("a list was expected", {"signature": signature(classes=["x"] * 200_000)}),
    "a class name of 2,000 characters": ("a short text", {"signature": signature(classes=["1", "2", "x" * 2000])}),
    "half a character": ("surrogates not allowed", {"signature": signature(classes=["1", "2", "\ud800"])}),
    "a name that is a path": ("a field named", {"signature": signature(image={"name": "../../image"})}),
    "a name that is code": ("a field named", {"signature": signature(image={"name": "__import__('os')"})}),
    "format as a list": (r"format \[1\]", {"signature": signature(format=[1])}),
    "a golden sample too many": ("latent stream is not known", {"latents": {"version": [1]}}),
}  # fmt: skip


@pytest.mark.parametrize("name", SECTIONS)
def test_metadata_made_to_hurt_are_refused(good: bytes, unseen: None, name: str) -> None:
    seen, sections = SECTIONS[name]
    with pytest.raises(ModelFileError, match=seen):
        Generator(with_metadata(good, **sections), device="cpu")


def test_a_name_from_a_file_steers_no_terminal(good: bytes, tmp_path: Path) -> None:
    names = ["\x1b[2J\x1b]0;title\x07", "a\rb\x9b31m", "\u202etxt.exe"]
    path = tmp_path / "model.onnx"
    path.write_bytes(with_metadata(good, signature=signature(classes=names)))
    for options in ([], ["--json"]):
        shown = CliRunner().invoke(app, ["inspect", str(path), *options])
        assert shown.exit_code == 0
        assert not {"\x1b", "\x07", "\r", "\x9b", "\u202e"} & set(shown.output)
        assert "\\u001b[2J" in shown.output
    content = json.loads(shown.output)
    assert content["signature"]["classes"] == names  # JSON says the same in other signs


# Checkpoints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    request = Request(
        data="digits", out=tmp_path_factory.mktemp("run") / "run", threads=1, sample_every=10**9, measure_every=10**9,
        given={"steps": 1, "batch_size": 4, "width": 4, "latent": 4},
    )  # fmt: skip
    return train(request).folder.checkpoint


@pytest.fixture(scope="module")
def content(checkpoint: Path) -> dict[str, Any]:
    return Checkpoint.load(checkpoint).content


class Bomb:
    """Calls something when it is unpickled."""

    def __init__(self, call: Callable[..., Any], *given: Any) -> None:
        self.call, self.given = call, given

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.given


def doubled(levels: int) -> list[Any]:
    """A list of 2^levels values in a few bytes of pickle."""
    value: list[Any] = [1]
    for _ in range(levels):
        value = [value, value]
    return value


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def at(section: str, value: Any, key: str = "odd") -> Callable[[dict[str, Any]], Any]:
    return lambda content: {**content, section: {**content[section], key: value}}


def info(**about: Any) -> Callable[[dict[str, Any]], Any]:
    def change(content: dict[str, Any]) -> Any:
        return at("data", {**content["data"]["info"], **about}, "info")(content)

    return change


def option(name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    def change(content: dict[str, Any]) -> Any:
        return at("config", {**content["config"]["options"], name: value}, "options")(content)

    return change


CHECKPOINTS: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "os.system": ("could run code|unsafe", lambda _: Bomb(os.system, "true")),
    "eval": ("could run code|unsafe", lambda _: Bomb(eval, "1")),
    "a file that is read": ("could run code|unsafe", lambda _: Bomb(open, "/etc/passwd")),
    "a file that is mapped": ("could run code|unsafe", lambda _: Bomb(torch.from_file, "/etc/passwd", False, 4)),
    "a download": ("could run code|unsafe", lambda _: Bomb(torch.hub.load_state_dict_from_url, "http://localhost:1/x")),
    "a getattr": ("could run code|unsafe", lambda _: Bomb(getattr, "x", "__class__")),
    "code among the weights": ("could run code|unsafe", at("averaged", Bomb(os.getcwd), "G")),
    "a whole network": ("could run code|unsafe", at("networks", torch.nn.Linear(2, 2))),
    "a list of 2^60 values as its format": ("nested more than 32 deep", lambda c: {**c, "format": doubled(60)}),
    "a list of 2^60 values in a setting": ("nested more than 32 deep", option("width", doubled(60))),
    "a list of 2^25 values": ("more than 1000000 values", at("metrics", doubled(25))),
    "lists 300 deep": ("nested more than 32 deep", at("config", nested(300))),
    "a list that holds itself": ("nested more than 32 deep", at("data", itself())),
    "a number of 10,000 bits": ("could run code|unsafe|64 bits", at("progress", 2**10_000, "step")),
    "a number of 65 bits": ("more than 64 bits", at("progress", 2**64, "step")),
    "a set": ("set", at("health", {1, 2})),
    "a tuple": ("tuple", at("metrics", (1, 2))),
    "bytes": ("could run code|bytes|unsafe", at("metrics", b"x")),
    "code in another dict": ("could run code|unsafe", at("metrics", OrderedDict(a=Bomb(os.getcwd)))),
    "a complex number": ("complex|unsafe", at("metrics", 1j)),
    "a tensor among the metrics": ("a tensor of a kind", at("metrics", torch.zeros(2))),
    "a sparse tensor": ("a tensor of a kind", at("averaged", {"weight": torch.eye(2).to_sparse()}, "G")),
    "a tensor without values": ("a tensor of a kind", at("averaged", {"weight": torch.zeros(2, device="meta")}, "G")),
    "a complex tensor": ("a tensor of a kind", at("averaged", {"weight": torch.zeros(2) * 1j}, "G")),
    "a quantised tensor": (
        "a tensor of a kind",
        lambda c: at("averaged", {"weight": torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8)}, "G")(c),
    ),
    "a tensor of 2^40 values": (
        "a tensor of a kind", lambda c: at("averaged", {n: torch.zeros(1).expand(2**40) for n in c["averaged"]["G"]}, "G")(c)
    ),
    "a width of 2^20": ("do not fit|width", option("width", 2**20)),
    "a latent of 2^40": ("do not fit|latent", option("latent", 2**40)),
    "images of 2^40 pixels": ("do not fit|refused|resolution|size", info(shape=[1, 2**20, 2**20])),
    "2^31 classes": ("do not fit|classes|damaged", info(classes=["x"] * 900_000)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of quantised tensors as they are made
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_made_to_hurt_is_refused(
    content: dict[str, Any], tmp_path: Path, name: str
) -> None:
    seen, change = CHECKPOINTS[name]
    path = tmp_path / "model.pt"
    torch.save(change(content), path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(GanError, match=seen):
        loaded = Checkpoint.load(path)
        loaded.averaged_networks(loaded.system())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10  # KiB


class Replaced:
    """An object of torch's loader with an attribute of the file's choice: in the place of a method, too."""

    def __init__(self, call: Callable[..., Any], given: tuple[Any, ...], state: Any) -> None:
        self.call, self.given, self.state = call, given, state

    def __reduce__(self) -> tuple[Any, ...]:
        if self.call is OrderedDict:
            return OrderedDict, self.given, self.state
        return self.call, (*self.given, self.state)


@pytest.mark.parametrize("method", ["get", "items", "keys", 7])
@pytest.mark.parametrize("where", ["whole", "config", "averaged"])
def test_a_dict_whose_methods_a_file_replaced_is_refused(
    content: dict[str, Any], tmp_path: Path, method: str | int, where: str
) -> None:
    def own(value: dict[str, Any]) -> Any:
        return Replaced(OrderedDict, (list(value.items()),), {method: 5})

    odd = own(content) if where == "whole" else {**content, where: own(content[where])}
    torch.save(odd, tmp_path / "model.pt")
    for read in (Checkpoint.load, lambda path: adopt(path, tmp_path / "made.pt")):
        with pytest.raises(CheckpointError, match="of its own"):
            read(tmp_path / "model.pt")


@pytest.mark.parametrize("method", ["numel", "element_size", "is_complex"])
def test_a_tensor_whose_methods_a_file_replaced_is_refused(
    content: dict[str, Any], tmp_path: Path, method: str
) -> None:
    rebuild = torch._utils._rebuild_parameter_with_state
    weight = Replaced(rebuild, (torch.zeros(2), False, OrderedDict()), {method: 5})
    torch.save(at("averaged", {"weight": weight}, "G")(content), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="of its own"):
        Checkpoint.load(tmp_path / "model.pt")


def test_what_torch_itself_notes_on_a_dict_of_weights_is_taken(tmp_path: Path) -> None:
    state = torch.nn.Linear(2, 2).state_dict()
    assert vars(state)  # _metadata
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="was not recognised"):
        adopt(tmp_path / "weights.pth", tmp_path / "made.pt")


def test_a_zip64_that_says_it_has_two_disks_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    data = checkpoint.read_bytes()
    locator = b"PK\6\7" + (1).to_bytes(4, "little") + bytes(8) + (2).to_bytes(4, "little")
    path = tmp_path / "model.pt"
    path.write_bytes(data[:-22] + locator + data[-22:])
    for read in (Checkpoint.load, lambda path: adopt(path, tmp_path / "made.pt")):
        with pytest.raises(CheckpointError, match="is damaged"):
            read(path)


def test_a_network_without_weights_is_not_made(content: dict[str, Any], tmp_path: Path) -> None:
    """Else nothing would bound the sizes that the options ask for."""
    for odd in (
        {**option("latent", 10**6)(content), "networks": {}, "averaged": {}},
        {**content, "networks": {"G": content["networks"]["G"]}},
    ):
        torch.save(odd, tmp_path / "model.pt")
        with pytest.raises(CheckpointError, match="no weights of the network"):
            Checkpoint.load(tmp_path / "model.pt").system()


def repacked(path: Path, edit: Callable[[dict[str, bytes]], object], method: int = 0) -> None:
    """The zip with its entries changed."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    edit(entries)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def test_a_checkpoint_that_unpacks_to_a_thousand_times_its_size_is_refused(
    content: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    torch.save({**content, "averaged": {"G": {"weight": torch.zeros(30_000_000)}}}, path)
    repacked(path, lambda entries: None, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (Checkpoint.load, lambda file: adopt(file, tmp_path / "made.pt")):
        with pytest.raises(CheckpointError, match=r"bytes that unpack to 12\d{7}"):
            read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 << 10
    assert not (tmp_path / "made.pt").exists()


def first(entries: dict[str, bytes]) -> str:
    return next(iter(entries)).partition("/")[0]


ARCHIVES: dict[str, Callable[[dict[str, bytes]], object]] = {
    "an empty zip": lambda entries: entries.clear(),
    "no pickle": lambda entries: entries.pop(f"{first(entries)}/data.pkl"),
    "no tensors": lambda entries: [entries.pop(n) for n in list(entries) if "/data/" in n],
    "tensors cut short": lambda entries: entries.update({n: d[:1] for n, d in entries.items() if "/data/" in n}),
    "names above the folder": lambda entries: [entries.update({f"../../{n}": entries.pop(n)}) for n in list(entries)],
    "a pickle of nothing": lambda entries: entries.update({f"{first(entries)}/data.pkl": b""}),
    "a pickle of protocol 255": lambda entries: entries.update({f"{first(entries)}/data.pkl": b"\x80\xff."}),
    "a pickle that pops an empty stack": lambda entries: entries.update({f"{first(entries)}/data.pkl": b"\x80\x02000."}),
    "code of TorchScript": lambda entries: entries.update(
        {f"{first(entries)}/code/x.py": b"import os", f"{first(entries)}/constants.pkl": pickle.dumps((), 2)}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_made_to_hurt_is_refused(checkpoint: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(checkpoint.read_bytes())
    repacked(path, ARCHIVES[name])
    with pytest.raises(CheckpointError, match=r"model\.pt (is|was)"):
        Checkpoint.load(path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("make", ["pipe", "folder", "device", "dangling link", "link to itself"])
def test_what_is_no_file_is_refused_unread(tmp_path: Path, make: str) -> None:
    path = tmp_path / "odd"
    if make == "pipe":
        os.mkfifo(path)
    elif make == "folder":
        path.mkdir()
    else:
        targets: dict[str, str | Path] = {
            "device": "/dev/zero",
            "dangling link": "nowhere",
            "link to itself": path,
        }
        path.symlink_to(targets[make])
    reads: list[Callable[[], object]] = [
        lambda: Generator(path, device="cpu"),
        lambda: Checkpoint.load(path),
        lambda: adopt(path, tmp_path / "made.pt"),
    ]
    for read in reads:
        with pytest.raises(GanError, match=r"odd cannot be read"):
            read()


# Memory


@pytest.mark.parametrize("values", [2**36, 2**31])
def test_a_graph_that_takes_more_memory_than_there_is_is_a_model_file_error(
    good: bytes, tmp_path: Path, values: int
) -> None:
    """The README's way with strangers' models: a process with a limit. No size is declared that would tell."""

    def edit(model: onnx.ModelProto) -> None:
        size = numpy_helper.from_array(np.array([values]), "size")
        model.graph.initializer.append(size)
        del model.graph.node[-1]
        model.graph.node.extend(
            [
                helper.make_node("ConstantOfShape", ["size"], ["many"]),
                helper.make_node("ReduceSum", ["many"], ["sum"], keepdims=0),
                helper.make_node("Cast", ["sum"], ["zero"], to=TensorProto.UINT8),
                helper.make_node("Add", ["bytes", "zero"], ["more"]),
                helper.make_node("Transpose", ["more"], ["image"], perm=[0, 2, 3, 1]),
            ]
        )

    path = tmp_path / "model.onnx"
    path.write_bytes(edited(good, edit))
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from gan.runtime import GanError, Generator
try:
    Generator({str(path)!r}, device="cpu", threads=1).sample(1, seed=0)
except GanError as error:
    print("refused:", error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith("refused: onnxruntime"), done
    assert done.returncode == 0 and not done.stderr
