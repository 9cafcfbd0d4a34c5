"""What the commands share: how options are declared, how they fail, what they check first."""

from __future__ import annotations

import errno
import functools
import importlib.util
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..runtime import CudaOptions, Generator


def safe(text: str) -> str:
    """Text in which names of files do nothing to a terminal; its lines stay lines."""
    lines = text.split("\n")
    if all(map(str.isprintable, lines)):
        return text
    from ..runtime.text import legible

    return "\n".join(map(legible, lines))


class SafeFormatter(logging.Formatter):
    """The line of a log record, for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return safe(super().format(record))


def fail(message: str, code: int = 1) -> None:
    typer.echo(f"gan: {safe(message)}", err=True)
    raise typer.Exit(code)


def option(*names: str, help: str, panel: str | None = None, **more: Any) -> Any:
    """A typer option whose help states its default in words."""
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


def argument(name: str, help: str) -> Any:
    return typer.Argument(metavar=name, help=help, show_default=False)


OUT_OF_MEMORY = (
    "Close other programs, or ask for less at once: a smaller --batch-size, --count or --max-batch"
)
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
        if not is_there(package):
            fail(
                f"`gan {command}` needs {package}. Install it: pip install 'gan-toolchain[{extra}]'"
            )


def need_onnxruntime() -> None:
    """Say so before anything is loaded; what an uninstall left of it, the runtime tells with another repair."""
    if not is_there("onnxruntime") and importlib.util.find_spec("onnxruntime") is None:
        fail(
            "sampling and proving need onnxruntime. Install it: pip install 'gan-toolchain[cpu]', "
            "or 'gan-toolchain[cuda]' for an NVIDIA GPU"
        )


def is_there(package: str) -> bool:
    """Whether Python finds it. A folder of that name which happens to lie about is none; a file ends the command."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return False
    if spec.submodule_search_locations is None:
        fail(f"{package} is hidden by {spec.origin}. Rename that file")
    return True


def unimportable(error: ImportError) -> str:
    """A message for a package that cannot be imported: which, why, where it was found, and the repair."""
    package = (error.name or "").partition(".")[0]
    spec = importlib.util.find_spec(package) if package else None
    distribution = {"PIL": "pillow"}.get(package, package)
    reason = " ".join(f"{error}".split())[:300]
    if not package:
        return f"a package cannot be imported. {reason}. See `gan doctor`"
    if spec is None or spec.origin is None:
        return f"{distribution} is not installed. {reason}. pip install {distribution}"
    return (
        f"{distribution} cannot be imported. {reason}, from {spec.origin}. If that is a file of your own, rename it, "
        f"else: pip install --force-reinstall --no-deps {distribution}"
    )


def os_failure(error: OSError) -> str:
    """A message for what the operating system refused: on which file, why, and the repair."""
    from ..runtime.files import REPAIRS
    from ..runtime.text import one_line

    name = error.filename if isinstance(error.filename, str) else ""
    reason = error.strerror or " ".join(f"{error}".split())
    repair = (REPAIRS | {errno.ENOMEM: OUT_OF_MEMORY}).get(error.errno or 0, "See `gan doctor`")
    return one_line(f"{f'{name}: ' if name else ''}{reason}. {repair}")


def message_of(error: Exception) -> str | None:
    """The one line of an error that a broken machine or a bad value can cause; None for one that only we can."""
    errors = sys.modules.get(f"{__package__.rpartition('.')[0]}.runtime.errors")
    if errors is not None and isinstance(error, errors.GanError):  # not loaded, not raised
        return f"{error}"
    if isinstance(error, OSError):
        return os_failure(error)
    if isinstance(error, ImportError):
        return unimportable(error)
    torch = sys.modules.get("torch")
    reason = " ".join(f"{error}".split())[:300]
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return f"out of memory. {reason or 'There is not enough for this'}. {OUT_OF_MEMORY}"
    if torch and isinstance(error, torch.AcceleratorError):
        first = f"{error}".partition("\n")[0][:300]  # advice to torch's own developers follows
        return f"the GPU failed. {first}. See `gan doctor --device cuda`, or use --device cpu"
    return None


def keep_standard_streams() -> None:
    """Put the null device where a stream was closed: else the next file that is opened takes its place, and what is
    printed goes into it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        # The lowest free number, which open() takes, is the stream's own.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # for good


def tell(level: int = logging.INFO) -> None:
    """Print the log of our own packages to stderr; what each of several sessions says of this machine, once."""
    handler, said = logging.StreamHandler(), set[str]()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        repeated = record.name == "gan.runtime" and text in said
        said.add(text)
        return not repeated

    handler.addFilter(is_new)
    handler.setFormatter(SafeFormatter("gan: %(message)s"))
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
