"""The wheel: it holds cli.py and the four folders and nothing else, and works in fresh environments without torch.

The fresh environments install from the package index; where that cannot be reached these tests fail, as an
installation would.
"""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DATA = {"trainer/mnist10k.npz", "trainer/mnist10k.md"} | {
    f"{folder}/py.typed" for folder in ("runtime", "trainer", "export")
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built through an sdist, which no deleted file of an earlier build survives."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a fresh environment's commands, with the wheel and one extra installed."""

    def make(extra: str) -> Path:
        folder = tmp_path_factory.mktemp("environment")
        venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, f"{wheel}[{extra}]"], check=True, capture_output=True)
        return folder / "bin"

    return make


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proven file of an untrained generator."""
    from gan.export import export
    from gan.trainer import Request, train

    out = tmp_path_factory.mktemp("run")
    train(Request(given={"steps": 1, "width": 4}, out=out, threads=1))
    export(out / "model.pt", out / "model.onnx")
    return out / "model.onnx"


def test_the_wheel_holds_the_four_folders_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "commands", "runtime", "trainer", "export"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    sources = {name for name in tracked if name.endswith(".py")} | {"cli.py"}
    assert names == {f"gan/{name}" for name in sources | DATA}


def test_the_runtime_alone_samples_without_torch(
    fresh: Callable[[str], Path], model: Path, tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "from gan.runtime import Generator\n"
        f"generator = Generator({str(model)!r})\n"
        "assert generator.sample(16, seed=0).shape == (16, 28, 28, 1)\n"
        "assert generator.verify() == 'exact'\n"
        "assert not {'torch', 'onnx', 'typer'} & set(sys.modules)\n"
        "import importlib.util\n"
        "assert importlib.util.find_spec('torch') is importlib.util.find_spec('typer') is None\n"
    )
    bin_folder = fresh("cpu")
    subprocess.run([str(bin_folder / "python"), "-c", code], check=True, cwd=tmp_path)
    gan = subprocess.run([str(bin_folder / "gan")], capture_output=True, text=True, check=False)
    assert gan.returncode == 1 and "pip install 'gan-toolchain[cli]'" in gan.stderr


def test_the_command_alone_samples_and_says_what_training_needs(
    fresh: Callable[[str], Path], model: Path, tmp_path: Path
) -> None:
    gan = str(fresh("cli,cpu") / "gan")
    grid = tmp_path / "grid.png"
    subprocess.run([gan, "sample", str(model), "--seed", "0", "--grid", str(grid)], check=True)
    assert grid.exists()
    train = subprocess.run([gan, "train"], capture_output=True, text=True, check=False)
    assert train.returncode == 1 and "pip install 'gan-toolchain[train,cpu]'" in train.stderr
    inspect = subprocess.run(
        [gan, "inspect", str(model)], capture_output=True, text=True, check=True
    )
    assert "parity" in inspect.stdout
