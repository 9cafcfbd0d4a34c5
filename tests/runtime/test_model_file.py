"""Model files: good ones from path or bytes; bad ones are refused before onnxruntime sees a byte."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from numpy.random import RandomState
from onnx import TensorProto

from gan.runtime import Generator, InputError, ModelFileError
from gan.runtime.model_file import ModelFile

from .conftest import (
    Edit,
    edited,
    metadata,
    tiny_graph,
    tiny_model,
    tiny_signature,
    with_metadata,
)

Change = Callable[[dict[str, Any]], object]


def test_a_path_and_its_bytes_are_the_same_model(labelled: bytes, labelled_path: Path) -> None:
    for source in (labelled_path, str(labelled_path), labelled, bytearray(labelled)):
        model = ModelFile.read(source)  # type: ignore[arg-type]
        assert model.data == labelled
        assert [field.name for field in model.signature.inputs] == ["z", "label"]
    assert ModelFile.read(labelled_path).name == str(labelled_path)
    assert ModelFile.read(labelled).name == "<bytes>"


def test_a_section_is_the_metadata_of_the_file(labelled: bytes) -> None:
    model = ModelFile.read(labelled)
    assert model.section("golden") == metadata(labelled)["golden"]
    assert model.section("training") == {}


def test_a_section_that_is_no_json_object_is_refused(labelled: bytes) -> None:
    model = ModelFile.read(with_metadata(labelled, training="[1]"))
    with pytest.raises(ModelFileError, match="training that is not an object"):
        model.section("training")


def test_the_graph_digest_is_that_of_the_graphs_bytes(labelled: bytes) -> None:
    graph = onnx.load_model_from_string(labelled).graph.SerializeToString(deterministic=True)
    digest = ModelFile.read(labelled).graph_digest()
    assert digest == hashlib.sha256(graph).hexdigest()
    assert ModelFile.read(with_metadata(labelled, golden=None)).graph_digest() == digest


def test_the_tripwire_would_notice_onnxruntime(no_onnxruntime: None, labelled: bytes) -> None:
    with pytest.raises(pytest.fail.Exception, match="onnxruntime was asked"):
        Generator(labelled, device="cpu")


@pytest.mark.parametrize("name", ["missing.onnx", "nowhere/missing.onnx", "nul\0.onnx"])
def test_a_path_without_a_file_is_refused_by_name(
    no_onnxruntime: None, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ModelFileError, match=r"onnx cannot be read"):
        Generator(tmp_path / name, device="cpu")


def test_a_folder_is_refused(no_onnxruntime: None, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="It is not a file"):
        Generator(tmp_path, device="cpu")


def test_a_pipe_that_need_not_end_is_refused_unread(
    no_onnxruntime: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("the pipe was read"))
    for endless in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ModelFileError, match="It is not a file"):
            Generator(endless, device="cpu")


def test_a_file_of_2_gib_is_refused_unread(
    no_onnxruntime: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "huge.onnx"
    path.touch()
    os.truncate(path, 2**31)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("the file was read"))
    with pytest.raises(ModelFileError, match="more than 2 GiB"):
        Generator(path, device="cpu")


def test_a_checkpoint_is_told_from_a_model(no_onnxruntime: None, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"PK\x03\x04" + bytes(64))
    with pytest.raises(ModelFileError, match="Export it first: gan export"):
        Generator(path, device="cpu")


def test_a_folder_is_named_once(no_onnxruntime: None, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="It is not a file") as caught:
        Generator(tmp_path, device="cpu")
    assert str(caught.value).count(str(tmp_path)) == 1


@pytest.mark.parametrize("content", [b"", b"hello\n" * 500, b"\x89PNG\r\n\x1a\n" + bytes(64)])
def test_a_file_that_is_no_model_is_refused(
    no_onnxruntime: None, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"model\.onnx was refused"):
        Generator(path, device="cpu")


def test_a_file_cut_short_anywhere_is_refused(no_onnxruntime: None, labelled: bytes) -> None:
    cuts = range(0, len(labelled), 97)
    assert len(cuts) > 80
    for cut in cuts:
        with pytest.raises(ModelFileError):
            Generator(labelled[:cut], device="cpu")


def test_random_bytes_are_refused(no_onnxruntime: None) -> None:
    rng = RandomState(0)
    for size in range(1, 1001):
        with pytest.raises(ModelFileError):
            Generator(rng.bytes(size), device="cpu")


def static_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def static_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 16


def no_shape(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def foreign(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.evil"


def external(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


GRAPHS: dict[str, tuple[str, Edit]] = {
    "a static batch": ("input z has the fixed batch 1", static_batch),
    "a static batch of the output": ("output image has the fixed batch 16", static_output),
    "no shape": ("input z has the fixed batch None", no_shape),
    "an input more": ("inputs .*'z2'", lambda m: m.graph.input.add(name="z2")),
    "an input less": ("inputs \\['z'\\] in the graph", lambda m: m.graph.input.pop()),
    "no output": ("outputs \\[\\] in the graph", lambda m: m.graph.output.pop()),
    "a foreign operator": ("foreign domain", foreign),
    "weights elsewhere": ("external", external),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_is_not_what_the_signature_says_is_refused(
    no_onnxruntime: None, labelled: bytes, name: str
) -> None:
    seen, edit = GRAPHS[name]
    with pytest.raises(ModelFileError, match=seen):
        Generator(edited(labelled, edit), device="cpu")


LIES: dict[str, tuple[str, Change]] = {
    "another input": ("inputs .*'latent'", lambda s: s["inputs"][0].update(name="latent")),
    "another output": ("outputs .*'picture'", lambda s: s["outputs"][0].update(name="picture")),
    "another order": ("inputs", lambda s: s["inputs"].reverse()),
    "an input less": ("inputs", lambda s: (s["inputs"].pop(), s["classes"].clear())),
    "an output more": (
        "outputs",
        lambda s: s["outputs"].append({**s["outputs"][0], "name": "mask"}),
    ),
    "another size of z": ("shape \\[4\\] in the graph, \\[5\\]", lambda s: s["inputs"][0].update(shape=[5])),
    "another number of axes": ("shape", lambda s: s["inputs"][0].update(shape=[4, 1])),
    "a dynamic axis": ("shape", lambda s: s["inputs"][0].update(shape=["t"])),
    "a smaller image": ("shape", lambda s: s["outputs"][0].update(shape=[8, 8, 1])),
    "another dtype of z": (
        "z is float32 in the graph, uint8",
        lambda s: s["inputs"][0].update(dtype="uint8", draw=None),
    ),
    "another dtype of the image": (
        "image is uint8 in the graph, float32",
        lambda s: s["outputs"][0].update(dtype="float32"),
    ),
    "format 2": ("format 2", lambda s: s.update(format=2)),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_signature_that_lies_about_the_graph_is_refused(
    no_onnxruntime: None, labelled: bytes, name: str
) -> None:
    seen, change = LIES[name]
    signature = tiny_signature()
    change(signature)
    with pytest.raises(ModelFileError, match=seen):
        Generator(with_metadata(labelled, signature=signature), device="cpu")


SECTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "no signature": ("without the metadata of `gan export`", {"signature": None}),
    "a signature that is no JSON": ("not JSON", {"signature": "{'z': 4}"}),
    "a signature cut short": ("not JSON", {"signature": '{"format": 1,'}),
    "a signature that is a list": ("not an object", {"signature": "[1]"}),
    "no latent stream": ("Version None; this runtime draws version 1", {"latents": None}),
    "a newer latent stream": ("Version 2", {"latents": {"version": 2}}),
    "a latent stream as text": ("Version '1'", {"latents": {"version": "1"}}),
    "a latent stream that is no JSON": ("not JSON", {"latents": "v1"}),
}


@pytest.mark.parametrize("name", SECTIONS)
def test_metadata_that_cannot_be_used_is_refused(
    no_onnxruntime: None, labelled: bytes, name: str
) -> None:
    seen, sections = SECTIONS[name]
    with pytest.raises(ModelFileError, match=seen):
        Generator(with_metadata(labelled, **sections), device="cpu")


def test_an_onnx_file_of_another_tool_says_how_to_make_one_of_ours(no_onnxruntime: None) -> None:
    foreign = onnx.ModelProto(ir_version=10)
    foreign.graph.CopyFrom(tiny_graph(tiny_signature()))
    with pytest.raises(ModelFileError) as caught:
        Generator(foreign.SerializeToString(), device="cpu")
    assert caught.value.repair.endswith("gan export model.pt model.onnx")


def test_an_image_above_the_limit_is_refused_unopened(
    no_onnxruntime: None, labelled: bytes
) -> None:
    with pytest.raises(InputError, match="One sample has 192 bytes, the limit is 191"):
        Generator(labelled, device="cpu", max_output_bytes=191)


@pytest.mark.parametrize(
    ("shape", "given"),
    [([2**20, 2**20], 2**42), (["a", "b", "c", "d", "e", "f", "g", "h"], 4 * 64**8)],
    ids=["4 TiB", "eight axes of the caller's choice"],
)
def test_an_input_above_the_limit_is_refused_unopened(
    no_onnxruntime: None, shape: list[int | str], given: int
) -> None:
    signature = tiny_signature(labels=False)
    graph = tiny_graph(signature)
    dims = graph.input[0].type.tensor_type.shape.dim
    del dims[1:]
    for axis in shape:
        dims.add(**{"dim_value" if isinstance(axis, int) else "dim_param": axis})
    signature["inputs"][0]["shape"] = shape
    model = onnx.load_model_from_string(
        with_metadata(tiny_model(labels=False), signature=signature)
    )
    model.graph.CopyFrom(graph)
    with pytest.raises(InputError, match=f"One sample has {given} bytes, the limit is 4294967296"):
        Generator(model.SerializeToString(), device="cpu")
