"""`gan sample`: samples as files, as one array, as one picture, as a sheet of mixed styles."""

from __future__ import annotations

import functools
import logging
import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .common import (
    DEVICE,
    THREADS,
    Force,
    MemoryLimit,
    Model,
    Tf32,
    Truncation,
    check_new_file,
    class_of,
    cuda_options,
    drawable,
    machine,
    need_onnxruntime,
    option,
    tell,
    where,
)

if TYPE_CHECKING:
    from ..runtime import CudaOptions, Generator

EXAMPLE = "gan sample model.onnx --count 64 --seed 0 --out samples/"


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
    skip_existing: Annotated[
        bool,
        where(
            "--skip-existing", help="Go on with a folder of --seed: leave out what exists in it."
        ),
    ] = False,
    device: Annotated[str, machine(help=DEVICE)] = "auto",
    threads: Annotated[int | None, machine(help=THREADS)] = None,
    memory_limit: MemoryLimit = None,
    tf32: Tf32 = False,
    force: Force = False,
) -> None:
    """Sample images or points, as files or as one picture, without torch."""
    need_onnxruntime()
    tell(logging.WARNING)
    if (out is None) == (grid is None):
        raise typer.BadParameter(
            "give --out FOLDER for one file an image, --out FILE.npy for one array, or --grid FILE for one picture"
        )
    if skip_existing and (out is None or out.suffix == ".npy" or seed is None or force):
        raise typer.BadParameter(
            "--skip-existing goes with --out FOLDER and --seed, and without --force"
        )
    if by_class and (grid is None or label is not None):
        raise typer.BadParameter("--by-class goes with --grid and without --label")
    if mix is not None and (grid is None or count or start or by_class or columns or noise):
        raise typer.BadParameter(
            "--mix goes with --grid, and without --count, --start, --by-class, --columns and --noise"
        )
    if layers is not None and mix is None:
        raise typer.BadParameter("--layers goes with --mix")
    from ..runtime import Generator

    if mix is not None:
        assert grid is not None
        size = rows_and_columns(mix)
        pair = style_graphs(model, device, threads, cuda_options(memory_limit, tf32))
        seed = seed_or_drawn(seed)
        write_mix(pair, grid, size, layers, seed, label, truncation, force)
        return
    generator = Generator(
        model, device=device, threads=threads, cuda=cuda_options(memory_limit, tf32)
    )
    seed = seed_or_drawn(seed)
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
        write_files(generator, out, count or 16, asked, format, force, skip_existing)


def seed_or_drawn(seed: int | None) -> int:
    """The seed, or one that is drawn and told, low enough that a sheet can count on from it."""
    if seed is None:
        import secrets

        seed = secrets.randbits(63)
        typer.echo(f"Seed {seed}")
    return seed


def rows_and_columns(text: str) -> tuple[int, int]:
    size = re.fullmatch("([1-9][0-9]{0,2})x([1-9][0-9]{0,2})", text)
    if size is None:
        raise typer.BadParameter(f"--mix takes ROWSxCOLUMNS, such as 4x6, not {text!r:.40}")
    return int(size[1]), int(size[2])


def style_graphs(
    model: Path, device: str, threads: int | None, cuda: CudaOptions | None = None
) -> tuple[Generator, Generator]:
    """The mapping and synthesis beside a model, as `gan export --graph all` leaves them."""
    from ..runtime import Generator, InputError
    from ..runtime.files import sibling

    paths = [sibling(model, name) for name in ("mapping", "synthesis")]
    for path in paths:
        if not path.is_file():
            raise InputError(
                f"{model} has no graphs of styles beside it",
                seen=f"There is no {path}",
                repair="If it is a model with styles: gan export model.pt "
                f"{model} --graph all --force",
            )
    mapping, synthesis = (
        Generator(path, device=device, threads=threads, cuda=cuda) for path in paths
    )
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

    from ..runtime import mix
    from ..runtime.images import check_suffix, grid, save

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
    from ..runtime import InputError
    from ..runtime.images import check_suffix, grid, save, scatter

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
        count = generator.bounded(count or 8 * columns)  # before there is a label for each
        asked = asked | {"label": [i % columns for i in range(count)]}
    samples = generator.sample(count or (2_000 if points else 16), **asked)
    save(scatter(samples) if points else grid(samples, columns), path)
    what = "points" if points else "images"
    typer.echo(f"Wrote {path} ({len(samples)} {what}, seed {asked['seed']}, {generator.device})")


def write_array(
    generator: Generator, path: Path, count: int, asked: dict[str, Any], force: bool
) -> None:
    import numpy as np

    from ..runtime.files import atomic_file

    check_new_file(path, force)
    samples = generator.sample(count, **asked)
    with atomic_file(path) as file:
        np.save(file, samples, allow_pickle=False)
    typer.echo(
        f"Wrote {path} ({samples.dtype} {list(samples.shape)}, seed {asked['seed']}, {generator.device})"
    )


def write_files(
    generator: Generator,
    folder: Path,
    count: int,
    asked: dict[str, Any],
    suffix: str,
    force: bool,
    skip_existing: bool,
) -> None:
    from ..runtime import InputError
    from ..runtime.files import make_folder
    from ..runtime.images import save_all

    if generator.signature.main.kind != "image":
        raise InputError(
            "No image was written",
            seen=f"The model's samples are {generator.signature.main.kind}",
            repair="Give --out FILE.npy for all samples as one array, or --grid FILE.png for a plot",
        )

    def path_of(stretch: range, number: int) -> Path:
        return folder / f"{stretch[number]:06d}.{suffix}"

    wanted = range(asked["start"], asked["start"] + count)
    named = [path.stem for path in folder.iterdir()] if folder.is_dir() else []
    numbers = {int(name) for name in named if name.isdecimal() and int(name) in wanted}
    there = [path for n in sorted(numbers) if (path := path_of(range(n, n + 1), 0)).exists()]
    if there and not force and not skip_existing:
        raise InputError(
            f"{there[0]} exists" + (f", and {len(there) - 1} more" if len(there) > 1 else ""),
            seen="Nothing is overwritten unasked",
            repair="Add --force, or --skip-existing to go on",
        )
    missing = gaps(wanted, [int(path.stem) for path in there] if skip_existing else [])
    streams = [generator.stream(len(gap), **{**asked, "start": gap.start}) for gap in missing]
    make_folder(folder)
    written = 0
    for gap, chunks in zip(missing, streams, strict=True):
        images = (image for chunk in chunks for image in chunk)
        written += save_all(images, functools.partial(path_of, gap))
    typer.echo(f"Wrote {written} images to {folder}/ (seed {asked['seed']}, {generator.device})")


def gaps(wanted: range, there: list[int]) -> list[range]:
    """The stretches of `wanted` between the numbers that are there, which are sorted."""
    ends = [wanted.start - 1, *there, wanted.stop]
    between = (range(before + 1, after) for before, after in pairwise(ends))
    return [gap for gap in between if gap]
