"""`gan adopt`: weights that other code trained become a checkpoint."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from .common import Force, Json, argument, need, option

EXAMPLE = "gan adopt latest_net_G.pth model.pt && gan export model.pt model.onnx"


def adopt(
    weights: Annotated[Path, argument("WEIGHTS", "A state dict, as torch.save wrote it.")],
    output: Annotated[Path, argument("OUTPUT", "The model.pt to write.")],
    key: Annotated[
        str | None,
        option(
            metavar="NAME",
            help="The entry of the file that holds the weights. Default: the only one that is recognised, an average before others.",
        ),
    ] = None,
    statistics: Annotated[
        Literal["training", "image"],
        option(
            help="What batch norm goes by: its running statistics (default), or those of each image, as pix2pix's own code tests."
        ),
    ] = "training",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Recognise a published generator by names and shapes: CycleGAN, pix2pix, DCGAN tutorial, ESRGAN."""
    need("adopt", "torch")
    from ..trainer.adopt import adopt as run

    adopted = run(weights, output, key=key, image_statistics=statistics == "image", overwrite=force)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(adopted), indent=2, ensure_ascii=False))
        return
    where = f", at {adopted.key}" if adopted.key else ""
    typer.echo(f"Recognised: {adopted.title}{where}")
    settings = ", ".join(
        f"{name} {value}" for name, value in adopted.options.items() if value != ""
    )
    typer.echo(f"  {adopted.system}: {settings}; {adopted.parameters:,} parameters")
    typer.echo(f"Wrote {output} ({output.stat().st_size / 1e6:.2f} MB)")
    typer.echo(f"Next: gan export {output} {output.with_suffix('.onnx')}")
