"""Every command and every line of Python in the README runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from gan.cli import app

from .trainer.published import NestedUNet, batch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
QUICK = [
    "--steps",
    "1",
    "--threads",
    "1",
    "--set",
    "width=4",
]  # of each training; options given last win
BRIEF = ["--seconds", "0.02", "--batch", "1,2", "--starts", "1"]  # of each bench


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder but for ./photos, which has two classes, single images, and weights of other code's."""
    root = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(0)
    for i in range(10):
        folder = root / "photos" / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / f"{i}.png")
    Image.fromarray(rng.integers(0, 256, (60, 70, 3), np.uint8)).save(root / "in.png")
    Image.fromarray(rng.integers(0, 256, (32, 40), np.uint8)).save(root / "drawing.png")
    hole = np.zeros((60, 70), np.uint8)
    hole[20:40, 30:50] = 255
    Image.fromarray(hole).save(root / "mask.png")
    torch.manual_seed(0)
    torch.save(NestedUNet(5, 4, batch).state_dict(), root / "weights.pth")
    return root


def test_the_commands_run_as_written_and_the_python_after_them(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    ours = [words for words in commands() if words[0] == "gan"]
    assert {words[1] for words in ours} == {
        "train", "export", "sample", "interpolate", "translate", "adopt", "inspect", "doctor", "systems", "bench",
    }  # fmt: skip
    monkeypatch.setenv("CXX", "none")  # torch.compile takes half a minute
    for words in ours:
        more = {"train": QUICK, "bench": BRIEF}.get(words[1], [])
        result = CliRunner().invoke(app, words[1:] + more)
        assert result.exit_code == 0, (words, result.output, result.exception)
    for code in blocks("python"):
        subprocess.run([sys.executable, "-c", code], check=True)


def test_make_targets_and_extras_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"`make ([a-z-]+)`", README))
    targets |= {words[1] for words in commands() if words[0] == "make"}
    assert {"demo", "test", "check", "bench-digits"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    named = {
        e
        for names in re.findall(r"gan-toolchain\[([a-z0-9,]+)\]", README)
        for e in names.split(",")
    }
    assert {"cpu", "cuda", "cuda12", "cli", "train", "video"} <= named <= set(extras)


def test_every_named_file_exists_and_every_file_is_named() -> None:
    (tree,) = [block for block in blocks("text") if block.startswith("cli.py")]
    listed = set(re.findall(r"^ *([a-z0-9_]+\.(?:py|npz))", tree, re.MULTILINE))
    there = {
        p.name
        for f in ("commands", "runtime", "trainer", "export")
        for p in (ROOT / f).glob("*.py")
    }
    assert there - {"__init__.py"} | {"cli.py", "mnist10k.npz"} == listed
    assert all(
        (ROOT / path).exists() for path in re.findall(r"`(tests/[a-z_/]+(?:\.py)?)`", README)
    )
    assert not re.search(r"@[A-Z]+@", README)


def test_every_system_and_loss_is_named() -> None:
    from gan.trainer import systems
    from gan.trainer.losses import LOSSES

    assert all(f"`{name}`" in README for name in (*systems.names(), *LOSSES))


def test_every_setting_of_any_system_is_in_the_table() -> None:
    from gan.trainer.options import Options, described

    rows = re.findall(r"^\| (`[a-z0-9_]+`.*?) \|", README, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z0-9_]+)`", row)}
    assert {name for name, _, _ in described(Options)} <= named
