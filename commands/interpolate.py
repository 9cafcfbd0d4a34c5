"""`gan interpolate`: the way from one image to another, as a moving picture or a sheet."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .common import (
    DEVICE,
    THREADS,
    Force,
    Model,
    Truncation,
    argument,
    check_new_file,
    class_of,
    drawable,
    machine,
    need_onnxruntime,
    option,
    tell,
    where,
)
from .sample import style_graphs

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = "gan interpolate model.onnx walk.mp4 --from 3 --to 9 --frames 120 --space w"


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
    from ..runtime import Generator, InputError, styles, video
    from ..runtime import images as pictures

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
        raise InputError(
            "No frames were made", seen="The model's samples are points", repair="Use gan sample"
        )
    if loop or output.suffix.lower() != ".mp4":
        generator.bounded(frames)  # these are held in memory
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
