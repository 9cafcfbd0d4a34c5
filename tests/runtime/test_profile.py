"""Where a graph's time goes: the nodes are those of onnxruntime's own optimised graph, the times those of its notes."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest

from gan.runtime import InputError, ModelFileError
from gan.runtime.profile import profile, read_events, read_notes


def optimised(data: bytes, path: Path) -> onnx.ModelProto:
    """The graph that onnxruntime makes of a file, as it writes it down itself."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


def test_the_nodes_are_those_that_onnxruntime_runs(labelled_path: Path, tmp_path: Path) -> None:
    found = profile(labelled_path, device="cpu", threads=1)
    graph = optimised(labelled_path.read_bytes(), tmp_path / "optimised.onnx").graph
    expected = Counter(node.op_type for node in graph.node)
    assert {one.name: one.count for one in found.operators} == expected
    assert sorted(node.operator for node in found.nodes) == sorted(expected.elements())
    assert {node.provider for node in found.nodes} == {"CPU"}
    assert sum(node.share for node in found.nodes) == pytest.approx(1)
    assert sum(one.share for one in found.operators) == pytest.approx(1)
    assert found.microseconds > 0 and found.runs == 5
    assert (found.batch, found.device, found.threads) == (16, "cpu", 1)
    assert all(node.shape[0] == 16 for node in found.nodes if len(node.shape) > 1)
    for several in (found.operators, found.slowest):
        times = [one.microseconds for one in several]
        assert times == sorted(times, reverse=True)


def test_nothing_is_left_on_the_disk(
    labelled_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    profile(labelled_path, device="cpu", threads=1)
    assert list(tmp_path.iterdir()) == []


def node(name: str, operator: str, microseconds: float, provider: str = "CPU") -> dict[str, Any]:
    args = {
        "op_name": operator,
        "provider": f"{provider}ExecutionProvider",
        "output_type_shape": [{"float": [16, 3]}, {"int64": [1]}],
    }
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "args": args}


def run(microseconds: float, *nodes: dict[str, Any]) -> list[dict[str, Any]]:
    end = {"cat": "Session", "name": "model_run", "dur": microseconds, "args": {}}
    fence = {"cat": "Node", "name": "a_fence_before", "dur": 1e9, "args": {}}
    return [fence, *nodes, end]


def test_the_times_are_medians_of_the_last_runs() -> None:
    events = [
        {"cat": "Session", "name": "session_initialization", "dur": 1e9, "args": {}},
        *run(9e6, node("a", "Conv", 5e6), node("b", "Relu", 4e6)),  # a warm-up
        *run(110, node("a", "Conv", 60), node("b", "Relu", 20)),
        *run(500, node("a", "Conv", 50), node("b", "Relu", 400, "CUDA")),
        *run(100, node("a", "Conv", 70), node("b", "Relu", 10)),
    ]
    whole, (a, b) = read_events(events, 3)
    assert whole == 110
    assert (a.microseconds, b.microseconds) == (60, 20)
    assert (a.share, b.share) == (0.75, 0.25)
    assert (a.name, a.operator, a.shape, a.provider) == ("a", "Conv", (16, 3), "CPU")


def test_a_node_without_a_known_shape_has_none() -> None:
    bare = node("a", "Loop", 1.0)
    del bare["args"]["output_type_shape"]
    _, (only,) = read_events(run(2.0, bare), 1)
    assert only.shape == ()


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelFileError):
        profile(tmp_path / "x.onnx")


def test_notes_that_a_full_disk_cut_short_are_refused(tmp_path: Path) -> None:
    """onnxruntime writes them, and says nothing of it."""
    path = tmp_path / "notes.json"
    path.write_text('[{"name": "model_run", "dur": 3}, {"na')
    with pytest.raises(InputError, match=r"cut short: 38 bytes.*TMPDIR"):
        read_notes(path)
    path.write_text('[{"name": "model_run", "dur": 3}]')
    assert read_notes(path) == [{"name": "model_run", "dur": 3}]
