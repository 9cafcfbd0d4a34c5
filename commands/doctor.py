"""`gan doctor`: what this machine has and lacks."""

from __future__ import annotations

import json
import logging
from typing import Annotated

import typer

from .common import Json, option, tell

EXAMPLE = "gan doctor --device cuda"


def doctor(
    device: Annotated[
        str, option(help="cuda: exit with 1 if CUDA cannot work here. Default: auto.")
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Examine this machine: packages, doubled or damaged ones, providers, GPU, driver, CUDA libraries.

    Exits with 1 if there is a fault. A repair is a command to copy where one command does it.
    """
    tell(logging.WARNING)
    import dataclasses

    from ..runtime.doctor import examine

    findings = examine(device)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        marks = {True: "ok", False: "FAULT", None: "--"}
        advice = {False: "repair", None: "if it is wanted"}
        for f in findings:
            typer.echo(
                f"{marks[f.ok]:6}{f.name:16}{f.value}"
                + (f"\n{'':22}{advice[f.ok]}: {f.repair}" if f.repair and f.ok is not True else "")
            )
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)
