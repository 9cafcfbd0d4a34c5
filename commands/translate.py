"""`gan translate`: what a model makes of an image, or of each image in a folder."""

from __future__ import annotations

import errno
import logging
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .common import (
    DEVICE,
    THREADS,
    Force,
    LiveLine,
    MemoryLimit,
    Model,
    Tf32,
    argument,
    check_new_file,
    class_of,
    clock,
    cuda_options,
    fail,
    machine,
    need_onnxruntime,
    option,
    tell,
    where,
)

if TYPE_CHECKING:
    from ..runtime.folders import Listing
    from ..runtime.images import Pixels
    from ..runtime.translator import Translator

logger = logging.getLogger("gan.commands")
EXAMPLE = "gan translate model.onnx photos/ enlarged/ --tile 512"
NAMED = 10  # images that could not be translated and are told by name


@dataclass(frozen=True)
class Job:
    source: Path
    mask: Path | None
    target: Path


def translate(
    model: Model,
    source: Annotated[
        Path, argument("IN", "An image, or a folder of images, its sub-folders included.")
    ],
    target: Annotated[
        Path, argument("OUT", "A .png, .webp or .jpg; a folder where IN is a folder.")
    ],
    label: Annotated[
        str | None, option(help="A class name or index. Default: drawn from --seed.")
    ] = None,
    mask: Annotated[
        Path | None,
        option(
            help="For models that paint holes: an image, white in the hole, or a folder with one of the same name "
            "for each of IN."
        ),
    ] = None,
    tile: Annotated[
        int | None,
        option(
            help="For large images: run them in tiles of so many pixels a side, in little memory. Default: whole."
        ),
    ] = None,
    overlap: Annotated[
        int | None,
        option(
            help="Pixels by which tiles see beyond themselves; fewer than the model's radius are faster, and "
            "approximate. Default: the radius, which changes nothing."
        ),
    ] = None,
    resize: Annotated[
        bool,
        option("--resize", help="Make images the size that the model takes, if it takes one only."),
    ] = False,
    seed: Annotated[int, option(help="Of what the model draws, 0 to 2^64 - 1. Default: 0.")] = 0,
    format: Annotated[
        Literal["png", "webp", "jpg"] | None,
        where(help="Of the files in a folder; jpg is on white where there is alpha. Default: png."),
    ] = None,
    beside: Annotated[
        bool, where("--beside", help="Write what came and what was made side by side.")
    ] = False,
    skip_existing: Annotated[
        bool, where("--skip-existing", help="Go on with a folder: leave out what exists in OUT.")
    ] = False,
    device: Annotated[str, machine(help=DEVICE)] = "auto",
    threads: Annotated[int | None, machine(help=THREADS)] = None,
    memory_limit: MemoryLimit = None,
    tf32: Tf32 = False,
    force: Force = False,
) -> None:
    """Make images of images: enlarge, colour, fill holes, change the season; whatever the model learnt."""
    need_onnxruntime()
    tell(logging.WARNING)
    folder = source.is_dir()
    if not folder and (format is not None or skip_existing):
        raise typer.BadParameter("--format and --skip-existing go with a folder")
    if force and skip_existing:
        raise typer.BadParameter("give --force or --skip-existing, not both")
    warnings.simplefilter("ignore")  # Pillow's on odd files; what cannot be read is told of
    unread = list[OSError]()
    if folder:
        listing = listed(source)
        unread = listing.unread
        jobs = jobs_of_folder(listing, source, target, mask, format or "png", force, skip_existing)
    else:
        jobs = [job_of_file(source, target, mask, force)]
    from ..runtime import Generator
    from ..runtime.translator import Translator

    generator = Generator(
        model, device=device, threads=threads, cuda=cuda_options(memory_limit, tf32)
    )
    translator = Translator(
        generator,
        label=class_of(generator, label),
        seed=seed,
        tile=tile,
        overlap=overlap,
        resize=resize,
    )
    translator.check_mask(mask is not None)
    if not folder:
        size = write(translator, jobs[0], beside)
        typer.echo(f"Wrote {target} ({size}, {generator.device})")
        return
    failed = write_all(translator, jobs, beside)
    typer.echo(f"Wrote {len(jobs) - len(failed)} images to {target}/ ({generator.device})")
    if failed or unread:
        folders = f" and {len(unread)} folders" if unread else ""
        told = [f"{error}" for error in unread] + failed
        named = "\n".join(f"gan:   {text}" for text in told[:NAMED])
        more = f"\ngan:   and {len(told) - NAMED} more" if len(told) > NAMED else ""
        fail(f"{len(failed)} of {len(jobs)} images{folders} were not translated:\n{named}{more}")


def write(translator: Translator, job: Job, beside: bool) -> str:
    """Translate one image; its size as text."""
    from ..runtime.files import make_folder
    from ..runtime.images import save
    from ..runtime.pictures import read

    picture = read(job.source)
    made = translator(picture, mask=job.mask)
    height, width = made.shape[:2]
    if beside:
        made = side_by_side(picture.resized(height, width).pixels(4), made)
    make_folder(job.target.parent)
    save(made, job.target, lossy=True)
    return f"{width} x {height} pixels"


def side_by_side(before: Pixels, after: Pixels) -> Pixels:
    """Two images [H, W, 4] and [H, W, C] as one; alpha only where there is any."""
    import numpy as np

    from ..runtime.pictures import read

    both = np.concatenate([before, read(after).pixels(4)], axis=1)
    return both if both[:, :, 3].min() < 255 else np.ascontiguousarray(both[:, :, :3])


def write_all(translator: Translator, jobs: list[Job], beside: bool) -> list[str]:
    """Translate all, past those that cannot be; a line for each of these."""
    from ..runtime import InputError
    from ..runtime.text import legible

    line, failed, start = LiveLine(), list[str](), time.monotonic()
    try:
        for number, job in enumerate(jobs, start=1):
            try:
                write(translator, job, beside)
            except (InputError, OSError) as error:
                if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
                    raise  # the next would fail too, as on a full disk
                told = legible(f"{error}")
                name = legible(str(job.source))
                failed.append(told if name in told else f"{name}: {told}")
            speed = number / max(time.monotonic() - start, 1e-9)
            parts = [f"{number}/{len(jobs)} images", f"{speed:.2g}/s"]
            parts += [f"{len(failed)} failed"] if failed else []
            parts.append(f"{clock((len(jobs) - number) / speed)} left")
            line.show(" | ".join(parts), last=number == len(jobs))
    finally:
        line.end()
    return failed


def job_of_file(source: Path, target: Path, mask: Path | None, force: bool) -> Job:
    from ..runtime import InputError
    from ..runtime.images import check_suffix

    if target.is_dir():
        raise InputError(
            f"{target} was not written",
            seen="It is a folder, and IN is not",
            repair=f"Give a file, such as {target / source.stem}.png",
        )
    check_suffix(target, lossy=True)
    for other in (source, mask):
        if other is not None and same(other, target):
            raise InputError(
                f"{target} was not written", seen=f"It is {other} itself", repair="Give another OUT"
            )
    if mask is not None and mask.is_dir():
        raise InputError(
            "The mask was refused",
            seen=f"{mask} is a folder, and IN is not",
            repair="Give an image",
        )
    if not source.exists():
        raise InputError(
            f"{source} cannot be read", seen="There is no such file", repair="Check the path"
        )
    check_new_file(target, force)
    return Job(source, mask, target)


def jobs_of_folder(
    listing: Listing,
    source: Path,
    target: Path,
    mask: Path | None,
    format: str,
    force: bool,
    skip_existing: bool,
) -> list[Job]:
    """One for each image of the folder that was listed; `InputError` for what would overwrite, before anything is."""
    from ..runtime import InputError

    inside = target.resolve().is_relative_to(source.resolve())
    if inside or (target.exists() and not target.is_dir()):
        raise InputError(
            f"{target} was refused for what is made of {source}",
            seen="It is the same folder, or within it" if inside else "It is a file",
            repair="Give another folder as OUT",
        )
    images = [source / name for name in listing.images]
    if not images:
        raise InputError(
            f"{source} holds no image",
            seen="No .png, .jpg, .webp, .bmp, .gif or .tif in it or its sub-folders",
            repair="Give a folder with images",
        )
    masks = None
    if mask is not None and mask.is_dir():
        masks = {
            path.relative_to(mask).with_suffix(""): path
            for path in (mask / name for name in listed(mask).images)
        }
    jobs: dict[Path, Job] = {}
    for path in images:
        name = path.relative_to(source).with_suffix("")
        if masks is not None and name not in masks:
            raise InputError(
                f"There is no mask for {path}",
                seen=f"No image {name} in {mask}",
                repair="Add it, or give one mask for all images",
            )
        own = mask if masks is None else masks[name]
        job = Job(path, own, target / name.with_name(f"{name.name}.{format}"))
        if job.target in jobs:
            raise InputError(
                f"{job.target} would be made twice",
                seen=f"Of {jobs[job.target].source} and of {path}",
                repair="Rename one of them",
            )
        jobs[job.target] = job
    there = [path for path in jobs if path.exists()]
    if there and not force and not skip_existing:
        raise InputError(
            f"{there[0]} exists" + (f", and {len(there) - 1} more" if len(there) > 1 else ""),
            seen="Nothing is overwritten unasked",
            repair="Add --force, or --skip-existing to go on",
        )
    return [job for job in jobs.values() if force or not job.target.exists()]


def listed(folder: Path) -> Listing:
    """The images of a folder and its sub-folders by their suffix; of other kinds of images it is told."""
    from ..runtime.folders import Listing

    listing = Listing.of(folder)
    if listing.foreign:
        logger.warning("%s", listing.foreign_note())
    return listing


def same(a: Path, b: Path) -> bool:
    return a.exists() and b.exists() and a.samefile(b)
