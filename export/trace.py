"""Gate step 3: torch.onnx.export in a process of its own, since a failed export can poison the next.

`trace` starts the process; `python -m gan.export.trace REQUEST.json` is the process.
"""

from __future__ import annotations

import inspect
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..runtime.errors import ExportError, GanError
from ..runtime.files import not_written
from ..runtime.signature import Field, Signature, split_axis

EXAMPLE_BATCH = 3
FLOAT_SUFFIX = "_float"  # of an output's name before its head


def trace(work: Path, *, checkpoint: Path, graph: str, system_file: str | None, opset: int) -> Path:
    """Trace a graph of `checkpoint` with a dynamic batch axis into a file in `work`. Raises `ExportError`."""
    request, result, onnx = work / "request.json", work / "result.json", work / "traced.onnx"
    request.write_text(
        json.dumps(
            {
                "checkpoint": str(checkpoint),
                "graph": graph,
                "system_file": system_file,
                "opset": opset,
                "onnx": str(onnx),
                "result": str(result),
            }
        )
    )
    process = subprocess.run(
        [sys.executable, "-P", "-m", "gan.export.trace", str(request)],
        capture_output=True,
        text=True,
        check=False,
    )
    answer = _answer(result)
    if process.returncode != 0 or "error" in answer or not onnx.exists():
        tail = " ".join(process.stderr.split())[-300:]
        broken = f"The tracing process ended with {process.returncode}: {tail}"
        raise ExportError(
            answer.get("failed", "The generator could not be traced"),
            seen=answer.get("error", broken),
            repair=answer.get("repair", "See `gan doctor`: are torch, onnx and onnxscript sound?"),
        )
    return onnx


def _answer(result: Path) -> dict[str, str]:
    """What the process said; nothing where it could not even write that."""
    try:
        return dict(json.loads(result.read_text()))
    except (OSError, ValueError):
        return {}


def export_program(
    module: Any, inputs: tuple[Any, ...], fields: Sequence[Field], outputs: list[str], opset: int
) -> Any:
    """torch.onnx.export with axis 0 of every input dynamic, and those that the fields name; raises `ExportError` where
    a limit was put on one."""
    import torch

    keep_small_constants()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            # A string, never Dim("batch"): with that, torch may silently give a static batch.
            dynamic_shapes=dynamic_axes(module, fields),
            input_names=[field.name for field in fields],
            output_names=outputs,
            opset_version=opset,
            external_data=False,
            verbose=False,
        )
    assert program is not None and program.exported_program is not None
    check_ranges(program.exported_program.range_constraints)
    return program


def keep_small_constants() -> None:
    """Keep onnxscript, which torch.onnx optimises with, from taking x + 1e-8 for x: its patterns match a constant within
    1e-8. Without the epsilon a norm of zeros is NaN."""
    from onnxscript.rewriter import _pattern_ir

    exact = property(lambda self: 0.0, lambda self, value: None)
    setattr(_pattern_ir.Constant, "_abs_tol", exact)  # noqa: B010  # of all patterns, those made already too


def dynamic_axes(module: Any, fields: Sequence[Field]) -> tuple[Any, ...]:
    """{0: "batch"} for each of the module's inputs, and the field's own dynamic axes, "4*h" as a multiple of h; nested
    as its forward takes them: a *rest is a tuple of its own."""
    from torch.export import Dim

    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    names = {split_axis(a)[1] for field in fields for a in field.shape if isinstance(a, str)}
    dims = {name: Dim(name) for name in sorted(names)}

    def size(axis: str) -> Any:
        factor, name = split_axis(axis)
        return factor * dims[name] if factor > 1 else dims[name]

    axes = tuple(
        {0: "batch", **{i: size(a) for i, a in enumerate(field.shape, 1) if isinstance(a, str)}}
        for field in fields
    )
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return axes
    named = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*axes[:named], axes[named:])


def trace_sizes(signature: Signature) -> dict[str, int]:
    """Sizes of the dynamic axes to trace with: all different, none 1 and none the batch's, which torch would take for
    constants or for one another."""
    sizes: dict[str, int] = {}
    for name, size in signature.example_sizes.items():
        size += 1
        while size in (1, EXAMPLE_BATCH, *sizes.values()):
            size += 1
        sizes[name] = size
    return sizes


def check_ranges(constraints: Any) -> None:
    """Raise `ExportError` if torch found that the graph holds for some batch sizes only."""
    from torch.utils._sympy.numbers import int_oo

    for symbol, bounds in constraints.items():
        upper = None if bounds.upper == int_oo or not bounds.upper.is_finite else int(bounds.upper)
        if upper is not None or int(bounds.lower) > 2:
            raise ExportError(
                "The generator takes only some batch sizes",
                seen=f"torch found {symbol} from {bounds.lower} to {bounds.upper}",
                repair="Look for a branch on the batch size in forward()",
            )


def _main(path: str) -> None:
    from ..trainer.checkpoint import Checkpoint
    from .module import load_source

    logging.getLogger().setLevel(
        logging.ERROR
    )  # the exporter warns about packages that nobody asked for
    request = json.loads(Path(path).read_text())
    answer: dict[str, str] = {}
    try:
        source = load_source(
            Checkpoint.load(request["checkpoint"]),
            graph=request["graph"],
            system_file=request["system_file"],
            accept_changed=True,  # the parent has checked
        )
        fields = source.signature.inputs
        outputs = [field.name + FLOAT_SUFFIX for field in source.signature.outputs]
        inputs = tuple(source.inputs(EXAMPLE_BATCH, sizes=trace_sizes(source.signature)))
        export_program(source.module, inputs, fields, outputs, request["opset"]).save(
            request["onnx"], include_initializers=True, external_data=False
        )
    except GanError as error:
        answer = {"failed": error.failed, "error": error.seen, "repair": error.repair}
    except OSError as error:
        told = not_written("A temporary file", error)
        answer = {"failed": told.failed, "error": told.seen, "repair": told.repair}
    except Exception as error:  # torch.onnx raises many kinds; the cause is what helps
        cause = error.__cause__ or error
        answer = {
            "error": f"{type(cause).__name__}: {' '.join(str(cause).split()):.400}",
            "repair": "Write forward() in plain tensor operations that any batch size can take",
        }
    Path(request["result"]).write_text(json.dumps(answer))


if __name__ == "__main__":
    _main(sys.argv[1])
