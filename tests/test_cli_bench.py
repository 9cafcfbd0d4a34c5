"""`gan bench` and `gan inspect --graph`, as a user types them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gan.cli import app
from gan.runtime import bench as benching
from gan.runtime.bench import BARE, BY_HAND, OURS, PLAIN

from .runtime.conftest import tiny_model

BRIEF = ["--seconds", "0.02", "--device", "cpu", "--threads", "1"]


def gan(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    assert "Traceback" not in result.output
    return result.output


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(tiny_model())
    return tmp_path / "model.onnx"


@pytest.fixture
def nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benching, "compare", lambda *_, **__: pytest.fail("it was timed"))


def test_one_table_of_every_batch_and_contender(model: Path) -> None:
    output = gan("bench", model, *BRIEF, "--batch", "4,1", "--starts", "1")
    lines = output.splitlines()
    for batch in ("1", "4", r"stream \d+"):  # as many as a slow machine makes in time
        for name in (OURS, BARE, PLAIN):
            assert any(re.match(rf"{name} +{batch} ", line) for line in lines)
    assert f"{model}: cpu, 1 threads, micro-batch 16" in output
    assert "onnxruntime" in output and "peak MiB" in output
    assert any(line.startswith(BY_HAND) for line in lines)


def test_json_has_the_same_content(model: Path) -> None:
    process = CliRunner().invoke(
        app, ["bench", str(model), *BRIEF, "--batch", "2", "--starts", "0", "--json"]
    )
    content = json.loads(process.stdout)
    rows = {(row["name"], row["stream"]): row for row in content["rows"]}
    assert set(rows) == {(name, stream) for name in (OURS, BARE, PLAIN) for stream in (False, True)}
    assert rows[OURS, False]["batch"] == 2 and rows[OURS, False]["images_per_second"] > 0
    assert content["threads"] == 1 and content["fresh"] == {} and content["missing"] == {}
    assert content["machine"]["cpu"] and content["model"] == str(model)


def test_the_plot_is_a_picture_and_is_not_overwritten_unasked(model: Path, tmp_path: Path) -> None:
    plot = tmp_path / "bench.png"
    asked: list[str | Path] = [
        "bench",
        model,
        *BRIEF,
        "--batch",
        "1,2",
        "--starts",
        "0",
        "--plot",
        plot,
    ]
    gan(*asked)
    with Image.open(plot) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[0] > 300 and pixels.shape[1] > 600
    colours = np.unique(pixels.reshape(-1, 3), axis=0)
    assert len(colours) > 100, "lines of three contenders on white"
    assert "exists" in gan(*asked, code=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.png", "model.onnx"]


@pytest.mark.usefixtures("nothing_is_timed")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere/bench.png", "There is no folder"),
        ("bench.svg", "Name a .png"),
        ("bench", "Name a .png"),
        ("folder.png", "It is a folder"),
        ("model.onnx/bench.png", "cannot be written"),
    ],
)
def test_a_plot_that_could_not_be_written_is_said_before(
    model: Path, tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    output = gan("bench", model, "--plot", tmp_path / name, "--force", code=1)
    assert said in output and "cannot be written" in output


@pytest.mark.usefixtures("nothing_is_timed")
def test_without_matplotlib_the_extra_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    output = gan("bench", model, "--plot", tmp_path / "bench.png", code=1)
    assert "pip install 'gan-toolchain[cli,cpu,plot]'" in output


@pytest.mark.usefixtures("nothing_is_timed")
@pytest.mark.parametrize(
    "batch", [" ", "0", "1,,2", "a", "-1", "4097", "1;2", "1.5", "²", "9" * 30]
)
def test_an_odd_list_of_batches_is_wrong_usage(model: Path, batch: str) -> None:
    assert "--batch takes numbers from 1 to 4096" in " ".join(
        gan("bench", model, "--batch", batch, code=2).replace("│", " ").split()
    )


@pytest.mark.usefixtures("nothing_is_timed")
@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "1e9", "soon"])
def test_odd_seconds_are_wrong_usage(model: Path, seconds: str) -> None:
    gan("bench", model, "--seconds", seconds, code=2)


@pytest.mark.usefixtures("nothing_is_timed")
def test_a_file_that_is_no_model_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    assert "was refused" in gan("bench", tmp_path / "text.onnx", code=1)
    assert "There is no such file" in gan("bench", tmp_path / "none.onnx", code=1)


@pytest.mark.usefixtures("nothing_is_timed")
def test_something_that_is_no_checkpoint_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_text("hello")
    output = gan("bench", model, "--device", "cpu", "--against", tmp_path / "model.pt", code=1)
    assert "is not a readable checkpoint" in output


def test_ctrl_c_leaves_nothing_behind(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(benching, "compare", interrupted)
    gan("bench", model, "--device", "cpu", "--plot", tmp_path / "bench.png", code=130)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_the_graph_is_two_tables(model: Path) -> None:
    output = gan("inspect", model, "--graph", "--device", "cpu", "--threads", "1")
    assert "One run of 16 on cpu with 1 threads" in output
    for operator in ("Gather", "Concat", "Tanh"):
        assert f"\n{operator} " in output, output
    assert output.count("CPU") > 6 and "%" in output
    assert "16 x 8 x 8 x 3" in output


def test_the_graph_as_json(model: Path) -> None:
    content = json.loads(gan("inspect", model, "--graph", "--device", "cpu", "--json"))
    assert sum(one["share"] for one in content["operators"]) == pytest.approx(1)
    assert sum(one["count"] for one in content["operators"]) == len(content["nodes"])
    assert content["batch"] == 16 and content["nodes"][0]["provider"] == "CPU"


def test_a_checkpoint_has_no_graph(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04")
    output = gan("inspect", tmp_path / "model.pt", "--graph", code=1)
    assert f"gan export {tmp_path / 'model.pt'} model.onnx" in output


def test_a_command_that_measures_loads_no_torch(model: Path) -> None:
    import subprocess

    code = (
        "import sys; from gan.cli import app\n"
        f"try: app(['bench', {str(model)!r}, '--seconds', '0.01', '--starts', '0'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'onnx', 'matplotlib', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
