"""Broken environments and inputs: what `gan` says in each, in one line, and its exit code. The README has the table."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from gan.cli import app
from gan.commands.common import is_there, message_of, tell
from gan.runtime import DeviceUnavailableError

from .broken_machine import GONE, break_machine
from .runtime.conftest import tiny_model
from .runtime.test_repairs import ARENA, NO_CUDNN, WRONG_INDEX, cuda_call, status

SAMPLE = "sample model.onnx --seed 0 --grid out.png"
NUMPY = """
A module that was compiled using NumPy 1.x cannot be run in
NumPy 2.4.6 as it may crash. To support both 1.x and 2.x
versions of NumPy, modules must be compiled with NumPy 2.0.

Traceback (most recent call last):  File "<frozen runpy>", line 198, in _run_module_as_main
AttributeError: _ARRAY_API not found
"""  # onnxruntime 1.17.3's words; its ImportError has none
ON_CUDA = f"{SAMPLE} --device cuda"
H100 = {"version": 13000, "gpus": 1}
WHEEL = ["onnxruntime_gpu-1.31.1"]
HEAVY = ("torch", "onnx", "onnxscript", "tensorboard", "av", "matplotlib")
UNINSTALL = "pip uninstall -y onnxruntime onnxruntime-gpu && "
CUBLAS = {"libonnxruntime_providers_cuda.so": f"libcublasLt.so.13: {GONE}"}
NO_LIBRARIES: dict[str, Any] = {
    "onnxruntime": {}, "installed": WHEEL, "driver": H100, "libraries": CUBLAS
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """said: of the one line of an error, of all that is printed where there is none; "..." stands for anything."""

    fault: str
    command: str
    said: str
    code: int = 1
    broken: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str | None] = field(default_factory=dict)
    shell: str = "{}"


def on_gpu(driver: Mapping[str, int] = H100, **onnxruntime: Any) -> dict[str, Any]:
    return {"onnxruntime": onnxruntime, "installed": WHEEL, "driver": driver}


ROWS = (
    # Packages that are not there.
    Row("no torch", "train", "`gan train` needs torch. Install it: pip install 'gan-toolchain[train,cpu]'",
        broken={"gone": ["torch"]}),
    Row("no tensorboard", "train", "`gan train` needs tensorboard. Install it: pip install 'gan-toolchain[train,cpu]'",
        broken={"gone": ["tensorboard"]}),
    Row("no onnx", "export model.pt out.onnx",
        "`gan export` needs onnx. Install it: pip install 'gan-toolchain[train,cpu]'", broken={"gone": ["onnx"]}),
    Row("no onnxruntime", SAMPLE,
        "sampling and proving need onnxruntime. Install it: pip install 'gan-toolchain[cpu]', or 'gan-toolchain[cuda]'",
        broken={"gone": ["onnxruntime"]}),
    Row("no onnxruntime", "export model.pt out.onnx", "Install it: pip install 'gan-toolchain[cpu]'",
        broken={"gone": ["onnxruntime"]}),
    Row("no onnxruntime", "doctor", "FAULT onnxruntime ... repair: pip install 'gan-toolchain[cpu]'",
        broken={"gone": ["onnxruntime"]}),
    Row("no matplotlib", "bench model.onnx --plot bench.png",
        "`gan bench --plot` needs matplotlib. Install it: pip install 'gan-toolchain[cli,cpu,plot]'",
        broken={"gone": ["matplotlib"]}),
    Row("no PyAV", "interpolate model.onnx walk.mp4 --from 0 --to 1",
        "No .mp4 can be written here. No module named 'av'. Install PyAV: pip install 'gan-toolchain[video]'",
        broken={"gone": ["av"]}),
    Row("no Pillow", SAMPLE, "pillow is not installed. No module named 'PIL'. pip install pillow",
        broken={"gone": ["PIL", "pillow"]}),
    Row("no Pillow", "doctor", "FAULT pillow not installed repair: pip install 'pillow", broken={"gone": ["PIL", "pillow"]}),
    Row("no numpy", "doctor", "numpy is not installed. No module named 'numpy'. pip install numpy",
        broken={"gone": ["numpy"]}),
    Row("torch is there by half", "doctor",
        "FAULT torch ... cannot be imported: ModuleNotFoundError: No module named 'torch' "
        "repair: pip install --force-reinstall --no-deps torch", broken={"half": ["torch"]}),
    Row("a file torch.py in the current folder", "train", "torch is hidden by ... torch.py. Rename that file",
        files={"torch.py": ""}),
    Row("a file onnx.py in the current folder", "export model.pt out.onnx", "onnx is hidden by ... onnx.py. Rename that file",
        files={"onnx.py": ""}),
    Row("a file onnxruntime.py in the current folder", SAMPLE, "onnxruntime is hidden by ... onnxruntime.py. Rename that file",
        files={"onnxruntime.py": ""}),
    Row("a file numpy.py in the current folder", SAMPLE, "numpy cannot be imported. ... numpy.py. If that is a file of your own, rename it",
        files={"numpy.py": ""}),
    Row("a folder onnxruntime in the current folder", SAMPLE, "Wrote out.png", 0, files={"onnxruntime/notes": ""}),
    # onnxruntime that is damaged.
    Row("onnxruntime and onnxruntime-gpu", ON_CUDA,
        f"onnxruntime is installed twice, and one overwrote the other's files. ... {UNINSTALL}pip install 'gan-toolchain[cuda]'",
        broken={"onnxruntime": {"gpu": False}, "installed": [*WHEEL, "onnxruntime-1.31.1"]}),
    Row("onnxruntime and onnxruntime-gpu", "doctor",
        f"FAULT onnxruntime onnxruntime 1.31.1, onnxruntime-gpu 1.31.1 repair: {UNINSTALL}pip install",
        broken={"onnxruntime": {"gpu": False}, "installed": [*WHEEL, "onnxruntime-1.31.1"]}),
    Row("what an uninstall left of onnxruntime-gpu", SAMPLE,
        f"Sampling needs onnxruntime. module 'onnxruntime' has no attribute ... {UNINSTALL}pip install 'gan-toolchain[cuda]'",
        broken={"half": ["onnxruntime"], "installed": WHEEL}),
    Row("onnxruntime 1.24", "doctor", "FAULT onnxruntime Version 1.24.4, older than 1.25 repair: pip install 'gan-toolchain[cpu]'",
        broken={"onnxruntime": {"version": "1.24.4", "gpu": False}}),
    Row("onnxruntime 1.24", ON_CUDA, "onnxruntime is too old. Version 1.24.4, older than 1.25. pip install 'gan-toolchain[cuda12]'",
        broken={"onnxruntime": {"version": "1.24.4"}, "installed": ["onnxruntime_gpu-1.24.4"]}),
    Row("no libstdc++", SAMPLE, f"Sampling needs onnxruntime. libstdc++.so.6: {GONE}. apt-get install libstdc++6",
        broken={"onnxruntime": {"import": ["ImportError", f"libstdc++.so.6: {GONE}"]}}),
    Row("no libgomp", "doctor", f"FAULT onnxruntime libgomp.so.1: {GONE} repair: apt-get install libgomp1",
        broken={"onnxruntime": {"import": ["OSError", f"libgomp.so.1: {GONE}"]}}),
    Row("onnxruntime was built for another numpy", SAMPLE,
        "Sampling needs onnxruntime. A module that was compiled using NumPy 1.x cannot be run in NumPy 2.4.6. "
        "pip install -U numpy && pip install 'gan-toolchain[cpu]'",
        broken={"onnxruntime": {"import": ["ImportError", ""], "stderr": NUMPY}}),
    Row("onnxruntime was built for another numpy", "doctor",
        "FAULT onnxruntime A module that was compiled using NumPy 1.x ... repair: pip install -U numpy && pip install",
        broken={"onnxruntime": {"import": ["ImportError", ""], "stderr": NUMPY}}),
    # The GPU.
    Row("the CPU package", ON_CUDA,
        f"CUDA cannot be used. onnxruntime 1.31.1 is the CPU package. {UNINSTALL}pip install 'gan-toolchain[cuda]'",
        broken={"onnxruntime": {"gpu": False}}),
    Row("the CPU package", "doctor --device cuda",
        f"FAULT CUDA onnxruntime 1.31.1 is the CPU package repair: {UNINSTALL}pip install 'gan-toolchain[cuda12]'",
        broken={"onnxruntime": {"gpu": False}, "driver": {"version": 12080, "gpus": 1}}),
    Row("the CPU package", SAMPLE, "Wrote out.png (16 images, seed 0, cpu)", 0, broken={"onnxruntime": {"gpu": False}}),
    Row("no CUDA libraries", ON_CUDA,
        f"CUDA was requested but onnxruntime made the session on the CPU. libcublasLt.so.13: {GONE}. "
        "pip install 'gan-toolchain[cuda]'", broken=NO_LIBRARIES),
    Row("no CUDA libraries", SAMPLE, "gan: Sampling on the CPU: ... pip install 'gan-toolchain[cuda]' ... Wrote out.png (16 images, seed 0, cpu)",
        0, broken=NO_LIBRARIES),
    Row("no CUDA libraries, CUDA_PATH is set", ON_CUDA, f"libcublasLt.so.13: {GONE}. pip install 'gan-toolchain[cuda]'",
        broken=NO_LIBRARIES | {"onnxruntime": {"refusal": "CUDA_PATH is set but CUDA wasnt able to be loaded."}}),
    Row("no CUDA libraries", "doctor --device cuda",
        f"FAULT CUDA libraries libcublasLt.so.13: {GONE} repair: pip install 'gan-toolchain[cuda]' FAULT CUDA ",
        broken=NO_LIBRARIES),
    Row("CUDA 12's onnxruntime without its libraries, a driver of CUDA 12", ON_CUDA,
        f"libcublasLt.so.12: {GONE}. pip install 'gan-toolchain[cuda12]'",
        broken={"onnxruntime": {"version": "1.26.0", "cuda_version": "12.8"}, "installed": ["onnxruntime_gpu-1.26.0"],
                "driver": {"version": 12080, "gpus": 1},
                "libraries": {"libonnxruntime_providers_cuda.so": f"libcublasLt.so.12: {GONE}"}}),
    Row("CUDA 13's onnxruntime, a driver of CUDA 12", ON_CUDA,
        "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version. Update the NVIDIA driver, "
        "which runs CUDA 12, or: pip install 'gan-toolchain[cuda12]'",
        broken=on_gpu({"version": 12080, "gpus": 1}, refusal=cuda_call(
            "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version"))),
    Row("no driver", ON_CUDA, f"libcuda.so.1: {GONE}. Install the NVIDIA driver; start a container with --gpus all",
        broken={"onnxruntime": {}, "installed": WHEEL, "libraries": {
            "libonnxruntime_providers_cuda.so": f"libcuda.so.1: {GONE}", "libcuda.so.1": f"libcuda.so.1: {GONE}"}}),
    Row("CUDA_VISIBLE_DEVICES is empty", ON_CUDA,
        "CUDA failure 100: no CUDA-capable device is detected. CUDA_VISIBLE_DEVICES is '': unset it",
        broken=on_gpu({"version": 13000, "gpus": 0}, refusal=cuda_call(
            "CUDA failure 100: no CUDA-capable device is detected")), variables={"CUDA_VISIBLE_DEVICES": ""}),
    Row("CUDA_VISIBLE_DEVICES is empty", "doctor --device cuda",
        "FAULT NVIDIA driver CUDA 13.0: CUDA failure 100: no CUDA-capable device is detected "
        "repair: CUDA_VISIBLE_DEVICES is '': unset it",
        broken=on_gpu({"version": 13000, "gpus": 0}, refusal=cuda_call(
            "CUDA failure 100: no CUDA-capable device is detected")), variables={"CUDA_VISIBLE_DEVICES": ""}),
    Row("a GPU that is not there", f"{SAMPLE} --device cuda:7",
        "Invalid device ID: 7, must be between 0 (inclusive) and 1 (exclusive). Give one of: cuda:0 (NVIDIA H100)",
        broken=on_gpu(refusal=WRONG_INDEX)),
    Row("the GPU's memory is full", ON_CUDA, "CUDA failure 2: out of memory. Free memory of the GPU",
        broken=on_gpu(refusal=cuda_call("CUDA failure 2: out of memory"))),
    Row("the GPU's memory is full at the first batch", ON_CUDA,
        "CUDA failed on a first batch. Failed to allocate memory for requested buffer of size 2830172160. Free memory",
        broken=on_gpu(failure=status("Conv", ARENA))),
    Row("a GPU that onnxruntime was not built for", ON_CUDA,
        "no kernel image is available for execution on the device. Take an onnxruntime that was built for this GPU: "
        "pip install -U 'onnxruntime-gpu[cuda,cudnn]'",
        broken=on_gpu(failure=status("Relu", "CUDA error cudaErrorNoKernelImageForDevice:no kernel image is available "
                                     "for execution on the device"))),
    Row("no cuDNN", ON_CUDA, "cuDNN is unavailable or disabled for CUDA Execution Provider: ... pip install 'gan-toolchain[cuda]'",
        broken=on_gpu(failure=status("Conv", NO_CUDNN))),
    Row("no cuDNN", "doctor --device cuda", f"FAULT CUDA libraries libcudnn.so.9: {GONE} repair: pip install 'gan-toolchain[cuda]'",
        broken=on_gpu() | {"libraries": {"libcudnn.so.9": f"libcudnn.so.9: {GONE}"}}),
    Row("onnxruntime takes the CPU without a word", ON_CUDA,
        "CUDA was requested but onnxruntime made the session on the CPU. the CUDA provider did not load, without a reason",
        broken=on_gpu()),
    Row("any of these, and the CPU will do", SAMPLE, "gan: Sampling on the CPU: ... Wrote out.png (16 images, seed 0, cpu)", 0,
        broken=on_gpu(refusal=cuda_call("CUDA failure 2: out of memory"))),
    # Files and folders.
    Row("a checkpoint where a model belongs", "sample model.pt --seed 0 --grid out.png",
        "model.pt cannot be sampled. It looks like a checkpoint, not like an exported model. Export it first: gan export model.pt"),
    Row("a folder where a model belongs", "sample . --seed 0 --grid out.png", ". cannot be read. It is not a file. Check the path"),
    Row("a folder where a model belongs", "inspect .", ". cannot be read. It is not a file. Check the path"),
    Row("no such file", "bench nowhere.onnx", "nowhere.onnx cannot be read. There is no such file. Check the path"),
    Row("a text where a model belongs", "inspect notes.txt", "notes.txt was refused. ... Use a file written by `gan export`",
        files={"notes.txt": "hello"}),
    Row("a place that may not be written", "sample model.onnx --seed 0 --out /sys/out", "/sys/out ... another path"),
    Row("a file where a folder belongs", "sample model.onnx --seed 0 --out notes.txt", "notes.txt ... File exists. Choose another path",
        files={"notes.txt": "hello"}),
    Row("a device that does not exist", "doctor --device gpu", "The device was refused. device='gpu'. Give \"auto\", \"cpu\", \"cuda\" or \"cuda:N\""),
    # The process.
    Row("the disk of what is printed is full", "inspect model.onnx", "No space left on device. Free space there",
        shell="{} >/dev/full"),
    Row("stdout is closed", SAMPLE, "", 0, shell="{} >&- && test -s out.png"),
    Row("stdin is closed", SAMPLE, "Wrote out.png", 0, shell="{} <&-"),
    Row("stderr is closed", "inspect nowhere.onnx", "", shell="{} 2>&-"),
    Row("the current folder was deleted", "sample ../model.onnx --seed 0 --grid out.png",
        "out.png ... No such file or directory", shell="mkdir gone && cd gone && rmdir ../gone && {}"),
    Row("no HOME", SAMPLE, "Wrote out.png", 0, variables={"HOME": None, "USER": None, "LOGNAME": None}),
    Row("no locale, and names in any script", "sample модель-模型.onnx --seed 0 --grid образец-样本.png", "Wrote ", 0,
        variables={"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    Row("python -OO", SAMPLE, "Wrote out.png", 0, variables={"PYTHONOPTIMIZE": "2"}),
    Row("no folder for temporary files", SAMPLE, "Wrote out.png", 0, variables={"TMPDIR": "/nowhere"}),
)  # fmt: skip


def run(row: Row, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command in a folder that holds model.onnx, a file that looks like a checkpoint, and the row's files."""
    for name in ("model.onnx", "модель-模型.onnx"):
        (folder / name).write_bytes(tiny_model())
    (folder / "model.pt").write_bytes(b"PK\3\4")
    for name, text in row.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    site = folder / "site"
    site.mkdir()
    broken = dict(row.broken)
    if row.command.startswith("doctor"):  # which imports what is there, and that takes seconds
        broken["gone"] = [name for name in HEAVY if name not in broken.get("half", ())]
        broken["gone"] += row.broken.get("gone", ())
    variables = break_machine(site, broken) | {"OMP_NUM_THREADS": "1"}
    variables |= {name: value for name, value in row.variables.items() if value is not None}
    for name, value in row.variables.items():
        if value is None:
            variables.pop(name, None)
    command = f"{shlex.quote(sys.executable)} -m gan.cli {row.command}"
    return subprocess.run(
        ["sh", "-c", row.shell.format(command)], cwd=folder, env=variables,
        capture_output=True, encoding="utf-8", errors="replace", check=False,
    )  # fmt: skip


def says(text: str, said: str) -> bool:
    wanted = ".*".join(re.escape(part).replace(r"\ ", r"\s+") for part in said.split(" ... "))
    return re.search(wanted, text, re.DOTALL) is not None


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.fault}: gan {row.command}" for row in ROWS])
def test_a_broken_machine_is_told_in_a_line_with_its_repair(row: Row, tmp_path: Path) -> None:
    done = run(row, tmp_path)
    printed = done.stdout + done.stderr
    assert done.returncode == row.code, printed
    assert "Traceback" not in printed and "Error ignored" not in printed, printed
    if row.code == 0:
        assert says(done.stderr + done.stdout, row.said), printed
        assert len(done.stderr.splitlines()) == done.stderr.count("Sampling on the CPU") <= 1
    elif row.command.startswith("doctor") and done.stdout:
        assert says(done.stdout, row.said), printed
        assert not done.stderr
    elif row.said:
        (line,) = done.stderr.splitlines()
        assert line.startswith("gan: ") and says(line, row.said), line
        assert not (tmp_path / "out.png").exists()


def test_there_are_enough_of_them_and_none_twice() -> None:
    assert len({(row.fault, row.command) for row in ROWS}) == len(ROWS) >= 25


@pytest.mark.parametrize(
    "command", ["inspect model.onnx", "sample model.onnx --seed 0 --grid out.png"]
)
def test_a_reader_that_leaves_ends_the_command_in_silence(command: str, tmp_path: Path) -> None:
    """As `gan inspect model.onnx | head -n 1` does, if it is quick: the code is that of SIGPIPE."""
    (tmp_path / "model.onnx").write_bytes(tiny_model())
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "gan.cli", *command.split()], cwd=tmp_path,
        stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_onnxruntime_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    """From 1.29 on it would keep an identifier there, and a database of what it is to send."""
    home = tmp_path / "home"
    home.mkdir()
    row = Row("", f"{SAMPLE} && {shlex.quote(sys.executable)} -m gan.cli inspect model.onnx --graph", "", 0,
              variables={"HOME": str(home), "XDG_CACHE_HOME": None, "ORT_DISABLE_TELEMETRY": None})  # fmt: skip
    assert run(row, tmp_path).returncode == 0
    assert list(home.rglob("*")) == []


def test_nothing_that_is_printed_gets_into_a_file_where_stdout_is_closed(tmp_path: Path) -> None:
    """The next file that is opened takes the number of a stream that was closed."""
    (tmp_path / "model.onnx").write_bytes(tiny_model())
    code = (
        "import os; from gan.commands.common import keep_standard_streams as keep\n"
        "keep(); assert os.open('model.onnx', os.O_RDONLY) > 2; print('lost'); os.write(1, b'lost')"
    )
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, check=False).returncode == 0


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DeviceUnavailableError("No GPU", seen="none", repair="Buy one"), "No GPU. none. Buy one."),
        (OSError(errno.ENOSPC, "No space left on device", "/out/grid.png"), "/out/grid.png: No space left on device. Free space there"),
        (OSError(errno.EMFILE, "Too many open files", "a.png"), "a.png: Too many open files. Raise the limit of open files: ulimit -n"),
        (OSError(f"libgomp.so.1: {GONE}"), f"libgomp.so.1: {GONE}. See `gan doctor`"),
        (ImportError(f"libgomp.so.1: {GONE}"), f"a package cannot be imported. libgomp.so.1: {GONE}. See `gan doctor`"),
        (ImportError("no\n way", name="onnxscript.ir"), "onnxscript cannot be imported. no way, from "),
        (ModuleNotFoundError("No module named 'nothing'", name="nothing"), "nothing is not installed. No module named 'nothing'. pip install nothing"),
        (MemoryError(), "out of memory. There is not enough for this. Close other programs"),
        (MemoryError("Unable to allocate 8 EiB"), "out of memory. Unable to allocate 8 EiB. Close other programs"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), "out of memory. CUDA out of memory. Tried. Close other programs"),
        (torch.AcceleratorError("CUDA error: no kernel image is available\nCUDA kernel errors might be reported later"), "the GPU failed. CUDA error: no kernel image is available. See `gan doctor --device cuda`"),
    ],
    ids=repr,
)  # fmt: skip
def test_what_a_machine_can_cause_is_a_line_with_its_repair(error: Exception, message: str) -> None:
    told = message_of(error)
    assert told is not None and told.startswith(message) and "\n" not in told


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "model.onnx",
            "model.onnx is not a readable checkpoint. ... Use a model.pt of `gan train`",
        ),
        ("notes.txt", "notes.txt is not a readable checkpoint. ... Use a model.pt of `gan train`"),
        ("empty.pt", "empty.pt is not a readable checkpoint. ... Use a model.pt of `gan train`"),
        (".", ". cannot be read. Is a directory. Check the path"),
        ("nowhere.pt", "nowhere.pt cannot be read. No such file or directory. Check the path"),
    ],
)
def test_what_is_no_checkpoint_is_not_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(tiny_model())
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty.pt").touch()
    done = CliRunner().invoke(app, ["export", given, "out.onnx"])
    assert done.exit_code == 1 and not (tmp_path / "out.onnx").exists()
    (line,) = (line for line in done.output.splitlines() if line)
    assert line.startswith("gan: ") and says(line, said)


def test_several_sessions_say_once_what_is_wrong_with_the_machine(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell()
    logger = logging.getLogger("gan.runtime")
    for text in ("Sampling on the CPU: no GPU", "Sampling on the CPU: no GPU", "another"):
        logger.warning(text)
    for _ in range(2):
        logging.getLogger("gan.trainer").info("a remedy, again")
    assert capsys.readouterr().err.splitlines() == [
        "gan: Sampling on the CPU: no GPU", "gan: another", "gan: a remedy, again", "gan: a remedy, again",
    ]  # fmt: skip


def test_what_only_we_can_cause_is_not_taken_for_the_machines_fault() -> None:
    for error in (ValueError("x"), RuntimeError("x"), AssertionError(), KeyError("x")):
        assert message_of(error) is None


def test_a_folder_of_that_name_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python imports any folder as an empty package."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "a_folder").mkdir()
    assert not is_there("a_folder") and not is_there("nothing_at_all")
    (tmp_path / "a_folder" / "__init__.py").write_text("")
    importlib.invalidate_caches()
    assert is_there("a_folder")


def test_an_isolated_python_runs_the_command_too(tmp_path: Path) -> None:
    """It takes no folder from the environment: the toolchain must be installed."""
    if shutil.which("gan", path=os.path.dirname(sys.executable)) is None:
        pytest.fail("the command is not installed beside this Python")
    (tmp_path / "model.onnx").write_bytes(tiny_model())
    (tmp_path / "numpy.py").write_text("raise SystemExit('taken from the current folder')")
    command = [sys.executable, "-I", "-m", "gan.cli", *shlex.split(SAMPLE)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Wrote out.png" in done.stdout
