"""The command `gan`: parse, call, print. Heavy packages are imported inside the commands that need them."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

try:
    import typer
    from typer.core import TyperGroup
except ModuleNotFoundError:
    raise SystemExit(
        "gan: the command needs typer. Install it: pip install 'gan-toolchain[cli]'"
    ) from None

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .export import Report
    from .runtime import Generator
    from .trainer.progress import Status
    from .trainer.request import Plan


class Group(TyperGroup):
    """Turns an error of ours into one line on stderr and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            fail("interrupted", 130)
        except BrokenPipeError:
            raise typer.Exit(141) from None  # the reader left, as in `gan inspect FILE | head`
        except OSError as error:
            fail(f"{error}")
        except Exception as error:
            from .runtime.errors import GanError

            if not isinstance(error, GanError):
                raise
            fail(f"{error}")


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train GANs in PyTorch, prove them in ONNX, sample them without PyTorch.",
    epilog="Start with: gan train && gan export runs/cgan-digits/model.pt model.onnx && "
    "gan sample model.onnx --grid digits.png --by-class",
)


def main() -> None:
    app()


def fail(message: str, code: int = 1) -> None:
    typer.echo(f"gan: {message}", err=True)
    raise typer.Exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(importlib.metadata.version("gan-toolchain"))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


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
Fit = Literal["crop", "pad", "stretch"]
Channels = Literal["auto", "1", "3", "4"]
DATA = (
    "A folder or zip of images, classes as sub-folders; or built-in: digits (the default), stacked-digits, shapes, "
    "ring, grid."
)
SYSTEM = (
    "A system's name, or your own .py file; `gan systems` lists them. Default: cgan for labelled images, dcgan for "
    "others, gan for points."
)
LOSS = "non-saturating, minimax, least-squares, hinge, wasserstein or relativistic."
SET = "Any other setting; `gan systems NAME` lists them."
DEVICE = "auto, cpu, cuda or cuda:N. auto may use the CPU, cuda never does."
THREADS = "CPU threads. Default: what this process may use."
Truncation = Annotated[
    float | None,
    option(
        help="How far from the mean style, -2 to 2; 1 is all the way. Only for models that have it."
    ),
]


@app.command(epilog="Example: gan train ./photos --system dcgan --resolution 64 --out runs/photos")
def train(
    data: Annotated[str | None, argument("DATA", DATA)] = None,
    system: Annotated[str | None, what(help=SYSTEM)] = None,
    resolution: Annotated[
        int | None, what(help="Pixels a side. Default: that of built-in data, else 64.")
    ] = None,
    channels: Annotated[
        Channels, what(help="Grey, RGB or RGBA. Default: grey if all images are, else RGB.")
    ] = "auto",
    fit: Annotated[Fit | None, what(help="What to do with images that are not square.")] = None,
    mirror: Annotated[bool | None, what("--mirror", help="Also train on mirrored images.")] = None,
    no_labels: Annotated[bool, what("--no-labels", help="Ignore the data's classes.")] = False,
    steps: Annotated[
        int | None, how(help="Training steps. Default: 25,000; built-in data has its own.")
    ] = None,
    minutes: Annotated[
        float | None, how(help="Instead of --steps: turned into steps once, by a speed probe.")
    ] = None,
    batch_size: Annotated[int | None, how(help="Images a move. Default: the system's.")] = None,
    seed: Annotated[
        int | None, how(help="Of weights, order and latents, 0 to 2^64 - 1. Default: 0.")
    ] = None,
    loss: Annotated[str | None, how(help=LOSS)] = None,
    r1: Annotated[float | None, how(help="Gamma of the R1 penalty on reals; 0 is off.")] = None,
    r2: Annotated[float | None, how(help="Gamma of the R2 penalty on fakes; 0 is off.")] = None,
    gp: Annotated[
        float | None, how(help="Lambda of the gradient penalty of WGAN-GP; 0 is off.")
    ] = None,
    augment: Annotated[
        str | None,
        how(metavar="POLICIES", help="DiffAugment: any of color,translation,cutout."),
    ] = None,
    ada: Annotated[
        float | None,
        how(metavar="TARGET", help="Adaptive augmentation, for few images: 0.6 is usual."),
    ] = None,
    unroll: Annotated[
        int | None, how(help="Moves of D that G looks ahead; D must be without batch norm.")
    ] = None,
    ema_decay: Annotated[
        float | None,
        how(
            help="Of the generator's average, a step. Default: the system's, or 1 - 15 / steps, from 0.99 to 0.999."
        ),
    ] = None,
    settings: Annotated[list[str] | None, how("--set", metavar="NAME=VALUE", help=SET)] = None,
    out: Annotated[Path | None, where(help="The run's folder. Default: runs/SYSTEM-DATA.")] = None,
    force: Annotated[
        bool, where("--force", help="Start anew beside an earlier run, never over it.")
    ] = False,
    accept: Annotated[
        list[str] | None, where(metavar="NAME", help="On resume: accept that this setting differs.")
    ] = None,
    checkpoint_every: Annotated[
        int | None, where(min=1, help="Steps between checkpoints. Default: every two minutes.")
    ] = None,
    sample_every: Annotated[
        int | None, where(min=1, help="Steps between sample sheets. Default: a tenth of the run.")
    ] = None,
    measure_every: Annotated[
        int | None,
        where(min=1, help="Steps between metrics. Default: a tenth of the run, at least 100."),
    ] = None,
    threads: Annotated[
        int | None, machine(min=1, help="CPU threads. Default: measured once, kept on resume.")
    ] = None,
    device: Annotated[str, machine(help="auto, cpu, cuda or cuda:N. Default: auto.")] = "auto",
    workers: Annotated[
        int, machine(min=1, max=256, help="Threads that decode images. Default: 2.")
    ] = 2,
    dry_run: Annotated[
        bool, option("--dry-run", help="Print the whole resolved configuration, train nothing.")
    ] = False,
) -> None:
    """Train a GAN. The same command again resumes an unfinished run."""
    need("train", "torch", "tensorboard")
    first = os.environ.get("RANK", "0") == "0"  # under torchrun one process tells
    tell(logging.INFO if first else logging.ERROR)
    from .trainer.loop import train as run
    from .trainer.request import Request

    if steps is not None and minutes is not None:
        raise typer.BadParameter("give --steps or --minutes, not both")
    chosen: dict[str, Any] = {
        "resolution": resolution,
        "channels": None if channels == "auto" else int(channels),
        "fit": fit,
        "mirror": mirror,
        "steps": steps,
        "batch_size": batch_size,
        "seed": seed,
        "loss": loss,
        "r1": r1,
        "r2": r2,
        "gp": gp,
        "diffaugment": augment,
        "ada_target": ada,
        "unroll": unroll,
        "ema_decay": ema_decay,
        "labels": False if no_labels else None,
    }
    request = Request(
        data=data,
        system=system,
        given={name: value for name, value in chosen.items() if value is not None},
        settings=tuple(settings or ()),
        minutes=minutes,
        out=out,
        force=force,
        accept=tuple(accept or ()),
        threads=threads,
        device=device,
        workers=workers,
        checkpoint_every=checkpoint_every,
        sample_every=sample_every,
        measure_every=measure_every,
    )
    if dry_run:
        from .trainer.request import plan

        print_plan(plan(request), minutes)
        return
    line = StatusLine()
    try:
        outcome = run(request, line.show)
    finally:
        line.end()
    path = outcome.folder.checkpoint
    if not first:
        return
    if outcome.signal is not None and not outcome.finished:
        said = f"stopped at step {outcome.step} and saved {path}; the same command continues"
        # torchrun takes any other code for a crash
        fail(said, 0 if outcome.processes > 1 else 128 + outcome.signal)
    if not outcome.new:
        typer.echo(
            f"{path} is finished ({outcome.step} steps). More: --steps; anew beside it: --force"
        )
    else:
        typer.echo(f"Trained {outcome.step} steps: {path}")
    typer.echo(f"Next: gan export {path} {path.with_suffix('.onnx')}")


@app.command(epilog="Example: gan systems r3gan   |   gan systems --template my_gan.py")
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
    lines = setting_lines(content) if name else [f"{s:10}{text}" for s, text in content.items()]
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

    from .trainer import systems as known

    return {
        name: (inspect.getdoc(inspect.getmodule(known.load(name)[0])) or "").split("\n")[0]
        for name in known.names()
    }


def describe_system(name: str) -> dict[str, dict[str, Any]]:
    """Default (for RGB images of 64 pixels, or points), meaning and source of every setting."""
    from .trainer import systems as known
    from .trainer.options import described
    from .trainer.parts import DataInfo

    kind, _ = known.load(name)
    data = DataInfo((3, 64, 64)) if "image" in kind.kinds else DataInfo((2,), kind="points")
    preset = kind.preset(data)
    return {
        setting: {"default": getattr(preset, setting), "meaning": meaning, "source": source}
        for setting, meaning, source in described(type(preset))
    }


def write_template(path: Path, force: bool) -> None:
    from .runtime import InputError
    from .runtime.files import atomic_file

    if path.suffix != ".py":
        raise InputError(
            f"{path} was not written", seen=f"suffix {path.suffix!r}", repair="Name a .py file"
        )
    check_new_file(path, force)
    with atomic_file(path) as file:
        file.write((Path(__file__).parent / "trainer" / "template.py").read_bytes())
    typer.echo(f"Wrote {path}. Next: gan train --system ./{path.name} --out runs/{path.stem}")


@app.command(epilog="Example: gan export runs/photos/model.pt model.onnx")
def export(
    checkpoint: Annotated[Path, argument("CHECKPOINT", "A model.pt of `gan train`.")],
    output: Annotated[Path, argument("OUTPUT", "The .onnx file to write.")],
    graph: Annotated[
        str | None,
        option(
            help="Which graph, or all: the main one to OUTPUT, the others beside it as NAME.GRAPH.onnx. "
            "Default: the system's main one."
        ),
    ] = None,
    image: Annotated[
        Literal["uint8", "float"],
        option("--output", help="Images as uint8 NHWC (default), or float32 NCHW in [-1, 1]."),
    ] = "uint8",
    opset: Annotated[int, option(help="ONNX opset, 18 to 23. Default: 20.")] = 20,
    max_batch: Annotated[
        int, option(help="Largest batch at which parity is proven. Default: 64.")
    ] = 64,
    system: Annotated[
        str | None, option(help="Your own system's .py file, if it was trained with one.")
    ] = None,
    accept: Annotated[
        list[str] | None, option(metavar="NAME", help="system: accept that its file changed.")
    ] = None,
    force: Force = False,
) -> None:
    """Turn a checkpoint into one proven ONNX file: dynamic batch, outputs checked against torch."""
    need_onnxruntime()
    need("export", "torch", "onnx", "onnxscript")
    tell()
    from .export import export as run
    from .export import export_all

    settings: dict[str, Any] = {
        "image": image,
        "opset": opset,
        "max_batch": max_batch,
        "system_file": system,
        "accept_changed_system": "system" in (accept or ()),
        "overwrite": force,
    }
    reports = (
        export_all(checkpoint, output, **settings)
        if graph == "all"
        else {output: run(checkpoint, output, graph=graph, **settings)}
    )
    for path, report in reports.items():
        print_report(report)
        typer.echo(f"Wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")
    if graph in (None, "all"):
        typer.echo(f"Next: gan sample {output} --grid grid.png")


@app.command(epilog="Example: gan sample model.onnx --count 64 --seed 0 --out samples/")
def sample(
    model: Model,
    count: Annotated[
        int | None, option(min=1, help="Images. Default: 16, with --by-class 8 of each.")
    ] = None,
    seed: Annotated[int | None, option(help="0 to 2^64 - 1. Default: drawn and printed.")] = None,
    start: Annotated[
        int, option(min=0, help="Number of the first image of the seed. Default: 0.")
    ] = 0,
    label: Annotated[
        str | None, option(help="A class name or index. Default: drawn for each image.")
    ] = None,
    truncation: Truncation = None,
    noise: Annotated[
        Literal["shared", "drawn"] | None,
        option(
            help="shared by all images (default), or drawn for each; for models with noise inputs."
        ),
    ] = None,
    mix: Annotated[
        str | None,
        option(
            metavar="ROWSxCOLUMNS",
            help="A sheet of mixed styles, as 4x6: coarse ones from the seeds --seed and on, by rows, fine ones from "
            "the next seeds, by columns. Needs the graphs of `gan export --graph all`.",
        ),
    ] = None,
    layers: Annotated[
        int | None,
        option(min=1, help="With --mix: the first layer of the fine style. Default: half."),
    ] = None,
    out: Annotated[
        Path | None, where(help="Folder for one file an image, or a .npy file for all samples.")
    ] = None,
    format: Annotated[
        Literal["png", "webp"], where(help="Of the files in --out. Default: png.")
    ] = "png",
    grid: Annotated[
        Path | None, where(help="One .png or .webp with all images, or a plot of all points.")
    ] = None,
    columns: Annotated[int | None, where(min=1, help="Of the grid. Default: about square.")] = None,
    by_class: Annotated[bool, where("--by-class", help="A grid with one column a class.")] = False,
    device: Annotated[str, machine(help=DEVICE)] = "auto",
    threads: Annotated[int | None, machine(help=THREADS)] = None,
    force: Force = False,
) -> None:
    """Sample images or points, as files or as one picture, without torch."""
    need_onnxruntime()
    tell(logging.WARNING)
    if (out is None) == (grid is None):
        raise typer.BadParameter(
            "give --out FOLDER for one file an image, --out FILE.npy for one array, or --grid FILE for one picture"
        )
    if by_class and (grid is None or label is not None):
        raise typer.BadParameter("--by-class goes with --grid and without --label")
    if mix is not None and (grid is None or count or start or by_class or columns or noise):
        raise typer.BadParameter(
            "--mix goes with --grid, and without --count, --start, --by-class, --columns and --noise"
        )
    if layers is not None and mix is None:
        raise typer.BadParameter("--layers goes with --mix")
    import secrets

    from .runtime import Generator

    if seed is None:
        seed = secrets.randbits(63)
        typer.echo(f"Seed {seed}")
    if mix is not None:
        assert grid is not None
        pair = style_graphs(model, device, threads)
        write_mix(pair, grid, rows_and_columns(mix), layers, seed, label, truncation, force)
        return
    generator = Generator(model, device=device, threads=threads)
    asked: dict[str, Any] = {
        "seed": seed,
        "start": start,
        "label": class_of(generator, label),
        "truncation": truncation,
        "noise": noise or "shared",
    }
    if out is not None and out.suffix == ".npy":
        write_array(generator, out, count or 16, asked, force)
    elif grid is not None:
        write_grid(generator, grid, count, asked, columns, by_class, force)
    else:
        assert out is not None
        write_files(generator, out, count or 16, asked, format, force)


def rows_and_columns(text: str) -> tuple[int, int]:
    rows, x, columns = text.partition("x")
    if not (x and rows.isdecimal() and columns.isdecimal() and int(rows) and int(columns)):
        raise typer.BadParameter(f"--mix takes ROWSxCOLUMNS, such as 4x6, not {text!r:.40}")
    return int(rows), int(columns)


def style_graphs(model: Path, device: str, threads: int | None) -> tuple[Generator, Generator]:
    """The mapping and synthesis beside a model, as `gan export --graph all` leaves them."""
    from .runtime import Generator, InputError
    from .runtime.files import sibling

    paths = [sibling(model, name) for name in ("mapping", "synthesis")]
    for path in paths:
        if not path.is_file():
            raise InputError(
                f"{model} has no graphs of styles beside it",
                seen=f"There is no {path}",
                repair="If it is a model with styles: gan export model.pt "
                f"{model} --graph all --force",
            )
    mapping, synthesis = (Generator(path, device=device, threads=threads) for path in paths)
    return mapping, synthesis


def write_mix(
    pair: tuple[Generator, Generator],
    path: Path,
    size: tuple[int, int],
    layers: int | None,
    seed: int,
    label: str | None,
    truncation: float | None,
    force: bool,
) -> None:
    """Rows of coarse styles, columns of fine ones, with the images of both alone at the edges."""
    import numpy as np

    from .runtime import mix
    from .runtime.images import check_suffix, grid, save

    check_suffix(path)
    check_new_file(path, force)
    mapping, synthesis = pair
    rows, columns = size
    (field,) = (f for f in synthesis.signature.inputs if f.kind == "style")
    begin = max(int(field.shape[0]) // 2, 1) if layers is None else layers
    coarse, fine = range(seed, seed + rows), range(seed + rows, seed + rows + columns)
    given: dict[str, Any] = {"label": class_of(mapping, label), "truncation": truncation}
    alone = mix(mapping, synthesis, [[*coarse, *fine]], [], **given)
    pairs = [[c for c in coarse for _ in fine], [f for _ in coarse for f in fine]]
    mixed = mix(mapping, synthesis, pairs, [begin], **given)
    lines = [np.concatenate([np.zeros_like(alone[:1]), alone[rows:]])]
    for row in range(rows):
        lines.append(np.concatenate([alone[row : row + 1], mixed[row * columns :][:columns]]))
    save(grid(np.concatenate(lines), columns + 1), path)
    typer.echo(
        f"Wrote {path} (coarse styles of seeds {coarse[0]} to {coarse[-1]}, fine ones of {fine[0]} to {fine[-1]} "
        f"from layer {begin} of {field.shape[0]}, {synthesis.device})"
    )


def write_grid(
    generator: Generator,
    path: Path,
    count: int | None,
    asked: dict[str, Any],
    columns: int | None,
    by_class: bool,
    force: bool,
) -> None:
    from .runtime import InputError
    from .runtime.images import check_suffix, grid, save, scatter

    check_suffix(path)
    check_new_file(path, force)
    points = drawable(generator) == "points"
    if by_class:
        columns = len(generator.classes)
        if not columns:
            raise InputError(
                "There is no class to make columns of",
                seen="A model without labels",
                repair="Leave --by-class out",
            )
        count = count or 8 * columns
        asked = asked | {"label": [i % columns for i in range(count)]}
    samples = generator.sample(count or (2_000 if points else 16), **asked)
    save(scatter(samples) if points else grid(samples, columns), path)
    what = "points" if points else "images"
    typer.echo(f"Wrote {path} ({len(samples)} {what}, seed {asked['seed']}, {generator.device})")


def write_array(
    generator: Generator, path: Path, count: int, asked: dict[str, Any], force: bool
) -> None:
    import numpy as np

    from .runtime.files import atomic_file

    check_new_file(path, force)
    samples = generator.sample(count, **asked)
    with atomic_file(path) as file:
        np.save(file, samples, allow_pickle=False)
    typer.echo(
        f"Wrote {path} ({samples.dtype} {list(samples.shape)}, seed {asked['seed']}, {generator.device})"
    )


def drawable(generator: Generator) -> str:
    """What a picture can be made of: "image" or "points"."""
    from .runtime import InputError

    kind = generator.signature.main.kind
    if kind not in ("image", "points"):
        raise InputError(
            "No picture was made",
            seen=f"The model's samples are {kind}",
            repair="Give --out FILE.npy",
        )
    return kind


def check_new_file(path: Path, force: bool) -> None:
    from .runtime import InputError

    refuse_existing(path, force)
    if not path.parent.is_dir():
        raise InputError(
            f"{path} cannot be written", seen=f"There is no folder {path.parent}", repair="Make it"
        )


def write_files(
    generator: Generator,
    folder: Path,
    count: int,
    asked: dict[str, Any],
    suffix: str,
    force: bool,
) -> None:
    from .runtime import InputError
    from .runtime.images import save_all

    if generator.signature.main.kind != "image":
        raise InputError(
            "No image was written",
            seen=f"The model's samples are {generator.signature.main.kind}",
            repair="Give --out FILE.npy for all samples as one array, or --grid FILE.png for a plot",
        )

    start = asked["start"]

    def path_of(number: int) -> Path:
        return folder / f"{start + number:06d}.{suffix}"

    wanted = range(start, start + count)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.stem.isdecimal() and int(path.stem) in wanted:
            refuse_existing(path_of(int(path.stem) - start), force)
    folder.mkdir(parents=True, exist_ok=True)
    chunks = generator.stream(count, **asked)
    written = save_all((image for chunk in chunks for image in chunk), path_of)
    typer.echo(f"Wrote {written} images to {folder}/ (seed {asked['seed']}, {generator.device})")


@app.command(
    epilog="Example: gan interpolate model.onnx walk.mp4 --from 3 --to 9 --frames 120 --space w"
)
def interpolate(
    model: Model,
    output: Annotated[
        Path, argument("OUTPUT", "A .mp4, an animated .webp, or a .png with all frames.")
    ],
    first: Annotated[int, option("--from", help="Seed of the first image.")],
    last: Annotated[int, option("--to", help="Seed of the last image.")],
    frames: Annotated[int, option(min=2, max=100_000, help="Images on the way. Default: 60.")] = 60,
    space: Annotated[
        Literal["z", "w"],
        option(
            help="z: the great circle between the latents. w: the straight line between the styles, with the graphs "
            "of `gan export --graph all`. Default: z."
        ),
    ] = "z",
    label: Annotated[
        str | None, option(help="A class name or index. Default: that of the first seed.")
    ] = None,
    truncation: Truncation = None,
    fps: Annotated[float, where(help="Frames a second. Default: 30.")] = 30.0,
    loop: Annotated[bool, where("--loop", help="And back again.")] = False,
    columns: Annotated[int | None, where(min=1, help="Of a .png. Default: about square.")] = None,
    device: Annotated[str, machine(help=DEVICE)] = "auto",
    threads: Annotated[int | None, machine(help=THREADS)] = None,
    force: Force = False,
) -> None:
    """Draw the way from one seed's image to another's, without torch."""
    need_onnxruntime()
    tell(logging.WARNING)
    from .runtime import Generator, styles, video
    from .runtime import images as pictures

    still = output.suffix.lower() == ".png"
    if columns is not None and not still:
        raise typer.BadParameter("--columns goes with a .png")
    if not still:
        video.check_suffix(output, fps)
    check_new_file(output, force)
    if space == "w":
        mapping, generator = style_graphs(model, device, threads)
        given: dict[str, Any] = {"label": class_of(mapping, label), "truncation": truncation}
        chunks = styles.walk(mapping, generator, first, last, frames, **given)
    else:
        generator = Generator(model, device=device, threads=threads)
        given = {"label": class_of(generator, label), "truncation": truncation}
        chunks = generator.walk(first, last, frames, **given)
    if drawable(generator) != "image":
        fail("points have no frames: use gan sample")
    images: Iterator[Any] = (image for chunk in chunks for image in chunk)
    if loop:
        images = there_and_back(images)
    if still:
        import numpy as np

        pictures.save(pictures.grid(np.stack(list(images)), columns), output)
    else:
        video.save(images, output, fps=fps)
    count = 2 * frames - 2 if loop else frames
    typer.echo(
        f"Wrote {output} ({count} frames, seeds {first} to {last} in {space}, {generator.device})"
    )


def there_and_back(images: Iterator[Any]) -> Iterator[Any]:
    """All images, then all but the ends in reverse."""
    seen = []
    for image in images:
        seen.append(image)
        yield image
    yield from seen[-2:0:-1]


def class_of(generator: Generator, label: str | None) -> int | str | None:
    """A class name where there is one, else an index."""
    if label is None or label in generator.classes or not label.isdecimal():
        return label
    return int(label)


def refuse_existing(path: Path, force: bool) -> None:
    from .runtime import InputError

    if path.exists() and not force:
        raise InputError(
            f"{path} exists", seen="Nothing is overwritten unasked", repair="Add --force"
        )


@app.command(epilog="Example: gan inspect model.onnx --json")
def inspect(
    file: Annotated[Path, argument("FILE", "A model.pt or a model.onnx.")], as_json: Json = False
) -> None:
    """Show a file's signature, sizes, training and parity report."""
    from .runtime import InputError

    if not file.is_file():
        raise InputError(
            f"{file} cannot be read", seen="There is no such file", repair="Check the path"
        )
    with open(file, "rb") as handle:
        checkpoint = handle.read(2) == b"PK"  # torch.save writes a zip
    if checkpoint:
        need("inspect", "torch")
    content = describe_checkpoint(file) if checkpoint else describe_model(file)
    typer.echo(
        json.dumps(content, indent=2, ensure_ascii=False)
        if as_json
        else "\n".join(outline(content))
    )


def describe_model(path: Path) -> dict[str, Any]:
    from .runtime.model_file import ModelFile

    model = ModelFile.read(path)
    parts = ("system", "training", "parity", "latents", "tools", "weights")
    return {
        "file": str(path),
        "bytes": len(model.data),
        "opset": model.info.opset,
        "nodes": model.info.nodes,
        "parameters": model.info.weights,
        "signature": json.loads(model.signature.to_json()),
        **{part: model.section(part) for part in parts},
    }


def describe_checkpoint(path: Path) -> dict[str, Any]:
    from .trainer.checkpoint import Checkpoint

    checkpoint = Checkpoint.load(path)
    content = checkpoint.content
    sizes = {
        name: sum(
            t.numel()
            for key, t in state.items()
            if "running_" not in key and "num_batches" not in key
        )
        for name, state in content["networks"].items()
    }
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "finished": checkpoint.finished,
        "progress": content["progress"],
        "parameters": sizes,
        "signature": {name: json.loads(text) for name, text in content["signature"].items()},
        "config": content["config"],
        "data": content["data"],
        "metrics": content["metrics"],
        "health": content["health"],
        "threads": content["threads"]["count"],
    }


@app.command(epilog="Example: gan doctor --device cuda")
def doctor(
    device: Annotated[
        str, option(help="cuda: exit with 1 if CUDA cannot work here. Default: auto.")
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Examine this machine: Python, packages, doubled runtimes, providers, CUDA libraries."""
    import dataclasses

    from .runtime.doctor import examine

    findings = examine(device)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        marks = {True: "ok", False: "FAULT", None: "--"}
        for f in findings:
            typer.echo(
                f"{marks[f.ok]:6}{f.name:16}{f.value}"
                + (f"\n{'':22}repair: {f.repair}" if f.repair and f.ok is not True else "")
            )
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


class StatusLine:
    """One live line on a terminal; a line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._live, self._width, self._last, self._step = sys.stderr.isatty(), 0, 0.0, -1

    def show(self, status: Status) -> None:
        text = status_text(status)
        if status.step == self._step:
            return
        self._step = status.step
        if self._live:
            sys.stderr.write("\r" + text.ljust(self._width))
            self._width = len(text)
            sys.stderr.flush()
        elif time.monotonic() - self._last > 10 or status.step == status.steps:
            self._last = time.monotonic()
            typer.echo(text, err=True)

    def end(self) -> None:
        if self._live and self._width:
            typer.echo("", err=True)


def status_text(s: Status) -> str:
    v = s.values
    parts = [f"step {s.step}/{s.steps}", f"{s.images} samples", f"{s.images_per_second:.0f}/s"]
    parts += [f"loss {name} {v[f'loss/{name}']:.3f}" for name in ("D", "G") if f"loss/{name}" in v]
    if "distance" in v:
        parts.append(f"distance {v['distance']:.3f}")
    elif "accuracy/real" in v:
        parts.append(f"D right on real {v['accuracy/real']:.0%}, fake {v['accuracy/fake']:.0%}")
    if s.metric:
        parts.append(f"{s.metric[0]} {s.metric[1]:.2f}")
    parts.append(f"{clock(s.seconds_left)} left")
    return " | ".join(parts)


def clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def print_plan(plan: Plan, minutes: float | None) -> None:
    from .trainer.system import build_on_meta, parameter_count

    lines = {"data": plan.data.name, "samples": len(plan.data), "classes": len(plan.data.classes)}
    lines |= {n: "-" if value in (None, "") else value for n, value in plan.config.flat().items()}
    if minutes is not None and plan.checkpoint is None:
        lines["steps"] = f"what fits in {minutes:g} minutes, by a probe at the start"
    lines |= {"device": str(plan.device), "out": str(plan.folder.path)}
    lines |= {
        f"parameters of {n}": parameter_count(net) for n, net in build_on_meta(plan.system).items()
    }
    done = plan.checkpoint.step if plan.checkpoint else 0
    lines["starts at step"] = done
    width = max(map(len, lines))
    for name, value in lines.items():
        typer.echo(f"{name:{width}}  {value}")


def print_report(report: Report) -> None:
    typer.echo("  output  batch   max abs   max rel  PSNR dB  step  bytes differing")
    for row in report.rows:
        head = (
            f"{row.step:4}  {100 * (row.share or 0):.4f} %" if row.step is not None else "   -  -"
        )
        typer.echo(
            f"{row.output:>8}{row.batch:7}{row.max_abs:10.1e}{row.max_rel:10.1e}{row.psnr:9.1f}  {head}"
        )
    e = report.exactness
    batches, threads = (", ".join(map(str, numbers)) for numbers in (e.batches, e.threads))
    typer.echo(f"Same bytes in batches of {batches}: {yes_or_step(e.across_batches)}")
    typer.echo(f"Same bytes with {threads} threads: {yes_or_step(e.across_threads)}")


def yes_or_step(step: float) -> str:
    return f"no, they differ by {step:.3g} steps of 255" if step else "yes"


def outline(content: Any, indent: int = 0) -> list[str]:
    """Nested dicts and lists as indented lines."""
    pad = "  " * indent
    if isinstance(content, dict):
        lines = []
        for key, value in content.items():
            if isinstance(value, (dict, list)) and value and not flat_list(value):
                lines += [f"{pad}{key}:", *outline(value, indent + 1)]
            else:
                lines.append(f"{pad}{key}: {one_line(value)}")
        return lines
    return [f"{pad}- {one_line(value)}" for value in content]


def flat_list(value: Any) -> bool:
    return isinstance(value, list) and all(not isinstance(item, (dict, list)) for item in value)


def one_line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {one_line(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(one_line(item) for item in value) + "]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def need(command: str, *packages: str) -> None:
    """Say which extra brings what a command lacks, before anything is loaded."""
    import importlib.util

    for package in packages:
        if importlib.util.find_spec(package) is None:
            fail(
                f"`gan {command}` needs {package}. Install it: pip install 'gan-toolchain[train,cpu]'"
            )


def need_onnxruntime() -> None:
    import importlib.util

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


if __name__ == "__main__":
    main()
