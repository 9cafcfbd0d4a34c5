"""The gate as a whole: proven files of every system, and a planted fault for each step, which leaves no file."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from gan.export import Exactness, export, gate
from gan.export import graph as graphs
from gan.export.module import load_source
from gan.export.optimize import WINOGRAD
from gan.export.parity import BATCHES
from gan.runtime import (
    CheckpointError,
    ExportError,
    Generator,
    InputError,
    ModelFileError,
    ParityError,
)
from gan.runtime.golden import Golden
from gan.runtime.inputs import draw_field
from gan.runtime.model_file import ModelFile
from gan.trainer import Checkpoint, Request, systems, train
from gan.trainer.checkpoint import save

from ..runtime.conftest import watch_runs
from .conftest import OF_IMAGES, WITH_GRAPHS, randomise

Make = Callable[..., Path]
Plant = Callable[..., tuple[Path, str]]


# Every built-in system, each in another guise: grey, RGB or RGBA, with and without labels, spectral norm on D.

MLP: dict[str, Any] = {"width": 8, "depth": 2, "latent": 6}
CRITIC: dict[str, Any] = {"warm_up": 1, "warm_up_moves": 2, "d_moves": 1}
SYSTEMS: list[tuple[str, dict[str, Any]]] = [
    ("cgan", {"width": 4, "channels": 4, "spectral_norm": True}),
    ("dcgan", {"width": 4, "channels": 3, "labels": False, "up": "resize"}),
    ("dcgan", {"width": 4, "channels": 1, "latents": "uniform", "minibatch_deviation": True}),
    ("gan", {**MLP, "channels": 3, "spectral_norm": True}),
    ("gan", {**MLP, "channels": 1, "labels": False, "latents": "uniform"}),
    ("r3gan", {"width": 16, "group": 8, "channels": 4, "labels": False}),
    ("r3gan", {"width": 16, "group": 8, "channels": 1, "embedding": 4, "projection": 4}),
    ("unrolled", {"width": 4, "channels": 3, "unroll": 2, "spectral_norm": True}),
    ("wgan", {"width": 4, "channels": 4, "labels": False, "spectral_norm": True, **CRITIC}),
    ("wgan-gp", {"width": 4, "channels": 1, "d_moves": 1, "spectral_norm": True}),
]
ON_POINTS: list[tuple[str, dict[str, Any]]] = [
    ("gan", {**MLP, "spectral_norm": True}),
    ("unrolled", {**MLP, "latents": "uniform", "unroll": 2}),
    ("wgan", {**MLP, "spectral_norm": True, **CRITIC}),
    ("wgan-gp", {**MLP, "latents": "uniform", "d_moves": 1}),
]


def test_every_built_in_system_is_proven_below_or_with_its_graphs() -> None:
    proven = {name for name, _ in SYSTEMS} | {*WITH_GRAPHS, *OF_IMAGES}
    assert proven == set(systems.names())
    assert {name for name, _ in ON_POINTS} == {
        name for name in systems.names() if "points" in systems.load(name)[0].kinds
    }


def checkpoint_on_points(system: str, given: dict[str, Any], out: Path) -> Path:
    """A checkpoint of one step on the ring, its weights then randomised."""
    given = {"batch_size": 4, "steps": 1} | given
    train(Request(data="ring", system=system, given=given, out=out, threads=1))
    checkpoint = Checkpoint.load(out / "model.pt")
    randomise(checkpoint.content["averaged"]["G"])
    save(out / "model.pt", checkpoint.content)
    return out / "model.pt"


def to_deviation_1(checkpoint: Path) -> None:
    """Scale the last layer of a generator without tanh, whose randomised weights gave outputs in the hundreds."""
    loaded = Checkpoint.load(checkpoint)
    source = load_source(loaded, graph=None, system_file=None)
    state = loaded.content["averaged"]["G"]
    state[list(state)[-1]] /= source.run(source.inputs(64))[0].std()
    save(checkpoint, loaded.content)


@pytest.mark.parametrize(("system", "given"), SYSTEMS)
def test_a_system_is_proven_at_every_batch_size(
    system: str, given: dict[str, Any], make_checkpoint: Make, tmp_path: Path, traced_here: None
) -> None:
    checkpoint, file = make_checkpoint(system, **given), tmp_path / "model.onnx"
    if system == "r3gan":
        to_deviation_1(checkpoint)
    source = load_source(Checkpoint.load(checkpoint), graph=None, system_file=None)
    assert 0.3 <= source.run(source.inputs(64))[0].std().item() <= 1.1  # else parity proves little
    report = export(checkpoint, file)
    assert [row.batch for row in report.rows] == [*BATCHES, 64]
    assert all(
        row.max_abs <= 1e-4 and row.step is not None and row.step <= 1 for row in report.rows
    )
    assert report.exactness.across_batches == 0.0

    generator = Generator(file, device="cpu")
    assert generator.verify() == "exact"
    labelled = given.get("labels", True)
    assert generator.classes == (("cat", "dog") if labelled else ())
    fields = source.signature.inputs
    assert [field.name for field in fields] == ["z", *["label"][:labelled]]
    drawn = [torch.from_numpy(draw_field(field, 7, range(11))) for field in fields]
    truth = source.run(drawn)[0].double().numpy()  # our own formula again, in float64
    expected = np.rint(np.clip(127.5 * truth + 127.5, 0, 255)).transpose(0, 2, 3, 1)
    images = generator.sample(11, seed=7)
    assert images.shape == (11, 8, 8, given["channels"]) and images.dtype == np.uint8
    assert np.abs(images.astype(int) - expected).max() <= 1
    if labelled:
        cat, dog = (generator.sample(4, seed=7, label=name) for name in ("cat", "dog"))
        assert (cat != dog).any()


@pytest.mark.parametrize(("system", "given"), ON_POINTS)
def test_a_system_that_takes_points_is_proven_on_them(
    system: str, given: dict[str, Any], tmp_path: Path, traced_here: None
) -> None:
    checkpoint, file = checkpoint_on_points(system, given, tmp_path / "run"), tmp_path / "m.onnx"
    source = load_source(Checkpoint.load(checkpoint), graph=None, system_file=None)
    assert source.run(source.inputs(64))[0].std().item() >= 0.3
    report = export(checkpoint, file)
    assert [row.batch for row in report.rows] == [*BATCHES, 64]
    assert all(row.max_abs <= 1e-4 and row.step is None for row in report.rows)
    assert report.exactness.across_batches == 0.0

    generator = Generator(file, device="cpu")
    assert generator.verify() == "exact" and generator.signature.main.kind == "points"
    (field,) = source.signature.inputs
    truth = source.run([torch.from_numpy(draw_field(field, 7, range(11)))])[0].numpy()
    drawn = generator.sample(11, seed=7)
    assert drawn.shape == (11, 2) and drawn.dtype == np.float32
    assert np.abs(drawn - truth).max() <= 1e-5 * np.abs(truth).max()


def test_of_a_system_with_uniform_latents_the_runtime_draws_them_within_minus_1_and_1(
    tmp_path: Path, traced_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {**MLP, "latents": "uniform"}
    export(checkpoint_on_points("gan", given, tmp_path / "run"), tmp_path / "m.onnx")
    generator = Generator(tmp_path / "m.onnx", device="cpu")
    seen: list[np.ndarray] = []
    watch_runs(monkeypatch, lambda inputs: seen.append(inputs["z"]))
    drawn = generator.sample(500, seed=1)
    z = np.concatenate(seen)
    assert z.shape == (500, 6) and -1 <= z.min() < -0.99 and 0.99 < z.max() < 1
    # five deviations of the mean, and of the mean square, of 3,000 uniform numbers
    assert abs(z.mean()) < 5 * (1 / 3 / 3_000) ** 0.5
    assert abs((z**2).mean() - 1 / 3) < 5 * (4 / 45 / 3_000) ** 0.5
    assert (generator(z=z)["points"] == drawn).all()


def test_the_fresh_process_writes_the_same_bytes_twice_and_no_path(
    make_checkpoint: Make, tmp_path: Path
) -> None:
    checkpoint = make_checkpoint("cgan", width=4)
    export(checkpoint, tmp_path / "a.onnx")
    export(checkpoint, tmp_path / "b.onnx")
    data = (tmp_path / "a.onnx").read_bytes()
    assert data == (tmp_path / "b.onnx").read_bytes()
    for secret in (str(Path.home()), str(tmp_path), str(checkpoint.parent), ".py", "stack_trace"):
        assert secret.encode() not in data
    model = onnx.load_from_string(data)
    assert [node.op_type for node in model.graph.node].count("BatchNormalization") == 0  # folded
    assert {path.name for path in tmp_path.iterdir()} == {"a.onnx", "b.onnx"}


def test_float_output_is_clipped_nchw(
    make_checkpoint: Make, tmp_path: Path, traced_here: None
) -> None:
    export(make_checkpoint("cgan", width=4), tmp_path / "float.onnx", image="float")
    generator = Generator(tmp_path / "float.onnx", device="cpu")
    images = generator.sample(3, seed=0)
    assert images.shape == (3, 3, 8, 8) and images.dtype == np.float32
    assert np.abs(images).max() <= 1
    assert generator.verify() == "exact"


FAULTS = {
    "random numbers in forward": ("x = x + torch.randn_like(x)", "pass", "random numbers"),
    "dropout left on": ("x = F.dropout(x, 0.5, training=True)", "pass", "random numbers"),
    "batch statistics": ("x = F.batch_norm(x, None, None, training=True)", "pass", "other samples"),
    "a branch on a small batch": ("x = x * 2 if z.shape[0] > 4 else x", "pass", "other samples"),
    "a fixed-batch buffer": (
        "x = x + self.noise",
        'self.register_buffer("noise", torch.randn(4, 1, 1, 1), persistent=False)',
        "fails on a batch",
    ),
    "not a number": ("x = x / 0 * 0", "pass", "not finite"),
    "another shape": ("x = x[:, :, :4]", "pass", "another shape"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_before_any_trace(
    fault: str, planted: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trace(*_: object, **__: object) -> Path:
        raise AssertionError("traced")

    monkeypatch.setattr(gate, "trace", trace)
    forward, init, said = FAULTS[fault]
    checkpoint, file = planted(forward, init)
    with pytest.raises(ExportError, match=said):
        export(checkpoint, tmp_path / "model.onnx", system_file=file, accept_changed_system=True)
    assert not (tmp_path / "model.onnx").exists()


def test_a_branch_on_a_large_batch_is_named_by_the_fresh_process(
    planted: Plant, tmp_path: Path
) -> None:
    checkpoint, file = planted("x = x * 2 if z.shape[0] > 16 else x")
    with pytest.raises(ExportError, match="only some batch sizes"):
        export(checkpoint, tmp_path / "model.onnx", system_file=file, accept_changed_system=True)
    assert not (tmp_path / "model.onnx").exists()


def test_a_batch_size_that_was_traced_in_is_named_by_the_fresh_process(
    planted: Plant, tmp_path: Path
) -> None:
    checkpoint, file = planted("x = torch.cat([x[i : i + 1] for i in range(z.shape[0])])")
    with pytest.raises(ExportError, match="static shape"):
        export(checkpoint, tmp_path / "model.onnx", system_file=file, accept_changed_system=True)
    assert not (tmp_path / "model.onnx").exists()


def test_a_system_of_ones_own_is_exported_with_its_file(
    planted: Plant, tmp_path: Path, traced_here: None
) -> None:
    checkpoint, file = planted()
    export(checkpoint, tmp_path / "model.onnx", system_file=file)
    content = ModelFile.read(tmp_path / "model.onnx").section("system")
    assert content["name"] == "planted" and content["file"] == "planted.py"
    assert len(content["sha256"]) == 64


def test_a_system_file_that_is_missing_or_changed_is_refused(
    planted: Plant, tmp_path: Path
) -> None:
    checkpoint, file = planted()
    with pytest.raises(CheckpointError, match="Add --system planted"):
        export(checkpoint, tmp_path / "model.onnx")
    Path(file).write_text(Path(file).read_text() + "# changed")
    with pytest.raises(CheckpointError, match="--accept system"):
        export(checkpoint, tmp_path / "model.onnx", system_file=file)


def test_weights_changed_between_trace_and_check_are_refused(
    make_checkpoint: Make, tmp_path: Path, traced_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    prove = gate._prove

    def changed(source: Any, *rest: Any) -> Any:
        with torch.no_grad():
            next(source.module.parameters()).mul_(1.01)
        return prove(source, *rest)

    monkeypatch.setattr(gate, "_prove", changed)
    with pytest.raises(ParityError, match="disagree"):
        export(make_checkpoint("dcgan", width=4), tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


def test_a_graph_changed_while_the_report_is_embedded_is_refused(
    make_checkpoint: Make, tmp_path: Path, traced_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = graphs.embed
    calls: list[int] = []

    def tamper(model: onnx.ModelProto, sections: Any) -> None:
        embed(model, sections)
        calls.append(1)
        if len(calls) == 2:
            model.graph.name = "another"

    monkeypatch.setattr(graphs, "embed", tamper)
    with pytest.raises((ExportError, ModelFileError), match="changed"):
        export(make_checkpoint("dcgan", width=4), tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


def test_a_golden_sample_that_is_not_reproduced_is_refused(
    make_checkpoint: Make, tmp_path: Path, traced_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Golden.record

    def wrong(outputs: Any, *, step: int = 0) -> Golden:
        golden = record(outputs, step=step)
        return dataclasses.replace(golden, values=golden.values ^ 0x40, digest="0" * 64)

    monkeypatch.setattr(Golden, "record", wrong)
    with pytest.raises(ParityError, match="golden sample"):
        export(make_checkpoint("dcgan", width=4), tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


def test_what_was_rewritten_is_on_record_and_can_be_left_out(
    make_checkpoint: Make, tmp_path: Path, traced_here: None
) -> None:
    path = make_checkpoint("dcgan", width=4)
    for name, target in (("a", "any"), ("b", None)):
        report = export(path, tmp_path / name, target=target)  # type: ignore[arg-type]
        assert ModelFile.read(tmp_path / name).section("parity")["rewrites"] == report.rewrites
        operators = [node.op_type for node in onnx.load(tmp_path / name).graph.node]
        assert ("Gemm" in operators) == (target is not None) == bool(report.rewrites)
    same = [Generator(tmp_path / name, device="cpu").sample(20, seed=0) for name in "ab"]
    assert np.abs(same[0].astype(int) - same[1]).max() <= 1
    with pytest.raises(InputError, match=r"The target was refused. 'gpu'.*Give .any. or .cpu."):
        export(path, tmp_path / "c", target="gpu")  # type: ignore[arg-type]


def test_where_winograds_method_is_not_proven_the_export_goes_on_without(
    make_checkpoint: Make,
    tmp_path: Path,
    traced_here: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def rounded_too_much(model: onnx.ModelProto, target: Any) -> Any:
        bad = onnx.ModelProto()
        bad.CopyFrom(model)
        weight = max(bad.graph.initializer, key=lambda tensor: math.prod(tensor.dims))
        values = onnx.numpy_helper.to_array(weight) * np.float32(1.1)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        yield bad, {WINOGRAD: 1}
        yield model, {}

    monkeypatch.setattr(gate, "forms", rounded_too_much)
    report = export(make_checkpoint("dcgan", width=4), tmp_path / "m.onnx", target="cpu")
    assert report.rewrites == {} and all(row.max_abs <= 1e-4 for row in report.rows)
    assert f"Not proven with {WINOGRAD}: The ONNX graph and torch disagree" in caplog.text
    assert Generator(tmp_path / "m.onnx", device="cpu").verify() == "exact"


def fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 3


def random_node(model: onnx.ModelProto) -> None:
    name = model.graph.output[0].name
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("RandomNormalLike", ["before"], [name]))


def batch_norm_in_training(model: onnx.ModelProto) -> None:
    name, ones = model.graph.output[0].name, np.ones(3, np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(ones, "ones"))
    model.graph.node[-1].output[0] = "before"
    inputs = ["before", "ones", "ones", "ones", "ones"]
    outputs = [name, "mean", "variance"]
    norm = onnx.helper.make_node("BatchNormalization", inputs, outputs, training_mode=1)
    model.graph.node.append(norm)


def malformed(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "nowhere"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (fixed_batch, "fixed batch size"),
        (random_node, "random numbers"),
        (batch_norm_in_training, "batch norm in training mode"),
        (malformed, "onnx refused the graph"),
    ],
)
def test_a_traced_graph_with_a_fault_is_refused_and_leaves_no_file(
    spoil: Callable[[onnx.ModelProto], None],
    said: str,
    make_checkpoint: Make,
    tmp_path: Path,
    traced_here: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trace = vars(gate)["trace"]  # the one that traces here

    def spoilt(*arguments: Any, **named: Any) -> Path:
        path = trace(*arguments, **named)
        model = onnx.load(path)
        spoil(model)
        onnx.save(model, path)
        return path

    monkeypatch.setattr(gate, "trace", spoilt)
    with pytest.raises(ExportError, match=said):
        export(make_checkpoint("dcgan", width=4), tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


def test_a_system_of_ours_that_is_not_exact_is_refused(
    make_checkpoint: Make, tmp_path: Path, traced_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inexact(*_: Any) -> Exactness:
        return Exactness((1, 2), (1,), across_batches=1.0, across_threads=0.0)

    monkeypatch.setattr(gate, "measure_exactness", inexact)
    with pytest.raises(ParityError, match="batch size"):
        export(make_checkpoint("dcgan", width=4), tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


def test_an_accepted_change_of_the_system_is_on_record(
    planted: Plant, tmp_path: Path, traced_here: None
) -> None:
    checkpoint, file = planted("x = x * 0.5")
    export(checkpoint, tmp_path / "m.onnx", system_file=file, accept_changed_system=True)
    content = ModelFile.read(tmp_path / "m.onnx").section("system")
    assert content["sha256"] == hashlib.sha256(Path(file).read_bytes()).hexdigest()
    assert content["trained_sha256"] == Checkpoint.load(checkpoint).config.system.sha256
    assert content["trained_sha256"] != content["sha256"]


def test_a_checkpoint_is_never_overwritten_by_its_export(
    make_checkpoint: Make, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "model.pt"
    shutil.copy(make_checkpoint("dcgan", width=4), checkpoint)
    before = checkpoint.read_bytes()
    with pytest.raises(InputError, match="the checkpoint itself"):
        export(checkpoint, checkpoint, overwrite=True)
    assert checkpoint.read_bytes() == before


def test_a_metric_that_is_no_number_leaves_the_file_readable(
    make_checkpoint: Make, tmp_path: Path, traced_here: None
) -> None:
    checkpoint = Checkpoint.load(make_checkpoint("dcgan", width=4))
    checkpoint.content["metrics"]["values"] = {"coverage": math.nan}
    save(tmp_path / "nan.pt", checkpoint.content)
    export(tmp_path / "nan.pt", tmp_path / "model.onnx")
    training = ModelFile.read(tmp_path / "model.onnx").section("training")
    assert training["metrics"] == {"coverage": None}


def test_a_module_in_the_current_folder_is_not_taken_for_a_package(
    make_checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnx.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    export(make_checkpoint("dcgan", width=4), tmp_path / "model.onnx")


def test_an_existing_file_is_kept_unless_asked(
    make_checkpoint: Make, tmp_path: Path, traced_here: None
) -> None:
    checkpoint, file = make_checkpoint("dcgan", width=4), tmp_path / "model.onnx"
    file.write_bytes(b"mine")
    with pytest.raises(InputError, match="--force"):
        export(checkpoint, file)
    assert file.read_bytes() == b"mine"
    export(checkpoint, file, overwrite=True)
    assert Generator(file, device="cpu").verify() == "exact"


def test_a_failure_keeps_the_earlier_file(planted: Plant, tmp_path: Path) -> None:
    checkpoint, system = planted("x = x + torch.randn_like(x)")
    file = tmp_path / "model.onnx"
    file.write_bytes(b"mine")
    with pytest.raises(ExportError):
        export(checkpoint, file, system_file=system, accept_changed_system=True, overwrite=True)
    assert file.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"opset": 9}, "opset"),
        ({"max_batch": 0}, "largest batch"),
        ({"graph": "nothing"}, "no such graph"),
    ],
)
def test_a_wrong_request_is_refused(
    wrong: dict[str, Any], said: str, make_checkpoint: Make, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        export(make_checkpoint("dcgan", width=4), tmp_path / "model.onnx", **wrong)


@pytest.mark.parametrize("target", ["missing/model.onnx", "."])
def test_a_target_that_cannot_be_written_is_refused(
    target: str, make_checkpoint: Make, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        export(make_checkpoint("dcgan", width=4), tmp_path / target)


def test_a_damaged_checkpoint_is_named_as_the_user_named_it(tmp_path: Path) -> None:
    path = tmp_path / "broken.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=re.escape(f"{path} is not a readable checkpoint")):
        export(path, tmp_path / "model.onnx")


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        export(tmp_path / "model.pt", tmp_path / "model.onnx")
