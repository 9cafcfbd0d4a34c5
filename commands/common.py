"""What the commands share: how options are declared, how they fail, what they check first."""

from __future__ import annotations

import functools
import importlib.util
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..runtime import CudaOptions, Generator


def fail(message: str, code: int = 1) -> None:
    typer.echo(f"gan: {message}", err=True)
    raise typer.Exit(code)


def option(*names: str, help: str, panel: str | None = None, **more: Any) -> Any:
    """A typer option whose help states its default in words."""
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


def argument(name: str, help: str) -> Any:
    return typer.Argument(metavar=name, help=help, show_default=False)


what = functools.partial(option, panel="What is trained")
how = functools.partial(option, panel="How")
where = functools.partial(option, panel="Output")
machine = functools.partial(option, panel="Machine")

Model = Annotated[Path, argument("MODEL", "A model.onnx of `gan export`.")]
Force = Annotated[bool, option("--force", help="Overwrite what exists.")]
Json = Annotated[bool, option("--json", help="Print JSON.")]
DEVICE = "auto, cpu, cuda or cuda:N. auto may use the CPU, cuda never does."
THREADS = "CPU threads. Default: what this process may use."
MemoryLimit = Annotated[
    int | None,
    machine(
        min=1,
        metavar="MIB",
        help="On a GPU: most memory for weights and intermediate results. Default: no limit. Unmeasured.",
    ),
]
Tf32 = Annotated[
    bool, machine("--tf32", help="On a GPU: faster products of 10 bits of mantissa. Unmeasured.")
]
Truncation = Annotated[
    float | None,
    option(
        help="How far from the mean style, -2 to 2; 1 is all the way. Only for models that have it."
    ),
]


def need(command: str, *packages: str, extra: str = "train,cpu") -> None:
    """Say which extra brings what a command lacks, before anything is loaded."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            fail(
                f"`gan {command}` needs {package}. Install it: pip install 'gan-toolchain[{extra}]'"
            )


def need_onnxruntime() -> None:
    if importlib.util.find_spec("onnxruntime") is None:
        fail(
            "sampling and proving need onnxruntime. Install it: pip install 'gan-toolchain[cpu]', "
            "or 'gan-toolchain[cuda]' for an NVIDIA GPU"
        )


def tell(level: int = logging.INFO) -> None:
    """Print the log of our own packages to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("gan: %(message)s"))
    logger = logging.getLogger("gan")
    logger.handlers[:] = [handler]
    logger.setLevel(level)


class LiveLine:
    """One live line on a terminal; a line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._live, self._width, self._last = sys.stderr.isatty(), 0, 0.0

    def show(self, text: str, *, last: bool = False) -> None:
        if self._live:
            sys.stderr.write("\r" + text.ljust(self._width))
            self._width = len(text)
            sys.stderr.flush()
        elif time.monotonic() - self._last > 10 or last:
            self._last = time.monotonic()
            typer.echo(text, err=True)

    def end(self) -> None:
        if self._live and self._width:
            typer.echo("", err=True)


def clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def check_new_file(path: Path, force: bool) -> None:
    from ..runtime import InputError

    refuse_existing(path, force)
    if not path.parent.is_dir():
        raise InputError(
            f"{path} cannot be written", seen=f"There is no folder {path.parent}", repair="Make it"
        )


def refuse_existing(path: Path, force: bool) -> None:
    from ..runtime import InputError

    if path.exists() and not force:
        raise InputError(
            f"{path} exists", seen="Nothing is overwritten unasked", repair="Add --force"
        )


def drawable(generator: Generator) -> str:
    """What a picture can be made of: "image" or "points"."""
    from ..runtime import InputError

    kind = generator.signature.main.kind
    if kind not in ("image", "points"):
        raise InputError(
            "No picture was made",
            seen=f"The model's samples are {kind}",
            repair="Give --out FILE.npy",
        )
    if kind == "image" and generator.signature.main.dtype != "uint8":
        raise InputError(
            "No picture was made",
            seen="The model's images are floats, made by `gan export --output float`",
            repair="Export it without --output, or give `gan sample` --out FILE.npy",
        )
    return kind


def cuda_options(memory_limit: int | None, tf32: bool) -> CudaOptions | None:
    """None where nothing was asked, so that on the CPU only a wish that it cannot grant is refused."""
    from ..runtime import CudaOptions

    if memory_limit is None and not tf32:
        return None
    return CudaOptions(memory_limit=memory_limit and memory_limit << 20, tf32=tf32)


def class_of(generator: Generator, label: str | None) -> int | str | None:
    """A class name where there is one, else an index."""
    index = label is not None and label.isascii() and label.isdecimal() and len(label) < 20
    if label is None or label in generator.classes or not index:
        return label
    return int(label)
