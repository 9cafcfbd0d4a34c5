"""The command and the systems: lists, a template, points from training to a plot, and contradictions refused at once."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gan.cli import app
from gan.runtime import Generator
from gan.runtime.images import scatter
from gan.trainer import systems
from gan.trainer.config import GENERAL
from gan.trainer.data import load_dataset
from gan.trainer.parts import DataInfo

runner = CliRunner()
NAMES = [
    "cgan", "cyclegan", "dcgan", "face-aging", "gan", "inpainting", "msg-gan", "pix2pix", "progressive", "r3gan",
    "srgan", "stylegan2", "unrolled", "wgan", "wgan-gp",
]  # fmt: skip
SUITABLE = {"pairs": "edges", "unpaired": "warm-cold"}
TINY = ["--set", "width=8", "--set", "depth=2", "--batch-size", "8", "--threads", "1"]


def gan(*arguments: str | Path, code: int = 0) -> str:
    """Run the command in this process; its output, after its exit code is checked."""
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def refused(*arguments: str | Path) -> str:
    """The one line on stderr of a command that exits with 1."""
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 1, result.output + repr(result.exception)
    assert isinstance(result.exception, SystemExit)
    lines = [line for line in result.output.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("gan: "), result.output
    return lines[0]


def resolved(*arguments: str | Path) -> dict[str, str]:
    """What a dry run prints, by name."""
    pairs = (line.split(None, 1) for line in gan(*arguments, "--dry-run").splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


# gan systems


def test_systems_lists_all_with_what_each_is() -> None:
    lines = gan("systems").splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    years = {
        "gan": "2014", "dcgan": "2016", "wgan": "2017", "unrolled": "2017", "progressive": "2018",
        "msg-gan": "2020", "stylegan2": "2020", "r3gan": "2024",
    }  # fmt: skip
    for line in lines:
        name, text = line.split(None, 1)
        assert len(text) > 20 and years.get(name, "") in text
    content = json.loads(gan("systems", "--json"))
    assert list(content) == NAMES
    assert [line.split(None, 1) for line in lines] == [[*pair] for pair in content.items()]


@pytest.mark.parametrize("name", NAMES)
def test_a_systems_settings_are_listed_with_default_meaning_and_source(name: str) -> None:
    content = json.loads(gan("systems", name, "--json"))
    kind, _ = systems.load(name)
    preset = kind.preset(DataInfo((3, 64, 64)))
    assert {setting: entry["default"] for setting, entry in content.items()} == dataclasses.asdict(
        preset
    )
    assert all(set(entry) == {"default", "meaning", "source"} for entry in content.values())
    assert all(entry["meaning"] for entry in content.values())  # none is left unexplained
    assert "Arjovsky" in content["clip_weights"]["source"]
    lines = gan("systems", name).splitlines()
    assert [line.split()[0] for line in lines] == list(content)
    for line, (setting, entry) in zip(lines, content.items(), strict=True):
        value = entry["default"]
        shown = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value or "-")
        if value == 0 and not isinstance(value, bool):
            shown = str(value)
        assert line.split()[:2] == [setting, shown] and entry["meaning"] in line
        assert f"({entry['source']})" in line if entry["source"] else "()" not in line


def test_an_unknown_system_is_refused_with_the_known_ones() -> None:
    assert f"Choose one of {', '.join(NAMES)}" in refused("systems", "biggan")
    assert "Check the path" in refused("systems", "nowhere.py")


def test_a_template_is_written_once_and_over_another_only_by_force(tmp_path: Path) -> None:
    said = gan("systems", "--template", "my_gan.py")
    assert "Next: gan train --system ./my_gan.py" in said
    written = Path("my_gan.py").read_bytes()
    assert b"class MyGAN(System)" in written
    Path("my_gan.py").write_bytes(b"mine")
    assert "--force" in refused("systems", "--template", "my_gan.py")
    assert Path("my_gan.py").read_bytes() == b"mine"
    gan("systems", "--template", "my_gan.py", "--force")
    assert Path("my_gan.py").read_bytes() == written
    assert [path.name for path in tmp_path.iterdir()] == ["my_gan.py"]


@pytest.mark.parametrize(
    ("path", "said"),
    [("my_gan", "Name a .py file"), ("my_gan.txt", "Name a .py file"), ("no/my_gan.py", "Make it")],
)
def test_a_template_is_refused_where_it_could_not_be_used(
    path: str, said: str, tmp_path: Path
) -> None:
    assert said in refused("systems", "--template", path)
    assert not list(tmp_path.iterdir())


# Points, from training to a plot.


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 20 steps on the ring, exported beside it as ring.onnx."""
    root = tmp_path_factory.mktemp("ring")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("OMP_NUM_THREADS", raising=False)
        said = gan("train", "ring", "--steps", "20", *TINY)
        assert "Trained 20 steps: runs/gan-ring/model.pt" in said  # the default system of points
        assert "modes" in said  # the metric, in the last status line
        gan("export", "runs/gan-ring/model.pt", "ring.onnx")
    return root


def test_training_on_points_leaves_plots_and_their_metrics(ring: Path) -> None:
    folder = ring / "runs" / "gan-ring"
    sheets = sorted((folder / "samples").iterdir())
    with Image.open(sheets[-1]) as image:
        assert image.mode == "L" and image.size == (384, 384)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = {name: value for row in rows for name, value in row.items()}
    assert {"metric/modes", "metric/near", "metric/coverage", "metric/density"} <= set(last)
    assert 0 <= last["metric/modes"] <= 8
    assert (folder / "best.pt").exists()


def test_a_grid_of_points_is_their_plot(ring: Path) -> None:
    generator = Generator(ring / "ring.onnx", device="cpu")
    said = gan("sample", ring / "ring.onnx", "--grid", "plot.png", "--seed", "3")
    assert "2000 points, seed 3" in said
    gan("sample", ring / "ring.onnx", "--grid", "few.png", "--seed", "3", "--count", "50")
    for name, count in (("plot.png", 2_000), ("few.png", 50)):
        with Image.open(name) as image:
            expected = scatter(generator.sample(count, seed=3))[:, :, 0]
            assert (np.asarray(image) == expected).all()
            assert expected.min() < 200  # something is drawn


def test_an_npy_file_holds_the_samples_of_the_generator(ring: Path) -> None:
    said = gan("sample", ring / "ring.onnx", "--out", "x.npy", "--seed", "3", "--count", "40")
    assert "float32 [40, 2], seed 3" in said
    array = np.load("x.npy", allow_pickle=False)
    expected = Generator(ring / "ring.onnx", device="cpu").sample(60, seed=3)
    assert array.dtype == np.float32 and array.tobytes() == expected[:40].tobytes()
    gan(
        "sample", ring / "ring.onnx", "--out", "later.npy", "--seed", "3", "--count", "20",
        "--start", "40",
    )  # fmt: skip
    assert np.load("later.npy").tobytes() == expected[40:].tobytes()


def test_an_npy_file_is_written_over_another_only_by_force(ring: Path) -> None:
    Path("x.npy").write_bytes(b"mine")
    command = ("sample", ring / "ring.onnx", "--out", "x.npy", "--seed", "3", "--count", "4")
    assert "--force" in refused(*command)
    assert Path("x.npy").read_bytes() == b"mine"
    gan(*command, "--force")
    assert np.load("x.npy").shape == (4, 2)
    assert "Make it" in refused("sample", ring / "ring.onnx", "--out", "no/x.npy", "--seed", "3")


def test_points_are_no_files_of_images_and_the_ways_out_are_named(
    ring: Path, tmp_path: Path
) -> None:
    said = refused("sample", ring / "ring.onnx", "--out", "folder", "--seed", "3")
    assert "--out FILE.npy" in said and "--grid FILE.png" in said
    assert not list(tmp_path.iterdir())


def test_columns_by_class_are_refused_for_points(ring: Path, tmp_path: Path) -> None:
    said = refused("sample", ring / "ring.onnx", "--grid", "a.png", "--seed", "3", "--by-class")
    assert "Leave --by-class out" in said and not list(tmp_path.iterdir())


def test_inspect_shows_that_a_model_gives_points(ring: Path) -> None:
    content = json.loads(gan("inspect", ring / "ring.onnx", "--json"))
    assert [(o["kind"], o["shape"]) for o in content["signature"]["outputs"]] == [("points", [2])]
    config = json.loads(gan("inspect", ring / "runs/gan-ring/model.pt", "--json"))["config"]
    assert config["resolution"] is None and config["channels"] is None


def test_a_run_on_points_resumes_and_knows_when_it_is_finished(ring: Path) -> None:
    out = ring / "runs" / "gan-ring"
    assert "is finished (20 steps)" in gan("train", "ring", "--steps", "20", *TINY, "--out", out)


def test_the_status_of_a_critic_tells_its_distance() -> None:
    said = gan(
        "train", "ring", "--system", "wgan", "--set", "warm_up=0", "--steps", "3", *TINY,
        "--out", "run",
    )  # fmt: skip
    assert "| distance " in said and "D right" not in said


# Contradictions.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("ring --system dcgan", "dcgan cannot be trained on such data. samples that are points"),
        ("ring --system cgan", "cgan cannot be trained on such data"),
        ("ring --system r3gan", "r3gan cannot be trained on such data"),
        ("ring --resolution 8", "Leave --resolution and --channels out"),
        ("ring --channels 3", "Leave --resolution and --channels out"),
        ("ring --mirror", "mirror is for images"),
        ("ring --augment color", "diffaugment is for images"),
        ("ring --ada 0.6", "ada_target is for images"),
        ("ring --set ada=0.5", "ada is for images"),
        ("ring --unroll 3 --set accumulate=2", "Leave one of unroll and accumulate out"),
        ("ring --set fakes=reused --set accumulate=2", "Leave one of fakes=reused"),
        ("ring --batch-size 9 --set accumulate=2", "a multiple of accumulate"),
        ("ring --loss hinge --set label_smoothing=0.1", "Label smoothing means nothing to hinge"),
        ("ring --loss wasserstein --set skip_d_below=0.1", "Leave skip_d_below out"),
        ("stacked-digits --channels 1", "RGB. 1 channels. Leave --channels out"),
        ("stacked-digits --system cgan", "cgan needs labels"),
        ("digits --augment colour", "Give any of color, translation, cutout"),
        ("digits --system dcgan --gp 10", "batch norm in the critic"),
        ("digits --system dcgan --unroll 5", "cannot be unrolled"),
        ("digits --system r3gan --set width=28", "The width does not fit the groups"),
        ("digits --system r3gan --resolution 30", "This resolution does not fit"),
        ("digits --system wgan --gp 10", "d_norm=none"),
    ],
)
def test_a_contradiction_is_one_line_that_says_the_way_out_before_any_folder_is_made(
    arguments: str, said: str, tmp_path: Path
) -> None:
    assert said in refused("train", *arguments.split(), "--steps", "2", "--threads", "1")
    assert not list(tmp_path.iterdir())


def test_the_contradiction_is_found_by_a_dry_run_too(tmp_path: Path) -> None:
    assert "mirror is for images" in refused("train", "ring", "--mirror", "--dry-run")
    assert not list(tmp_path.iterdir())


# Settings.


@pytest.mark.parametrize("name", NAMES)
def test_a_dry_run_prints_every_setting_of_the_system(name: str, tmp_path: Path) -> None:
    kind, _ = systems.load(name)
    data = "ring" if "points" in kind.kinds else SUITABLE.get(kind.arrangements[0], "digits")
    printed = resolved("train", data, "--system", name)
    own = {field.name for field in dataclasses.fields(kind.options_type)}
    assert own | set(GENERAL) | {"system", "data", "samples", "classes", "device"} <= set(printed)
    preset: Any = kind.preset(load_dataset(data).info)
    for setting in own:
        value = getattr(preset, setting)
        assert printed[setting] == ("-" if value == "" else str(value))
    assert printed["system"] == name and printed["data"] == data
    sizes = {"digits": "28", "edges": "32", "warm-cold": "16", "ring": "-"}
    assert printed["resolution"] == sizes[data]
    assert not list(tmp_path.iterdir())


def test_built_in_data_brings_its_own_number_of_steps_and_a_default_system() -> None:
    for data, steps, system in (
        ("digits", "3000", "cgan"), ("ring", "5000", "gan"), ("grid", "20000", "gan"),
        ("stacked-digits", "25000", "dcgan"),
    ):  # fmt: skip
        printed = resolved("train", data)
        assert (printed["steps"], printed["system"]) == (steps, system)
    assert resolved("train", "digits", "--no-labels")["system"] == "dcgan"
    assert resolved("train", "ring", "--steps", "7")["steps"] == "7"


def test_the_flags_reach_the_settings() -> None:
    printed = resolved(
        "train", "digits", "--system", "wgan-gp", "--gp", "3", "--r1", "0.5", "--r2", "0.25",
        "--augment", "color,cutout", "--ada", "0.6", "--unroll", "2", "--ema-decay", "0.9",
        "--loss", "hinge", "--no-labels",
    )  # fmt: skip
    wanted = {
        "gp": "3.0", "r1": "0.5", "r2": "0.25", "diffaugment": "color,cutout", "ada_target": "0.6",
        "ada": "0.0", "unroll": "2", "ema_decay": "0.9", "loss": "hinge", "labels": "False",
    }  # fmt: skip
    assert {name: printed[name] for name in wanted} == wanted
    without = resolved("train", "digits", "--system", "wgan-gp")
    assert {name: without[name] for name in ("diffaugment", "ada_target", "unroll", "gp")} == {
        "diffaugment": "-", "ada_target": "0.0", "unroll": "0", "gp": "10.0",
    }  # fmt: skip


def test_a_setting_of_another_system_is_refused_with_the_systems_own() -> None:
    said = refused("train", "ring", "--set", "group=4")
    assert "gan has no setting 'group'" in said and "dropout" in said
