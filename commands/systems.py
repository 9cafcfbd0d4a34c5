"""`gan systems`: the systems, the settings of one, and a system of your own to start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import Force, Json, argument, check_new_file, need, option

EXAMPLE = "gan systems r3gan   |   gan systems --template my_gan.py"


def systems(
    name: Annotated[
        str | None, argument("NAME", "A system's name, or your own .py file. Default: all.")
    ] = None,
    template: Annotated[
        Path | None, option(metavar="FILE", help="Write a system of your own to start from.")
    ] = None,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """List the systems, or one's settings with their defaults, meanings and sources."""
    need("systems", "torch")
    if template is not None:
        write_template(template, force)
        return
    content: dict[str, Any] = describe_system(name) if name else describe_systems()
    lines = setting_lines(content) if name else [f"{s:12}{text}" for s, text in content.items()]
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False) if as_json else "\n".join(lines))


def setting_lines(content: dict[str, dict[str, Any]]) -> list[str]:
    lines = []
    for name, entry in content.items():
        value = entry["default"]
        default = (
            ("yes" if value else "no") if isinstance(value, bool) else "-" if value == "" else value
        )
        source = f" ({entry['source']})" if entry["source"] else ""
        lines.append(f"{name:22}{default!s:16}{entry['meaning']}{source}")
    return lines


def describe_systems() -> dict[str, str]:
    """Name and first line of every built-in system's file."""
    import inspect

    from ..trainer import systems as known

    return {
        name: (inspect.getdoc(inspect.getmodule(known.load(name)[0])) or "").split("\n")[0]
        for name in known.names()
    }


def describe_system(name: str) -> dict[str, dict[str, Any]]:
    """Default (for RGB images of 64 pixels, or points), meaning and source of every setting."""
    from ..trainer import systems as known
    from ..trainer.options import described
    from ..trainer.parts import DataInfo

    kind, _ = known.load(name)
    data = DataInfo((3, 64, 64)) if "image" in kind.kinds else DataInfo((2,), kind="points")
    preset = kind.preset(data)
    return {
        setting: {"default": getattr(preset, setting), "meaning": meaning, "source": source}
        for setting, meaning, source in described(type(preset))
    }


def write_template(path: Path, force: bool) -> None:
    from ..runtime import InputError
    from ..runtime.files import atomic_file

    if path.suffix != ".py":
        raise InputError(
            f"{path} was not written", seen=f"suffix {path.suffix!r}", repair="Name a .py file"
        )
    check_new_file(path, force)
    with atomic_file(path) as file:
        file.write((Path(__file__).parents[1] / "trainer" / "template.py").read_bytes())
    typer.echo(f"Wrote {path}. Next: gan train --system ./{path.name} --out runs/{path.stem}")
