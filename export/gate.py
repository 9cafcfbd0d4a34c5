"""`export` and `export_all`: the eight steps of the gate, in order. Any failure raises and leaves no file."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import onnx

from ..runtime import latents
from ..runtime.errors import CheckpointError, ExportError, InputError, ParityError
from ..runtime.files import atomic_files, sibling, work_folder
from ..runtime.generator import Generator
from ..runtime.golden import COUNT, SEED, Golden, golden_inputs
from ..runtime.model_file import METADATA_KEYS, ModelFile
from ..runtime.session import load_onnxruntime
from ..runtime.signature import Signature
from ..runtime.values import check_choice, check_flag, check_integer, check_path, refused
from ..trainer.checkpoint import Checkpoint, weights_digest
from . import graph as graphs
from .fidelity import MOST_SAMPLES, SAMPLES, limits_of, lower, prove_fidelity
from .module import Source, check_isolation, check_radius, check_sizes, graph_names, load_source
from .optimize import WINOGRAD, Target, forms
from .parity import check_exactness, measure_exactness, measure_parity
from .precision import PRECISIONS, Precision, layer_paths
from .report import Report
from .trace import trace

logger = logging.getLogger("gan.export")

ALL = "all"  # of the graphs
OPSETS = range(18, 24)
DEFAULT_OPSET = 20
MOST_VALUES = 64 * 3 * 128 * 128  # of a batch by default
TOOLS = ("gan-toolchain", "torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy")


def export(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    graph: str | None = None,
    image: Literal["uint8", "float"] = "uint8",
    opset: int = DEFAULT_OPSET,
    max_batch: int | None = None,
    target: Target | None = "any",
    precision: Precision = "fp32",
    samples: int = SAMPLES,
    system_file: str | None = None,
    accept_changed_system: bool = False,
    overwrite: bool = False,
) -> Report:
    """Write one proven ONNX file of a graph (default: the main one) of `checkpoint`.

    image: "uint8" gives and takes images as NHWC bytes, "float" as NCHW in [-1, 1]. max_batch: the largest batch at
    which parity is measured; by default 64, down to 8 for samples of more than 128 x 128 pixels. target: the graph is
    rewritten to run faster, "cpu" also by what pays on CPUs alone; None leaves it as torch traced it. precision: "fp16"
    has weights and values in float16, "mixed" norms, styles and the last layers in float32, "int8" convolutions in 8
    bits; inputs and outputs stay as they are. samples: so many are then compared with float32. system_file: the user's
    own system, if the checkpoint was trained with one. Raises `CheckpointError`, `ExportError`,
    `ParityError`, `InputError`; then there is no new file.
    """
    if isinstance(graph, str) and graph == ALL:
        raise InputError(
            "One graph is exported at a time",
            seen=f"graph {ALL!r}",
            repair="Call export_all, or name a graph",
        )
    settings = Settings(
        image,
        opset,
        max_batch,
        target,
        precision,
        samples,
        system_file,
        accept_changed_system,
        overwrite,
    )
    return next(iter(_export(checkpoint, output, graph, settings).values()))


def export_all(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    image: Literal["uint8", "float"] = "uint8",
    opset: int = DEFAULT_OPSET,
    max_batch: int | None = None,
    target: Target | None = "any",
    precision: Precision = "fp32",
    samples: int = SAMPLES,
    system_file: str | None = None,
    accept_changed_system: bool = False,
    overwrite: bool = False,
) -> dict[Path, Report]:
    """`export` for every graph: the main one to `output`, model.onnx, the others beside it, model.NAME.onnx.

    None is written before all are proven. The reports by file, the main one first.
    """
    settings = Settings(
        image,
        opset,
        max_batch,
        target,
        precision,
        samples,
        system_file,
        accept_changed_system,
        overwrite,
    )
    return _export(checkpoint, output, ALL, settings)


@dataclass(frozen=True)
class Settings:
    """What `export` and `export_all` take beside paths and graph."""

    image: Literal["uint8", "float"]
    opset: int
    max_batch: int | None
    target: Target | None
    precision: Precision
    samples: int
    system_file: str | None
    accept_changed_system: bool
    overwrite: bool

    def check(self) -> None:
        """`InputError` that names the first one which is not what it should be."""
        check_choice("image", self.image, ("uint8", "float"))
        check_integer("opset", self.opset, OPSETS[0], OPSETS[-1])
        if self.max_batch is not None:
            check_integer("largest batch", self.max_batch, 1, 4096)
        if self.target is not None:
            check_choice("target", self.target, get_args(Target))
        check_choice("precision", self.precision, PRECISIONS)
        check_integer("number of samples", self.samples, 1, MOST_SAMPLES)
        if self.system_file is not None:
            check_path("system file", self.system_file)
        check_flag("accept_changed_system", self.accept_changed_system)
        check_flag("overwrite", self.overwrite)


def _export(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    graph: str | None,
    settings: Settings,
) -> dict[Path, Report]:
    """Prove, then write, what is asked for: None is the main graph."""
    checkpoint, output = check_path("checkpoint", checkpoint), check_path("output", output)
    if graph is not None and not isinstance(graph, str):
        raise refused("graph", graph, "Give a graph's name")
    settings.check()
    _check_folder(output)
    _check_target(output, checkpoint, settings.overwrite)
    load_onnxruntime()  # the judge: missing, it is better said before anything long
    with work_folder("gan-export") as folder:
        kept = _keep(checkpoint, folder)
        content = _load(kept, checkpoint)
        targets = _targets(content, output, graph, settings)
        for target in targets:
            _check_target(target, checkpoint, settings.overwrite)
        proven = {}
        for target, name in targets.items():
            if len(targets) > 1:
                logger.info("Graph %s", name)
            proven[target] = _prove_graph(kept, content, name, settings)
        for target in targets:
            _check_target(target, checkpoint, settings.overwrite)  # it may have come meanwhile
        _write({target: (data, digest) for target, (_, data, digest) in proven.items()})
        return {target: report for target, (report, _, _) in proven.items()}


def _targets(
    checkpoint: Checkpoint, output: Path, graph: str | None, settings: Settings
) -> dict[Path, str]:
    """The graph of each file, by name."""
    names = graph_names(
        checkpoint,
        system_file=settings.system_file,
        accept_changed=settings.accept_changed_system,
    )
    if graph == ALL:
        return {sibling(output, name) if i else output: name for i, name in enumerate(names)}
    return {output: names[0] if graph is None else graph}


def _prove_graph(
    kept: Path, checkpoint: Checkpoint, graph: str, settings: Settings
) -> tuple[Report, bytes, str]:
    """Gate steps 1 to 8 up to the finished bytes: the report, the file, and its graph's digest."""
    logger.info("1/8 averaged weights")
    source = load_source(
        checkpoint,
        graph=graph,
        system_file=settings.system_file,
        accept_changed=settings.accept_changed_system,
    )
    logger.info("2/8 batch isolation")
    check_isolation(source)
    check_sizes(source)
    check_radius(source)
    logger.info("3/8 trace with a dynamic batch axis")
    traced = trace(
        kept.parent,
        checkpoint=kept,
        graph=graph,
        system_file=settings.system_file,
        opset=settings.opset,
    )
    model = onnx.load(traced, load_external_data=False)
    graphs.check_batch_axis(model)
    logger.info("4/8 lint")
    graphs.lint(model)
    most = settings.max_batch or default_max_batch(source.signature)
    layers = layer_paths(model)
    graphs.clean(model)
    failed: ParityError | None = None
    # Winograd's sums and a lower precision would round too much together.
    target = "any" if settings.target and settings.precision != "fp32" else settings.target
    for form, rewrites in forms(model, target):
        try:
            return _prove(source, form, rewrites, layers, settings, most)
        except ParityError as error:
            failed = failed or error
            if WINOGRAD in rewrites:
                logger.warning("Not proven with %s: %s", WINOGRAD, error)
    assert failed is not None
    raise failed


def default_max_batch(signature: Signature) -> int:
    """64, fewer for large samples, at least 8."""
    return min(64, max(8, MOST_VALUES // max(signature.example_values, 1)))


def _prove(
    source: Source,
    model: onnx.ModelProto,
    rewrites: dict[str, int],
    layers: Mapping[str, str],
    settings: Settings,
    max_batch: int,
) -> tuple[Report, bytes, str]:
    """Gate steps 5 to 8, on the rewritten graph. layers: the module path of each value."""
    logger.info("5/8 rewrites, precision, head, check")
    lowered = lower(source, model, settings.precision, layers)
    signature = _with_ends(model, source.signature, settings.image)
    graphs.check(model)
    sections: dict[str, Any] = {
        "signature": signature.to_json(),
        "latents": {"version": latents.VERSION},
        **_provenance(source),
    }
    graphs.embed(model, sections)
    file, probe = graphs.to_bytes(model), graphs.with_float_outputs(model, source.signature)
    graphs.check_taken(file)
    fidelity = None
    if lowered is not None:
        logger.info("6/8 %s against float32, %d samples", lowered.precision, settings.samples)
        _with_ends(lowered.reference, source.signature, settings.image)
        fidelity = prove_fidelity(source, signature, lowered, model, max_batch, settings.samples)
    logger.info("6/8 parity with torch at batch 1 to %d", max_batch)
    limits = limits_of(settings.precision)
    rows = measure_parity(source, signature, file, graphs.to_bytes(probe), max_batch, limits)
    logger.info("7/8 exactness across batch sizes and threads")
    exactness = measure_exactness(signature, file, max_batch)
    own = source.checkpoint.config.system.file is not None
    check_exactness(exactness, required=not own, lowered=lowered is not None)
    report = Report(rows, exactness, limits.max_abs, limits.step, limits.share, fidelity, rewrites)
    logger.info("8/8 report and golden sample")
    digest, generator = ModelFile.read(file).graph_digest(), Generator(file, device="cpu")
    sections |= {
        "parity": report.to_metadata(),
        "golden": Golden.record(
            generator(**golden_inputs(signature, SEED, COUNT))[signature.main.name],
            step=fidelity.step if fidelity else 0,
        ).to_metadata(),
        "weights": {
            "checkpoint": weights_digest(source.checkpoint.content["averaged"]),
            "graph": digest,
        },
    }
    graphs.embed(model, sections)
    return report, graphs.to_bytes(model), digest


def _with_ends(model: onnx.ModelProto, signature: Signature, image: str) -> Signature:
    """Attach heads and feet in place; the signature of the result."""
    return graphs.attach_feet(model, graphs.attach_heads(model, signature, image), image)


def _write(files: Mapping[Path, tuple[bytes, str]]) -> None:
    """Open and verify the finished files where they lie, then rename all into place. files: bytes and graph digest."""
    with atomic_files(list(files)) as opened:
        for file, (data, digest) in zip(opened, files.values(), strict=True):
            file.write(data)
            file.flush()
            _verify(file.name, digest)


def _verify(path: str, digest: str) -> None:
    """The file as its user will open it. Raises `ExportError` and `ParityError`."""
    generator = Generator(path, device="cpu")
    written = ModelFile.read(path)
    for section in METADATA_KEYS:
        written.section(section)
    if written.graph_digest() != digest:
        raise ExportError(
            "The graph changed while its report was embedded",
            seen="another digest",
            repair="Export again; if it stays so, report it with the checkpoint",
        )
    verdict = generator.verify()
    if verdict != "exact":
        logger.warning("The golden sample is not reproduced exactly: %s", verdict)


def _provenance(source: Source) -> dict[str, Any]:
    """Where the network comes from, without path, person or time."""
    content, config = source.checkpoint.content, source.checkpoint.config
    versions = {}
    for tool in TOOLS:
        try:
            versions[tool] = importlib.metadata.version(tool)
        except importlib.metadata.PackageNotFoundError:
            continue
    settings = config.to_dict()
    return {
        "system": {
            "graph": source.graph,
            **dataclasses.asdict(source.system),
            "trained_sha256": settings.pop("system")["sha256"],
            "options": settings.pop("options"),
        },
        "training": {
            "step": source.checkpoint.step,
            "images_seen": content["progress"]["images_seen"],
            "data": {key: content["data"][key] for key in ("name", "count", "digest")},
            "metrics": content["metrics"]["values"],
            "settings": settings,
        },
        "tools": versions,
    }


def _keep(checkpoint: Path, work: Path) -> Path:
    """A copy that cannot change during the export: a run may replace model.pt at any moment."""
    kept = work / "model.pt"
    with contextlib.ExitStack() as stack:
        try:
            source = stack.enter_context(open(checkpoint, "rb"))
        except OSError as error:
            raise InputError(
                f"{checkpoint} cannot be read", seen=f"{error.strerror}", repair="Check the path"
            ) from error
        shutil.copyfileobj(source, stack.enter_context(open(kept, "wb")))
    return kept


def _load(kept: Path, given: Path) -> Checkpoint:
    """The copy, with errors that name the file that the user gave."""
    try:
        return Checkpoint.load(kept)
    except CheckpointError as error:
        failed = error.failed.replace(str(kept), str(given))
        raise CheckpointError(failed, seen=error.seen, repair=error.repair) from error


def _check_folder(target: Path) -> None:
    if not target.parent.is_dir():
        raise InputError(
            f"{target} cannot be written",
            seen=f"There is no folder {target.parent}",
            repair="Make it",
        )
    if target.is_dir():
        raise InputError(
            f"{target} cannot be written", seen="It is a folder", repair="Give a file name"
        )


def _check_target(target: Path, checkpoint: Path, overwrite: bool) -> None:
    if target.exists() and checkpoint.exists() and target.samefile(checkpoint):
        raise InputError(
            f"{target} is the checkpoint itself",
            seen="It would be lost",
            repair="Name another file",
        )
    if target.exists() and not overwrite:
        raise InputError(
            f"{target} exists", seen="Nothing is overwritten unasked", repair="Add --force"
        )
