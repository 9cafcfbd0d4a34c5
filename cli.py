"""The command `gan`. What it can do is in commands/, one file each; heavy packages are imported inside them."""

from __future__ import annotations

import io
import sys
from typing import Annotated, Any

try:
    import typer
    from typer.core import TyperCommand, TyperGroup
except ModuleNotFoundError:
    raise SystemExit(
        "gan: the command needs typer. Install it: pip install 'gan-toolchain[cli]'"
    ) from None

from .commands import (
    adopt,
    bench,
    doctor,
    export,
    inspect,
    interpolate,
    sample,
    systems,
    train,
    translate,
)
from .commands.common import fail, keep_standard_streams, message_of


class Group(TyperGroup):
    """Turns an error of ours into one line on stderr and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        # a file's name need not be text of any encoding
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            fail("interrupted", 130)
        except BrokenPipeError:
            raise typer.Exit(141) from None  # the reader left, as in `gan inspect FILE | head`
        except Exception as error:
            message = message_of(error)
            if message is None:
                raise
            fail(message)


class Command(TyperCommand):
    """Takes no empty argument: it is a variable that was not set, and as a path it would be the current folder."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for before, arg in zip(["", *args], args, strict=False):
            if not arg or (arg.startswith("--") and arg.endswith("=")):
                named = before if before.startswith("-") else arg or "an argument"
                raise typer.BadParameter(f"{named} is empty: was a variable not set?")
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train GANs in PyTorch, prove them in ONNX, sample them without PyTorch.",
    epilog="Start with: gan train && gan export runs/cgan-digits/model.pt model.onnx && "
    "gan sample model.onnx --grid digits.png --by-class",
)
for module, command in (
    (train, train.train),
    (systems, systems.systems),
    (adopt, adopt.adopt),
    (export, export.export),
    (sample, sample.sample),
    (interpolate, interpolate.interpolate),
    (translate, translate.translate),
    (inspect, inspect.inspect),
    (bench, bench.bench),
    (doctor, doctor.doctor),
):
    app.command(cls=Command, epilog=f"Example: {module.EXAMPLE}")(command)


def main() -> None:
    keep_standard_streams()
    app()


def _version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        typer.echo(importlib.metadata.version("gan-toolchain"))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


if __name__ == "__main__":
    main()
