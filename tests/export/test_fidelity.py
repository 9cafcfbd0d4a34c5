"""Files in lower precision: what they promise against float32, and the layer that is named where they cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from gan.export import export, export_all, fidelity
from gan.export.fidelity import Candidate, Tally, layer_name, measure_fidelity
from gan.export.module import Source
from gan.export.precision import Conversion, Precision
from gan.runtime import Draw, Field, Generator, InputError, ParityError, Signature
from gan.runtime.golden import Golden, golden_inputs
from gan.runtime.model_file import ModelFile
from gan.trainer import Checkpoint
from gan.trainer.checkpoint import save

from .test_image_graphs import calibrate

Make = Callable[..., Path]
Plant = Callable[..., tuple[Path, str]]
SYSTEMS: dict[str, dict[str, Any]] = {
    "dcgan": {"width": 4, "labels": True},
    "srgan": {"width": 4, "d_width": 2, "blocks": 1, "scale": 2},
}


@pytest.fixture(params=SYSTEMS)
def checkpoint(request: pytest.FixtureRequest, make_checkpoint: Make) -> Path:
    return made(request.param, make_checkpoint)


MADE: dict[str, Path] = {}


def made(name: str, make_checkpoint: Make) -> Path:
    if name not in MADE:
        MADE[name] = make_checkpoint(name, **SYSTEMS[name])
        checkpoint = Checkpoint.load(MADE[name])
        calibrate(checkpoint)
        save(MADE[name], checkpoint.content)
    return MADE[name]


@pytest.mark.usefixtures("traced_here")
@pytest.mark.parametrize("precision", ["fp16", "mixed"])
def test_a_file_in_lower_precision_keeps_its_promises(
    checkpoint: Path, precision: Precision, tmp_path: Path
) -> None:
    export(checkpoint, tmp_path / "plain.onnx", max_batch=8)
    report = export(checkpoint, tmp_path / "low.onnx", precision=precision, samples=40, max_batch=8)
    plain, low = Generator(tmp_path / "plain.onnx"), Generator(tmp_path / "low.onnx")
    assert low.verify() == "exact"
    assert low.signature == plain.signature
    found = low.metadata("parity")["fidelity"]
    assert found["precision"] == precision and found["casts"] <= 4
    assert [row["samples"] for row in found["rows"]] == [40, 40]
    assert report.fidelity and report.fidelity.rows[0].worst_psnr >= report.fidelity.psnr_limit
    inputs = golden_inputs(low.signature, 5, 32)
    name = low.signature.main.name
    a, b = (generator(**inputs)[name].astype(int) for generator in (plain, low))
    assert 0 < np.abs(a - b).max() <= report.fidelity.step + 1
    weights = onnx.load(tmp_path / "low.onnx").graph.initializer
    halves = sum(len(t.raw_data) for t in weights if t.data_type == TensorProto.FLOAT16)
    assert halves > sum(len(t.raw_data) for t in weights if t.data_type == TensorProto.FLOAT)
    assert report.exactness.across_batches == 0


@pytest.mark.usefixtures("traced_here")
def test_the_same_checkpoint_gives_the_same_bytes(make_checkpoint: Make, tmp_path: Path) -> None:
    for name in "ab":
        export(
            made("dcgan", make_checkpoint),
            tmp_path / name,
            precision="mixed",
            samples=8,
            max_batch=8,
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.usefixtures("traced_here")
def test_float32_has_no_such_report(make_checkpoint: Make, tmp_path: Path) -> None:
    report = export(made("dcgan", make_checkpoint), tmp_path / "m.onnx", max_batch=8)
    assert report.fidelity is None
    assert ModelFile.read(tmp_path / "m.onnx").section("parity")["fidelity"] is None
    assert Golden.from_metadata(ModelFile.read(tmp_path / "m.onnx").section("golden")).step == 0


@pytest.mark.usefixtures("traced_here")
@pytest.mark.parametrize("graphs", ["stylegan2"])
def test_every_graph_of_a_system_has_its_own(
    graphs: str, make_checkpoint: Make, tmp_path: Path
) -> None:
    given = {"width": 4, "max_width": 8, "style": 6, "mapping_layers": 2, "latent": 6}
    reports = export_all(
        make_checkpoint(graphs, **given), tmp_path / "m.onnx", precision="mixed", samples=6, max_batch=8
    )  # fmt: skip
    assert len(reports) == 3
    for path, report in reports.items():
        assert report.fidelity and Generator(path).verify() == "exact"


@pytest.mark.usefixtures("traced_here")
@pytest.mark.parametrize(
    ("forward", "precision", "layer"),
    [
        # 9e4 is beyond float16; the activation has no weights that could tell
        ("x = self.stretch(x) / 9e4", "fp16", r"stretch \(LeakyRelu\) is the first"),
        ("x = self.wide(x) / 9e4 + 0 * x", "fp16", r"wide \(Conv\) is the first"),
    ],
)
def test_an_overflow_is_refused_with_the_layer_to_blame(
    planted: Plant, tmp_path: Path, forward: str, precision: Precision, layer: str
) -> None:
    init = (
        "self.stretch = nn.LeakyReLU(9e4); self.wide = nn.Conv2d(3, 3, 1, bias=False); "
        "nn.init.constant_(self.wide.weight, 6e4); self.wide.weight.requires_grad_(False); "
        "weight = self.wide.weight.data; del self.wide.weight; self.wide.register_buffer('weight', weight, persistent=False)"
    )
    checkpoint, file = planted(forward, init)
    output = tmp_path / "m.onnx"
    with pytest.raises(ParityError, match=layer) as raised:
        export(checkpoint, output, system_file=file, accept_changed_system=True,
               precision=precision, samples=20, max_batch=8)  # fmt: skip
    assert "NaN or infinity" in raised.value.seen
    assert raised.value.repair == "Export it with --precision mixed"
    assert not output.exists()


@pytest.mark.usefixtures("traced_here")
def test_mixed_carries_what_float16_cannot(planted: Plant, tmp_path: Path) -> None:
    # the squares of 1e-5 are 0 in float16
    checkpoint, file = planted(
        "y = x * 1e-5; x = torch.tanh(y / (y * y).mean(1, keepdim=True).sqrt())", "pass"
    )
    given: dict[str, Any] = {
        "system_file": file, "accept_changed_system": True, "samples": 20, "max_batch": 8,
    }  # fmt: skip
    with pytest.raises(ParityError, match="--precision mixed"):
        export(checkpoint, tmp_path / "m.onnx", precision="fp16", **given)
    report = export(checkpoint, tmp_path / "m.onnx", precision="mixed", **given)
    assert report.fidelity and report.fidelity.step <= 1


def graph(nodes: list[onnx.NodeProto], weights: dict[str, Any]) -> onnx.ModelProto:
    """A graph from z [batch, 2] to y_float and, as a head, y."""
    z, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 2]) for n in "zy")
    made = helper.make_graph(
        [*nodes, helper.make_node("Identity", ["y_float"], ["y"])],
        "g",
        [z],
        [y],
        [numpy_helper.from_array(np.array(v, np.float32), k) for k, v in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


class Twice(nn.Module):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return 2 * z


def source() -> Source:
    signature = Signature(
        (Field("z", (2,), "latent", draw=Draw("normal")),), (Field("y", (2,), "points"),)
    )
    return Source(cast(Any, None), cast(Any, None), "g", signature, Twice())


def candidate(nodes: list[onnx.NodeProto], weights: dict[str, Any]) -> Candidate:
    """A stand-in for a lower precision of y = 2 z, in two products."""
    plain = graph([mul("z", "one", "a"), mul("a", "two", "y_float")], {"one": 1, "two": 2})
    return Candidate("fp16", plain, Conversion(), {"a": "first"}, judged=graph(nodes, weights))


def mul(a: str, b: str, result: str) -> onnx.NodeProto:
    return helper.make_node("Mul", [a, b], [result], f"node_{result}")


@pytest.mark.parametrize("k", [0, 37, 99])
def test_a_nan_at_one_latent_is_found(k: int) -> None:
    z = source().inputs(1, start=k)[0].numpy()[0]
    nodes = [
        helper.make_node("Sub", ["z", "there"], ["away"]),
        helper.make_node("Div", ["away", "away"], ["one"]),  # 0 / 0 there
        mul("z", "one", "a"),
        mul("a", "two", "y_float"),
    ]
    broken = candidate(nodes, {"there": z, "two": 2})
    with pytest.raises(ParityError, match=rf"Sample {k} holds NaN .* first \(Mul\)"):
        measure_fidelity(source(), source().signature, broken, 100)
    if k:
        assert measure_fidelity(source(), source().signature, broken, k).rows[0].samples == k


def test_the_layer_whose_error_grows_most_is_named() -> None:
    off = candidate([mul("z", "one", "a"), mul("a", "two", "y_float")], {"one": 1.0001, "two": 2.1})
    with pytest.raises(ParityError, match=r"3\d\.\d dB, limit 40\. .* in node_y_float \(Mul\)"):
        measure_fidelity(source(), source().signature, off, 16)


def test_the_report_is_of_single_samples_and_against_both() -> None:
    off = candidate([mul("z", "one", "a"), mul("a", "two", "y_float")], {"one": 1.001, "two": 2})
    found = measure_fidelity(source(), source().signature, off, 100)
    assert [(r.against, r.samples) for r in found.rows] == [
        ("the float32 file", 100),
        ("torch", 64),
    ]
    row = found.rows[0]
    assert row.worst_psnr < row.mean_psnr and row.share is None
    z = np.concatenate([source().inputs(16, start)[0].numpy() for start in range(0, 96, 16)])
    assert row.step >= np.ceil(np.abs(z * 0.002).max() * 127.5) - 1


def test_psnr_and_steps_of_images() -> None:
    tally = Tally(Field("image", (1, 1, 2), "image"), "", "fp16")
    wanted = np.zeros((2, 1, 1, 2), np.float32)
    given = wanted.copy()
    given[1, 0, 0, 0] = 0.02
    tally.add(given, wanted)
    row = tally.row()
    assert row.worst_psnr == pytest.approx(10 * np.log10(4 / (0.02**2 / 2)))
    # 127.5 + 2.55 rounds to 130, 127.5 to 128
    assert (row.step, row.share, row.samples) == (2, 0.25, 2)


def test_a_layer_is_named_by_trace_weights_or_node() -> None:
    lowered = candidate([mul("z", "one", "a"), mul("a", "two", "y_float")], {"one": 1, "two": 2})
    weight = numpy_helper.from_array(np.ones(1, np.float32), "block.3.weight")
    lowered.reference.graph.initializer.append(weight)
    assert layer_name(lowered, mul("z", "one", "a")) == "first (Mul)"
    assert layer_name(lowered, mul("z", "block.3.weight", "b")) == "block.3 (Mul)"
    assert layer_name(lowered, mul("z", "one", "b")) == "node_b (Mul)"


def test_long_comparisons_tell_how_far_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fidelity, "EVERY", -1.0)
    caplog.set_level(logging.INFO, "gan.export")
    same = candidate([mul("z", "one", "a"), mul("a", "two", "y_float")], {"one": 1, "two": 2})
    found = measure_fidelity(source(), source().signature, same, 20)
    assert "16 of 20 samples compared" in caplog.text and "--samples N" in caplog.text
    assert found.rows[0].worst_psnr == 200.0 and found.step == 0


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({"precision": "fp8"}, "'fp8' of type str"),
        ({"precision": None}, "None of type NoneType"),
        ({"samples": 0}, "0 of type int"),
        ({"samples": 1_000_001}, "1000001 of type int"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_read(
    given: dict[str, Any], seen: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as raised:
        export(tmp_path / "none.pt", tmp_path / "m.onnx", **given)
    assert raised.value.seen == seen


def test_a_golden_sample_in_lower_precision_allows_its_step() -> None:
    values = np.zeros((2, 4, 4, 3), np.uint8)
    golden = Golden.from_metadata(Golden.record(values, step=3).to_metadata())
    assert golden.step == 3
    old = Golden.record(values).to_metadata()
    del old["step"]  # of a file that was made before there was one
    assert Golden.from_metadata(old).step == 0
    for bad in (-1, 256, 1.5, True, "3"):
        with pytest.raises(Exception, match="golden sample cannot be read"):
            Golden.from_metadata(Golden.record(values).to_metadata() | {"step": bad})
