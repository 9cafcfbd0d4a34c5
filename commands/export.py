"""`gan export`: from a checkpoint to proven ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .common import Force, argument, need, need_onnxruntime, option, tell

if TYPE_CHECKING:
    from ..export import Fidelity, Report

EXAMPLE = "gan export runs/photos/model.pt model.onnx"


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
        int | None,
        option(
            help="Largest batch at which parity is proven. Default: 64, down to 8 for large images."
        ),
    ] = None,
    target: Annotated[
        Literal["any", "cpu"],
        option(
            help="Where it will run: cpu also has rewrites that pay on CPUs alone, in a larger file. Default: any."
        ),
    ] = "any",
    optimize: Annotated[
        bool,
        option(
            "--optimize/--no-optimize", help="Rewrite the graph to run faster (default), or not."
        ),
    ] = True,
    precision: Annotated[
        Literal["fp32", "fp16", "mixed", "int8"],
        option(
            help="fp16: weights and values in float16; mixed: norms, styles, softmax and the last layers stay in float32. "
            "Half the size, on a CPU as fast as fp32; speed on CUDA is unmeasured. int8: convolutions in 8 bits, for CPUs: "
            "1.45 to 4 times as fast with VNNI, seen in the image. Inputs and outputs stay as they are. Default: fp32."
        ),
    ] = "fp32",
    samples: Annotated[
        int,
        option(
            help="How many samples of a lower precision are compared with float32. Default: 10000."
        ),
    ] = 10_000,
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
    from ..export import export as run
    from ..export import export_all

    settings: dict[str, Any] = {
        "image": image,
        "opset": opset,
        "max_batch": max_batch,
        "target": target if optimize else None,
        "precision": precision,
        "samples": samples,
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
        typer.echo(f"Next: {next_command(output)}")


def next_command(output: Path) -> str:
    """What the file is for: to translate the caller's images, or to be sampled."""
    from ..runtime.model_file import ModelFile

    given = [field for field in ModelFile.read(output).signature.inputs if field.draw is None]
    if any(field.kind == "image" for field in given):
        mask = " --mask mask.png" if any(field.kind == "mask" for field in given) else ""
        return f"gan translate {output} in.png out.png{mask}"
    return f"gan sample {output} --grid grid.png"


def print_report(report: Report) -> None:
    width = max(len(row.output) for row in report.rows)
    sized = any(row.size for row in report.rows)
    typer.echo(
        f"  {'output':>{width}}  batch{'       size' if sized else ''}   max abs   max rel  PSNR dB  step  bytes differing"
    )
    for row in report.rows:
        head = (
            f"{row.step:4}  {100 * (row.share or 0):.4f} %" if row.step is not None else "   -  -"
        )
        typer.echo(
            f"  {row.output:>{width}}{row.batch:7}{f'{row.size:>11}' if sized else ''}{row.max_abs:10.1e}{row.max_rel:10.1e}{row.psnr:9.1f}  {head}"
        )
    for name, count in report.rewrites.items():
        typer.echo(f"Rewritten to run faster: {count} {name}")
    if report.fidelity:
        print_fidelity(report.fidelity)
    e = report.exactness
    batches, threads = (", ".join(map(str, numbers)) for numbers in (e.batches, e.threads))
    typer.echo(f"Same bytes in batches of {batches}: {yes_or_step(e.across_batches)}")
    typer.echo(f"Same bytes with {threads} threads: {yes_or_step(e.across_threads)}")


def print_fidelity(fidelity: Fidelity) -> None:
    """The lines of a file in lower precision: what it consists of, and each comparison."""
    kept = f", kept for their range: {', '.join(fidelity.kept)}" if fidelity.kept else ""
    typer.echo(
        f"Precision {fidelity.precision}: {fidelity.lower_nodes} nodes, {fidelity.float_nodes} in float32, "
        f"{fidelity.casts} casts{kept}"
    )
    width = max(len(row.output) for row in fidelity.rows)
    typer.echo(
        f"  {'output':>{width}}           against  samples  worst dB  mean dB  step  bytes differing"
    )
    for row in fidelity.rows:
        tail = (
            f"{row.step:4}  {100 * (row.share or 0):.4f} %" if row.share is not None else "   -  -"
        )
        typer.echo(
            f"  {row.output:>{width}}  {row.against:>16}{row.samples:9}{row.worst_psnr:10.1f}{row.mean_psnr:9.1f}  {tail}"
        )


def yes_or_step(step: float) -> str:
    return f"no, they differ by {step:.3g} steps of 255" if step else "yes"
