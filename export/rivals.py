"""What a user would run instead of the exported file: torch, on the same checkpoint, with the same inputs and bytes."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..runtime.bench import example_inputs
from ..runtime.errors import InputError
from ..runtime.inputs import Array
from ..runtime.measure import Contender
from ..runtime.model_file import ModelFile
from ..runtime.signature import Field
from ..trainer.checkpoint import Checkpoint, weights_digest
from .module import load_source

EAGER, LAST, COMPILED = "torch eager", "torch channels_last", "torch.compile"
Run = Callable[..., Tensor]  # a module, or a compiled one


class Whole(nn.Module):
    """A graph's main output from inputs as the file takes them, to bytes as the file gives them."""

    def __init__(self, module: nn.Module, inputs: Sequence[Field], main: Field) -> None:
        super().__init__()
        self.module, self.inputs, self.main = module, tuple(inputs), main

    def forward(self, *given: Tensor) -> Tensor:
        outputs = self.module(*map(_foot, self.inputs, given))
        x: Tensor = outputs if isinstance(outputs, Tensor) else outputs[0]
        if self.main.kind != "image":
            return x
        if self.main.dtype != "uint8":
            return x.clamp(-1, 1)
        x = (x * 127.5 + 127.5).clamp(0, 255).round().to(torch.uint8)
        return x.permute(0, 2, 3, 1).contiguous()  # (B, H, W, C)


def _foot(field: Field, x: Tensor) -> Tensor:
    if field.dtype != "uint8":
        return x
    x = x.permute(0, 3, 1, 2).float()  # (B, C, H, W)
    return x / 127.5 - 1 if field.kind == "image" else x / 255


@dataclass(frozen=True)
class TorchRivals:
    """The torch contenders of one model (a `Rivals` of runtime/bench.py)."""

    checkpoint: Path
    system_file: str | None
    graph: str
    model: ModelFile
    device: torch.device
    eager: nn.Module
    last: nn.Module
    one_thread: bool
    compiled: bool
    missing: Mapping[str, str]

    @property
    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def contenders(self, count: int, *, calls: int, threads: int) -> list[Contender]:
        """In both memory formats with one thread and with so many, and compiled for this batch."""
        inputs = example_inputs(self.model, count)
        modules: list[tuple[str, Run, int]] = [
            (EAGER, self.eager, threads),
            (LAST, self.last, threads),
        ]
        if self.one_thread and threads > 1 and self.device.type == "cpu":
            modules += [(f"{EAGER}, 1 thread", self.eager, 1), (f"{LAST}, 1 thread", self.last, 1)]
        if self.compiled:
            modules.append(
                (COMPILED, compiled(self.eager, self._tensors(inputs), threads), threads)
            )
        return [
            Contender(name, calls * count, self._call(module, inputs, calls), _threads(number))
            for name, module, number in modules
        ]

    def first_image(self, out: Path, threads: int) -> dict[str, str]:
        main = self.model.signature.main
        picture = main.kind == "image" and main.dtype == "uint8"
        code = FIRST_IMAGE.format(
            checkpoint=str(self.checkpoint),
            system=self.system_file,
            graph=self.graph,
            threads=threads,
            device=str(self.device),
            picture=picture,
            out=str(out),
        )
        return {EAGER: code}

    def _tensors(self, inputs: Mapping[str, Array]) -> list[Tensor]:
        return [torch.from_numpy(array).to(self.device) for array in inputs.values()]

    def _call(self, module: Run, inputs: Mapping[str, Array], calls: int) -> Callable[[], Array]:
        def call() -> Array:
            with torch.inference_mode():
                for _ in range(calls):
                    made: Array = module(*self._tensors(inputs)).cpu().numpy()
            return made

        return call


FIRST_IMAGE = """
import torch
from PIL import Image
from gan.runtime.inputs import stand_in
from gan.trainer.checkpoint import Checkpoint
torch.set_num_threads({threads!r})
checkpoint = Checkpoint.load({checkpoint!r})
system = checkpoint.system(file={system!r})
graph = system.graphs()[{graph!r}]
network = graph.build(checkpoint.averaged_networks(system)).to({device!r})
sizes = graph.signature.example_sizes
inputs = [
    torch.from_numpy(stand_in(field, place, 0, range(1), sizes).copy())
    for place, field in enumerate(graph.inputs)
]
with torch.inference_mode():
    made = network(*(x.to({device!r}) for x in inputs))
x = made if isinstance(made, torch.Tensor) else made[0]
if {picture!r}:
    x = (x * 127.5 + 127.5).clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    image = x[0].cpu().numpy()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save({out!r} + ".png")
else:
    import numpy
    numpy.save({out!r} + ".npy", x[0].cpu().numpy())
"""


def load_rivals(
    checkpoint: str | os.PathLike[str],
    model: ModelFile,
    *,
    system_file: str | None = None,
    device: str = "cpu",
    one_thread: bool = True,
    compiled: bool = True,
) -> TorchRivals:
    """The rivals of `model`, from the checkpoint that it was exported from; of any other, `InputError`.

    device: "cpu" or "cuda:N", where torch has it. one_thread: also with one, which small networks run faster with.
    compiled: also torch.compile. Raises `CheckpointError`.
    """
    loaded = Checkpoint.load(checkpoint)
    if weights_digest(loaded.content["averaged"]) != model.section("weights").get("checkpoint"):
        raise InputError(
            f"{checkpoint} is not what {model.name} was exported from",
            seen="Its averaged weights have another digest",
            repair="Give the checkpoint of the model, or export it again",
        )
    graph = str(model.section("system").get("graph"))
    missing: dict[str, str] = {}
    if not device.startswith("cpu") and not torch.cuda.is_available():
        missing["torch on the GPU"] = f"torch {torch.__version__} sees none: it ran on the CPU"
        device = "cpu"

    def whole() -> Whole:
        source = load_source(loaded, graph=graph, system_file=system_file)
        module = Whole(source.module, model.signature.inputs, model.signature.main)
        return module.eval().to(device)

    eager = whole()
    reason = _why_not_compiled(eager, model, device) if compiled else "left out"
    if reason:
        missing[COMPILED] = reason
    return TorchRivals(
        Path(checkpoint),
        system_file,
        graph,
        model,
        torch.device(device),
        eager,
        whole().to(memory_format=torch.channels_last),  # type: ignore[call-overload]  # not in its stubs
        one_thread,
        not reason,
        missing,
    )


def compiled(module: Run, inputs: Sequence[Tensor], threads: int) -> Run:
    """torch.compile for the shapes of these inputs alone, which is faster than one for all, already run once."""
    torch._dynamo.reset()  # else it gives up, in silence, after some shapes
    torch.set_num_threads(threads)  # which the generated code holds
    call: Run = torch.compile(module, dynamic=False)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        call(*inputs)
    return call


def _why_not_compiled(module: nn.Module, model: ModelFile, device: str) -> str:
    """Why torch.compile cannot run here, or nothing."""
    compiler = os.environ.get("CXX", "g++")
    if device == "cpu" and shutil.which(compiler) is None:
        return f"no C++ compiler {compiler}"
    inputs = [torch.from_numpy(x).to(device) for x in example_inputs(model, 1).values()]
    try:
        compiled(module, inputs, 1)
    except Exception as error:  # its back ends raise many kinds
        return f"{type(error).__name__}: {' '.join(str(error).split()):.120}"
    return ""


def _threads(count: int) -> Callable[[], None]:
    return lambda: torch.set_num_threads(count)
