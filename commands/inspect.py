"""`gan inspect`: what a checkpoint or a model holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import DEVICE, THREADS, Json, argument, need, need_onnxruntime, option, safe

EXAMPLE = "gan inspect model.onnx --graph"
TOP = 15  # nodes of the table


def inspect(
    file: Annotated[Path, argument("FILE", "A model.pt or a model.onnx.")],
    graph: Annotated[
        bool, option("--graph", help="Run the model, and show where its time goes instead.")
    ] = False,
    device: Annotated[str, option(help=f"Of --graph: {DEVICE}")] = "auto",
    threads: Annotated[int | None, option(help=f"Of --graph: {THREADS}")] = None,
    as_json: Json = False,
) -> None:
    """Show a file's signature, sizes, training and parity report."""
    from ..runtime import InputError

    if not file.is_file():
        seen = "It is not a file" if file.exists() else "There is no such file"
        raise InputError(f"{file} cannot be read", seen=seen, repair="Check the path")
    with open(file, "rb") as handle:
        checkpoint = handle.read(2) == b"PK"  # torch.save writes a zip
    if checkpoint and graph:
        raise InputError(
            f"{file} has no graph yet",
            seen="It is a checkpoint",
            repair=f"Export it first: gan export {file} model.onnx",
        )
    if graph:
        need_onnxruntime()
        show_graph(file, device, threads, as_json=as_json)
        return
    if checkpoint:
        need("inspect", "torch")
    content = describe_checkpoint(file) if checkpoint else describe_model(file)
    text = (
        json.dumps(content, indent=2, ensure_ascii=False)
        if as_json
        else "\n".join(outline(content))
    )
    typer.echo(safe(text))


def describe_model(path: Path) -> dict[str, Any]:
    from ..runtime.model_file import ModelFile

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


def show_graph(file: Path, device: str, threads: int | None, *, as_json: bool) -> None:
    """Operators and nodes with their share of a run."""
    import dataclasses

    from ..runtime.profile import profile

    found = profile(file, device=device, threads=threads)
    if as_json:
        content = dataclasses.asdict(found)
        content["operators"] = [dataclasses.asdict(one) for one in found.operators]
        typer.echo(json.dumps({"file": str(file), **content}, indent=2))
        return
    typer.echo(
        f"One run of {found.batch} on {found.device} with {found.threads} threads: "
        f"{found.microseconds / 1e3:.2f} ms, median of {found.runs}"
    )
    typer.echo(f"\n{'operator':24}{'provider':>9}{'count':>7}{'ms':>10}{'share':>8}")
    for one in found.operators:
        typer.echo(
            f"{one.name:24}{one.provider:>9}{one.count:7}{one.microseconds / 1e3:10.3f}"
            f"{100 * one.share:6.1f} %"
        )
    typer.echo(f"\n{'node':36}{'operator':20}{'output':22}{'provider':>9}{'ms':>10}{'share':>8}")
    for node in found.slowest[:TOP]:
        typer.echo(
            f"{node.name:35.35} {node.operator:19.19} {' x '.join(map(str, node.shape)):22}"
            f"{node.provider:>9}{node.microseconds / 1e3:10.3f}{100 * node.share:6.1f} %"
        )


def describe_checkpoint(path: Path) -> dict[str, Any]:
    from ..trainer.checkpoint import Checkpoint

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
