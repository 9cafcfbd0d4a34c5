"""`gan train` on data with partners: the flags reach the data, and what does not fit is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gan.cli import app


def lines(*words: str | Path) -> dict[str, str]:
    """What --dry-run prints, by name."""
    result = CliRunner().invoke(app, ["train", *map(str, words), "--dry-run"])
    assert result.exit_code == 0, result.output
    return dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if "  " in line)


def refused(*words: str | Path) -> str:
    result = CliRunner().invoke(app, ["train", *map(str, words), "--dry-run"])
    assert result.exit_code == 1 and result.stdout == ""
    return result.stderr.splitlines()[-1]  # above it only what is being read


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/ with three images of 40 x 48 pixels, drawings/ with their partners, grey."""
    monkeypatch.chdir(tmp_path)
    for folder, shape in (("photos", (40, 48, 3)), ("drawings", (40, 48))):
        Path(folder).mkdir()
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 256, shape, np.uint8)
            Image.fromarray(pixels).save(f"{folder}/{i}.png")
    return tmp_path


def test_a_source_windows_and_their_zoom_are_settings_of_a_run(folders: Path) -> None:
    told = lines("photos", "--source", "drawings", "--system", "pix2pix", "--fit", "crop",
                 "--resolution", "40", "--crop", "32", "--zoom", "1.25", "--swap")  # fmt: skip
    wanted = {
        "data": "photos", "samples": "3", "partners": "3", "resolution": "40", "channels": "1",
        "crop": "32", "zoom": "1.25", "swap": "True", "fit": "crop", "out": "runs/pix2pix-photos",
    }  # fmt: skip
    assert {name: told[name] for name in wanted} == wanted


def test_single_images_have_no_line_of_partners(folders: Path) -> None:
    told = lines("photos", "--fit", "tiles", "--resolution", "16")
    assert "partners" not in told and told["samples"] == "27"
    assert (told["crop"], told["zoom"], told["swap"]) == ("-", "1.0", "False")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("photos --source drawings", "takes no source. --source drawings"),
        ("photos --system pix2pix --source photos", "not apart"),
        ("photos --system pix2pix --source nothing", "cannot be used as a source"),
        ("photos --system cyclegan", "does not hold two sets"),
        ("photos --system pix2pix", "halves of 24 x 40 pixels"),
        ("edges", "cannot be trained on edges"),
        ("edges --system cyclegan", "of the built-in data warm-cold"),
        ("edges --system pix2pix --source drawings", "edges takes no source"),
        ("edges --system pix2pix --crop 33", "--crop 33, images of 32 pixels"),
        ("edges --system pix2pix --zoom 2", "--zoom 2 without --crop"),
        ("photos --swap", "nothing to swap"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(folders: Path, words: str, told: str) -> None:
    assert told in refused(*words.split())
