"""The command, as a user types it: output, exit codes, and nothing overwritten or half-written."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gan.cli import app

runner = CliRunner()
SMALL = ["--resolution", "8", "--set", "width=4", "--batch-size", "4", "--threads", "1"]


def gan(*arguments: str | Path, code: int = 0) -> str:
    """Run the command in this process; its output, after its exit code is checked."""
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    if code:
        assert "Traceback" not in result.output
    return result.output


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "pets"
    rng = np.random.default_rng(0)
    for i in range(12):
        folder = root / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps."""
    out = tmp_path_factory.mktemp("runs") / "pets"
    output = gan("train", photos, *SMALL, "--steps", "2", "--out", out)
    assert f"Trained 2 steps: {out}/model.pt" in output and f"gan export {out}/model.pt" in output
    return out


@pytest.fixture(scope="module")
def model(run: Path) -> Path:
    """That run, exported."""
    path = run / "model.onnx"
    output = gan("export", run / "model.pt", path)
    assert "8/8" in output and "Same bytes in batches of 1, 2, 3, 8, 64: yes" in output
    rows = [line.split() for line in output.splitlines() if line.strip().startswith("image ")]
    assert [row[1] for row in rows] == ["1", "2", "3", "5", "8", "64"]
    return path


@pytest.mark.parametrize("words", [["--help"], ["sample", "--help"], ["bench", "--help"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['gan', *{words}]\n"
        "from gan.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    "command", ["train", "systems", "export", "sample", "inspect", "doctor", "bench"]
)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    output = gan(command, "--help")
    assert "Example: gan " + command in " ".join(output.split())


def test_version_is_the_distributions() -> None:
    import importlib.metadata

    assert gan("--version").strip() == importlib.metadata.version("gan-toolchain")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--no-such-option"],
        ["train", "--steps", "1", "--minutes", "1"],
        ["train", "--steps", "many"],
        ["train", "--fit", "squeeze"],
        ["sample", "model.onnx"],
        ["sample", "model.onnx", "--out", "a", "--grid", "b.png"],
        ["sample", "model.onnx", "--out", "a", "--by-class"],
        ["sample", "model.onnx", "--grid", "b.png", "--count", "0"],
        ["export", "model.pt"],
        ["export", "model.pt", "model.onnx", "--precision", "fp8"],
        ["nothing"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    gan(*arguments, code=2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "nowhere"], "no such file or folder"),
        (["train", "--system", "biggan"], "Choose one of cgan, cyclegan, dcgan"),
        (["train", "--system", "nowhere.py"], "Check the path"),
        (["train", "--loss", "magic"], "Choose one of non-saturating"),
        (["train", "--resolution", "30"], "four|4, 5, 6 or 7 times"),
        (["train", "--set", "widht=3"], "Its settings are"),
        (["train", "--set", "d-moves=-3"], "Give a number above 0"),
        (["train", "--set", "width=-3"], "a number above 0|a number in (0, "),
        (["train", "--seed", "-1"], "0 to 2^64 - 1"),
        (["train", "--device", "tpu"], "auto, cpu, cuda"),
        (["train", "--system", "cgan", "--no-labels"], "needs labels"),
        (["train", "--minutes", "-1"], "above 0"),
        (["export", "nowhere.pt", "model.onnx"], "Check the path"),
        (["export", "nowhere.pt", "model.onnx", "--samples", "0"], "from 1 to 1000000"),
        (["sample", "nowhere.onnx", "--grid", "g.png"], "Check the path"),
        (["inspect", "nowhere"], "Check the path"),
    ],
)
def test_an_error_is_one_line_that_says_the_repair_and_exits_with_1(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line for line in gan(*arguments, code=1).splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("gan: ")
    assert any(part in lines[0] for part in said.split("|"))
    assert not list(tmp_path.rglob("*.p[nt]*"))


def test_dry_run_prints_everything_and_trains_nothing(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    output = gan("train", photos, *SMALL, "--loss", "hinge", "--out", out, "--dry-run")
    values = dict(
        line.split(None, 1) for line in output.splitlines() if len(line.split(None, 1)) == 2
    )
    assert values["system"] == "cgan" and values["loss"] == "hinge" and values["resolution"] == "8"
    assert values["width"] == "4" and values["steps"] == "25000" and values["classes"] == "2"
    assert values["samples"] == "12" and values["ema_decay"] == values["diffaugment"] == "-"
    assert not out.exists()


def test_a_finished_run_says_so_and_exits_with_0(photos: Path, run: Path) -> None:
    before = (run / "model.pt").read_bytes()
    output = gan("train", photos, *SMALL, "--steps", "2", "--out", run)
    assert "is finished (2 steps)" in output
    assert (run / "model.pt").read_bytes() == before


def test_other_settings_are_named_on_resume(photos: Path, run: Path) -> None:
    output = gan("train", photos, *SMALL, "--loss", "hinge", "--out", run, code=1)
    assert "loss non-saturating (now hinge)" in output and "--accept loss" in output


def test_force_starts_anew_beside_the_old(photos: Path, run: Path) -> None:
    gan("train", photos, *SMALL, "--steps", "1", "--out", run, "--force")
    assert (run.with_name("pets-2") / "model.pt").exists()


def test_without_out_a_run_lives_under_runs(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    gan("train", photos, *SMALL, "--steps", "1", "--system", "dcgan", "--no-labels")
    run = tmp_path / "runs" / "dcgan-pets"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"loss/D", "loss/G", "accuracy/real", "gradient/G"} <= set(rows[0])
    assert list((run / "samples").iterdir()) and list((run / "tensorboard").iterdir())


def test_an_interrupted_run_saves_and_exits_with_128_and_the_signal(
    photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "gan.cli", "train", str(photos), *SMALL, "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--steps", "1000000", "--measure-every", "1000000", "--sample-every", "1000000"],
        stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    while "step" not in (line := process.stderr.readline()):
        pass
    assert re.search(r"step \d+/1000000.*\d+ samples", line)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert "stopped at step" in said and "the same command continues" in said
    assert (out / "model.pt").exists()


def test_export_never_overwrites_unasked(run: Path, model: Path) -> None:
    before = model.read_bytes()
    assert "--force" in gan("export", run / "model.pt", model, code=1)
    assert model.read_bytes() == before


def test_export_in_lower_precision_prints_what_it_costs(run: Path, tmp_path: Path) -> None:
    output = gan("export", run / "model.pt", tmp_path / "m.onnx", "--precision", "mixed",
                 "--samples", "20", "--max-batch", "2")  # fmt: skip
    assert re.search(r"Precision mixed: \d+ nodes, \d+ in float32, \d+ casts", output)
    assert re.search(r"the float32 file +20 +\d+\.\d +\d+\.\d +\d+ +\d+\.\d{4} %", output)
    shown = gan("inspect", tmp_path / "m.onnx")
    assert "precision: mixed" in shown and "against the float32 file" in shown


def test_sample_writes_one_file_an_image(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples"
    gan("sample", model, "--count", "5", "--seed", "3", "--out", out)
    names = sorted(path.name for path in out.iterdir())
    assert names == [f"{i:06d}.png" for i in range(5)]
    from gan.runtime import Generator

    expected = Generator(model, device="cpu").sample(5, seed=3)
    assert all((pixels(out / n) == image).all() for n, image in zip(names, expected, strict=True))
    assert "--force" in gan("sample", model, "--count", "1", "--seed", "4", "--out", out, code=1)
    assert (pixels(out / names[0]) == expected[0]).all()
    gan(
        "sample",
        model,
        "--count",
        "2",
        "--seed",
        "3",
        "--start",
        "5",
        "--format",
        "webp",
        "--out",
        out,
    )
    assert (out / "000006.webp").exists()


def test_sample_goes_on_with_what_is_missing(model: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    words: list[str | Path] = ["sample", model, "--count", "9", "--seed", "3", "--start", "2"]
    gan(*words, "--out", whole)
    gan(*words, "--out", out)
    for number in (2, 5, 6, 10):  # both ends, and two in the middle
        (out / f"{number:06d}.png").unlink()
    (out / "000003.png").write_bytes(b"mine")
    assert "Wrote 4 images" in gan(*words, "--out", out, "--skip-existing")
    assert (out / "000003.png").read_bytes() == b"mine"
    for path in whole.iterdir():
        if path.name != "000003.png":
            assert (pixels(out / path.name) == pixels(path)).all()
    assert "Wrote 0 images" in gan(*words, "--out", out, "--skip-existing")
    told = gan(*words, "--out", out, code=1)
    assert f"{out}/000002.png exists, and 8 more" in told and "--skip-existing to go on" in told


@pytest.mark.parametrize(
    "more",
    ["--out x --force --seed 1", "--out x", "--out x.npy --seed 1", "--grid x.png --seed 1"],
)
def test_going_on_needs_a_folder_and_the_seed(model: Path, more: str) -> None:
    gan("sample", model, "--skip-existing", *more.split(), code=2)


def test_the_checkpoints_before_the_last_are_kept_where_asked(photos: Path, tmp_path: Path) -> None:
    from gan.trainer import Checkpoint

    words: list[str | Path] = [
        *SMALL,
        "--out",
        tmp_path / "run",
        "--checkpoint-every",
        "1",
        "--keep",
        "2",
    ]
    gan("train", photos, *words, "--steps", "4")
    kept = sorted((tmp_path / "run" / "history").iterdir())
    assert [path.name for path in kept] == ["000000002.pt", "000000003.pt"]
    assert [Checkpoint.load(path).step for path in kept] == [2, 3]
    gan("train", photos, *words, "--steps", "5")
    kept = sorted((tmp_path / "run" / "history").iterdir())
    assert [Checkpoint.load(path).step for path in kept] == [3, 4]


def test_sample_writes_all_images_as_one_array(model: Path, tmp_path: Path) -> None:
    from gan.runtime import Generator

    path = tmp_path / "images.npy"
    arguments: list[str | Path] = ["sample", model, "--seed", "3", "--start", "2", "--out", path]
    output = gan(*arguments, "--count", "5", "--label", "dog")
    assert f"Wrote {path} (uint8 [5, 8, 8, 3], seed 3, cpu)" in output
    expected = Generator(model, device="cpu").sample(5, seed=3, start=2, label="dog")
    assert np.array_equal(np.load(path, allow_pickle=False), expected)
    assert "--force" in gan(*arguments, code=1)
    assert np.array_equal(np.load(path, allow_pickle=False), expected)


def test_an_enormous_count_meets_what_is_there_at_once(model: Path, tmp_path: Path) -> None:
    (tmp_path / "000007.png").write_bytes(b"mine")
    output = gan("sample", model, "--count", str(10**12), "--seed", "0", "--out", tmp_path, code=1)
    assert "000007.png exists" in output and (tmp_path / "000007.png").read_bytes() == b"mine"


def test_sample_draws_a_grid_of_one_class_or_a_column_each(model: Path, tmp_path: Path) -> None:
    gan(
        "sample",
        model,
        "--grid",
        tmp_path / "dog.png",
        "--seed",
        "0",
        "--label",
        "dog",
        "--count",
        "4",
    )
    assert pixels(tmp_path / "dog.png").shape == (2 * 8 + 2, 2 * 8 + 2, 3)
    gan("sample", model, "--grid", tmp_path / "all.png", "--seed", "0", "--by-class")
    assert pixels(tmp_path / "all.png").shape == (8 * 8 + 7 * 2, 2 * 8 + 2, 3)
    output = gan("sample", model, "--grid", tmp_path / "cow.png", "--label", "cow", code=1)
    assert "one of: cat, dog" in output and not (tmp_path / "cow.png").exists()
    assert "Use one of .png" in gan("sample", model, "--grid", tmp_path / "a.gif", code=1)
    assert "This model has none" in gan(
        "sample", model, "--grid", tmp_path / "a.png", "--truncation", "1", code=1
    )


def test_cuda_is_never_silently_the_cpu(model: Path, tmp_path: Path) -> None:
    output = gan("sample", model, "--grid", tmp_path / "a.png", "--device", "cuda", code=1)
    assert "gan-toolchain[cuda]" in output and not (tmp_path / "a.png").exists()


def test_inspect_shows_a_model(model: Path) -> None:
    content = json.loads(gan("inspect", model, "--json"))
    assert content["signature"]["classes"] == ["cat", "dog"]
    assert content["training"]["step"] == 2 and content["parity"]["rows"][0]["batch"] == 1
    assert "classes: [cat, dog]" in gan("inspect", model)


def test_inspect_shows_a_checkpoint(run: Path) -> None:
    content = json.loads(gan("inspect", run / "model.pt", "--json"))
    assert content["finished"] and content["progress"]["step"] == 2
    assert content["config"]["system"]["name"] == "cgan" and content["parameters"]["G"] > 0
    assert "resolution: 8" in gan("inspect", run / "model.pt")


def test_doctor_lists_what_is_here_and_fails_where_cuda_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from gan.runtime import doctor

    assert "onnxruntime" in gan("doctor")
    monkeypatch.setattr(doctor, "_broken", lambda modules: {})  # once is enough: it takes seconds
    findings = {finding["name"]: finding for finding in json.loads(gan("doctor", "--json"))}
    assert findings["CPU"]["ok"] is True
    if findings["CUDA"]["ok"] is not True:
        assert "FAULT CUDA" in " ".join(gan("doctor", "--device", "cuda", code=1).split())


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name in ("torch", "onnxruntime") else find(name),
    )
    assert "pip install 'gan-toolchain[train,cpu]'" in gan("train", code=1)
    assert "gan-toolchain[cpu]" in gan("sample", "m.onnx", "--grid", "g.png", code=1)
    assert "gan-toolchain[cpu]" in gan("export", "m.pt", "m.onnx", code=1)
