"""`gan translate`: a file, a folder, masks, what stands in the way, what cannot be read, an interruption."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from gan.cli import app
from gan.runtime import Generator

from .runtime.conftest import tiny_model
from .runtime.translating import translating_model

runner = CliRunner()
RNG = np.random.default_rng(0)
Pixels = NDArray[np.uint8]


def said(*arguments: object, code: int = 0) -> str:
    """The output of a command, its exit code checked, never a traceback."""
    result = runner.invoke(app, ["translate", *(str(argument) for argument in arguments)])
    assert isinstance(result.exception, SystemExit | None), repr(result.exception)
    assert result.exit_code == code, result.output
    return " ".join(re.sub("[│╭╮╰╯─]", " ", result.output).split())


def pixels(path: Path | str) -> Pixels:
    with Image.open(path) as image:
        array = np.asarray(image)
        return array if array.ndim == 3 else array[:, :, None]


def picture(path: Path | str, height: int = 6, width: int = 9, channels: int = 3) -> Pixels:
    """A new image of noise."""
    made = RNG.integers(0, 256, (height, width, channels), np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(made[..., 0] if channels == 1 else made).save(path)
    return made


def files(folder: str = ".") -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    kinds: dict[str, dict[str, Any]] = {
        "plain": {"scale": 2},
        "fill": {"mask": True, "factor": 2},
        "label": {"label": True, "latent": True},
        "fixed": {"size": (8, 8)},
        "norms": {"bounded": False},
        "float": {"uint8": False},
    }
    for name, about in kinds.items():
        (root / f"{name}.onnx").write_bytes(translating_model(**about))
    (root / "sampled.onnx").write_bytes(tiny_model())
    return root


def opened(path: Path) -> Generator:
    return Generator(path, device="cpu")


def test_the_help_has_every_option_and_an_example() -> None:
    text = said("--help")
    for option in ("--label", "--mask", "--tile", "--overlap", "--resize", "--seed", "--format", "--beside",
                   "--skip-existing", "--device", "--threads", "--force"):  # fmt: skip
        assert option in text
    assert "Example: gan translate model.onnx photos/ enlarged/" in text
    assert "translate" in runner.invoke(app, ["--help"]).output


# One file


@pytest.mark.parametrize("name", ["plain", "float", "norms"])
def test_a_file_is_what_the_runtime_makes_of_it(models: Path, name: str) -> None:
    image = picture("a.png")
    expected = opened(models / f"{name}.onnx").translate(image)
    height, width = expected.shape[:2]
    assert said(models / f"{name}.onnx", "a.png", "b.png", "--device", "cpu") == (
        f"Wrote b.png ({width} x {height} pixels, cpu)"
    )
    np.testing.assert_array_equal(pixels("b.png"), expected)
    said(models / f"{name}.onnx", "a.png", "b.webp", "--threads", 1)
    np.testing.assert_array_equal(pixels("b.webp"), expected)
    assert files() == ["a.png", "b.png", "b.webp"]


def test_alpha_is_kept_and_laid_on_white_in_a_jpg(models: Path) -> None:
    Image.fromarray(np.zeros((20, 20, 4), np.uint8)).save("a.png")  # all clear
    said(models / "plain.onnx", "a.png", "b.png")
    assert pixels("b.png").shape == (40, 40, 4) and pixels("b.png")[..., 3].max() == 0
    for name in ("c.jpg", "d.JPEG"):
        said(models / "plain.onnx", "a.png", name)
        assert pixels(name).shape == (40, 40, 3) and pixels(name).min() == 255


def test_label_seed_tile_and_overlap_reach_the_model(models: Path) -> None:
    image = picture("a.png", 40, 30)
    generator = opened(models / "label.onnx")
    said(models / "label.onnx", "a.png", "b.png", "--label", "night", "--seed", 7)
    np.testing.assert_array_equal(pixels("b.png"), generator.translate(image, label=1, seed=7))
    said(models / "label.onnx", "a.png", "b.png", "--label", 1, "--force")
    np.testing.assert_array_equal(pixels("b.png"), generator.translate(image, label=1))
    asked: dict[str, Any] = {"tile": 16, "overlap": 2}
    said(models / "label.onnx", "a.png", "c.png", "--tile", 16, "--overlap", 2)
    tiled = generator.translate(image, **asked)
    np.testing.assert_array_equal(pixels("c.png"), tiled)
    assert (tiled != generator.translate(image)).any()


def test_a_model_of_one_size_needs_resize(models: Path) -> None:
    picture("a.png", 20, 30)
    output = said(models / "fixed.onnx", "a.png", "b.png", code=1)
    assert "30 x 20 pixels. Give 8 x 8 (width x height), or resize it to that" in output
    said(models / "fixed.onnx", "a.png", "b.png", "--resize")
    assert pixels("b.png").shape == (8, 8, 3)


def test_a_mask_is_a_file(models: Path) -> None:
    image, mask = picture("a.png"), picture("m.png", channels=1)
    said(models / "fill.onnx", "a.png", "b.png", "--mask", "m.png")
    expected = opened(models / "fill.onnx").translate(image, mask=mask)
    np.testing.assert_array_equal(pixels("b.png"), expected)
    assert "--mask" in said(models / "fill.onnx", "a.png", "c.png", code=1)
    assert "none" in said(models / "plain.onnx", "a.png", "c.png", "--mask", "m.png", code=1)
    picture("wrong.png", 6, 8, 1)
    output = said(models / "fill.onnx", "a.png", "c.png", "--mask", "wrong.png", code=1)
    assert "image 6 x 9 x 3 and mask 6 x 8 x 1" in output
    Path("masks").mkdir()
    assert "masks is a folder" in said(
        models / "fill.onnx", "a.png", "c.png", "--mask", "masks", code=1
    )
    assert "m.png itself" in said(
        models / "fill.onnx", "a.png", "m.png", "--mask", "m.png", "--force", code=1
    )
    assert not Path("c.png").exists()


@pytest.mark.parametrize("channels", [3, 4])
def test_beside_has_both_at_the_outputs_size(models: Path, channels: int) -> None:
    image = picture("a.png", channels=channels)
    said(models / "plain.onnx", "a.png", "b.png", "--beside")
    both = pixels("b.png")
    assert both.shape == (12, 36, channels)
    np.testing.assert_array_equal(both[:, 18:], opened(models / "plain.onnx").translate(image))
    large = Image.fromarray(image[..., :3]).resize((18, 12), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(both[:, :18, :3], np.asarray(large))


def test_nothing_is_overwritten_unasked_nor_the_image_itself(models: Path) -> None:
    picture("a.png")
    before = Path("a.png").read_bytes()
    Path("b.png").write_bytes(b"mine")
    assert "Add --force" in said(models / "plain.onnx", "a.png", "b.png", code=1)
    assert Path("b.png").read_bytes() == b"mine"
    os.link("a.png", "link.png")
    for target in ("a.png", "./a.png", "link.png"):
        assert "It is a.png itself" in said(
            models / "plain.onnx", "a.png", target, "--force", code=1
        )
    assert Path("a.png").read_bytes() == before
    said(models / "plain.onnx", "a.png", "b.png", "--force")
    assert pixels("b.png").shape == (12, 18, 3)


@pytest.mark.parametrize("wrong", ["b.gif", "b", "no/b.png", "folder"])
def test_a_target_that_cannot_be_written_is_refused_before_the_model_is_opened(wrong: str) -> None:
    picture("a.png")
    Path("folder").mkdir()
    said("nosuch.onnx", "a.png", wrong, code=1)
    assert files() == ["a.png"]


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "no such file"), (b"", "empty file"), (b"These are words.", "not an image")],
)
def test_an_image_that_cannot_be_read_is_one_line(
    models: Path, content: bytes | None, why: str
) -> None:
    if content is not None:
        Path("a.png").write_bytes(content)
    output = said(models / "plain.onnx", "a.png", "b.png", code=1)
    assert output.startswith("gan: a.png cannot be read.") and why in output
    assert "b.png" not in files()


@pytest.mark.parametrize(
    ("model", "wrong", "why"),
    [
        ("plain", ["--tile", "0"], "tile was refused"),
        ("plain", ["--overlap", "4"], "no tile"),
        ("norms", ["--tile", "64"], "norms"),
        ("fixed", ["--tile", "64"], "8 x 8 pixels only"),
        ("label", ["--label", "dawn"], "one of: dusk, night"),
        ("plain", ["--label", "1"], "no classes"),
        ("plain", ["--seed", "-1"], "seed was refused"),
        ("plain", ["--device", "tpu"], "auto"),
        ("sampled", [], "gan sample"),
    ],
)
@pytest.mark.parametrize("target", ["b.png", "out"])
def test_a_wrong_option_is_told_once_and_before_any_image(
    models: Path, model: str, wrong: list[str], why: str, target: str
) -> None:
    picture("in/a.png")
    picture("in/b.png")
    source = "in/a.png" if target == "b.png" else "in"
    output = said(models / f"{model}.onnx", source, target, *wrong, code=1)
    assert why in output and output.count("gan: ") == 1
    assert not Path(target).exists()


@pytest.mark.parametrize(
    "wrong", [["--format", "png"], ["--skip-existing"], ["--tile", "x"], ["--format", "gif"]]
)
def test_options_that_do_not_go_with_a_file_exit_with_2(models: Path, wrong: list[str]) -> None:
    picture("a.png")
    said(models / "plain.onnx", "a.png", "b.png", *wrong, code=2)


@pytest.mark.parametrize("target", [["--grid", "g.png"], ["--out", "out"], ["--out", "x.npy"]])
def test_sampling_a_model_that_takes_an_image_names_this_command(
    models: Path, target: list[str]
) -> None:
    result = runner.invoke(app, ["sample", str(models / "plain.onnx"), "--seed", "0", *target])
    assert result.exit_code == 1 and "gan translate" in " ".join(result.output.split())
    assert files() == [] and not Path("out").exists()


# Folders


def test_a_folder_keeps_its_names_and_sub_folders(models: Path) -> None:
    names = ("a.png", "sub/b.v2.jpg", "sub/deep/c.webp", "D.PNG")
    for name in names:
        picture(f"in/{name}")
    Path("in/notes.txt").write_text("not an image")
    picture("in/.hidden.png")
    picture("in/.cache/x.png")
    output = said(models / "plain.onnx", "in", "out", "--device", "cpu")
    assert "4/4 images" in output and output.endswith("Wrote 4 images to out/ (cpu)")
    assert files("out") == ["D.png", "a.png", "sub/b.v2.png", "sub/deep/c.png"]
    generator = opened(models / "plain.onnx")
    np.testing.assert_array_equal(pixels("out/a.png"), generator.translate("in/a.png"))
    np.testing.assert_array_equal(
        pixels("out/sub/b.v2.png"), generator.translate("in/sub/b.v2.jpg")
    )


@pytest.mark.parametrize("format", ["webp", "jpg"])
def test_the_format_of_a_folder_is_chosen(models: Path, format: str) -> None:
    picture("in/a.png")
    said(models / "plain.onnx", "in", "out", "--format", format)
    assert files("out") == [f"a.{format}"]


def test_unreadable_images_are_passed_named_and_counted(models: Path) -> None:
    picture("in/a.png")
    Path("in/b.png").write_text("These are words.")
    Path("in/c.jpg").write_bytes(b"")
    picture("in/d.png")
    os.mkfifo("in/e.png")
    output = said(models / "plain.onnx", "in", "out", code=1)
    assert files("out") == ["a.png", "d.png"]
    assert "3 of 5 images were not translated" in output and "Wrote 2 images to out/" in output
    for name in ("in/b.png cannot be read. not an image", "in/c.jpg cannot be read", "in/e.png"):
        assert name in output


def test_a_name_that_becomes_too_long_is_passed_named_and_counted(models: Path) -> None:
    picture("in/a.png")
    picture(f"in/{'b' * 251}.png")
    picture("in/c.png")
    output = said(models / "plain.onnx", "in", "out", "--format", "webp", code=1)
    assert files("out") == ["a.webp", "c.webp"]
    assert "1 of 3 images were not translated" in output and f"in/{'b' * 251}.png: " in output
    said(models / "plain.onnx", "in", "out", "--force")
    assert len([name for name in files("out") if name.endswith(".png")]) == 3


def test_only_ten_of_many_are_named(models: Path) -> None:
    for i in range(13):
        Path("in").mkdir(exist_ok=True)
        Path(f"in/{i:02}.png").write_text("words")
    output = said(models / "plain.onnx", "in", "out", code=1)
    assert "in/09.png" in output and "in/10.png" not in output and "and 3 more" in output


def test_what_exists_is_refused_at_once_skipped_or_overwritten(models: Path) -> None:
    for name in "abc":
        picture(f"in/{name}.png")
    Path("out").mkdir()
    for name in "bc":
        Path(f"out/{name}.png").write_bytes(b"mine")
    output = said("nosuch.onnx", "in", "out", code=1)
    assert "out/b.png exists, and 1 more" in output and "--skip-existing" in output
    assert files("out") == ["b.png", "c.png"]
    assert "Wrote 1 images" in said(models / "plain.onnx", "in", "out", "--skip-existing")
    assert Path("out/b.png").read_bytes() == b"mine" and pixels("out/a.png").shape == (12, 18, 3)
    assert "Wrote 0 images" in said(models / "plain.onnx", "in", "out", "--skip-existing")
    said(models / "plain.onnx", "in", "out", "--force")
    assert pixels("out/b.png").shape == (12, 18, 3)
    said(models / "plain.onnx", "in", "out", "--force", "--skip-existing", code=2)


def test_a_folder_that_would_be_read_again_or_clash_is_refused(models: Path) -> None:
    picture("in/a.png")
    picture("in/a.jpg")
    Path("file").write_text("")
    assert "made twice" in said(models / "plain.onnx", "in", "out", code=1)
    Path("in/a.jpg").unlink()
    for target in ("in", "in/out", "./in/../in"):
        assert "same folder, or within it" in said(models / "plain.onnx", "in", target, code=1)
    assert "It is a file" in said(models / "plain.onnx", "in", "file", code=1)
    Path("empty").mkdir()
    assert "holds no image" in said(models / "plain.onnx", "empty", "out", code=1)
    assert files("in") == ["a.png"] and not Path("out").exists()


def test_masks_of_a_folder_go_by_name_or_are_one_for_all(models: Path) -> None:
    images = {name: picture(f"in/{name}.jpg") for name in ("a", "sub/b")}
    masks = {name: picture(f"masks/{name}.png", channels=1) for name in images}
    said(models / "fill.onnx", "in", "out", "--mask", "masks")
    said(models / "fill.onnx", "in", "one", "--mask", "masks/a.png")
    generator = opened(models / "fill.onnx")
    for name in images:
        expected = generator.translate(f"in/{name}.jpg", mask=masks[name])
        np.testing.assert_array_equal(pixels(f"out/{name}.png"), expected)
        expected = generator.translate(f"in/{name}.jpg", mask=masks["a"])
        np.testing.assert_array_equal(pixels(f"one/{name}.png"), expected)
    shutil.rmtree("masks/sub")
    output = said(models / "fill.onnx", "in", "new", "--mask", "masks", code=1)
    assert "There is no mask for in/sub/b.jpg" in output and not Path("new").exists()


# A shell's background job, and all that it starts, ignores SIGINT.
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from gan.cli import main
main()
"""


def test_an_interruption_leaves_whole_files_only_and_the_run_can_go_on(models: Path) -> None:
    count = 1_000  # so many that a slow look at the first ones still finds it at work
    picture("in/000.png", 200, 200)
    for i in range(1, count):
        os.link("in/000.png", f"in/{i:03}.png")
    command = [
        sys.executable,
        "-c",
        INTERRUPTIBLE,
        "translate",
        str(models / "plain.onnx"),
        "in",
        "out",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while (
        sum(not name.startswith(".") for name in files("out")) < 2 and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output = "".join(process.communicate(timeout=60))
    assert process.returncode == 130, output
    assert "interrupted" in output and "Traceback" not in output
    done = files("out")
    assert 2 <= len(done) < count and not [name for name in done if name.endswith(".part")]
    for name in done:
        assert pixels(f"out/{name}").shape == (400, 400, 3)
    for name in sorted(set(files("in")) - set(done))[5:]:
        Path("in", name).unlink()
    said(models / "plain.onnx", "in", "out", "--skip-existing")
    assert len(files("out")) == len(done) + 5
