"""`gan train`: from data to a checkpoint, with a live status line."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .common import LiveLine, argument, clock, fail, how, machine, need, option, tell, what, where

if TYPE_CHECKING:
    from ..trainer.progress import Status
    from ..trainer.request import Plan

Fit = Literal["crop", "pad", "stretch", "tiles"]
Channels = Literal["auto", "1", "3", "4"]
DATA = (
    "A folder or zip of images, classes as sub-folders; or built-in: digits (the default), stacked-digits, shapes, "
    "faces (4 ages), persons (pairs of them), edges (pairs), warm-cold (two sets), ring, grid."
)
SYSTEM = (
    "A system's name, or your own .py file; `gan systems` lists them. Default: cgan for labelled images, dcgan for "
    "others, gan for points."
)
SOURCE = (
    "For systems that take an image: a folder or zip of the images that those of DATA are made from, matched by name, "
    "or a set of their own. Without it: pairs side by side in each file (from left to right), or two sub-folders of "
    "DATA (from the first to the second)."
)
FIT = "What to do with images that are not square; tiles cuts any into squares at their own scale."
CROP = "Train on random windows of so many pixels a side. Default: the whole image."
LOSS = "non-saturating, minimax, least-squares, hinge, wasserstein or relativistic."
SET = "Any other setting; `gan systems NAME` lists them."
EXAMPLE = "gan train ./photos --system dcgan --resolution 64 --out runs/photos"


def train(
    data: Annotated[str | None, argument("DATA", DATA)] = None,
    source: Annotated[str | None, what(help=SOURCE)] = None,
    system: Annotated[str | None, what(help=SYSTEM)] = None,
    resolution: Annotated[
        int | None, what(help="Pixels a side. Default: that of built-in data, else 64.")
    ] = None,
    channels: Annotated[
        Channels, what(help="Grey, RGB or RGBA. Default: grey if all images are, else RGB.")
    ] = "auto",
    fit: Annotated[Fit | None, what(help=FIT)] = None,
    crop: Annotated[int | None, what(metavar="PIXELS", help=CROP)] = None,
    zoom: Annotated[
        float | None,
        what(
            help="With --crop: first enlarge by a random factor up to this, at most 4. Default: 1."
        ),
    ] = None,
    mirror: Annotated[bool | None, what("--mirror", help="Also train on mirrored images.")] = None,
    swap: Annotated[
        bool | None, what("--swap", help="Exchange the two sides of pairs or of two sets.")
    ] = None,
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
    keep: Annotated[
        int,
        where(
            min=0,
            max=10**9,
            metavar="K",
            help="Also keep the K checkpoints before the last, in history/. Default: 0.",
        ),
    ] = 0,
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
    from ..trainer.loop import train as run
    from ..trainer.request import Request

    if steps is not None and minutes is not None:
        raise typer.BadParameter("give --steps or --minutes, not both")
    chosen: dict[str, Any] = {
        "resolution": resolution,
        "channels": None if channels == "auto" else int(channels),
        "fit": fit,
        "crop": crop,
        "zoom": zoom,
        "mirror": mirror,
        "swap": swap,
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
        source=source,
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
        keep=keep,
        sample_every=sample_every,
        measure_every=measure_every,
    )
    if dry_run:
        from ..trainer.request import plan

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


class StatusLine:
    """The live line of a run, once a step."""

    def __init__(self) -> None:
        self._line, self._step = LiveLine(), -1

    def show(self, status: Status) -> None:
        if status.step != self._step:
            self._step = status.step
            self._line.show(status_text(status), last=status.step == status.steps)

    def end(self) -> None:
        self._line.end()


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


def print_plan(plan: Plan, minutes: float | None) -> None:
    from ..trainer.system import build_on_meta, parameter_count

    lines = {"data": plan.data.name, "samples": len(plan.data), "classes": len(plan.data.classes)}
    if plan.data.partners is not None:
        lines["partners"] = len(plan.data.partners)
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
