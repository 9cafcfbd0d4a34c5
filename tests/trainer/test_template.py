"""The template of a system of one's own: short, written by the command, trained, exported and sampled as it is."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import gan
from gan.cli import app
from gan.export import gate
from gan.runtime import ExportError, Generator

SOURCE = Path(gan.__path__[0]) / "trainer" / "template.py"
runner = CliRunner()


def command(*arguments: str | Path, code: int = 0) -> str:
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the template as my_gan.py, photos in two classes, and a run of three steps in runs/my_gan."""
    root = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    for i in range(12):
        folder = root / "photos" / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(folder / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("OMP_NUM_THREADS", raising=False)
        said = command("systems", "--template", "my_gan.py")
        assert "Wrote my_gan.py. Next: gan train --system ./my_gan.py --out runs/my_gan" in said
        said = command(
            "train", "photos", "--system", "./my_gan.py", "--out", "runs/my_gan", "--steps", "3",
            "--resolution", "8", "--batch-size", "4", "--threads", "1", "--set", "hidden=16",
        )  # fmt: skip
        assert "Trained 3 steps: runs/my_gan/model.pt" in said
    return root


def test_it_has_fewer_than_60_lines_and_imports_only_what_the_package_gives_publicly() -> None:
    text = SOURCE.read_text()
    assert len(text.splitlines()) < 60
    modules = [n.module for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom)]
    assert {m for m in modules if m and m.startswith("gan")} == {"gan.trainer"}


def test_the_written_file_is_the_template_to_the_byte(place: Path) -> None:
    assert (place / "my_gan.py").read_bytes() == SOURCE.read_bytes()


def test_its_own_setting_is_listed_with_its_meaning_and_reaches_the_run(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    settings = json.loads(command("systems", "./my_gan.py", "--json"))
    assert settings["hidden"]["default"] == 256 and settings["hidden"]["meaning"]
    assert "hidden" in command("systems", "./my_gan.py")
    config = json.loads(command("inspect", "runs/my_gan/model.pt", "--json"))["config"]
    assert config["options"]["hidden"] == 16 and config["system"]["name"] == "my-gan"
    assert config["system"]["file"] == "my_gan.py"


def test_it_is_exported_with_its_file_and_sampled_without_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    said = command("export", "runs/my_gan/model.pt", "x.onnx", code=1)
    assert "Add --system my_gan.py" in said and not Path("x.onnx").exists()
    command("export", "runs/my_gan/model.pt", "my.onnx", "--system", "./my_gan.py")
    command("sample", "my.onnx", "--grid", "grid.png", "--seed", "0", "--count", "4")
    with Image.open("grid.png") as image:
        assert image.mode == "RGB" and image.size == (2 * 8 + 2, 2 * 8 + 2)
    generator = Generator("my.onnx", device="cpu")
    assert generator.verify() == "exact" and generator.classes == ()
    assert generator.sample(3, seed=1).shape == (3, 8, 8, 3)


def test_a_changed_file_is_refused_at_export_unless_that_is_accepted(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    Path("changed.py").write_text(Path("my_gan.py").read_text() + "# a word more\n")
    export = ("export", "runs/my_gan/model.pt", "changed.onnx", "--system", "./changed.py")
    said = command(*export, code=1)
    assert "is not the file that the checkpoint was trained with" in said
    assert "--accept system" in said and not Path("changed.onnx").exists()

    def trace(*_: object, **__: object) -> Path:
        raise ExportError("The file was accepted and would be traced now")

    monkeypatch.setattr(gate, "trace", trace)
    assert "would be traced now" in command(*export, "--accept", "system", code=1)
    assert "was trained with" in command(*export, "--accept", "data", code=1)


def test_with_labels_on_its_networks_are_given_the_label(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = {
        "labels=False, ": "",
        "def forward(self, z: Tensor)": "def forward(self, z: Tensor, label: Tensor)",
        "d = nn.Sequential(": "d = Labelled(",
    }
    text = SOURCE.read_text() + LABELLED
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    Path("my_gan.py").write_text(text)
    said = command(
        "train", place / "photos", "--system", "./my_gan.py", "--out", "run", "--steps", "2",
        "--resolution", "8", "--batch-size", "4", "--threads", "1",
    )  # fmt: skip
    assert "Trained 2 steps" in said


LABELLED = """

class Labelled(nn.Sequential):
    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        assert len(label) == len(x) and set(label.tolist()) <= {0, 1}
        return super().forward(x)
"""
