"""Conversion to int8 on small graphs made by hand, and whole exports."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from gan.export import Exactness, export, fidelity
from gan.export.parity import check_exactness
from gan.export.quantization import before_convolutions, to_int8
from gan.runtime import Generator, ParityError
from gan.runtime.wire import DOMAINS
from gan.trainer import Checkpoint
from gan.trainer.checkpoint import save

from .test_image_graphs import calibrate
from .test_precision import model, node, normal, run

Make = Callable[..., Path]


def operators(proto: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in proto.graph.node]


def network() -> onnx.ModelProto:
    """A vector, a first map, and convolutions."""
    return model(
        [
            node("Gemm", "x w0", "a"),
            node("Reshape", "a to", "b"),
            node("LeakyRelu", "b", "c", alpha=0.2),
            node("ConvTranspose", "c w1 b1", "d", strides=[2, 2], pads=[1, 1, 1, 1]),
            node("Relu", "d", "e"),
            node("Conv", "e w2", "f", pads=[1, 1, 1, 1]),
            node("Relu", "f", "g"),
            node("Conv", "g w3", "h"),
            node("Tanh", "h", "y"),
        ],
        {
            "w0": normal(8, 64) / 3,
            "to": np.array([0, 4, 4, 4]),
            "w1": normal(4, 8, 4, 4) / 4,
            "b1": normal(8) / 9,
            "w2": normal(8, 8, 3, 3) / 8,
            "w3": normal(3, 8, 1, 1) / 3,
        },
        shape=("batch", 8),
    )


def batches(count: int = 4) -> list[dict[str, NDArray[Any]]]:
    return [{"x": normal(8, 8)} for _ in range(count)]


def test_convolutions_are_int8_and_their_ends_float32() -> None:
    proto = network()
    before = copy.deepcopy(proto)
    done = to_int8(proto, batches())
    onnx.checker.check_model(proto, full_check=True)
    assert (proto.graph.input, proto.graph.output) == (before.graph.input, before.graph.output)
    assert proto.opset_import == before.opset_import and not proto.metadata_props
    assert {n.domain for n in proto.graph.node} <= DOMAINS
    kinds = {t.name: t.data_type for t in proto.graph.initializer}
    assert kinds["w1_phase_quantized"] == kinds["w2_quantized"] == TensorProto.INT8
    assert kinds["w0"] == kinds["w3"] == TensorProto.FLOAT
    # The Gemm and the last convolution have float32; so has the shuffle of the four phases, which is no layer.
    assert (done.lower_nodes, done.float_nodes) == (5, 2) and done.kept == []
    assert operators(proto).count("MatMul") == 1
    assert not {"ConvTranspose", "DepthToSpace"} & set(operators(proto))
    assert done.casts == operators(proto).count("QuantizeLinear")
    x = normal(16, 8)
    wanted, given = run(before, x)[0], run(proto, x)[0]
    assert not np.array_equal(wanted, given)
    assert 10 * np.log10(4 / np.square(wanted - given).mean()) > 35


def test_a_transposed_convolution_that_has_no_int8_stays_one() -> None:
    """The last layer, and what does not double the size."""
    forms: list[dict[str, Any]] = [{"strides": [2, 2], "pads": [1] * 4}, {"strides": [3, 3]}]
    for last in forms:
        proto = network()
        proto.graph.node[-2].CopyFrom(node("ConvTranspose", "g w4", "h", **last))
        proto.graph.initializer.append(onnx.numpy_helper.from_array(normal(8, 3, 4, 4), "w4"))
        if last["strides"] == [3, 3]:
            proto.graph.node.insert(len(proto.graph.node) - 1, node("Conv", "h w5", "i"))
            proto.graph.initializer.append(onnx.numpy_helper.from_array(normal(3, 3, 1, 1), "w5"))
            proto.graph.node[-1].input[0] = "i"
        to_int8(proto, batches())
        assert operators(proto).count("ConvTranspose") == 1
        (left,) = (n for n in proto.graph.node if n.op_type == "ConvTranspose")
        assert left.input[1] == "w4"


def test_weights_have_seven_bits() -> None:
    proto = network()
    to_int8(proto, batches())
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    assert np.abs(arrays["w2_quantized"].astype(int)).max() in (63, 64)
    assert arrays["w2_scale"].shape == (8,)  # one each channel


def test_logging_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime would give the root logger a handler, and the command's lines would come twice."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    to_int8(network(), batches())
    assert root.handlers == []


def test_the_same_graph_and_latents_give_the_same_bytes() -> None:
    given, made, files = batches(), network(), []
    for _ in range(2):
        proto = copy.deepcopy(made)
        to_int8(proto, given)
        files.append(proto.SerializeToString(deterministic=True))
    assert files[0] == files[1]


def test_only_what_precedes_every_convolution_stays() -> None:
    assert before_convolutions(network().graph) == {0, 1, 2, 3, 4}
    plain = model(
        [node("Gemm", "x w", "a"), node("Tanh", "a", "y")], {"w": normal(8, 3)}, shape=("batch", 8)
    )
    assert before_convolutions(plain.graph) == set()


@pytest.fixture(scope="module")
def calibrated(make_checkpoint: Make) -> Path:
    path = make_checkpoint("srgan", width=8, d_width=2, blocks=2, scale=2)
    checkpoint = Checkpoint.load(path)
    calibrate(checkpoint)
    save(path, checkpoint.content)
    return path


@pytest.mark.usefixtures("traced_here")
def test_an_int8_file_keeps_its_promises(calibrated: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.onnx"
    report = export(calibrated, output, precision="int8", samples=24, max_batch=8)
    assert report.fidelity and report.fidelity.lower_nodes > report.fidelity.float_nodes
    assert min(row.worst_psnr for row in report.fidelity.rows) >= 30
    generator = Generator(output)
    assert generator.verify() == "exact"
    assert generator.metadata("golden")["step"] == report.fidelity.step > 0
    assert generator.metadata("parity")["fidelity"]["psnr_limit"] == 30
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(operators(onnx.load(output)))
    assert report.exactness.across_batches == 0


@pytest.mark.usefixtures("traced_here")
def test_beyond_the_bound_there_is_no_file(
    calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fidelity.BOUNDS, "int8", (90.0, 64))
    output = tmp_path / "m.onnx"
    with pytest.raises(
        ParityError, match=r"Sample 0 has .* dB, limit 90.* grows most in \S+ \(\w+\)"
    ) as raised:
        export(calibrated, output, precision="int8", samples=24, max_batch=8)
    assert raised.value.repair == "Export it with --precision fp32"
    assert not output.exists()


def test_int8_that_depends_on_the_batch_is_refused_as_such() -> None:
    with pytest.raises(ParityError, match="--precision fp32"):
        check_exactness(Exactness((1, 2), (1,), 2.0, 0.0), required=True, lowered=True)
